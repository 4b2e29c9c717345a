//! One statement, from the pool to its answer: bounded in time, never half done.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use sessionkit::{Error, ErrorKind, Result, Revision, StoreKey, Timestamp};
use sqlx::{Connection, Database, Pool, SqlStr, error::DatabaseError, pool::PoolOptions};
use tokio::time::{Instant, sleep, timeout_at};

#[cfg(feature = "sqlite")]
use crate::lane::Round;
use crate::{
    failure::{Cause, Effect, Failure, Refusal, describe},
    lease::{Lease, Relay, Turn},
    record,
};

/// How often a statement is sent that meets contention or, if it only reads, a broken connection.
const ATTEMPTS: u32 = 6;

/// A connection that was idle for longer is tried before it is used: firewalls and servers drop
/// idle connections, and a ping for each statement would cost a tenth to a third of the throughput.
const TRUSTED_FOR_READS: Duration = Duration::from_secs(1);

/// The same for a write, which cannot be sent again when its answer is lost. Under load no
/// connection is idle for so long.
const TRUSTED_FOR_WRITES: Duration = Duration::from_millis(20);

tokio::task_local! {
    /// What the connection is for that the task is taking from the pool.
    static PURPOSE: Effect;
}

/// A database that the stores of this crate work on.
pub(crate) trait Backend: Database {
    /// Whether the database runs in this process. If not, a future dropped or out of time in the
    /// middle of an answer would leave the rest of it to the next user of the connection.
    const LOCAL: bool;

    /// What the database's error means.
    fn refusal(error: &dyn DatabaseError) -> Failure;

    /// Sends a statement and reads its whole answer.
    fn run(
        connection: &mut Self::Connection,
        statement: Statement<Self>,
    ) -> impl Future<Output = sqlx::Result<Answer<Self>>> + Send;

    /// How many rows a statement has changed.
    fn affected(done: &Self::QueryResult) -> u64;

    /// The two types of value that the store's columns have.
    fn push_number(arguments: &mut Self::Arguments, number: i64);
    fn push_bytes(arguments: &mut Self::Arguments, bytes: Option<&[u8]>);
    fn number(row: &Self::Row, index: usize) -> sqlx::Result<i64>;
    fn bytes(row: &Self::Row, index: usize) -> sqlx::Result<Option<Vec<u8>>>;
}

/// A statement with its arguments.
pub(crate) struct Statement<DB: Database> {
    pub(crate) sql: SqlStr,
    pub(crate) arguments: DB::Arguments,
    /// Whether the connection forgets the prepared statement afterwards.
    pub(crate) once: bool,
}

/// All that a statement returned.
pub(crate) struct Answer<DB: Database> {
    pub(crate) rows: Vec<DB::Row>,
    pub(crate) done: DB::QueryResult,
}

impl<DB: Backend> Statement<DB> {
    pub(crate) fn new(sql: &SqlStr) -> Self {
        Self {
            sql: sql.clone(),
            arguments: DB::Arguments::default(),
            once: false,
        }
    }

    pub(crate) fn number(mut self, number: i64) -> Self {
        DB::push_number(&mut self.arguments, number);
        self
    }

    pub(crate) fn bytes<'a>(mut self, bytes: impl Into<Option<&'a [u8]>>) -> Self {
        DB::push_bytes(&mut self.arguments, bytes.into());
        self
    }

    pub(crate) fn key(self, key: &StoreKey) -> Self {
        self.bytes(&key.as_bytes()[..])
    }

    pub(crate) fn revision(self, revision: Revision) -> Self {
        self.number(record::bits(revision))
    }

    pub(crate) fn time(self, time: Timestamp) -> Self {
        self.number(time.as_millis())
    }
}

impl<DB: Backend> Answer<DB> {
    pub(crate) fn affected(&self) -> u64 {
        DB::affected(&self.done)
    }
}

/// A pool and the rules for using it.
pub(crate) struct Caller<DB: Database> {
    pub(crate) pool: Pool<DB>,
    pub(crate) deadline: Duration,
    /// How long the database itself waits for a lock: no attempt begins later than this before the
    /// deadline, so that its refusal is heard.
    pub(crate) patience: Duration,
    health: Arc<Health>,
    relay: Arc<Relay<DB>>,
}

