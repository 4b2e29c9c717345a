use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sessionkit::{
    Capabilities, Clock, Durability, Error, ErrorKind, Record, Result, Revision, SessionStore,
    StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp, Token,
};
use sqlx::{
    ConnectOptions, Row, Sqlite, SqliteConnection, SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::Instant;

use self::{
    group::{Loaded, ROUNDS, Reads, Undone, Write, Writes},
    statements::Statements,
};
use crate::{
    StoreOptions, Sweeper, TableName,
    call::{Answer, Backend, Caller, Statement, backend_values, parse_url, run_statement},
    failure::{Cause, Effect, Failure, Refusal, overtaken},
    lane::Lane,
    record,
    schema::{Column, Table},
    sweeper::BATCH,
};

mod group;
mod statements;

/// Keeps sessions in a SQLite database: a file that the processes of one machine share, or the
/// memory of this one.
///
/// Writes that wait for one another are committed together, with one statement for each kind of
/// write; loads are answered together likewise. A clone is the same store.
///
/// ```no_run
/// # async fn example() -> sessionkit::Result<()> {
/// use sessionkit_sqlx::{SqliteStore, StoreOptions};
///
/// let store = SqliteStore::connect("sqlite:sessions.db", StoreOptions::new()).await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    table: TableName,
    clock: Arc<dyn Clock>,
    durability: Durability,
    statements: Arc<Statements>,
    reader: Caller<Sqlite>,
    writer: Caller<Sqlite>,
    reads: Arc<Lane<Reads>>,
    writes: Arc<Lane<Writes>>,
}

