use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::Value;
use sessionkit::{
    Capabilities, Durability, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, Sweep, TimeSource, Timestamp, Token,
};
use tokio::time::Instant;

use crate::{
    RedisOptions,
    client::{Client, odd},
    codec::{self, Head, Number},
    failure::Effect,
    script::{self, Answer, Call, decimal},
};

/// How many bytes of a [`StoreKey`] name a record, as `scripts/index.lua` knows too. The whole of it
/// would take 16 bytes more of the server's memory, and 160 bits of a hash of random tokens tell any
/// number of sessions apart.
pub(crate) const KEY_LEN: usize = 20;

/// Of a record that keeps the one it has, or whose entry is written in one step with it.
const NO_NUMBER: Number = [0; 4];

/// For how much longer than its caller waits the record of a session that begins on a cluster may
/// come, and for how long at most the index expects it.
const CREATE_MARGIN: Duration = Duration::from_secs(1);
const LONGEST_CREATE: Duration = Duration::from_secs(30 * 60);

/// Keeps sessions in Redis or Valkey: on one server, a Cluster or behind Sentinels.
///
/// Opened by [`RedisOptions`]; shared as an `Arc<RedisStore>`. Dropping the last handle closes the
/// connections.
///
/// ```no_run
/// # async fn example() -> Result<(), sessionkit::Error> {
/// use sessionkit::SessionStore;
/// use sessionkit_redis::RedisStore;
///
/// let store = RedisStore::open("redis://localhost").await?;
/// store.ping().await?;
/// # Ok(())
/// # }
/// ```
pub struct RedisStore {
    pub(crate) client: Arc<Client>,
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

    pub(crate) fn record_key(&self, key: &StoreKey) -> Vec<u8> {
        [self.prefix.as_bytes(), b"#", &key.as_bytes()[..KEY_LEN]].concat()
    }

