//! The sessions of a subject: a sorted set of their keys, checked against the records themselves.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::Value;
use sessionkit::{ErrorKind, Result, StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp};
use tokio::time::Instant;

use crate::{
    RedisStore,
    backend::odd,
    codec::{self, Head, MAX_HEAD},
    fault::Effect,
    script::{self, Answer, Call, decimal},
    store::to_the_end,
};

/// How many records are looked at together.
const BATCH: usize = 128;

#[async_trait]
impl SubjectIndex for RedisStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let deadline = self.backend.deadline();
        let call = Call::new("ZRANGE", &self.index_key(subject.as_str()))
            .arg(0)
            .arg(-1);
        let entries = keys(self.backend.run(&call, Effect::Read, deadline).await?)?;
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|key| after.is_none_or(|after| key > after))
            .collect();
        let (mut sessions, mut gone) = (Vec::new(), Vec::new());
        for batch in entries.chunks(limit.clamp(1, BATCH)) {
            if sessions.len() >= limit {
                break;
            }
            let found = join_all(batch.iter().map(|key| self.find(subject, key, deadline))).await;
            for (key, found) in batch.iter().zip(found) {
                match found? {
                    Found::Session(session) => sessions.push(session),
                    Found::Other => {}
                    Found::Nothing => gone.push(*key),
                }
            }
        }
        sessions.truncate(limit);
        self.prune(subject, &gone, deadline).await;
        Ok(sessions)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.remove(subject, key, self.backend.deadline()).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let (store, subject, except) = (self.handle(), subject.clone(), except.copied());
        to_the_end(async move { store.end_all(&subject, except).await }).await
    }
}

/// What is under a key of an index.
enum Found {
    /// A session of the subject.
    Session(SubjectSession),
    /// One of somebody else, or none.
    Other,
    /// Nothing at all.
    Nothing,
}

impl RedisStore {
    async fn find(&self, subject: &Subject, key: &StoreKey, deadline: Instant) -> Result<Found> {
        let call = Call::new("GETRANGE", &self.record_key(key))
            .arg(0)
            .arg(MAX_HEAD - 1);
        let stored = loop {
            match self.backend.run(&call, Effect::Read, deadline).await {
                Ok(Value::BulkString(stored)) if codec::is_arriving(&stored) => {
                    if !self.arrives(key, &stored, deadline).await? {
                        return Ok(Found::Other);
                    }
                }
                Ok(Value::BulkString(stored)) if stored.is_empty() => return Ok(Found::Nothing),
                Ok(Value::BulkString(stored)) => break stored,
                Ok(_) => return Err(odd()),
                // Not a session: nobody's.
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Found::Other),
                Err(error) => return Err(error),
            }
        };
        let head = Head::read(&stored).map(|(head, _)| head);
        let owned = head.filter(|head| head.subject.as_ref() == Some(subject));
        Ok(owned.map_or(Found::Other, |head| {
            Found::Session(SubjectSession {
                key: *key,
                created_at: head.created_at,
                expires_at: head.expires_at,
                label: head.label,
            })
        }))
    }

    /// Drops entries that were found without a record. On a cluster they may be those of sessions
    /// that are about to be stored. Entries that stay do no harm.
    async fn prune(&self, subject: &Subject, gone: &[StoreKey], deadline: Instant) {
        if gone.is_empty() || self.backend.is_cluster() {
            return;
        }
        let mut args = vec![self.prefix.as_bytes()];
        args.extend(gone.iter().map(|key| &key.as_bytes()[..]));
        let call = script::PRUNE.call(&[&self.index_key(subject.as_str())], &args);
        drop(self.backend.run(&call, Effect::Write, deadline).await);
    }

    async fn end_all(&self, subject: &Subject, except: Option<StoreKey>) -> Result<u64> {
        let deadline = self.backend.deadline();
        let index_key = self.index_key(subject.as_str());
        // Longer than this call can last: a session that moves meanwhile would not be found.
        let bar = self.backend.deadline.as_millis() + 1000;
        let call = script::BAR.call(&[&index_key], &[&decimal(bar)]);
        let mut entries = keys(self.backend.run(&call, Effect::Write, deadline).await?)?;
        if let Some(except) = except {
            entries.remove(&except);
        }
        let ended = self.remove_all(subject, &entries, deadline).await;
        let call = Call::new("ZREM", &index_key).arg("!");
        drop(self.backend.run(&call, Effect::Write, deadline).await);
        ended
    }

    async fn remove_all(
        &self,
        subject: &Subject,
        entries: &BTreeSet<StoreKey>,
        deadline: Instant,
    ) -> Result<u64> {
        let entries: Vec<_> = entries.iter().collect();
        // On a cluster a session may be on its way to another key, both of which are here. If the
        // first pass found the old record, the move fails; if it did not, the second finds the new one.
        let passes = if self.backend.is_cluster() { 2 } else { 1 };
        let (mut ended, mut missing) = (0, Vec::new());
        for _ in 0..passes {
            for batch in entries.chunks(BATCH) {
                let results = join_all(batch.iter().map(|key| self.remove(subject, key, deadline)));
                for (key, removed) in batch.iter().zip(results.await) {
                    match removed? {
                        true => ended += 1,
                        false => missing.push(**key),
                    }
                }
            }
        }
        self.prune(subject, &missing, deadline).await;
        Ok(ended)
    }

    async fn remove(&self, subject: &Subject, key: &StoreKey, deadline: Instant) -> Result<bool> {
        let call = script::REVOKE.call(&[&self.record_key(key)], &[subject.as_str().as_bytes()]);
        loop {
            return match self.backend.run(&call, Effect::Write, deadline).await {
                Ok(Value::Int(number)) => match Answer::from_number(number) {
                    Some(Answer::Missing) => Ok(false),
                    Some(Answer::Arriving) if self.has_arrived(key, deadline).await? => continue,
                    Some(Answer::Arriving) => Ok(false),
                    _ => {
                        let until = Timestamp::from_millis(number);
                        self.forget(subject.as_str(), key, until, deadline).await;
                        Ok(true)
                    }
                },
                Ok(_) => Err(odd()),
                Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
                Err(error) => Err(error),
            };
        }
    }
}

/// The keys of sessions in an index, in ascending order.
fn keys(entries: Value) -> Result<BTreeSet<StoreKey>> {
    let entries: Vec<Vec<u8>> = redis::from_redis_value(entries).map_err(|_| odd())?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| <[u8; 32]>::try_from(entry).ok())
        .map(StoreKey::from_bytes)
        .collect())
}