impl<DB: Database> Clone for Caller<DB> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            deadline: self.deadline,
            patience: self.patience,
            health: Arc::clone(&self.health),
            relay: Arc::clone(&self.relay),
        }
    }
}

impl<DB: Backend> Caller<DB> {
    /// Over the caller's own pool.
    pub(crate) fn new(pool: Pool<DB>, deadline: Duration) -> Self {
        Self {
            pool,
            deadline,
            patience: Duration::ZERO,
            health: Arc::new(Health::new()),
            relay: Relay::new(),
        }
    }

    /// Over a pool of our own, whose first connection is made when it is needed.
    pub(crate) fn connect(
        pool: PoolOptions<DB>,
        options: <DB::Connection as Connection>::Options,
        deadline: Duration,
    ) -> Self {
        let health = Arc::new(Health::new());
        let before = Arc::clone(&health);
        let pool = pool
            .acquire_timeout(deadline / 2)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let trusted = before.trusts(meta.idle_for);
                Box::pin(async move {
                    if !trusted {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Self {
            pool,
            deadline,
            patience: Duration::ZERO,
            health,
            relay: Relay::new(),
        }
    }

    /// When a call that begins now has to have ended.
    pub(crate) fn end(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Sends a statement that only reads.
    pub(crate) async fn read(
        &self,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        self.call_until(self.end(), Effect::Read, statement)
            .await
            .map_err(|failure| failure.into_error(Effect::Read))
    }

    /// Sends a statement that writes.
    pub(crate) async fn write(
        &self,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        self.call_until(self.end(), Effect::Write, statement)
            .await
            .map_err(|failure| failure.into_error(Effect::Write))
    }

    /// Sends a statement, again if that is safe and may help, until `end`.
    pub(crate) async fn call_until(
        &self,
        end: Instant,
        effect: Effect,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>, Failure> {
        let attempt = || async {
            let lease = self.acquire(end, effect).await?;
            // Made when it is its turn, because it tells the time.
            let statement = statement();
            self.exchange(lease, end, |connection| {
                Box::pin(DB::run(connection, statement))
            })
            .await
        };
        self.repeat(end, effect, attempt).await
    }

    /// Several statements on one connection, all of them again if one meets contention.
    #[cfg(feature = "mysql")]
    pub(crate) async fn session<T: Send + 'static>(
        &self,
        work: impl for<'c> Fn(&'c mut DB::Connection) -> BoxFuture<'c, sqlx::Result<T>>
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> Result<T> {
        let end = self.end();
        let attempt = || async {
            let lease = self.acquire(end, Effect::Write).await?;
            self.exchange(lease, end, work.clone()).await
        };
        self.repeat(end, Effect::Write, attempt)
            .await
            .map_err(|failure| failure.into_error(Effect::Write))
    }

    async fn repeat<T, F>(
        &self,
        end: Instant,
        effect: Effect,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        T: Send,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut attempts = 1;
        loop {
            let failure = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pause(attempts);
            if attempts == ATTEMPTS
                || !failure.is_repeatable(effect)
                || Instant::now() + pause + self.patience >= end
            {
                return Err(failure);
            }
            attempts += 1;
            sleep(pause).await;
        }
    }

    /// Takes a connection from the pool, or from a call that has its answer when others use all of the
    /// pool's.
    ///
    /// The caller's future may be dropped here: nothing was sent. A connection that is being made is
    /// made all the same, for the next call: servers count handshakes that are broken off, and MySQL
    /// bars a host after a hundred of them.
    async fn acquire(&self, end: Instant, effect: Effect) -> Result<Lease<DB>, Failure> {
        let end = end.min(Instant::now() + self.deadline / 2);
        let place = match self.relay.join(&self.pool) {
            Ok(place) => place,
            Err(turn) => match timeout_at(end, turn).await {
                Ok(Ok(Turn::Connection(lease))) => return Ok(lease),
                Ok(Ok(Turn::Place(place))) => place,
                _ => return Err(unsent::<DB>(&sqlx::Error::PoolTimedOut)),
            },
        };
        let pool = self.pool.clone();
        let acquire = PURPOSE.scope(effect, async move { pool.acquire().await });
        let acquired = if self.pool.num_idle() > 0 {
            timeout_at(end, acquire).await
        } else {
            timeout_at(end, tokio::spawn(acquire))
                .await
                .map(|task| task.unwrap_or(Err(sqlx::Error::PoolClosed)))
        };
        match acquired {
            Ok(Ok(connection)) => Ok(place.lease(connection)),
            Ok(Err(error)) => Err(unsent::<DB>(&error)),
            Err(_) => Err(unsent::<DB>(&sqlx::Error::PoolTimedOut)),
        }
    }

    async fn exchange<T: Send + 'static>(
        &self,
        lease: Lease<DB>,
        end: Instant,
        work: impl for<'c> FnOnce(&'c mut DB::Connection) -> BoxFuture<'c, sqlx::Result<T>>
        + Send
        + 'static,
    ) -> Result<T, Failure> {
        let exchange = exchange(lease, end, work, Arc::clone(&self.health));
        let exchange = async {
            let (lease, answer) = exchange.await?;
            lease.hand_on();
            Ok(answer)
        };
        if DB::LOCAL {
            return exchange.await;
        }
        // The task reads the answer to its end, also when the caller is gone: the next user of the
        // connection never meets the answer of another statement.
        tokio::spawn(exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::Lost(Cause("the runtime is ending".into()))))
    }
}

#[cfg(feature = "sqlite")]
impl Caller<sqlx::Sqlite> {
    /// As [`call_until`](Self::call_until), as part of a lane's round.
    pub(crate) async fn call_in(
        &self,
        round: Round<'_>,
        effect: Effect,
        statement: impl Fn() -> Statement<sqlx::Sqlite> + Send + Sync,
    ) -> Result<Answer<sqlx::Sqlite>, Failure> {
        self.work_in(round, effect, |connection| {
            // Made when it is its turn, because it tells the time.
            Box::pin(sqlx::Sqlite::run(connection, statement()))
        })
        .await
    }

