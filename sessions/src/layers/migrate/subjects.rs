use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{
    Migrate, half_done,
    mark::{fence_in, on_the_way},
};
use crate::{ErrorKind, Result, SessionStore, StoreKey, Subject, SubjectIndex, SubjectSession};

impl<S: SessionStore, T: SessionStore> Migrate<S, T> {
    fn indexes(&self) -> Result<(&dyn SubjectIndex, &dyn SubjectIndex)> {
        self.old
            .subjects()
            .zip(self.new.subjects())
            .ok_or_else(|| ErrorKind::Unsupported.into())
    }

    /// One page of everything that may be a session of the subject, and the key up to which it is
    /// complete, if there is more.
    async fn page(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<(BTreeMap<StoreKey, SubjectSession>, Option<StoreKey>)> {
        let (old, new) = self.indexes()?;
        let hidden = on_the_way(subject);
        // In this order a session that moves meanwhile is in one of the answers.
        let stayed = old.list(subject, after, limit).await?;
        let marks = old.list(&hidden, after, limit).await?;
        let fences = new.list(&hidden, after, limit).await?;
        let arrived = new.list(subject, after, limit).await?;

        let moving: Vec<_> = marks
            .iter()
            .filter_map(|mark| {
                let at = fences.binary_search_by_key(&mark.key, |fence| fence.key);
                session_of(mark, &fences[at.ok()?])
            })
            .collect();
        let full = |page: &&Vec<_>| page.len() >= limit;
        let last = |page: &Vec<SubjectSession>| page.last().map(|session| session.key);
        let pages = [&stayed, &marks, &fences, &arrived];
        let end = pages.into_iter().filter(full).filter_map(last).min();
        let sessions = [stayed, moving, arrived].into_iter().flatten();
        let known = |session: &SubjectSession| end.is_none_or(|end| session.key <= end);
        let sessions = sessions.filter(known);
        Ok((
            sessions.map(|session| (session.key, session)).collect(),
            end,
        ))
    }

    /// Whether the session is neither in the old store any more nor in the new one yet.
    async fn is_on_its_way(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let (old, new) = self.indexes()?;
        let (hidden, after) = (on_the_way(subject), before(key));
        let marks = old.list(&hidden, after.as_ref(), 1).await?;
        let fences = new.list(&hidden, after.as_ref(), 1).await?;
        Ok(match (marks.first(), fences.first()) {
            (Some(mark), Some(fence)) if mark.key == *key && fence.key == *key => {
                session_of(mark, fence).is_some()
            }
            _ => false,
        })
    }
}

/// The session that a mark and a fence of one key stand for, unless they are void.
fn session_of(mark: &SubjectSession, fence: &SubjectSession) -> Option<SubjectSession> {
    let (named, _) = fence_in(&mark.label)?;
    let (revision, label) = fence_in(&fence.label)?;
    (named == revision).then(|| SubjectSession {
        label,
        ..fence.clone()
    })
}

/// The greatest key below this one.
fn before(key: &StoreKey) -> Option<StoreKey> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (lower, borrowed) = byte.overflowing_sub(1);
        *byte = lower;
        if !borrowed {
            return Some(StoreKey::from_bytes(bytes));
        }
    }
    None
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore, T: SessionStore> SubjectIndex for Migrate<S, T> {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let mut listed = Vec::new();
        let mut after = after.copied();
        while listed.len() < limit {
            let (page, end) = self.page(subject, after.as_ref(), limit).await?;
            listed.extend(page.into_values().take(limit - listed.len()));
            if end.is_none() {
                break;
            }
            after = end;
        }
        Ok(listed)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let (old, new) = self.indexes()?;
        let stayed = old.revoke(subject, key).await?;
        // A move that has begun finds its fence gone, or has arrived before. A fence that no mark
        // names is not the session, but goes too.
        let on_its_way = !stayed && self.is_on_its_way(subject, key).await?;
        let ended = new.revoke(&on_the_way(subject), key).await;
        if stayed {
            return Ok(true);
        }
        let moving = ended? && on_its_way;
        match new.revoke(subject, key).await {
            Err(error) if moving => Err(half_done(error)),
            arrived => Ok(arrived? || moving),
        }
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let (old, new) = self.indexes()?;
        // In the order in which a session moves.
        let stayed = old.revoke_all(subject, except).await?;
        let moving = new.revoke_all(&on_the_way(subject), except).await;
        let moving = moving.map_err(half_done)?;
        let arrived = new.revoke_all(subject, except).await.map_err(half_done)?;
        Ok(stayed + moving + arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_borrows_across_bytes() {
        let mut bytes = [0; 32];
        assert_eq!(before(&StoreKey::from_bytes(bytes)), None);
        bytes[29] = 1;
        let mut lower = [0; 32];
        lower[30..].fill(255);
        let below = before(&StoreKey::from_bytes(bytes));
        assert_eq!(below, Some(StoreKey::from_bytes(lower)));
    }
}
