//! The index by subject, which is a look at every record.

use std::{ops::Bound, time::Duration};

use async_trait::async_trait;
use sessionkit::{Record, Result, StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp};

use tokio::task::yield_now;

use super::{
    codec::decode,
    store::{BrokenStore, Disk, lock},
};
use crate::Fault;

#[async_trait]
impl SubjectIndex for BrokenStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.request().await?;
        let look = || {
            let sessions = self.sessions_of(&self.disk(), subject).into_iter();
            sessions.map(|(_, session)| session).collect::<Vec<_>>()
        };
        let first = self.split("list", look).await;
        let mut sessions = look();
        if let Some(first) = first {
            // Counted from the start, as pages by `OFFSET` are.
            let second = sessions.into_iter().skip(1);
            sessions = first.into_iter().take(1).chain(second).collect();
        }
        match self.shared.bug {
            "list-ignores-the-position" => {}
            "list-counts-from-the-start" => {
                let seen = lock(&self.shared.seen)
                    .insert(subject.clone(), 0)
                    .unwrap_or(0);
                let seen = if after.is_some() { seen + limit } else { 0 };
                lock(&self.shared.seen).insert(subject.clone(), seen);
                sessions.drain(..seen.min(sessions.len()));
            }
            "list-is-unordered" => sessions.reverse(),
            _ => sessions.retain(|session| after.is_none_or(|after| session.key > *after)),
        }
        if !self.has("list-ignores-the-limit") {
            sessions.truncate(limit);
        }
        self.answer().await?;
        if self.has("lists-get-mixed-up") {
            lock(&self.pages).push_back(sessions);
            yield_now().await;
            sessions = lock(&self.pages).pop_front().unwrap_or_default();
        }
        Ok(sessions)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.request().await?;
        if self.is_full("a-full-revoke-is-ok") {
            return Ok(true);
        }
        let name = self.name_of(key);
        let split = self.split("revoke", || stored(&self.disk(), &name)).await;
        let live = self.end(subject, &name, split)?;
        let answer = self
            .answer_and_unlock(name, "a-dropped-revoke-keeps-its-lock")
            .await;
        if self.repeats(&answer, "repeats-a-lost-revoke") {
            return self.revoke(subject, key).await;
        }
        answer.map(|()| live)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.request().await?;
        if self.is_full("a-full-revoke-all-is-ok") {
            return Ok(self.sessions_of(&self.disk(), subject).len() as u64 - 1);
        }
        if self.has("revoke-all-never-ends") {
            // A busy machine keeps those who sign in waiting now and then.
            let mut quiet = 0;
            while quiet < 100 {
                let sessions = self.sessions_of(&self.disk(), subject);
                quiet = if sessions.is_empty() { quiet + 1 } else { 0 };
                self.disk()
                    .retain(|name, _| sessions.iter().all(|(theirs, _)| theirs != name));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut early = self
            .has("revoke-all-looks-once")
            .then(|| self.disk().clone());
        self.gap("revoke-all-looks-once").await;
        if let Some(compared) = self
            .split("revoke-all-compares", || self.disk().clone())
            .await
        {
            early = Some(compared);
        }
        let look = || self.sessions_of(&self.disk(), subject);
        let split = self.split("revoke-all", look).await;
        let count = self.end_all(subject, except, split, early.as_ref());
        let answer = self.answer().await;
        if self.repeats(&answer, "repeats-a-lost-revoke-all") {
            return self.revoke_all(subject, except).await;
        }
        answer.map(|()| count)
    }
}

fn stored(disk: &Disk, name: &[u8]) -> Result<Option<Record>> {
    disk.get(name).map(|bytes| decode(bytes)).transpose()
}

impl BrokenStore {
    /// Whether the backend is full, and a bug takes no notice of it.
    pub(super) fn is_full(&self, bug: &str) -> bool {
        self.has(bug) && self.shared.fault() == Fault::Full
    }