impl SqliteStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = record::MAX_DATA;

    /// Opens a database by its URL, `sqlite:path/to/file` or `sqlite::memory:`.
    ///
    /// A file is made, readable by its owner only, if there is none. It is put into WAL mode, and
    /// written over one connection while others read. A database in memory has one connection
    /// altogether and ends with the store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the URL or an option is not valid or the table's name has
    /// a schema; [`ErrorKind::Unavailable`] when the file cannot be opened.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self> {
        let options = options.checked()?;
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let store = if in_memory {
            let connect = tuned(SqliteConnectOptions::new().filename(":memory:"), &options);
            let only = caller(move || connect.clone(), 1, &options);
            Self::new(only.clone(), only, 1, Durability::Process, options)?
        } else {
            let connect = parse_url::<Sqlite>(url)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal);
            create_private(connect.get_filename())?;
            let connect = tuned(connect, &options);
            let readers = options.max_connections.unwrap_or(4);
            let durability = durability(&options);
            let reading = connect.clone();
            Self::new(
                caller(move || reading.clone(), readers, &options),
                caller(move || connect.clone(), 1, &options),
                readers as usize,
                durability,
                options,
            )?
        };
        let hello = sqlx::SqlStr::from_static("SELECT 1");
        store.0.writer.read(|| Statement::new(&hello)).await?;
        Ok(store)
    }

    /// Opens a store with the options of the caller's pool, of whose connections it uses none: it
    /// opens some of its own, as if it were opened by the URL. What the pool does with a connection
    /// that it has opened is not done with these.
    ///
    /// Set in the options `journal_mode=WAL` and a busy timeout of at most a third of the deadline,
    /// and tell with [`StoreOptions::sync_to_disk`] what `synchronous` is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when an option is not valid, the table's name has a schema, or
    /// the database is in the memory of one connection.
    pub fn with_pool(pool: SqlitePool, options: StoreOptions) -> Result<Self> {
        let options = options.checked()?;
        if pool.connect_options().get_filename() == Path::new(":memory:") {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the pool's database is in the memory of one connection, and others cannot see it",
            ));
        }
        let readers = options.max_connections.unwrap_or(4);
        let connect = move || SqliteConnectOptions::clone(&pool.connect_options());
        let durability = durability(&options);
        Self::new(
            caller(connect.clone(), readers, &options),
            caller(connect, 1, &options),
            readers as usize,
            durability,
            options,
        )
    }

    fn new(
        reader: Caller<Sqlite>,
        mut writer: Caller<Sqlite>,
        width: usize,
        durability: Durability,
        options: StoreOptions,
    ) -> Result<Self> {
        if options.table.schema().is_some() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a table of SQLite is in no schema",
            ));
        }
        writer.patience = busy_timeout(options.deadline);
        let statements = Arc::new(Statements::new(&options.table));
        let reads = Reads {
            caller: reader.clone(),
            statements: Arc::clone(&statements),
            clock: Arc::clone(&options.clock),
        };
        let writes = Writes {
            caller: writer.clone(),
            statements: Arc::clone(&statements),
            clock: Arc::clone(&options.clock),
        };
        Ok(Self(Arc::new(Inner {
            table: options.table,
            clock: options.clock,
            durability,
            statements,
            reader,
            writer,
            reads: Lane::new(reads, width, Duration::ZERO),
            writes: Lane::new(writes, 1, busy_timeout(options.deadline)),
        })))
    }

    /// The statements that [`migrate`](Self::migrate) executes, for review.
    #[must_use]
    pub fn schema(table: &TableName) -> String {
        statements::schema(table).map(|sql| sql + ";\n").concat()
    }

    /// Makes the table and its indexes if they are not there, and checks them. May be called at
    /// every start, by any number of processes at a time.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and those of the database.
    pub async fn migrate(&self) -> Result<()> {
        let wanted = statements::wanted();
        let table = self.table().await?;
        let checked = table.check(&self.0.table, &wanted);
        if checked.is_ok() || !table.can_be_completed(&wanted) {
            return checked;
        }
        for sql in &self.0.statements.schema {
            self.0.writer.write(|| Statement::new(sql)).await?;
        }
        self.check().await
    }

    /// Checks that the table and its indexes are as they have to be.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], which says each difference; and the errors of the database.
    pub async fn check(&self) -> Result<()> {
        let table = self.table().await?;
        table.check(&self.0.table, &statements::wanted())
    }

    /// Drops the table with every session in it, for tests and for an application that moves
    /// elsewhere. A table that is not there is no error.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn drop_table(&self) -> Result<()> {
        let sql = statements::drop_table(&self.0.table);
        self.0.writer.write(|| Statement::new(&sql)).await?;
        Ok(())
    }

    /// Removes expired sessions about once each `interval` from now on.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use = "dropping the sweeper ends it"]
    pub fn spawn_sweeper(&self, interval: Duration) -> Sweeper {
        let store = self.clone();
        Sweeper::spawn(interval, move || {
            let store = store.clone();
            async move { store.sweep(BATCH).await.map(Some) }
        })
    }

    async fn table(&self) -> Result<Table> {
        let name = self.0.table.table();
        let sql = &self.0.statements.columns;
        let answer = self
            .0
            .writer
            .read(|| Statement::new(sql).bytes(name.as_bytes()))
            .await?;
        let mut table = Table::default();
        for row in &answer.rows {
            let is_set = |index: usize| record::number::<Sqlite>(row, index).map(|n| n != 0);
            let name: String = record::text::<Sqlite>(row, 0)?;
            if is_set(4)? {
                table.primary_key.push(name.clone());
            }
            table.columns.push(Column {
                name,
                kind: record::text::<Sqlite>(row, 1)?,
                nullable: !is_set(2)?,
                has_default: is_set(3)?,
            });
        }
        let sql = &self.0.statements.indexes;
        let answer = self
            .0
            .writer
            .read(|| Statement::new(sql).bytes(name.as_bytes()))
            .await?;
        for row in &answer.rows {
            // An index over an expression has no name there.
            table
                .indexed
                .extend(row.try_get::<Option<String>, _>(0).ok().flatten());
        }
        Ok(table)
    }

    async fn write(&self, write: Write) -> Result<()> {
        let written = self.0.writes.submit(write, self.0.writer.end()).await;
        written
            .map_err(|failure| failure.into_error(Effect::Write))?
            .map_err(Error::from)
    }

    /// Makes sure that a record that is found expired stays so, in turn with all writes: those who
    /// read do not wait for it.
    async fn bury(&self, key: StoreKey, end: Instant) -> Result<()> {
        let written = self.0.writes.submit(Write::Bury(key), end).await;
        match written.unwrap_or_else(|failure| Err(Undone::Failed(failure))) {
            Err(Undone::Failed(failure)) => Err(failure.of_a_read().into_error(Effect::Write)),
            _ => Ok(()),
        }
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

#[async_trait]
impl SessionStore for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(Self::MAX_DATA).durability(self.0.durability)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        self.write(Write::Create(token.key(), record.clone()))
            .await?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let (key, end) = (token.key(), self.0.reader.end());
        for _ in 0..ROUNDS {
            let loaded = self.0.reads.submit(key, end).await;
            match loaded.map_err(|failure| failure.into_error(Effect::Read))?? {
                Loaded::Nothing => return Ok(None),
                Loaded::Live(record) => return Ok(Some(*record)),
                Loaded::Expired => self.bury(key, end).await?,
            }
        }
        Err(overtaken())
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        let write = Write::Update(token.key(), expected, record.clone());
        self.write(write).await?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.write(Write::Touch(token.key(), expires_at)).await?;
        Ok(token.clone())
    }

    async fn rotate(
        &self,
        from: &Token,
        to: Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(Self::MAX_DATA)?;
        if from == &to {
            let stored = self.load(from).await?.ok_or(ErrorKind::Missing)?;
            let is_expected = stored.revision == expected;
            return Err(if is_expected {
                ErrorKind::Exists
            } else {
                ErrorKind::Conflict
            }
            .into());
        }
        let write = Write::Rotate(from.key(), to.key(), expected, record.clone());
        self.write(write).await?;
        Ok(to)
    }

    async fn delete(&self, token: &Token) -> Result<()> {
        self.write(Write::Delete(token.key())).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let limit = limit as u64;
        let mut removed = 0;
        while removed < limit {
            let batch = (limit - removed).min(BATCH as u64).cast_signed();
            let due = |sql| move || Statement::new(sql).time(self.now()).number(batch);
            let swept = self.0.writer.write(due(&self.0.statements.sweep)).await?;
            let kept = self
                .0
                .writer
                .write(due(&self.0.statements.postpone))
                .await?;
            removed += swept.affected();
            if swept.affected() + kept.affected() == 0 {
                break;
            }
        }
        Ok(removed)
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for SqliteStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let after = after.map_or(&[][..], |key| key.as_bytes());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = || {
            Statement::new(&self.0.statements.list)
                .time(self.now())
                .bytes(subject.as_str().as_bytes())
                .bytes(after)
                .number(limit)
        };
        let answer = self.0.reader.read(statement).await?;
        answer
            .rows
            .iter()
            .map(record::subject_session::<Sqlite>)
            .collect()
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let statement = || {
            Statement::new(&self.0.statements.revoke)
                .time(self.now())
                .key(key)
                .bytes(subject.as_str().as_bytes())
        };
        let answer = self.0.writer.write(statement).await?;
        Ok(live(&answer) > 0)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let statement = || {
            Statement::new(&self.0.statements.revoke_all)
                .time(self.now())
                .bytes(subject.as_str().as_bytes())
                .bytes(except.map(|key| &key.as_bytes()[..]))
        };
        let answer = self.0.writer.write(statement).await?;
        Ok(live(&answer))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("table", &self.0.table)
            .field("durability", &self.0.durability)
            .finish_non_exhaustive()
    }
}

