use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::Value;
use sessionkit::{
    Capabilities, Durability, Error, ErrorKind, Record, Result, Revision, SessionStore, StoreKey,
    Subject, SubjectIndex, Sweep, TimeSource, Timestamp, Token,
};
use tokio::time::{Instant, sleep};

use crate::{
    RedisOptions,
    backend::{Backend, odd},
    codec::{self, Head, Move},
    fault::Effect,
    script::{self, Answer, Call, decimal},
};

/// How many bytes of a [`StoreKey`] name a record, as `scripts/index.lua` knows too. The whole of it
/// would take 16 bytes more of the server's memory, and 160 bits of a hash of random tokens tell any
/// number of sessions apart.
pub(crate) const KEY_LEN: usize = 20;

/// How long a session that wants to move waits for its subject's sessions to be ended.
const BARRED_PAUSE: Duration = Duration::from_millis(10);

/// Keeps sessions in Redis or Valkey: on one server, a Cluster or behind Sentinels.
///
/// Opened by [`RedisOptions`]; shared as an `Arc<RedisStore>`. Dropping the last handle closes the
/// connections.
///
/// ```no_run
/// # async fn example() -> Result<(), sessionkit::Error> {
/// use sessionkit_redis::RedisStore;
///
/// let store = RedisStore::open("redis://localhost").await?;
/// store.ping().await?;
/// # Ok(())
/// # }
/// ```
pub struct RedisStore {
    pub(crate) backend: Arc<Backend>,
    pub(crate) prefix: Arc<str>,
    pub(crate) max_data: usize,
    pub(crate) durability: Durability,
}

impl RedisStore {
    /// Opens the store that a URL names, with the defaults of [`RedisOptions`].
    ///
    /// # Errors
    /// Those of [`RedisOptions::from_url`] and [`RedisOptions::open`].
    pub async fn open(url: &str) -> Result<Self> {
        RedisOptions::from_url(url)?.open().await
    }

    /// Asks whether sessions can be written at this moment, for a readiness probe: every master of a
    /// cluster, or the one server. Sends the deletion of a key that is never there, which a replica,
    /// a master without its replicas and one that cannot persist refuse.
    ///
    /// # Errors
    /// As for [`load`](SessionStore::load), within the same deadline.
    pub async fn ping(&self) -> Result<()> {
        let prefix = [self.prefix.as_bytes(), b"#ping"].concat();
        self.backend.ping(&prefix, self.backend.deadline()).await
    }

