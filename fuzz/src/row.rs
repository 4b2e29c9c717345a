use sessionkit::{Record, Revision, SessionStore, Subject, Token};
use sessionkit_sqlx::{
    SqliteStore, StoreOptions, TableName,
    sqlx::{AssertSqlSafe, Connection, SqliteConnection, query},
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::Mutex};

use crate::support::{clock, cookie_name, decoded, directory, record, runtime, token};

thread_local! {
    static WORLD: World = World::new();
}

/// A row of a database, as whoever may write to the table can leave it: the record and the entry in
/// the list of its subject's sessions are what stands there or corrupt.
///
/// The input is revision, created_at and expires_at of eight bytes each, little-endian; the lengths of
/// subject and label, one byte each, where the subject's is one more than it is and 0 for NULL;
/// subject, label, data.
pub fn row(input: &[u8]) -> bool {
    Columns::of(input).is_some_and(|columns| WORLD.with(|world| world.read(&columns)))
}

struct Columns<'a> {
    revision: i64,
    created_at: i64,
    expires_at: i64,
    subject: Option<&'a [u8]>,
    label: &'a [u8],
    data: &'a [u8],
}

impl<'a> Columns<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let (numbers, rest) = input.split_first_chunk::<24>()?;
        let (&[subject, label], rest) = rest.split_first_chunk()?;
        let (subject, rest) = match usize::from(subject).checked_sub(1) {
            Some(len) => {
                let (subject, rest) = rest.split_at_checked(len)?;
                (Some(subject), rest)
            }
            None => (None, rest),
        };
        let (label, data) = rest.split_at_checked(label.into())?;
        let number = |at: usize| {
            let bytes = numbers[at..]
                .first_chunk()
                .expect("there are three of eight bytes");
            i64::from_le_bytes(*bytes)
        };
        Some(Self {
            revision: number(0),
            created_at: number(8),
            expires_at: number(16),
            subject,
            label,
            data,
        })
    }

    fn is(&self, record: &Record) -> bool {
        let subject = record
            .subject
            .as_ref()
            .map(|subject| subject.as_str().as_bytes());
        record.revision == Revision::from_bits(self.revision.cast_unsigned())
            && record.created_at.as_millis() == self.created_at
            && record.expires_at.as_millis() == self.expires_at
            && subject == self.subject
            && record.label.as_str().as_bytes() == self.label
            && record.data == self.data
    }
}

struct World {
    runtime: Runtime,
    store: SqliteStore,
    raw: Mutex<SqliteConnection>,
    token: Token,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let (directory, runtime) = (directory(), runtime());
        let token = token(&cookie_name());
        let url = format!("sqlite:{}", directory.path().join("rows").display());
        let (store, raw) = runtime.block_on(async {
            let options = StoreOptions::new().clock(clock());
            let store = SqliteStore::connect(&url, options).await.expect("it opens");
            store.migrate().await.expect("there is no other table");
            let created = store.create(token.clone(), &record(b"data")).await;
            created.expect("there is room");
            let mut raw = SqliteConnection::connect(&url).await.expect("it opens");
            let off = query("PRAGMA synchronous = OFF").execute(&mut raw).await;
            off.expect("SQLite has it");
            (store, Mutex::new(raw))
        });
        Self {
            runtime,
            store,
            raw,
            token,
            _directory: directory,
        }
    }

    /// Whether the store takes a row with these columns.
    fn read(&self, columns: &Columns<'_>) -> bool {
        self.runtime.block_on(async {
            self.write(columns).await;
            let loaded = decoded(self.store.load(&self.token).await);
            let subject = columns
                .subject
                .and_then(|subject| str::from_utf8(subject).ok());
            let subject = subject.and_then(|subject| Subject::new(subject).ok());
            if let Some(subject) = subject {
                let index = self.store.subjects().expect("SQLite has an index");
                if let Some(listed) = decoded(index.list(&subject, None, 10).await) {
                    for session in listed {
                        assert_eq!(session.label.as_str().as_bytes(), columns.label);
                        assert_eq!(session.created_at.as_millis(), columns.created_at);
                        assert_eq!(session.expires_at.as_millis(), columns.expires_at);
                    }
                }
            }
            let Some(Some(record)) = loaded else {
                return false;
            };
            assert!(columns.is(&record));
            true
        })
    }

    async fn write(&self, columns: &Columns<'_>) {
        let mut raw = self.raw.lock().await;
        let update = format!(
            "UPDATE \"{}\" SET revision = ?, created_at = ?, expires_at = ?, subject = ?, \
             label = ?, data = ?",
            TableName::default()
        );
        query(AssertSqlSafe(update))
            .bind(columns.revision)
            .bind(columns.created_at)
            .bind(columns.expires_at)
            .bind(columns.subject)
            .bind(columns.label)
            .bind(columns.data)
            .execute(&mut *raw)
            .await
            .expect("the columns take these types");
    }
}
