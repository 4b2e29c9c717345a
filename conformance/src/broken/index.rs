//! The index by subject, which is a look at every record.

use std::{fmt, ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use sessionkit::{
    Label, Record, Result, StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp,
};
use tokio::task::yield_now;

use super::{
    Shared,
    codec::decode,
    store::{BrokenStore, Disk, lock},
    wire::Access,
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
        match self.request(Access::Read).await {
            Err(error) if self.has("list-answers-from-memory") => {
                let remembered = lock(&self.shared.remembered);
                return remembered.get(subject).cloned().ok_or(error);
            }
            arrived => arrived?,
        }
        if self.has("list-stops-at-rot") {
            self.readable(&self.disk())?;
        }
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
        lock(&self.shared.remembered).insert(subject.clone(), sessions.clone());
        match self.shared.bug {
            "list-shows-a-hundred" => {
                sessions.truncate(100);
                sessions.retain(|session| after.is_none_or(|after| session.key > *after));
            }
            "list-looks-its-position-up" => {
                let position = after.map(|after| sessions.iter().position(|s| s.key == *after));
                // Where it is not found the list is over.
                let behind = position.map_or(0, |at| at.map_or(sessions.len(), |at| at + 1));
                sessions.drain(..behind);
            }
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
        match self.shared.bug {
            "list-ignores-the-limit" => {}
            // One more, to see whether another page follows.
            "list-asks-for-one-more" => {
                let more = limit.wrapping_add(1);
                sessions.truncate(more.saturating_sub(1));
            }
            _ => sessions.truncate(limit),
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
        self.request(Access::Remove).await?;
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
        match answer {
            Err(_) if self.has("revoke-hides-lost-answers") => Ok(false),
            answer => answer.map(|()| live),
        }
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.request(Access::Remove).await?;
        if self.is_full("a-full-revoke-all-is-ok") {
            return Ok(self.sessions_of(&self.disk(), subject).len() as u64 - 1);
        }
        if self.has("revoke-all-never-ends") {
            // It begins anew for as long as anybody waits for it. How many have signed in meanwhile
            // is left to the machine, and so decides nothing.
            loop {
                let sessions = self.sessions_of(&self.disk(), subject);
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
        let count = self.end_all(subject, except, split, early.as_ref())?;
        let answer = self.answer().await;
        if self.repeats(&answer, "repeats-a-lost-revoke-all") {
            return self.revoke_all(subject, except).await;
        }
        answer.map(|()| count)
    }
}

/// The index as an object of its own, which shows more of itself than the store does.
pub(super) struct TalkativeIndex(BrokenStore);

impl TalkativeIndex {
    pub(super) fn new(shared: &Arc<Shared>, namespace: &str) -> Self {
        let store = BrokenStore::with_index(Arc::clone(shared), namespace, true, None);
        Self(store)
    }
}

impl fmt::Debug for TalkativeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remembered = lock(&self.0.shared.remembered);
        let keys = remembered.values().flatten();
        f.debug_list()
            .entries(keys.map(|session| session.key.to_hex()))
            .finish()
    }
}

#[async_trait]
impl SubjectIndex for TalkativeIndex {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.0.list(subject, after, limit).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.0.revoke(subject, key).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.0.revoke_all(subject, except).await
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
        let theirs = match self.shared.bug {
            "revoke-ignores-the-subject" => true,
            "revoke-ends-what-is-nobodys" if record.subject.is_none() => true,
            _ => record.subject.as_ref() == Some(subject),
        };
        if theirs && self.has("revoke-compares-three-bytes") {
            let begins = &name[..self.prefix().len() + 6];
            disk.retain(|other, _| !other.starts_with(begins));
        }
        if theirs {
            disk.remove(name);
            if self.has("logs-what-it-revokes") {
                tracing::info!("ended {}", name.escape_ascii());
            }
        }
        let live = record.is_live(self.now()) || self.has("revoke-says-true-of-the-expired");
        Ok(theirs && live)
    }

    /// Removes the sessions of a subject but one, by what a bug has seen before: which there are, and
    /// what they looked like. Returns how many were live.
    fn end_all(
        &self,
        subject: &Subject,
        except: Option<&StoreKey>,
        split: Option<Vec<(Vec<u8>, SubjectSession)>>,
        early: Option<&Disk>,
    ) -> Result<u64> {
        let mut disk = self.disk();
        let mut sessions = split.unwrap_or_else(|| self.sessions_of(&disk, subject));
        let spares = |key: &StoreKey| Some(key) == except;
        match self.shared.bug {
            "revoke-all-stops-at-rot" => {
                self.readable(&disk)?;
                sessions.retain(|(_, session)| !spares(&session.key));
            }
            "revoke-all-follows-the-old" => {
                let former = lock(&self.shared.former);
                let former = former.iter().filter(|(old, _)| old == subject);
                let former: Vec<_> = former.map(|(_, name)| name.clone()).collect();
                disk.retain(|name, _| !former.contains(name));
                sessions.retain(|(_, session)| !spares(&session.key));
            }
            "revoke-all-ends-a-hundred" => {
                sessions.truncate(100);
                sessions.retain(|(_, session)| !spares(&session.key));
            }
            "revoke-all-needs-its-exception"
                if except.is_some() && !sessions.iter().any(|(_, s)| spares(&s.key)) =>
            {
                sessions.clear();
            }
            "revoke-all-spares-the-first-secret" => {
                let tokens = lock(&self.shared.tokens);
                let renewed = |name: &[u8]| {
                    let token = tokens.get(name);
                    token.is_some_and(|token| token.expose().is_empty())
                };
                sessions.retain(|(name, s)| !spares(&s.key) || renewed(name));
            }
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
        Ok(removed.count() as u64)
    }

    /// Whether every record of the namespace can be read.
    fn readable(&self, disk: &Disk) -> Result<()> {
        let prefix = self.prefix();
        let mut records = disk.iter().filter(|(name, _)| name.starts_with(&prefix));
        records.try_for_each(|(_, bytes)| decode(bytes).map(drop))
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
            .filter_map(|(name, bytes)| Some((name, self.indexed(name, decode(bytes).ok()?))))
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
                    label: self.label_of(&record),
                };
                let times = 1 + usize::from(self.is_there_twice(name, subject));
                Some(std::iter::repeat_n((name.clone(), session), times))
            })
            .flatten()
            .collect()
    }

    /// A record as the index knows it.
    fn indexed(&self, name: &[u8], mut record: Record) -> Record {
        if self.has("list-only-extends") {
            let expiries = lock(&self.shared.expiries);
            let [_, latest] = expiries
                .get(name)
                .copied()
                .unwrap_or([record.expires_at; 2]);
            record.expires_at = latest;
        }
        record
    }

    fn label_of(&self, record: &Record) -> Label {
        let label = record.label.as_str();
        let shorter = match self.shared.bug {
            "list-drops-the-label" => "",
            "list-trims-the-label" => label.trim_end(),
            "list-cuts-the-label" => &label[..label.floor_char_boundary(191)],
            _ => return record.label.clone(),
        };
        Label::from_stored(shorter).expect("a shorter label")
    }

    fn is_there_twice(&self, name: &[u8], subject: &Subject) -> bool {
        let former = lock(&self.shared.former);
        let entry = |(old, key): &(Subject, Vec<u8>)| old == subject && key == name;
        self.has("index-lists-twice") && former.iter().any(entry)
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
            "subjects-are-normalized" => normalized(theirs_text) == normalized(text),
            "subjects-are-cut" => prefix_of(theirs_text, 191) == prefix_of(text, 191),
            "subjects-end-at-nul" => theirs_text.split('\0').next() == text.split('\0').next(),
            "index-is-written-later" => {
                theirs == subject && lock(&self.shared.indexed).contains(name)
            }
            "index-keeps-the-old" | "create-keeps-the-old-entry" => {
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

/// Composed, as far as this module needs it.
fn normalized(text: &str) -> String {
    text.replace("e\u{301}", "\u{e9}")
        .replace("E\u{301}", "\u{c9}")
        .replace("A\u{30a}", "\u{c5}")
}

/// The first bytes, as an index keeps them of a long value.
fn prefix_of(text: &str, len: usize) -> &[u8] {
    &text.as_bytes()[..text.len().min(len)]
}
