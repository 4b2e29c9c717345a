//! The sessions of a subject: a sorted set of their keys, checked against the records themselves.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::Value;
use sessionkit::{Error, ErrorKind, Result, StoreKey, Subject, SubjectIndex, SubjectSession};
use tokio::time::{Instant, sleep_until};

use crate::{
    RedisStore,
    client::odd,
    codec::{Head, MAX_HEAD, Number},
    failure::Effect,
    script::{self, Answer, Call},
};

/// How many records are looked at together.
const BATCH: usize = 128;

/// Before the index is looked at again for a session that was beginning.
const NEXT_PASS: Duration = Duration::from_millis(50);

#[async_trait]
impl SubjectIndex for RedisStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let deadline = self.client.deadline();
        let call = Call::new("ZRANGE", &self.index_key(subject.as_str()))
            .arg(0)
            .arg(-1);
        let entries = self.client.run(&call, Effect::Read, deadline).await?;
        let entries: Vec<_> = Entries::read(entries)?
            .keys
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
                    Found::Nothing => gone.push((*key, None)),
                }
            }
        }
        sessions.truncate(limit);
        self.prune(subject, &gone, deadline).await;
        Ok(sessions)
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let deadline = self.client.deadline();
        let Removed::Session(number) = self.remove(subject, key, deadline).await? else {
            return Ok(false);
        };
        if self.client.is_cluster() {
            let gone = [(*key, Some(number))];
            self.prune(subject, &gone, deadline).await;
        }
        Ok(true)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let deadline = self.client.deadline();
        let mut entries = self.entries(subject, deadline).await?;
        let mut keys: Vec<_> = entries.keys.iter().copied().collect();
        keys.retain(|key| Some(key) != except);
        let (mut ended, mut again) = (0, false);
        loop {
            let (mut beginning, mut gone) = (Vec::new(), Vec::new());
            for batch in keys.chunks(BATCH) {
                let removals = batch.iter().map(async |key| {
                    // Whoever waits only looks, so that it is clear that nothing happened when the
                    // deadline comes upon it.
                    match again {
                        true => match self.find(subject, key, deadline).await? {
                            Found::Session(_) => self.remove(subject, key, deadline).await,
                            Found::Other => Ok(Removed::Other),
                            Found::Nothing => Ok(Removed::Nothing),
                        },
                        false => self.remove(subject, key, deadline).await,
                    }
                });
                for (key, removed) in batch.iter().zip(join_all(removals).await) {
                    match removed? {
                        Removed::Session(number) => {
                            ended += 1;
                            gone.push((*key, Some(number)));
                        }
                        Removed::Other => {}
                        Removed::Nothing if entries.beginning.contains(key) => beginning.push(*key),
                        Removed::Nothing => gone.push((*key, None)),
                    }
                }
            }
            self.prune(subject, &gone, deadline).await;
            if beginning.is_empty() {
                return Ok(ended);
            }
            let next = Instant::now() + NEXT_PASS;
            if next >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "a session of the subject may still be stored: repeat the call",
                ));
            }
            sleep_until(next).await;
            // Only those: what has begun since the call did is not its business.
            (keys, again) = (beginning, true);
            entries = self.entries(subject, deadline).await?;
        }
    }
}

/// What is in an index.
#[derive(Default)]
struct Entries {
    keys: BTreeSet<StoreKey>,
    /// Those whose records may still come.
    beginning: BTreeSet<StoreKey>,
}

impl Entries {
    fn read(members: Value) -> Result<Self> {
        let members: Vec<Vec<u8>> = redis::from_redis_value(members).map_err(|_| odd())?;
        let mut entries = Self::default();
        for member in members {
            match *member.as_slice() {
                [b'?', ref rest @ ..] if rest.len() == 36 => {
                    let key = rest.first_chunk().copied().map(StoreKey::from_bytes);
                    entries.beginning.extend(key);
                }
                ref key => {
                    let key = <[u8; 32]>::try_from(key).ok();
                    entries.keys.extend(key.map(StoreKey::from_bytes));
                }
            }
        }
        Ok(entries)
    }
}

/// What was under a key of an index.
enum Removed {
    Session(Number),
    /// A session of somebody else, or none.
    Other,
    Nothing,
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
        let stored = match self.client.run(&call, Effect::Read, deadline).await {
            Ok(Value::BulkString(stored)) if stored.is_empty() => return Ok(Found::Nothing),
            Ok(Value::BulkString(stored)) => stored,
            Ok(_) => return Err(odd()),
            // Not a session: nobody's.
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Found::Other),
            Err(error) => return Err(error),
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

    /// What is in an index and not over.
    async fn entries(&self, subject: &Subject, deadline: Instant) -> Result<Entries> {
        let call = script::ENTRIES.call(&[&self.index_key(subject.as_str())], &[]);
        Entries::read(self.client.run(&call, Effect::Read, deadline).await?)
    }

    /// Drops the entries of sessions that are gone, with the numbers of those that were seen. Entries
    /// that stay do no harm.
    pub(crate) async fn prune(
        &self,
        subject: &Subject,
        gone: &[(StoreKey, Option<Number>)],
        deadline: Instant,
    ) {
        if gone.is_empty() {
            return;
        }
        let on_cluster = self.client.is_cluster();
        let sessions: Vec<_> = gone
            .iter()
            .map(|(key, number)| match number {
                Some(number) if on_cluster => [&key.as_bytes()[..], number].concat(),
                _ => key.as_bytes().to_vec(),
            })
            .collect();
        let mut args: Vec<&[u8]> = vec![if on_cluster {
            b""
        } else {
            self.prefix.as_bytes()
        }];
        args.extend(sessions.iter().map(Vec::as_slice));
        let call = script::PRUNE.call(&[&self.index_key(subject.as_str())], &args);
        drop(self.client.run(&call, Effect::Read, deadline).await);
    }

    async fn remove(
        &self,
        subject: &Subject,
        key: &StoreKey,
        deadline: Instant,
    ) -> Result<Removed> {
        let (record_key, index_key) = (self.record_key(key), self.index_key(subject.as_str()));
        let keys: [&[u8]; 2] = [&record_key, &index_key];
        let count = if self.client.is_cluster() { 1 } else { 2 };
        let args: [&[u8]; 2] = [subject.as_str().as_bytes(), key.as_bytes()];
        let call = script::REVOKE.call(&keys[..count], &args);
        match self.client.run(&call, Effect::Write, deadline).await {
            Ok(Value::BulkString(number)) => Number::try_from(number)
                .map(Removed::Session)
                .map_err(|_| odd()),
            Ok(Value::Int(number)) => match Answer::from_number(number) {
                Some(Answer::Missing) => Ok(Removed::Nothing),
                _ => Ok(Removed::Other),
            },
            Ok(_) => Err(odd()),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Removed::Other),
            Err(error) => Err(error),
        }
    }
}
