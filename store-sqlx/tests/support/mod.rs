//! Harnesses of the kit, one for each database.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use sessionkit::{Error, ErrorKind, Result};
use sessionkit_conformance::RawEntry;
use sessionkit_sqlx::{TableName, sqlx};

/// What a harness knows of its stores.
#[derive(Default)]
pub(crate) struct State {
    tables: Mutex<Vec<String>>,
    pub(crate) far_away: AtomicBool,
    pub(crate) vanished: AtomicBool,
    pub(crate) read_only: AtomicBool,
}

impl State {
    /// The table of a namespace, which may not begin with a digit.
    pub(crate) fn table(&self, namespace: &str) -> Result<TableName> {
        let name = format!("s_{namespace}");
        let table = TableName::new(&name)?;
        let mut tables = self.tables.lock().unwrap();
        if !tables.contains(&name) {
            tables.push(name);
        }
        Ok(table)
    }

    pub(crate) fn tables(&self) -> Vec<String> {
        self.tables.lock().unwrap().clone()
    }

    pub(crate) fn is_far_away(&self) -> bool {
        self.far_away.load(Ordering::SeqCst)
    }

    pub(crate) fn has_vanished(&self) -> bool {
        self.vanished.load(Ordering::SeqCst)
    }
}

/// A row as it is in the table.
pub(crate) struct RawRow {
    pub(crate) numbers: [i64; 4],
    pub(crate) subject: Option<Vec<u8>>,
    pub(crate) label: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl RawRow {
    /// All columns behind one another.
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = Vec::new();
        for number in self.numbers {
            value.extend(number.to_be_bytes());
        }
        for text in [self.subject.as_deref().unwrap_or_default(), &self.label] {
            value.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            value.extend(text);
        }
        value.extend(&self.data);
        value
    }

    /// The columns of a value. One that is damaged so that it has no such columns is a row that is
    /// as damaged as the columns' types allow.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut rest = value;
        let mut take = |len: usize| {
            let (part, left) = rest.split_at_checked(len)?;
            rest = left;
            Some(part.to_vec())
        };
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = i64::from_be_bytes(take(8)?.try_into().ok()?);
        }
        let mut text = || {
            let len = u16::from_be_bytes(take(2)?.try_into().ok()?);
            (len <= 255).then(|| take(usize::from(len)))?
        };
        let (subject, label) = (text()?, text()?);
        Some(Self {
            numbers,
            subject: Some(subject).filter(|subject| !subject.is_empty()),
            label,
            data: rest.to_vec(),
        })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The statement that makes a row of an entry.
pub(crate) fn update(table: &str, entry: &RawEntry, bytes: impl Fn(&[u8]) -> String) -> String {
    let set = match RawRow::parse(&entry.value) {
        Some(row) => {
            let [revision, created_at, expires_at, sweep_at] = row.numbers;
            let subject = row
                .subject
                .map_or("NULL".to_owned(), |subject| bytes(&subject));
            format!(
                "revision = {revision}, created_at = {created_at}, expires_at = {expires_at}, \
                 sweep_at = {sweep_at}, subject = {subject}, label = {}, data = {}",
                bytes(&row.label),
                bytes(&row.data)
            )
        }
        None => format!("created_at = -1, data = {}", bytes(&entry.value)),
    };
    format!(
        "UPDATE {table} SET {set} WHERE session_key = {}",
        bytes(&entry.name)
    )
}

pub(crate) fn driver(error: sqlx::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the administrator's connection fails",
    )
    .with_source(error)
}

/// What an administrator does, past the store: `$connection` is the type of the connection, and
/// `$bytes` writes bytes as a literal.
macro_rules! admin {
    ($connection:ty, $bytes:expr) => {
        async fn admin_execute(connection: &mut $connection, sql: &str) -> Result<()> {
            let done = raw_sql(AssertSqlSafe(sql)).execute(connection).await;
            done.map(drop).map_err(support::driver)
        }

        async fn admin_dump(connection: &mut $connection, table: &str) -> Result<Vec<RawEntry>> {
            let sql = format!(
                "SELECT session_key, revision, created_at, expires_at, sweep_at, subject, label, \
                 data FROM {table}"
            );
            let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await;
            let entry = |row: &_| RawEntry {
                name: Row::get(row, 0),
                value: support::RawRow {
                    numbers: [1, 2, 3, 4].map(|index: usize| Row::get(row, index)),
                    subject: Row::get(row, 5),
                    label: Row::get(row, 6),
                    data: Row::get(row, 7),
                }
                .value(),
            };
            Ok(rows.map_err(support::driver)?.iter().map(entry).collect())
        }

        async fn admin_write(
            connection: &mut $connection,
            table: &str,
            entry: &RawEntry,
        ) -> Result<()> {
            let sql = support::update(table, entry, $bytes);
            admin_execute(connection, &sql).await
        }

        /// A table beside, with a name that begins with ours, and a view of ours.
        async fn admin_foreign(connection: &mut $connection, table: &str) -> Result<Vec<RawEntry>> {
            let sql = format!("SELECT name, value FROM {table}_notes ORDER BY name");
            let mut rows = raw_sql(AssertSqlSafe(&*sql)).fetch_all(&mut *connection).await;
            if rows.is_err() {
                for sql in [
                    format!(
                        "CREATE TABLE {table}_notes (name VARCHAR(99) PRIMARY KEY, value VARCHAR(99))"
                    ),
                    format!("INSERT INTO {table}_notes VALUES ('a', 'not a session'), ('b', '')"),
                ] {
                    admin_execute(connection, &sql).await?;
                }
                rows = raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await;
            }
            let entry = |row: &_| RawEntry {
                name: Row::get::<String, _>(row, 0).into_bytes(),
                value: Row::get::<String, _>(row, 1).into_bytes(),
            };
            Ok(rows.map_err(support::driver)?.iter().map(entry).collect())
        }

        async fn admin_destroy(connection: &mut $connection, table: &str) -> Result<()> {
            for sql in [
                format!("DROP TABLE IF EXISTS {table}"),
                format!("DROP TABLE IF EXISTS {table}_notes"),
            ] {
                admin_execute(connection, &sql).await?;
            }
            Ok(())
        }
    };
}
pub(crate) use admin;