impl Backend for Sqlite {
    const LOCAL: bool = true;

    async fn run(
        connection: &mut SqliteConnection,
        statement: Statement<Self>,
    ) -> sqlx::Result<Answer<Self>> {
        run_statement!(connection, statement)
    }

    backend_values!();

    /// By the result code, <https://sqlite.org/rescode.html>: an extended one has the primary one
    /// in its lowest byte.
    fn refusal(error: &dyn DatabaseError) -> Failure {
        let code: u32 = error
            .code()
            .and_then(|code| code.parse().ok())
            .unwrap_or_default();
        let cause = Cause(format!("SQLite {code}: {}", error.message()));
        let refusal = match code & 0xff {
            5 | 6 => Refusal::Contention,
            8 => Refusal::ReadOnly,
            // The disk failed: with a commit it is open whether it took effect.
            10 => return Failure::Lost(cause),
            11 | 26 => Refusal::Damaged,
            13 => Refusal::Full,
            19 => Refusal::Duplicate,
            1 | 23 => Refusal::Setup,
            _ => Refusal::Other,
        };
        Failure::Refused(refusal, cause)
    }
}

/// How many of the rows that a statement has deleted were live.
fn live(answer: &Answer<Sqlite>) -> u64 {
    let is_live = |row: &&_| matches!(Sqlite::number(row, 0), Ok(1));
    answer.rows.iter().filter(is_live).count() as u64
}

fn caller(
    options: impl Fn() -> SqliteConnectOptions + Send + Sync + 'static,
    limit: u32,
    store: &StoreOptions,
) -> Caller<Sqlite> {
    let connect = move || {
        let options = options();
        Box::pin(async move { options.connect().await }) as BoxFuture<'static, _>
    };
    Caller::new(connect, limit, store.deadline)
}

fn tuned(connect: SqliteConnectOptions, options: &StoreOptions) -> SqliteConnectOptions {
    connect
        .synchronous(if options.sync_to_disk {
            SqliteSynchronous::Full
        } else {
            SqliteSynchronous::Normal
        })
        .busy_timeout(busy_timeout(options.deadline))
        .disable_statement_logging()
}

fn durability(options: &StoreOptions) -> Durability {
    if options.sync_to_disk {
        Durability::Disk
    } else {
        Durability::System
    }
}

/// SQLite's own wait for a lock, short enough that a refusal comes before the deadline.
fn busy_timeout(deadline: Duration) -> Duration {
    deadline / 4
}

/// Makes the file before SQLite does, which would make it readable for everybody; SQLite gives its
/// other files the same mode.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(
            ErrorKind::Unavailable,
            "the session database file cannot be opened for writing",
        )
        .with_source(error)),
    }
}
