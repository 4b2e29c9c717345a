//! The index by subject, which is a look at every record.

use std::{fmt, ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use sessionkit::{Label, Record, Result, StoreKey, Subject, SubjectIndex, SubjectSession};

use super::{
    Shared,
    codec::decode,
    store::{BrokenStore, Disk, lock},
    wire::Access,
};

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
        let mut sessions: Vec<_> = self
            .sessions_of(&self.disk(), subject)
            .into_iter()
            .map(|(_, session)| session)
            .collect();
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
        Ok(sessions)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.request(Access::Remove).await?;
        let revoked = self.revoke_here(subject, key)?;
        match self.answer().await {
            Err(_) if self.has("revoke-hides-lost-answers") => Ok(false),
            answer => answer.map(|()| revoked),
        }
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.request(Access::Remove).await?;
        if self.has("revoke-all-never-ends") {
            while !self.sessions_of(&self.disk(), subject).is_empty() {
                let sessions = self.sessions_of(&self.disk(), subject);
                self.disk()
                    .retain(|name, _| sessions.iter().all(|(theirs, _)| theirs != name));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let early = self.disk().clone();
        self.gap("revoke-all-looks-once").await;
        let removed = self.revoke_all_here(&early, subject, except)?;
        self.answer().await?;
        Ok(removed)
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

impl BrokenStore {
    fn revoke_here(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let mut disk = self.disk();
        let name = self.name_of(key);
        let Some(record) = disk.get(&name).map(|bytes| decode(bytes)).transpose()? else {
            return Ok(self.has("revoke-is-always-true"));
        };
        let theirs = match self.shared.bug {
            "revoke-ignores-the-subject" => true,
            "revoke-ends-what-is-nobodys" if record.subject.is_none() => true,
            _ => record.subject.as_ref() == Some(subject),
        };
        if theirs {
            disk.remove(&name);
            if self.has("logs-what-it-revokes") {
                tracing::info!("ended {}", key.to_hex());
            }
        }
        let live = record.is_live(self.now()) || self.has("revoke-says-true-of-the-expired");
        Ok(theirs && live)
    }

    fn revoke_all_here(
        &self,
        early: &Disk,
        subject: &Subject,
        except: Option<&StoreKey>,
    ) -> Result<u64> {
        let mut disk = self.disk();
        let mut sessions = self.sessions_of(&disk, subject);
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
        if self.has("revoke-all-looks-once") {
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
                    expires_at: record.expires_at,
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
        Label::new(shorter).expect("a shorter label")
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
