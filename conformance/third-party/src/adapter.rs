use std::{collections::HashMap, fmt::Debug, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use sessionkit::{
    Capabilities, Error, ErrorKind, Label, Record, Result, Revision, SessionStore, Subject,
    SubjectIndex, Timestamp, Token,
};
use time::OffsetDateTime;

/// How long a request handler takes, between the load and the save of its session.
const HANDLER: Duration = Duration::from_millis(2);

/// The operations of a store of `tower-sessions`, whichever version of its trait it implements.
#[async_trait]
pub trait Published: Clone + Debug + Send + Sync + 'static {
    /// Stores a new row, under another id when its own is taken.
    async fn create(&self, row: &mut Row) -> Result<()>;
    /// Stores a row under its id.
    async fn save(&self, row: Row) -> Result<()>;
    /// The row of an id.
    async fn load(&self, id: i128) -> Result<Option<Row>>;
    /// Removes the row of an id.
    async fn delete(&self, id: i128) -> Result<()>;
}

/// The record of `tower-sessions`.
#[derive(Clone, Debug)]
pub struct Row {
    /// The session id.
    pub id: i128,
    /// The values of the session.
    pub data: HashMap<String, Value>,
    /// When it ends.
    pub expiry_date: OffsetDateTime,
}

impl Row {
    /// The id is half of our key: their ids have 128 bits.
    fn id(token: &Token) -> i128 {
        let key = token.key();
        let half = key.as_bytes().first_chunk().expect("a key has 32 bytes");
        i128::from_le_bytes(*half)
    }

    /// The data are kept as text, a character for each byte, as their applications keep text.
    fn new(token: &Token, record: &Record) -> Self {
        let text: String = record.data.iter().map(|&byte| char::from(byte)).collect();
        let subject = record.subject.as_ref().map(|subject| subject.as_str());
        let data = [
            ("data", Value::from(text)),
            ("revision", record.revision.to_bits().into()),
            ("created_at", record.created_at.as_millis().into()),
            ("subject", subject.into()),
            ("label", record.label.as_str().into()),
        ];
        Self {
            id: Self::id(token),
            data: data.map(|(name, value)| (name.into(), value)).into(),
            expiry_date: date(record.expires_at),
        }
    }

    fn record(&self) -> Option<Record> {
        let text = |name: &str| self.data.get(name)?.as_str();
        let bytes: Option<Vec<u8>> = text("data")?
            .chars()
            .map(|char| u8::try_from(char).ok())
            .collect();
        let millis = self.expiry_date.unix_timestamp_nanos() / 1_000_000;
        Some(Record {
            data: bytes?.into(),
            revision: Revision::from_bits(self.data.get("revision")?.as_u64()?),
            created_at: Timestamp::from_millis(self.data.get("created_at")?.as_i64()?),
            expires_at: Timestamp::from_millis(i64::try_from(millis).ok()?),
            subject: text("subject").map(Subject::from_stored).transpose().ok()?,
            label: Label::from_stored(text("label")?).ok()?,
        })
    }
}

fn date(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_millis()) * 1_000_000)
        .expect("years up to 9999 have a date")
}

/// A published store with the contract of [`SessionStore`] laid over it.
#[derive(Clone, Debug)]
pub struct Adapter<S> {
    store: S,
    capabilities: Capabilities,
}

impl<S: Published> Adapter<S> {
    /// Lays the contract over a store that is said to be capable of this.
    pub const fn new(store: S, capabilities: Capabilities) -> Self {
        Self {
            store,
            capabilities,
        }
    }

    /// The live record, as a request loads it before its handler runs.
    async fn found(&self, token: &Token) -> Result<Record> {
        let found = self.load(token).await?.ok_or(ErrorKind::Missing)?;
        tokio::time::sleep(HANDLER).await;
        Ok(found)
    }

    async fn found_at(&self, token: &Token, expected: Revision) -> Result<Record> {
        let found = self.found(token).await?;
        if found.revision != expected {
            return Err(ErrorKind::Conflict.into());
        }
        Ok(found)
    }
}

#[async_trait]
impl<S: Published> SessionStore for Adapter<S> {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    /// Their create. It answers a taken id with a row under another one, which nobody asked for and
    /// which is taken back.
    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(self.capabilities.max_data)?;
        let mut row = Row::new(&token, record);
        let id = row.id;
        self.store.create(&mut row).await?;
        if row.id != id {
            self.store.delete(row.id).await?;
            return Err(ErrorKind::Exists.into());
        }
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let Some(row) = self.store.load(Row::id(token)).await? else {
            return Ok(None);
        };
        row.record().map(Some).ok_or(ErrorKind::Corrupt.into())
    }

    /// Their load, the comparison, their save.
    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(self.capabilities.max_data)?;
        self.found_at(token, expected).await?;
        self.store.save(Row::new(token, record)).await?;
        Ok(token.clone())
    }

    /// Their load, and their save with another expiry.
    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let record = self.found(token).await?;
        let touched = Record {
            expires_at,
            ..record
        };
        self.store.save(Row::new(token, &touched)).await?;
        Ok(token.clone())
    }

    /// Their load, the comparison, their delete, which does not say whether it removed anything.
    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let live = match expected {
            Some(expected) => match self.found_at(token, expected).await {
                Err(error) if error.kind() == ErrorKind::Missing => false,
                other => other.map(|_| true)?,
            },
            None => matches!(self.load(token).await, Ok(Some(_))),
        };
        self.store.delete(Row::id(token)).await?;
        Ok(live)
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        match self.capabilities.sweep {
            sessionkit::Sweep::Native => Ok(0),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// They have none: a load is what there is to ask with.
    async fn ping(&self) -> Result<()> {
        self.store.load(0).await.map(drop)
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

/// Implements [`Published`] for stores of one version of their trait.
macro_rules! published {
    ($core:ident: $($store:ty),*) => {$(
        #[async_trait::async_trait]
        impl $crate::adapter::Published for $store {
            async fn create(&self, row: &mut $crate::adapter::Row) -> sessionkit::Result<()> {
                let mut record = $core::session::Record {
                    id: $core::session::Id(row.id),
                    data: row.data.clone(),
                    expiry_date: row.expiry_date,
                };
                let created = $core::SessionStore::create(self, &mut record).await;
                row.id = record.id.0;
                created.map_err(|error| $crate::adapter::failed(error))
            }

            async fn save(&self, row: $crate::adapter::Row) -> sessionkit::Result<()> {
                let record = $core::session::Record {
                    id: $core::session::Id(row.id),
                    data: row.data,
                    expiry_date: row.expiry_date,
                };
                let saved = $core::SessionStore::save(self, &record).await;
                saved.map_err(|error| $crate::adapter::failed(error))
            }

            async fn load(&self, id: i128) -> sessionkit::Result<Option<$crate::adapter::Row>> {
                let loaded = $core::SessionStore::load(self, &$core::session::Id(id)).await;
                let found = loaded.map_err(|error| $crate::adapter::failed(error))?;
                Ok(found.map(|record| $crate::adapter::Row {
                    id: record.id.0,
                    data: record.data,
                    expiry_date: record.expiry_date,
                }))
            }

            async fn delete(&self, id: i128) -> sessionkit::Result<()> {
                let deleted = $core::SessionStore::delete(self, &$core::session::Id(id)).await;
                deleted.map_err(|error| $crate::adapter::failed(error))
            }
        }
    )*};
}
pub(crate) use published;

/// Their errors have no kind that says whether something happened.
pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "the published store failed").with_source(error)
}