    pub(crate) fn index_key(&self, subject: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), b"@", subject.as_bytes()].concat()
    }

    /// Tells the index of a subject about a session, with the number of one that begins. What it
    /// holds too much does no harm: whoever reads it looks at the records.
    async fn keep(
        &self,
        subject: &str,
        key: &StoreKey,
        expires_at: Timestamp,
        beginning: Option<Number>,
        deadline: Instant,
    ) -> Result<()> {
        let (number, how) = match beginning {
            Some(number) => (
                number.to_vec(),
                decimal(
                    (self.client.deadline + CREATE_MARGIN)
                        .min(LONGEST_CREATE)
                        .as_millis(),
                ),
            ),
            None => (Vec::new(), b"prolong".to_vec()),
        };
        let call = script::KEEP.call(
            &[&self.index_key(subject)],
            &[key.as_bytes(), &millis(expires_at), &number, &how],
        );
        done(self.client.answer(&call, Effect::Write, deadline).await?)
    }

    /// Tells an index again what it should know already.
    async fn remind(&self, subject: &str, key: &StoreKey, expires_at: Timestamp, by: Instant) {
        // If that fails, the next use of the session is as good.
        drop(self.keep(subject, key, expires_at, None, by).await);
    }

    async fn create_on_cluster(
        &self,
        key: &StoreKey,
        record: &Record,
        deadline: Instant,
    ) -> Result<()> {
        let number = codec::number()?;
        let value = codec::encode(record, number);
        let until = record.expires_at;
        let Some(subject) = &record.subject else {
            return self.set_new(key, value, until, deadline).await;
        };
        let subject = subject.as_str();
        self.keep(subject, key, until, Some(number), deadline)
            .await?;
        let created = self.set_new(key, value, until, deadline).await;
        let (index_key, session) = (
            self.index_key(subject),
            [&key.as_bytes()[..], &number].concat(),
        );
        let call = match &created {
            Ok(()) => script::STORED.call(&[&index_key], &[&session]),
            // It may still come.
            Err(error) if error.kind() == ErrorKind::Ambiguous => return created,
            // Nothing is coming; the entry may be that of another session under this key.
            Err(_) => Call::new("ZREM", &index_key).arg([b"?", &session[..]].concat()),
        };
        // If that fails, the mark is over soon.
        drop(self.client.run(&call, Effect::Read, deadline).await);
        created
    }

    async fn set_new(
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
        match self.client.run(&call, Effect::Write, deadline).await? {
            Value::Okay => Ok(()),
            Value::Nil => Err(ErrorKind::Exists.into()),
            _ => Err(odd()),
        }
    }

    async fn create_indexed(
        &self,
        key: &StoreKey,
        subject: &Subject,
        record: &Record,
        deadline: Instant,
    ) -> Result<()> {
        let call = script::CREATE.call(
            &[&self.record_key(key), &self.index_key(subject.as_str())],
            &[
                &codec::encode(record, NO_NUMBER),
                &millis(record.expires_at),
                key.as_bytes(),
                self.prefix.as_bytes(),
            ],
        );
        done(self.client.answer(&call, Effect::Write, deadline).await?)
    }

    async fn update_indexed(
        &self,
        key: &StoreKey,
        subject: &Subject,
        expected: Revision,
        record: &Record,
    ) -> Result<()> {
        let deadline = self.client.deadline();
        let (record_key, index_key) = (self.record_key(key), self.index_key(subject.as_str()));
        let keys: [&[u8]; 2] = [&record_key, &index_key];
        let keys = if self.client.is_cluster() {
            &keys[..1]
        } else {
            &keys
        };
        let call = |told: &'static [u8]| {
            script::UPDATE_INDEXED.call(
                keys,
                &[
                    &codec::head(expected),
                    &codec::encode(record, NO_NUMBER),
                    &millis(record.expires_at),
                    subject.as_str().as_bytes(),
                    key.as_bytes(),
                    told,
                    self.prefix.as_bytes(),
                ],
            )
        };
        let (subject, until) = (subject.as_str(), record.expires_at);
        let mut answer = self
            .client
            .answer(&call(b""), Effect::Write, deadline)
            .await?;
        if answer == Answer::IndexFirst {
            self.keep(subject, key, until, None, deadline).await?;
            let told = call(b"1");
            answer = self.client.answer(&told, Effect::Write, deadline).await?;
        }
        if answer == Answer::Tell {
            self.remind(subject, key, until, deadline).await;
            answer = Answer::Done;
        }
        done(answer)
    }

    async fn touch_key(&self, key: &StoreKey, expires_at: Timestamp) -> Result<()> {
        let deadline = self.client.deadline();
        let record_key = self.record_key(key);
        let prefix = match self.client.is_cluster() {
            true => "",
            false => &self.prefix,
        };
        let mut told = String::new();
        loop {
            let call = script::TOUCH.call(
                &[&record_key],
                &[
                    &millis(expires_at),
                    &codec::time(expires_at),
                    key.as_bytes(),
                    prefix.as_bytes(),
                    told.as_bytes(),
                ],
            );
            match self.client.run(&call, Effect::Write, deadline).await? {
                Value::Int(number) => return done(Answer::from_number(number).ok_or_else(odd)?),
                reply => {
                    let (number, subject): (i64, String) =
                        redis::from_redis_value(reply).map_err(|_| odd())?;
                    if Answer::from_number(number) == Some(Answer::Tell) {
                        self.remind(&subject, key, expires_at, deadline).await;
                        return Ok(());
                    }
                    // The index has to know first; the next round finds out whether that is still so.
                    self.keep(&subject, key, expires_at, None, deadline).await?;
                    told = subject;
                }
            }
        }
    }

    async fn delete_key(&self, key: &StoreKey, expected: Option<Revision>) -> Result<bool> {
        let deadline = self.client.deadline();
        if expected.is_none() && !self.client.is_cluster() {
            // An entry of the index stays, and goes when the index is read or written.
            let call = Call::new("DEL", &self.record_key(key));
            let removed = self.client.run(&call, Effect::Write, deadline).await?;
            return Ok(removed == Value::Int(1));
        }
        let head = expected.map(codec::head);
        let prefix = match self.client.is_cluster() {
            true => "",
            false => &self.prefix,
        };
        let args: [&[u8]; 3] = [
            head.as_ref().map_or(&[], |head| head),
            key.as_bytes(),
            prefix.as_bytes(),
        ];
        let call = script::DELETE.call(&[&self.record_key(key)], &args);
        match self.client.run(&call, Effect::Write, deadline).await? {
            Value::Int(number) => match Answer::from_number(number).ok_or_else(odd)? {
                Answer::Missing => Ok(false),
                answer => done(answer).map(|()| true),
            },
            Value::BulkString(removed) => {
                if let Some((head, _)) = Head::read(&removed)
                    && let Some(subject) = &head.subject
                {
                    let gone = [(*key, Some(head.number))];
                    self.prune(subject, &gone, deadline).await;
                }
                Ok(true)
            }
            _ => Err(odd()),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .field("cluster", &self.client.is_cluster())
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
        let (key, deadline) = (token.key(), self.client.deadline());
        match &record.subject {
            _ if self.client.is_cluster() => self.create_on_cluster(&key, record, deadline).await,
            Some(subject) => self.create_indexed(&key, subject, record, deadline).await,
            None => {
                let value = codec::encode(record, NO_NUMBER);
                self.set_new(&key, value, record.expires_at, deadline).await
            }
        }?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let call = Call::new("GET", &self.record_key(&token.key()));
        let deadline = self.client.deadline();
        match self.client.run(&call, Effect::Read, deadline).await? {
            Value::Nil => Ok(None),
            Value::BulkString(stored) => codec::decode(stored).map(Some),
            _ => Err(odd()),
        }
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(self.max_data)?;
        let key = token.key();
        if let Some(subject) = &record.subject {
            self.update_indexed(&key, subject, expected, record).await?;
            return Ok(token.clone());
        }
        let call = script::UPDATE.call(
            &[&self.record_key(&key)],
            &[
                &codec::head(expected),
                &codec::encode(record, NO_NUMBER),
                &millis(record.expires_at),
            ],
        );
        let deadline = self.client.deadline();
        done(self.client.answer(&call, Effect::Write, deadline).await?)?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.touch_key(&token.key(), expires_at).await?;
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.delete_key(&token.key(), expected).await
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        Ok(0)
    }

    /// Sends every master the deletion of a key that is never there, which a replica, a master without
    /// the replicas it has to have and one that cannot persist refuse.
    async fn ping(&self) -> Result<()> {
        let prefix = [self.prefix.as_bytes(), b"#ping"].concat();
        self.client.ping(&prefix, self.client.deadline()).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

fn done(answer: Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        Answer::Missing => Err(ErrorKind::Missing.into()),
        Answer::Conflict => Err(ErrorKind::Conflict.into()),
        Answer::Corrupt => Err(codec::unreadable()),
        Answer::Exists => Err(ErrorKind::Exists.into()),
        Answer::IndexFirst | Answer::Tell => Err(odd()),
    }
}

/// An expiry as the server takes it: it refuses the very first instant of time.
fn expiry(at: Timestamp) -> i64 {
    at.as_millis().max(1)
}

fn millis(at: Timestamp) -> Vec<u8> {
    decimal(expiry(at))
}