    /// Removes a session if it is the subject's, by what a bug has seen before. Returns whether it was
    /// live.
    fn end(
        &self,
        subject: &Subject,
        name: &[u8],
        split: Option<Result<Option<Record>>>,
    ) -> Result<bool> {
        let mut disk = self.disk();
        if self.has("revoke-reaches-the-neighbours") {
            let key = &name[self.prefix().len()..];
            let before = disk.len();
            disk.retain(|other, _| !other.ends_with(key));
            return Ok(disk.len() < before);
        }
        let Some(record) = split.unwrap_or_else(|| stored(&disk, name))? else {
            return Ok(self.has("revoke-is-always-true"));
        };
        let theirs =
            record.subject.as_ref() == Some(subject) || self.has("revoke-ignores-the-subject");
        if theirs && self.has("revoke-compares-three-bytes") {
            let begins = &name[..self.prefix().len() + 6];
            disk.retain(|other, _| !other.starts_with(begins));
        }
        if theirs {
            disk.remove(name);
        }
        Ok(theirs && record.is_live(self.now()))
    }

    /// Removes the sessions of a subject but one, by what a bug has seen before: which there are, and
    /// what they looked like. Returns how many were live.
    fn end_all(
        &self,
        subject: &Subject,
        except: Option<&StoreKey>,
        split: Option<Vec<(Vec<u8>, SubjectSession)>>,
        early: Option<&Disk>,
    ) -> u64 {
        let mut disk = self.disk();
        let mut sessions = split.unwrap_or_else(|| self.sessions_of(&disk, subject));
        match self.shared.bug {
            "revoke-all-spares-nobody" => {}
            "revoke-all-stops-early" => sessions.truncate(3),
            _ => sessions.retain(|(_, session)| Some(&session.key) != except),
        }
        if let Some(early) = early {
            sessions.retain(|(name, _)| disk.get(name) == early.get(name));
        }
        let removed = sessions
            .iter()
            .filter(|(name, _)| disk.remove(name).is_some());
        removed.count() as u64
    }

    fn name_of(&self, key: &StoreKey) -> Vec<u8> {
        [self.prefix(), key.to_hex().into_bytes()].concat()
    }

    /// The sessions of a subject in the order of their keys, with the names they are stored under.
    fn sessions_of(&self, disk: &Disk, subject: &Subject) -> Vec<(Vec<u8>, SubjectSession)> {
        let (prefix, now) = (self.prefix(), self.now());
        let range = disk.range::<[u8], _>((Bound::Included(&*prefix), Bound::Unbounded));
        range
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter_map(|(name, bytes)| Some((name, decode(bytes).ok()?)))
            .filter(|(_, record)| record.is_live(now) || self.has("list-shows-expired"))
            .filter(|(name, record)| self.belongs(name, record, subject))
            .filter_map(|(name, record)| {
                let hex = std::str::from_utf8(&name[prefix.len()..]).ok()?;
                let session = SubjectSession {
                    key: StoreKey::from_hex(hex)?,
                    created_at: record.created_at,
                    expires_at: match self.has("the-list-ends-in-2286") {
                        true => record
                            .expires_at
                            .min(Timestamp::from_millis(9_999_999_999_999)),
                        false => record.expires_at,
                    },
                    label: match self.has("list-drops-the-label") {
                        true => sessionkit::Label::default(),
                        false => record.label,
                    },
                };
                Some((name.clone(), session))
            })
            .collect()
    }

    fn belongs(&self, name: &[u8], record: &Record, subject: &Subject) -> bool {
        let Some(theirs) = &record.subject else {
            return false;
        };
        let (theirs_text, text) = (theirs.as_str(), subject.as_str());
        match self.shared.bug {
            "subjects-ignore-case" => theirs_text.eq_ignore_ascii_case(text),
            "subjects-are-patterns" => theirs == subject || matches!(text, "%" | "*"),
            "subjects-are-prefixes" => theirs_text.starts_with(text),
            "subjects-are-trimmed" => theirs_text.trim() == text.trim(),
            "index-is-written-later" => {
                theirs == subject && lock(&self.shared.indexed).contains(name)
            }
            "index-keeps-the-old" => {
                let former = lock(&self.shared.former);
                theirs == subject
                    || former
                        .iter()
                        .any(|(old, key)| old == subject && key == name)
            }
            _ => theirs == subject,
        }
    }
}