    /// Several statements on one connection, as part of a lane's round; all of them again if one
    /// meets contention.
    pub(crate) async fn work_in<T: Send>(
        &self,
        round: Round<'_>,
        effect: Effect,
        work: impl for<'c> Fn(&'c mut sqlx::SqliteConnection) -> BoxFuture<'c, sqlx::Result<T>>
        + Send
        + Sync,
    ) -> Result<T, Failure> {
        let attempt = || async {
            let lease = match round.seat.take() {
                Some(lease) => lease,
                None => self.acquire(round.end, effect).await?,
            };
            let exchange = exchange(lease, round.end, &work, Arc::clone(&self.health));
            let (lease, answer) = exchange.await?;
            round.seat.keep(lease);
            Ok(answer)
        };
        self.repeat(round.end, effect, attempt).await
    }
}

async fn exchange<DB: Backend, T>(
    mut lease: Lease<DB>,
    end: Instant,
    work: impl for<'c> FnOnce(&'c mut DB::Connection) -> BoxFuture<'c, sqlx::Result<T>> + Send,
    health: Arc<Health>,
) -> Result<(Lease<DB>, T), Failure> {
    let failure = match timeout_at(end, work(lease.connection())).await {
        Ok(Ok(answer)) => return Ok((lease, answer)),
        Ok(Err(error)) => answered::<DB>(&error),
        Err(_) => Failure::timed_out(),
    };
    if failure.spoils_connection() && !DB::LOCAL {
        health.failed();
        lease.close();
    }
    Err(failure)
}

/// Checks once that a connection can be made, and says why not: a pool would go on trying.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) async fn try_connect<DB: Backend>(
    options: &<DB::Connection as Connection>::Options,
    deadline: Duration,
) -> Result<()> {
    let end = Instant::now() + deadline;
    let failure = match timeout_at(end, DB::Connection::connect_with(options)).await {
        Ok(Ok(connection)) => {
            // The server notices by itself if the farewell does not get through.
            let _ = timeout_at(end, connection.close()).await;
            return Ok(());
        }
        Ok(Err(error)) => unsent::<DB>(&error),
        Err(_) => Failure::Unsent(Cause("no connection within the deadline".into())),
    };
    Err(failure.into_error(Effect::Read))
}

/// The options in a URL. Nothing of it gets into the error: it may hold a password.
pub(crate) fn parse_url<DB: Backend>(url: &str) -> Result<<DB::Connection as Connection>::Options> {
    let scheme = url.split(':').next().unwrap_or_default();
    let options = DB::URL_SCHEMES.contains(&scheme).then(|| url.parse().ok());
    options.flatten().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("the URL is not a valid {} URL", DB::URL_SCHEMES[0]),
        )
    })
}

