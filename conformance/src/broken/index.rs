//! The index by subject, which is a look at every record.

use std::{ops::Bound, time::Duration};

use async_trait::async_trait;
use sessionkit::{Record, Result, StoreKey, Subject, SubjectIndex, SubjectSession};

use super::{
    codec::decode,
    store::{BrokenStore, Disk, lock},
};

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
        Ok(sessions)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.request().await?;
        let name = self.name_of(key);
        let stored = |disk: &Disk| disk.get(&name).map(|bytes| decode(bytes)).transpose();
        let split = self.split("revoke", || stored(&self.disk())).await;
        let mut disk = self.disk();
        let Some(record) = split.unwrap_or_else(|| stored(&disk))? else {
            return Ok(self.has("revoke-is-always-true"));
        };
        let theirs =
            record.subject.as_ref() == Some(subject) || self.has("revoke-ignores-the-subject");
        if theirs {
            disk.remove(&name);
        }
        Ok(theirs && record.is_live(self.now()))
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.request().await?;
        if self.has("revoke-all-never-ends") {
            while !self.sessions_of(&self.disk(), subject).is_empty() {
                let sessions = self.sessions_of(&self.disk(), subject);
                self.disk()
                    .retain(|name, _| sessions.iter().all(|(theirs, _)| theirs != name));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut early = self.disk().clone();
        self.gap("revoke-all-looks-once").await;
        let compared = self
            .split("revoke-all-compares", || self.disk().clone())
            .await;
        let look = || self.sessions_of(&self.disk(), subject);
        let split = self.split("revoke-all", look).await;
        let mut disk = self.disk();
        let mut sessions = split.unwrap_or_else(|| self.sessions_of(&disk, subject));
        let compares = compared.is_some() || self.has("revoke-all-looks-once");
        early = compared.unwrap_or(early);
        match self.shared.bug {
            "revoke-all-spares-nobody" => {}
            "revoke-all-stops-early" => sessions.truncate(3),
            _ => sessions.retain(|(_, session)| Some(&session.key) != except),
        }
        if compares {
            sessions.retain(|(name, _)| disk.get(name) == early.get(name));
        }
        let removed = sessions
            .iter()
            .filter(|(name, _)| disk.remove(name).is_some());
        Ok(removed.count() as u64)
    }
}

impl BrokenStore {
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
                    expires_at: record.expires_at,
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
