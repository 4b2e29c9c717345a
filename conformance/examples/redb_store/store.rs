use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use sessionkit::{
    Capabilities, Clock, Durability, Error, ErrorKind, Label, Record, Result, Revision,
    SessionStore, StoreKey, Subject, SubjectIndex, Timestamp, Token,
};

const MAX_DATA: usize = 1 << 20;

/// Keeps sessions in a table of a redb database, which the first write creates.
#[derive(Clone, Debug)]
pub(crate) struct RedbStore {
    pub(crate) database: Arc<Database>,
    pub(crate) table: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Revision, creation, expiry, subject, label and data.
type Row<'a> = (u64, i64, i64, Option<&'a str>, &'a str, &'a [u8]);

impl RedbStore {
    /// Works in a transaction, of which redb runs one at a time, away from the threads of the
    /// runtime. An error takes back what was done.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Table<'_, [u8; 32], Row<'static>>, Timestamp) -> Result<T>
        + Send
        + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            let transaction = store.database.begin_write().map_err(failed)?;
            let rows = transaction.open_table(TableDefinition::new(&store.table));
            // The time is told inside the transaction: calls have the order of their times.
            let answer = work(&mut rows.map_err(failed)?, store.clock.now())?;
            let ambiguous = |error| Error::from(ErrorKind::Ambiguous).with_source(error);
            transaction.commit().map(|()| answer).map_err(ambiguous)
        });
        // A panic before the commit is as if nothing had happened.
        work.await.map_err(failed)?
    }

    /// Looks at the live record of a key, and stores another one or none in its place.
    async fn change<T: Send + 'static>(
        &self,
        key: StoreKey,
        change: impl FnOnce(Result<Option<Record>>) -> Result<(T, Option<Record>)> + Send + 'static,
    ) -> Result<T> {
        self.write(move |rows, now| {
            let (answer, record) = change(live(rows, &key, now))?;
            let changed = match record {
                Some(record) => rows.insert(key.as_bytes(), row(&record)).map(drop),
                None => rows.remove(key.as_bytes()).map(drop),
            };
            changed.map(|()| answer).map_err(failed)
        })
        .await
    }
}

#[async_trait]
impl SessionStore for RedbStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(MAX_DATA).durability(Durability::Disk)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(MAX_DATA)?;
        let record = record.clone();
        self.change(token.key(), move |live| match live? {
            Some(_) => Err(ErrorKind::Exists.into()),
            None => Ok((token, Some(record))),
        })
        .await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let (store, key) = (self.clone(), token.key());
        let work = tokio::task::spawn_blocking(move || {
            let transaction = store.database.begin_read().map_err(failed)?;
            match transaction.open_table(TableDefinition::new(&store.table)) {
                Ok(rows) => live(&rows, &key, store.clock.now()),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        });
        work.await.map_err(failed)?
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(MAX_DATA)?;
        let (token, record) = (token.clone(), record.clone());
        self.change(token.key(), move |live| match live? {
            Some(live) if live.revision == expected => Ok((token, Some(record))),
            Some(_) => Err(ErrorKind::Conflict.into()),
            None => Err(ErrorKind::Missing.into()),
        })
        .await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let token = token.clone();
        self.change(token.key(), move |live| {
            let mut record = live?.ok_or(ErrorKind::Missing)?;
            record.expires_at = expires_at;
            Ok((token, Some(record)))
        })
        .await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.change(token.key(), move |live| match (live, expected) {
            (Ok(Some(live)), Some(at)) if live.revision != at => Err(ErrorKind::Conflict.into()),
            (Err(unreadable), Some(_)) => Err(unreadable),
            // Without a revision also what cannot be read.
            (live, _) => Ok((matches!(live, Ok(Some(_))), None)),
        })
        .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.write(move |rows, now| {
            let removed = rows.extract_if(|_, row| row.2 <= now.as_millis());
            let mut removed = removed.map_err(failed)?.take(limit);
            let count = removed.try_fold(0, |count, row| row.map(|_| count + 1));
            count.map_err(failed)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.write(|_, _| Ok(())).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

fn live(
    rows: &impl ReadableTable<[u8; 32], Row<'static>>,
    key: &StoreKey,
    now: Timestamp,
) -> Result<Option<Record>> {
    let row = rows.get(key.as_bytes()).map_err(failed)?;
    let record = row.map(|row| record(row.value())).transpose()?;
    Ok(record.filter(|record| record.is_live(now)))
}

fn row(record: &Record) -> Row<'_> {
    (
        record.revision.to_bits(),
        record.created_at.as_millis(),
        record.expires_at.as_millis(),
        record.subject.as_ref().map(Subject::as_str),
        record.label.as_str(),
        &record.data,
    )
}

fn record((revision, created_at, expires_at, subject, label, data): Row<'_>) -> Result<Record> {
    let subject = subject.map(Subject::from_stored).transpose();
    Ok(Record {
        data: data.to_vec().into(),
        revision: Revision::from_bits(revision),
        created_at: Timestamp::from_millis(created_at),
        expires_at: Timestamp::from_millis(expires_at),
        subject: subject.map_err(|_| ErrorKind::Corrupt)?,
        label: Label::from_stored(label).map_err(|_| ErrorKind::Corrupt)?,
    })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::from(ErrorKind::Unavailable).with_source(error)
}