    /// Another handle of the same connections.
    pub(crate) fn handle(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            prefix: Arc::clone(&self.prefix),
            ..*self
        }
    }

    pub(crate) fn record_key(&self, key: &StoreKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"#", &key.as_bytes()[..KEY_LEN]].concat()
    }

    pub(crate) fn index_key(&self, subject: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), b"@", subject.as_bytes()].concat()
    }

    /// Stores a value, a record or one that is arriving, unless there is a live one.
    pub(crate) async fn set_new(
        &self,
        key: &StoreKey,
        value: Vec<u8>,
        expires_at: Timestamp,
        deadline: Instant,
    ) -> Result<()> {
        let call = Call::new("SET", &self.record_key(key))
            .arg(value)
            .arg("NX")
            .arg("PXAT")
            .arg(expiry(expires_at));
        loop {
            match self.backend.run(&call, Effect::Write, deadline).await? {
                Value::Okay => return Ok(()),
                Value::Nil => self.make_way(key, deadline).await?,
                _ => return Err(odd()),
            }
        }
    }

    /// The answer of a script on a record, once it is known whether the record arrives.
    async fn answer(&self, key: &StoreKey, call: &Call, deadline: Instant) -> Result<Answer> {
        loop {
            let answer = self.backend.answer(call, Effect::Write, deadline).await?;
            if answer != Answer::Arriving {
                return Ok(answer);
            }
            if !self.has_arrived(key, deadline).await? {
                return Ok(Answer::Missing);
            }
        }
    }

    /// Makes sure that the index of a subject holds a session before the session is stored. What it
    /// holds too much does no harm: whoever reads it looks at the records.
    async fn keep(
        &self,
        subject: &str,
        key: &StoreKey,
        until: Timestamp,
        moves: bool,
        deadline: Instant,
    ) -> Result<Answer> {
        let call = script::KEEP.call(
            &[&self.index_key(subject)],
            &[
                key.as_bytes(),
                &millis(until),
                if moves { b"1" } else { b"" },
            ],
        );
        self.backend.answer(&call, Effect::Write, deadline).await
    }

    /// Has the index hold a session that is about to move, once nobody is ending all sessions of the
    /// subject.
    pub(crate) async fn keep_moving(
        &self,
        subject: &Subject,
        to: &StoreKey,
        record: &Record,
        deadline: Instant,
    ) -> Result<()> {
        let until = codec::indexed_until(record.created_at, record.expires_at);
        while self
            .keep(subject.as_str(), to, until, true, deadline)
            .await?
            == Answer::Barred
        {
            wait_for_bar(deadline).await?;
        }
        Ok(())
    }

    /// Drops an entry of the index whose session is gone. One that stays does no harm.
    pub(crate) async fn forget(
        &self,
        subject: &str,
        key: &StoreKey,
        until: Timestamp,
        deadline: Instant,
    ) {
        let args: [&[u8]; 2] = [key.as_bytes(), &millis(until)];
        let call = script::FORGET.call(&[&self.index_key(subject)], &args);
        drop(self.backend.run(&call, Effect::Write, deadline).await);
    }

    async fn update_indexed(
        &self,
        key: &StoreKey,
        subject: &Subject,
        expected: Revision,
        record: &Record,
    ) -> Result<Answer> {
        let deadline = self.backend.deadline();
        let (record_key, index_key) = (self.record_key(key), self.index_key(subject.as_str()));
        let until = codec::indexed_until(record.created_at, record.expires_at);
        let call = |kept: &'static [u8]| {
            let keys: [&[u8]; 2] = [&record_key, &index_key];
            script::UPDATE_INDEXED.call(
                if self.backend.is_cluster() {
                    &keys[..1]
                } else {
                    &keys
                },
                &[
                    &codec::head(expected),
                    &codec::encode(record),
                    &millis(record.expires_at),
                    subject.as_str().as_bytes(),
                    key.as_bytes(),
                    &millis(until),
                    kept,
                    self.prefix.as_bytes(),
                ],
            )
        };
        let answer = self.answer(key, &call(b""), deadline).await?;
        if answer != Answer::IndexFirst {
            return Ok(answer);
        }
        self.keep(subject.as_str(), key, until, false, deadline)
            .await?;
        self.answer(key, &call(b"1"), deadline).await
    }

    /// Removes a record in whatever state from a cluster, but not the note of where one has gone.
    async fn delete_on_cluster(&self, key: &StoreKey, deadline: Instant) -> Result<()> {
        let removed = match self.remove_string(key, deadline).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let call = Call::new("UNLINK", &self.record_key(key));
                self.backend.run(&call, Effect::Write, deadline).await?;
                return Ok(());
            }
            removed => removed?,
        };
        if let Some((head, _)) = Head::read(&removed)
            && let Some(subject) = head.subject
        {
            self.forget(subject.as_str(), key, head.indexed_until, deadline)
                .await;
        }
        Ok(())
    }

    /// Removes any string but such a note, and returns what it begins with.
    async fn remove_string(&self, key: &StoreKey, deadline: Instant) -> Result<Vec<u8>> {
        let call = script::DELETE.call(&[&self.record_key(key)], &[]);
        loop {
            match self.backend.run(&call, Effect::Write, deadline).await? {
                Value::BulkString(removed) => return Ok(removed),
                Value::Int(number)
                    if Answer::from_number(number) == Some(Answer::Arriving)
                        && self.has_arrived(key, deadline).await? => {}
                _ => return Ok(Vec::new()),
            }
        }
    }

    async fn touch_key(&self, key: &StoreKey, expires_at: Timestamp) -> Result<Answer> {
        let deadline = self.backend.deadline();
        let record_key = self.record_key(key);
        let prefix = match self.backend.is_cluster() {
            true => "",
            false => &self.prefix,
        };
        let mut kept: Option<(Subject, Timestamp)> = None;
        loop {
            let (subject, until) = match &kept {
                Some((subject, until)) => (subject.as_str(), millis(*until)),
                None => ("", Vec::new()),
            };
            let call = script::TOUCH.call(
                &[&record_key],
                &[
                    &millis(expires_at),
                    &codec::time(expires_at),
                    key.as_bytes(),
                    prefix.as_bytes(),
                    subject.as_bytes(),
                    &until,
                ],
            );
            let stored = match self.backend.run(&call, Effect::Write, deadline).await? {
                Value::Int(number) => match Answer::from_number(number).ok_or_else(odd)? {
                    Answer::Arriving if self.has_arrived(key, deadline).await? => continue,
                    Answer::Arriving => return Ok(Answer::Missing),
                    answer => return Ok(answer),
                },
                Value::BulkString(stored) => stored,
                _ => return Err(odd()),
            };
            // The index has to know first; the next round finds out whether that is still so.
            let (created_at, subject) =
                codec::read_subject(&stored).ok_or_else(codec::unreadable)?;
            let until = codec::indexed_until(created_at, expires_at);
            self.keep(subject.as_str(), key, until, false, deadline)
                .await?;
            kept = Some((subject, until));
        }
    }

    async fn rotate_on_one_node(
        &self,
        old: &StoreKey,
        new: &StoreKey,
        expected: Revision,
        record: &Record,
    ) -> Result<Answer> {
        let deadline = self.backend.deadline();
        let index_key = record
            .subject
            .as_ref()
            .map(|subject| self.index_key(subject.as_str()));
        let (from, to) = (self.record_key(old), self.record_key(new));
        let mut keys: Vec<&[u8]> = vec![&from, &to];
        keys.extend(index_key.as_deref());
        let until = codec::indexed_until(record.created_at, record.expires_at);
        let call = script::ROTATE.call(
            &keys,
            &[
                &codec::head(expected),
                &codec::encode(record),
                &decimal(expiry(record.expires_at)),
                new.as_bytes(),
                &millis(until),
                old.as_bytes(),
                self.prefix.as_bytes(),
            ],
        );
        loop {
            let answer = self.answer(old, &call, deadline).await?;
            if answer != Answer::Barred {
                return Ok(answer);
            }
            wait_for_bar(deadline).await?;
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .field("cluster", &self.backend.is_cluster())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(self.max_data)
            .durability(self.durability)
            .expiry_granularity(Duration::from_millis(5))
            .time_source(TimeSource::Server)
            .sweep(Sweep::Native)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(self.max_data)?;
        let deadline = self.backend.deadline();
        let key = token.key();
        let record_key = self.record_key(&key);
        let Some(subject) = &record.subject else {
            let value = codec::encode(record);
            self.set_new(&key, value, record.expires_at, deadline)
                .await?;
            return Ok(token);
        };
        let until = codec::indexed_until(record.created_at, record.expires_at);
        if self.backend.is_cluster() {
            self.keep(subject.as_str(), &key, until, false, deadline)
                .await?;
            let value = codec::encode(record);
            self.set_new(&key, value, record.expires_at, deadline)
                .await?;
            return Ok(token);
        }
        let call = script::CREATE.call(
            &[&record_key, &self.index_key(subject.as_str())],
            &[
                &codec::encode(record),
                &decimal(expiry(record.expires_at)),
                key.as_bytes(),
                &millis(until),
                self.prefix.as_bytes(),
            ],
        );
        done(self.backend.answer(&call, Effect::Write, deadline).await?)?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        let call = Call::new("GET", &self.record_key(&key));
        let deadline = self.backend.deadline();
        loop {
            match self.backend.run(&call, Effect::Read, deadline).await? {
                Value::Nil => return Ok(None),
                Value::BulkString(stored) if codec::is_arriving(&stored) => {
                    if !self.arrives(&key, &stored, deadline).await? {
                        return Ok(None);
                    }
                }
                Value::BulkString(stored) if codec::is_gone(&stored) => {
                    return Move::read_gone(&key, &stored)
                        .map(|_| None)
                        .ok_or_else(codec::unreadable);
                }
                Value::BulkString(stored) => return codec::decode(stored).map(Some),
                _ => return Err(odd()),
            }
        }
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(self.max_data)?;
        let key = token.key();
        let answer = match &record.subject {
            Some(subject) => self.update_indexed(&key, subject, expected, record).await?,
            None => {
                let call = script::UPDATE.call(
                    &[&self.record_key(&key)],
                    &[
                        &codec::head(expected),
                        &codec::encode(record),
                        &decimal(expiry(record.expires_at)),
                    ],
                );
                self.answer(&key, &call, self.backend.deadline()).await?
            }
        };
        done(answer)?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        done(self.touch_key(&token.key(), expires_at).await?)?;
        Ok(token.clone())
    }

    async fn rotate(
        &self,
        from: &Token,
        to: Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(self.max_data)?;
        let (old, new) = (from.key(), to.key());
        if self.backend.is_cluster() {
            let (store, record) = (self.handle(), record.clone());
            to_the_end(async move { store.move_across_nodes(&old, &new, expected, &record).await })
                .await?;
        } else {
            done(
                self.rotate_on_one_node(&old, &new, expected, record)
                    .await?,
            )?;
        }
        Ok(to)
    }

    async fn delete(&self, token: &Token) -> Result<()> {
        let deadline = self.backend.deadline();
        let key = token.key();
        if self.backend.is_cluster() {
            return self.delete_on_cluster(&key, deadline).await;
        }
        // The subject is in the record, so that its index would take a second trip. It is repaired
        // when it is read or written.
        let call = Call::new("DEL", &self.record_key(&key));
        self.backend.run(&call, Effect::Write, deadline).await?;
        Ok(())
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        Ok(0)
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

/// Runs a call of several steps to its end, also when nobody waits for it any more.
pub(crate) async fn to_the_end<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ended = tokio::spawn(call).await;
    ended.unwrap_or_else(|error| Err(Error::from(ErrorKind::Ambiguous).with_source(error)))
}

pub(crate) fn done(answer: Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Missing => Err(ErrorKind::Missing.into()),
        Answer::Conflict => Err(ErrorKind::Conflict.into()),
        Answer::Corrupt => Err(codec::unreadable()),
        Answer::Exists => Err(ErrorKind::Exists.into()),
        Answer::IndexFirst | Answer::Barred | Answer::Arriving => Err(odd()),
    }
}

async fn wait_for_bar(deadline: Instant) -> Result<()> {
    if Instant::now() + BARRED_PAUSE >= deadline {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "all sessions of the subject are being ended",
        ));
    }
    sleep(BARRED_PAUSE).await;
    Ok(())
}

/// An expiry as the server takes it: it refuses the very first instant of time.
fn expiry(at: Timestamp) -> i64 {
    at.as_millis().max(1)
}

pub(crate) fn millis(at: Timestamp) -> Vec<u8> {
    decimal(expiry(at))
}
