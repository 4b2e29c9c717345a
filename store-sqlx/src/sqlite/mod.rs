use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sessionkit::{
    Capabilities, Clock, Durability, Error, ErrorKind, Record, Result, Revision, SessionStore,
    StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp, Token,
};
use sqlx::{
    ConnectOptions, Connection, Row, Sqlite, SqliteConnection, SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::Instant;

use self::{
    batches::{Reads, Write, Writes},
    statements::Statements,
};
use crate::{
    StoreOptions, TableName,
    batch::Batcher,
    codec,
    failure::{Cause, Effect, Failure, Refusal},
    schema::{Column, Table},
    statement::{
        Answer, Driver, Runner, Statement, answered, backend_values, parse_url, run_statement,
    },
};

mod batches;
#[cfg(unix)]
mod file;
mod statements;

/// How many rows a sweep looks at in one statement, so that it holds the lock only shortly.
const BATCH: u64 = 256;

/// What expires within this time is looked at under the lock before it is prolonged: at least as long
/// as a statement may be under way, and as much as the clock may plausibly step meanwhile.
const SOON: Duration = Duration::from_secs(60);

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
    reader: Runner<Sqlite>,
    writer: Runner<Sqlite>,
    reads: Arc<Batcher<Reads>>,
    writes: Arc<Batcher<Writes>>,
}