fn unsent<DB: Backend>(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => match DB::refusal(&**error) {
            Failure::Lost(cause) => Failure::Unsent(cause),
            failure => failure,
        },
        error if is_about_tls(error) => Failure::Refused(Refusal::Insecure, describe(error)),
        error => Failure::Unsent(describe(error)),
    }
}

/// A certificate that is not accepted comes as data that are not valid.
fn is_about_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

pub(crate) fn answered<DB: Backend>(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => DB::refusal(&**error),
        error => Failure::Lost(describe(error)),
    }
}

/// A growing pause with jitter, so that those who met do not meet again.
fn pause(attempt: u32) -> Duration {
    let longest = 4_u64 << attempt.min(6);
    Duration::from_millis(1 + random() % longest)
}

/// Numbers that need not be secret.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}

/// Remembers when a connection broke last: those that were idle at that time are tried first.
struct Health {
    start: Instant,
    failed_at: AtomicU64,
}

impl Health {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            failed_at: AtomicU64::new(0),
        }
    }

    fn failed(&self) {
        // Never zero, and the connection that failed in this very millisecond counts too.
        let millis = self.start.elapsed().as_millis() + 1;
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.failed_at.fetch_max(millis, Ordering::Relaxed);
    }

    fn trusts(&self, idle: Duration) -> bool {
        let idle_since = self.start.elapsed().saturating_sub(idle);
        let failed_at = Duration::from_millis(self.failed_at.load(Ordering::Relaxed));
        let trusted = match PURPOSE.try_with(|effect| *effect) {
            Ok(Effect::Read) => TRUSTED_FOR_READS,
            _ => TRUSTED_FOR_WRITES,
        };
        idle <= trusted && (failed_at.is_zero() || idle_since > failed_at)
    }
}

/// The parts of [`Backend`] that read the same for every database but cannot be generic.
macro_rules! backend_values {
    () => {
        fn affected(done: &Self::QueryResult) -> u64 {
            done.rows_affected()
        }

        fn push_number(arguments: &mut Self::Arguments, number: i64) {
            sqlx::Arguments::add(arguments, number).expect("a number can be encoded");
        }

        fn push_bytes(arguments: &mut Self::Arguments, bytes: Option<&[u8]>) {
            sqlx::Arguments::add(arguments, bytes).expect("bytes can be encoded");
        }

        fn number(row: &Self::Row, index: usize) -> sqlx::Result<i64> {
            sqlx::Row::try_get(row, index)
        }

        fn bytes(row: &Self::Row, index: usize) -> sqlx::Result<Option<Vec<u8>>> {
            sqlx::Row::try_get(row, index)
        }
    };
}
pub(crate) use backend_values;

/// [`Backend::run`] on a connection, likewise.
macro_rules! run_statement {
    ($connection:expr, $statement:expr) => {{
        use futures_util::TryStreamExt as _;
        use sqlx::Executor as _;

        let query =
            sqlx::query_with($statement.sql, $statement.arguments).persistent(!$statement.once);
        let mut answer = $connection.fetch_many(query);
        let (mut rows, mut done) = (Vec::new(), None);
        // To the very end, not to the first row: SQLite commits with the last step, and Postgres
        // after it has said that the command is complete.
        loop {
            match answer.try_next().await {
                Ok(Some(sqlx::Either::Left(result))) => done = Some(result),
                Ok(Some(sqlx::Either::Right(row))) => rows.push(row),
                Ok(None) => break,
                Err(error) if done.is_some() => return Err(crate::call::after_completion(error)),
                Err(error) => return Err(error),
            }
        }
        drop(answer);
        let done = done.unwrap_or_default();
        Ok(crate::call::Answer { rows, done })
    }};
}
pub(crate) use run_statement;

/// An error behind the completion of a statement: a refusal only where the database says that the
/// commit failed. Otherwise it is open whether that came before or after the commit.
pub(crate) fn after_completion(error: sqlx::Error) -> sqlx::Error {
    let is_rollback = |error: &dyn DatabaseError| {
        let code = error.code();
        code.is_some_and(|code| code.starts_with("40") || code.starts_with("23"))
    };
    match error {
        sqlx::Error::Database(error) if !is_rollback(&*error) => {
            sqlx::Error::Protocol("the connection ended with the statement".into())
        }
        error => error,
    }
}
