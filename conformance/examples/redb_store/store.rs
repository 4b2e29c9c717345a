use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use sessionkit::{
    Capabilities, Clock, Durability, Error, ErrorKind, Label, Record, Result, Revision,
    SessionStore, StoreKey, Subject, SubjectIndex, Timestamp, Token,
};

const MAX_DATA: usize = 1 << 20;

/// Revision, creation, expiry, subject, label and data.
type Row = (u64, i64, i64, Option<String>, String, Vec<u8>);

/// Keeps sessions in a table of a redb database.
#[derive(Clone, Debug)]
pub(crate) struct RedbStore {
    database: Arc<Database>,
    table: String,
    clock: Arc<dyn Clock>,
}

impl RedbStore {
    /// Opens the table, which the first write creates.
    pub(crate) fn open(
        database: Arc<Database>,
        table: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        if table.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the table has no name",
            ));
        }
        let table = table.into();
        Ok(Self {
            database,
            table,
            clock,
        })
    }

    /// Makes a change in a transaction, of which redb runs one at a time, away from the threads of
    /// the runtime. An error takes back what was done.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Sessions<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let transaction = store.database.begin_write().map_err(failed)?;
            let definition = TableDefinition::new(&store.table);
            let answer = change(&mut Sessions {
                table: transaction.open_table(definition).map_err(failed)?,
                // Told inside the transaction: calls have the order of their times.
                now: store.clock.now(),
            })?;
            transaction.commit().map_err(ambiguous)?;
            Ok(answer)
        });
        work.await.map_err(ambiguous)?
    }
}

#[async_trait]
impl SessionStore for RedbStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(MAX_DATA).durability(Durability::Disk)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(MAX_DATA)?;
        let (key, record) = (token.key(), record.clone());
        self.write(move |sessions| sessions.insert(&key, record))
            .await?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let (store, key) = (self.clone(), token.key());
        let work = tokio::task::spawn_blocking(move || {
            let now = store.clock.now();
            let transaction = store.database.begin_read().map_err(failed)?;
            match transaction.open_table(TableDefinition::new(&store.table)) {
                Ok(table) => live(&table, &key, now),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        });
        work.await.map_err(ambiguous)?
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(MAX_DATA)?;
        let (key, record) = (token.key(), record.clone());
        self.write(move |sessions| {
            sessions.check(&key, expected)?;
            sessions.put(&key, record)
        })
        .await?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let key = token.key();
        self.write(move |sessions| {
            let record = sessions.live(&key)?.ok_or(ErrorKind::Missing)?;
            sessions.put(
                &key,
                Record {
                    expires_at,
                    ..record
                },
            )
        })
        .await?;
        Ok(token.clone())
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let key = token.key();
        self.write(move |sessions| match expected {
            Some(expected) => sessions.end(&key, expected),
            None => sessions.remove(&key),
        })
        .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.write(move |Sessions { table, now }| {
            let expired = table
                .extract_if(|_, row| row.2 <= now.as_millis())
                .map_err(failed)?;
            expired
                .take(limit)
                .try_fold(0, |count, row| row.map(|_| count + 1))
                .map_err(failed)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.write(|_| Ok(())).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

/// The table and the time, during a transaction.
struct Sessions<'a> {
    table: Table<'a, [u8; 32], Row>,
    now: Timestamp,
}

impl Sessions<'_> {
    fn live(&self, key: &StoreKey) -> Result<Option<Record>> {
        live(&self.table, key, self.now)
    }

    fn check(&self, key: &StoreKey, expected: Revision) -> Result<()> {
        match self.live(key)? {
            Some(record) if record.revision == expected => Ok(()),
            Some(_) => Err(ErrorKind::Conflict.into()),
            None => Err(ErrorKind::Missing.into()),
        }
    }

    fn insert(&mut self, key: &StoreKey, record: Record) -> Result<()> {
        match self.live(key)? {
            Some(_) => Err(ErrorKind::Exists.into()),
            None => self.put(key, record),
        }
    }

    fn put(&mut self, key: &StoreKey, record: Record) -> Result<()> {
        let row = (
            record.revision.to_bits(),
            record.created_at.as_millis(),
            record.expires_at.as_millis(),
            record.subject.map(|subject| subject.as_str().into()),
            record.label.as_str().into(),
            record.data.into(),
        );
        self.table
            .insert(key.as_bytes(), row)
            .map(drop)
            .map_err(failed)
    }

    /// Ends a live record at this revision.
    fn end(&mut self, key: &StoreKey, expected: Revision) -> Result<bool> {
        match self.live(key)? {
            Some(record) if record.revision != expected => Err(ErrorKind::Conflict.into()),
            _ => self.remove(key),
        }
    }

    /// Removes whatever is there, also what cannot be read, and says whether it was live.
    fn remove(&mut self, key: &StoreKey) -> Result<bool> {
        let live = matches!(self.live(key), Ok(Some(_)));
        self.table.remove(key.as_bytes()).map_err(failed)?;
        Ok(live)
    }
}

fn live(
    table: &impl ReadableTable<[u8; 32], Row>,
    key: &StoreKey,
    now: Timestamp,
) -> Result<Option<Record>> {
    let Some(row) = table.get(key.as_bytes()).map_err(failed)? else {
        return Ok(None);
    };
    let (revision, created_at, expires_at, subject, label, data) = row.value();
    let record = Record {
        data: data.into(),
        revision: Revision::from_bits(revision),
        created_at: Timestamp::from_millis(created_at),
        expires_at: Timestamp::from_millis(expires_at),
        subject: subject
            .map(Subject::from_stored)
            .transpose()
            .map_err(|_| ErrorKind::Corrupt)?,
        label: Label::from_stored(&label).map_err(|_| ErrorKind::Corrupt)?,
    };
    Ok(Some(record).filter(|record| record.is_live(now)))
}

/// Nothing was changed.
fn failed(error: impl Into<redb::Error>) -> Error {
    Error::new(ErrorKind::Unavailable, "the database failed").with_source(error.into())
}

fn ambiguous(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Ambiguous, "the transaction has no known end").with_source(error)
}