impl SqliteStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = codec::MAX_DATA;

    /// Opens a database by its URL, `sqlite:path/to/file` or `sqlite::memory:`.
    ///
    /// A file is made, readable by its owner only, if there is none and the URL does not end in
    /// `?mode=rw`. It is put into WAL mode, and
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
            let only = runner(move || connect.clone(), 1, &options);
            Self::new(only.clone(), only, 1, Durability::Process, options)?
        } else {
            let mode = mode(url);
            if mode == Some("ro") {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "a store that may only read cannot keep sessions",
                ));
            }
            let create = mode != Some("rw");
            let connect = parse_url::<Sqlite>(url)?
                .create_if_missing(create && cfg!(not(unix)))
                .journal_mode(SqliteJournalMode::Wal);
            #[cfg(unix)]
            if create {
                file::create_private(connect.get_filename())?;
            }
            let connect = tuned(connect, &options);
            let readers = options.max_connections.unwrap_or(4);
            let durability = durability(&options);
            let reading = connect.clone();
            Self::new(
                runner(move || reading.clone(), readers, &options),
                runner(move || connect.clone(), 1, &options),
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
            runner(connect.clone(), readers, &options),
            runner(connect, 1, &options),
            readers as usize,
            durability,
            options,
        )
    }

    fn new(
        reader: Runner<Sqlite>,
        mut writer: Runner<Sqlite>,
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
            runner: reader.clone(),
            statements: Arc::clone(&statements),
            clock: Arc::clone(&options.clock),
        };
        let writes = Writes {
            runner: writer.clone(),
            statements: Arc::clone(&statements),
            clock: Arc::clone(&options.clock),
            margin: SOON.max(options.deadline),
        };
        Ok(Self(Arc::new(Inner {
            table: options.table,
            clock: options.clock,
            durability,
            statements,
            reader,
            writer,
            reads: Batcher::new(reads, width, Duration::ZERO),
            writes: Batcher::new(writes, 1, busy_timeout(options.deadline)),
        })))
    }

    /// The statements that [`migrate`](Self::migrate) executes, for review.
    #[must_use]
    pub fn schema(table: &TableName) -> String {
        statements::schema(table).map(|sql| sql + ";\n").concat()
    }

    /// Makes the table and its indexes if they are not there, makes a table of this version of an
    /// older one, and checks them. May be called at every start, by any number of processes at a
    /// time.
    ///
    /// The rows of an older table are copied in one transaction, for which there is no deadline:
    /// until it ends, writes are [`ErrorKind::Unavailable`]. A table that has columns, indexes or
    /// triggers of others, or that another one refers to, is not copied.
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
        if table.is_older() {
            self.rebuild().await?;
        } else {
            for sql in &self.0.statements.schema {
                self.0.writer.write(|| Statement::new(sql)).await?;
            }
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

    /// Makes a table of this version of an older one. Dropped in the middle, it changes nothing.
    async fn rebuild(&self) -> Result<()> {
        let name = self.0.table.table().as_bytes();
        let writer = &self.0.writer;
        let pooled = writer.connections.acquire(writer.end(), Effect::Write);
        let pooled = pooled
            .await
            .map_err(|failure| failure.into_error(Effect::Write));
        let mut pooled = pooled?;
        let lock = pooled.begin().begin_with("BEGIN IMMEDIATE").await;
        let mut lock = lock.map_err(|error| failed(&error))?;
        let mut answers = Vec::new();
        for sql in self.0.statements.catalogue() {
            let ask = Statement::new(sql).bytes(name);
            answers.push(
                Sqlite::run(&mut lock, ask)
                    .await
                    .map_err(|error| failed(&error))?,
            );
        }
        if !described(&answers)?.is_older() {
            // Another process was faster.
            return Ok(());
        }
        let ask = Statement::new(&self.0.statements.bystanders).bytes(name);
        let bystanders = Sqlite::run(&mut lock, ask)
            .await
            .map_err(|error| failed(&error))?;
        if let Some(row) = bystanders.rows.first() {
            let bystander = codec::text::<Sqlite>(row, 0)?;
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the session table {} is older and is not copied, because of the {bystander}",
                    self.0.table
                ),
            ));
        }
        for sql in &statements::rebuild(&self.0.table) {
            let done = Sqlite::run(&mut lock, Statement::new(sql)).await;
            done.map_err(|error| failed(&error))?;
        }
        lock.commit().await.map_err(|error| failed(&error))
    }

    async fn table(&self) -> Result<Table> {
        let name = self.0.table.table().as_bytes();
        let mut answers = Vec::new();
        for sql in self.0.statements.catalogue() {
            let answer = self.0.writer.read(|| Statement::new(sql).bytes(name));
            answers.push(answer.await?);
        }
        described(&answers)
    }

    async fn write(&self, write: Write) -> Result<bool> {
        let written = self.0.writes.submit(write, self.0.writer.end()).await;
        written
            .map_err(|failure| failure.into_error(Effect::Write))?
            .map_err(Error::from)
    }

    /// Removes what has expired of the next rows that are due, and puts off the others: how many of
    /// each.
    async fn sweep_batch(&self, end: Instant, batch: i64) -> Result<[u64; 2]> {
        let mut affected = [0; 2];
        let sql = [&self.0.statements.sweep, &self.0.statements.postpone];
        for (sql, affected) in sql.into_iter().zip(&mut affected) {
            let due = || Statement::new(sql).time(self.now()).number(batch);
            let answer = self.0.writer.call_until(end, Effect::Write, due).await;
            let answer = answer.map_err(|failure| failure.into_error(Effect::Write))?;
            *affected = answer.affected();
        }
        Ok(affected)
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
        let loaded = self.0.reads.submit(token.key(), self.0.reader.end());
        loaded
            .await
            .map_err(|failure| failure.into_error(Effect::Read))?
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

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.write(Write::Delete(token.key(), expected)).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let limit = limit as u64;
        let end = self.0.writer.end();
        // No batch begins when it could be cut off.
        let last = end - self.0.writer.patience;
        let mut removed = 0;
        while removed < limit && Instant::now() < last {
            let batch = (limit - removed).min(BATCH).cast_signed();
            match self.sweep_batch(end, batch).await {
                Ok([0, 0]) => break,
                Ok([swept, _]) => removed += swept,
                // It is told the next time.
                Err(_) if removed > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    async fn ping(&self) -> Result<()> {
        let ping = || Statement::new(&self.0.statements.ping);
        self.0.writer.read(ping).await.map(drop)
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
        let statement = |after: &[u8], rows| {
            Statement::new(&self.0.statements.list)
                .time(self.now())
                .bytes(subject.as_str().as_bytes())
                .bytes(after)
                .number(rows)
        };
        codec::list(&self.0.reader, after, limit, statement).await
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

impl Driver for Sqlite {
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

/// The table, by the answers of [`Statements::catalogue`].
fn described(answers: &[Answer<Sqlite>]) -> Result<Table> {
    let [columns, indexes, comment] = answers else {
        return Err(ErrorKind::Corrupt.into());
    };
    let mut table = Table::default();
    for row in &columns.rows {
        let is_set = |index: usize| codec::number::<Sqlite>(row, index).map(|n| n != 0);
        let name: String = codec::text::<Sqlite>(row, 0)?;
        if is_set(4)? {
            table.primary_key.push(name.clone());
        }
        table.columns.push(Column {
            name,
            kind: codec::text::<Sqlite>(row, 1)?,
            nullable: !is_set(2)?,
            has_default: is_set(3)?,
        });
    }
    for row in &indexes.rows {
        // An index over an expression has no name there.
        let name = row.try_get::<Option<String>, _>(0);
        table.indexed.extend(name.ok().flatten());
    }
    table.comment = codec::comment::<Sqlite>(comment.rows.first());
    Ok(table)
}

/// The error of a step of a transaction that is rolled back.
fn failed(error: &sqlx::Error) -> Error {
    answered::<Sqlite>(error)
        .of_a_read()
        .into_error(Effect::Write)
}

/// How many of the rows that a statement has deleted were live.
fn live(answer: &Answer<Sqlite>) -> u64 {
    let is_live = |row: &&_| matches!(Sqlite::number(row, 0), Ok(1));
    answer.rows.iter().filter(is_live).count() as u64
}

fn runner(
    options: impl Fn() -> SqliteConnectOptions + Send + Sync + 'static,
    limit: u32,
    store: &StoreOptions,
) -> Runner<Sqlite> {
    let connect = move || {
        let options = options();
        Box::pin(async move { options.connect().await }) as BoxFuture<'static, _>
    };
    Runner::new(connect, limit, store.deadline, None)
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

/// How the URL says that the file is to be opened.
fn mode(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .find_map(|option| option.strip_prefix("mode="))
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
