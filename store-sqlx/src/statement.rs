//! One statement, from the pool to its answer: bounded in time, never half done.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sessionkit::{Error, ErrorKind, Result, Revision, StoreKey, Timestamp};
use sqlx::{Connection, Database, SqlStr, error::DatabaseError};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    codec,
    connections::{Connect, Connections, PooledConnection},
    failure::{Cause, Effect, Failure, Refusal, describe},
};

/// How often a statement is sent that meets contention or, if it only reads, a broken connection.
const ATTEMPTS: u32 = 6;

/// How long making a connection may take at least, however short the calls are that wait for it.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// A database that the stores of this crate work on.
pub(crate) trait Driver: Database {
    /// A connection, with what the store knows of it.
    type Link: Send + 'static;

    /// What the parameters of a statement are set to.
    type Values: Default + Send + 'static;

    /// Whether the database runs in this process. If not, a future dropped or out of time in the
    /// middle of an answer would leave the rest of it to the next user of the connection.
    const LOCAL: bool;

    /// What the database's error means.
    fn refusal(error: &dyn DatabaseError) -> Failure;

    /// Sends a statement and reads its whole answer.
    fn run(
        link: &mut Self::Link,
        statement: Statement<Self>,
    ) -> impl Future<Output = sqlx::Result<Answer<Self>>> + Send;

    /// Asks for a sign of life.
    fn ping(link: &mut Self::Link) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Takes leave of the server.
    fn close(link: Self::Link) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// How many rows a statement has changed.
    fn affected(done: &Self::QueryResult) -> u64;

    /// The two types of value that the store's columns have.
    fn push_number(values: &mut Self::Values, number: i64);
    fn push_bytes(values: &mut Self::Values, bytes: Option<&[u8]>);
    fn number(row: &Self::Row, index: usize) -> sqlx::Result<i64>;
    fn bytes(row: &Self::Row, index: usize) -> sqlx::Result<Option<Vec<u8>>>;
}

/// A statement with the values of its parameters.
pub(crate) struct Statement<DB: Driver> {
    pub(crate) sql: SqlStr,
    pub(crate) values: DB::Values,
}

/// All that a statement returned.
pub(crate) struct Answer<DB: Database> {
    pub(crate) rows: Vec<DB::Row>,
    pub(crate) done: DB::QueryResult,
}

impl<DB: Driver> Statement<DB> {
    pub(crate) fn new(sql: &SqlStr) -> Self {
        Self {
            sql: sql.clone(),
            values: DB::Values::default(),
        }
    }

    pub(crate) fn number(mut self, number: i64) -> Self {
        DB::push_number(&mut self.values, number);
        self
    }

    pub(crate) fn bytes<'a>(mut self, bytes: impl Into<Option<&'a [u8]>>) -> Self {
        DB::push_bytes(&mut self.values, bytes.into());
        self
    }

    pub(crate) fn key(self, key: &StoreKey) -> Self {
        self.bytes(&key.as_bytes()[..])
    }

    pub(crate) fn revision(self, revision: Revision) -> Self {
        self.number(codec::bits(revision))
    }

    pub(crate) fn time(self, time: Timestamp) -> Self {
        self.number(time.as_millis())
    }
}

impl<DB: Driver> Answer<DB> {
    pub(crate) fn affected(&self) -> u64 {
        DB::affected(&self.done)
    }
}

/// The connections of a store and the rules for using them. A clone uses the same.
pub(crate) struct Runner<DB: Driver> {
    pub(crate) connections: Arc<Connections<DB>>,
    pub(crate) deadline: Duration,
    /// How long the database itself waits for a lock: no attempt begins later than this before the
    /// deadline, so that its refusal is heard.
    pub(crate) patience: Duration,
}

impl<DB: Driver> Clone for Runner<DB> {
    fn clone(&self) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
            deadline: self.deadline,
            patience: self.patience,
        }
    }
}

impl<DB: Driver> Runner<DB> {
    /// Over connections that are made when they are needed, at most so many.
    pub(crate) fn new(
        connect: impl Fn() -> BoxFuture<'static, sqlx::Result<DB::Link>> + Send + Sync + 'static,
        limit: u32,
        deadline: Duration,
        connect_timeout: Option<Duration>,
    ) -> Self {
        let connect: Connect<DB> = Box::new(connect);
        let patience = connect_timeout.unwrap_or_else(|| deadline.max(HANDSHAKE));
        Self {
            connections: Connections::new(connect, limit as usize, patience),
            deadline,
            patience: Duration::ZERO,
        }
    }

    /// Makes the first connection, or says why that cannot be.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) async fn hello(&self) -> Result<()> {
        let first = self.connections.first(self.end()).await;
        first.map_err(|failure| failure.into_error(Effect::Read))
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
            let pooled = self.acquire(end, effect).await?;
            // Made when it is its turn, because it tells the time.
            let statement = statement();
            self.exchange(pooled, end, |link| Box::pin(DB::run(link, statement)))
                .await
        };
        self.repeat(end, effect, attempt).await
    }

    /// Several statements on one connection, all of them again if one meets contention.
    pub(crate) async fn session<T: Send + 'static>(
        &self,
        end: Instant,
        effect: Effect,
        work: impl for<'c> Fn(&'c mut DB::Link) -> BoxFuture<'c, sqlx::Result<T>>
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> Result<T, Failure> {
        let attempt = || async {
            let pooled = self.acquire(end, effect).await?;
            self.exchange(pooled, end, work.clone()).await
        };
        self.repeat(end, effect, attempt).await
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

    async fn acquire(&self, end: Instant, effect: Effect) -> Result<PooledConnection<DB>, Failure> {
        let end = end.min(Instant::now() + self.deadline / 2);
        self.connections.acquire(end, effect).await
    }

    async fn exchange<T: Send + 'static>(
        &self,
        pooled: PooledConnection<DB>,
        end: Instant,
        work: impl for<'c> FnOnce(&'c mut DB::Link) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    ) -> Result<T, Failure> {
        let exchange = exchange(pooled, end, work);
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

async fn exchange<DB: Driver, T>(
    mut pooled: PooledConnection<DB>,
    end: Instant,
    work: impl for<'c> FnOnce(&'c mut DB::Link) -> BoxFuture<'c, sqlx::Result<T>> + Send,
) -> Result<T, Failure> {
    if !pooled.is_alive(end).await {
        return Err(Failure::Refused(
            Refusal::Disconnected,
            Cause("the connection had ended".into()),
        ));
    }
    let failure = match timeout_at(end, work(pooled.begin())).await {
        Ok(Ok(answer)) => {
            pooled.done();
            return Ok(answer);
        }
        Ok(Err(sqlx::Error::WorkerCrashed)) => {
            pooled.close();
            return Err(Failure::Lost(describe(&sqlx::Error::WorkerCrashed)));
        }
        Ok(Err(error)) => answered::<DB>(&error),
        Err(_) => Failure::timed_out(),
    };
    if DB::LOCAL {
        pooled.done();
    } else if matches!(failure, Failure::Refused(Refusal::ReadOnly, _)) {
        pooled.leave_server();
    } else if failure.spoils_connection() {
        pooled.close();
    } else {
        pooled.done();
    }
    Err(failure)
}

/// The options in a URL. Nothing of it gets into the error: it may hold a password.
pub(crate) fn parse_url<DB: Driver>(url: &str) -> Result<<DB::Connection as Connection>::Options> {
    let scheme = url.split(':').next().unwrap_or_default();
    let options = DB::URL_SCHEMES.contains(&scheme).then(|| url.parse().ok());
    options.flatten().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("the URL is not a valid {} URL", DB::URL_SCHEMES[0]),
        )
    })
}

pub(crate) fn unsent<DB: Driver>(error: &sqlx::Error) -> Failure {
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

pub(crate) fn answered<DB: Driver>(error: &sqlx::Error) -> Failure {
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

/// The parts of [`Driver`] that read the same for every database but cannot be generic.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! backend_values {
    () => {
        type Link = <Self as sqlx::Database>::Connection;
        type Values = <Self as sqlx::Database>::Arguments;

        async fn ping(connection: &mut Self::Link) -> sqlx::Result<()> {
            sqlx::Connection::ping(connection).await
        }

        async fn close(connection: Self::Link) -> sqlx::Result<()> {
            sqlx::Connection::close(connection).await
        }

        fn push_number(values: &mut Self::Values, number: i64) {
            sqlx::Arguments::add(values, number).expect("a number can be encoded");
        }

        fn push_bytes(values: &mut Self::Values, bytes: Option<&[u8]>) {
            sqlx::Arguments::add(values, bytes).expect("bytes can be encoded");
        }

        $crate::statement::row_values!();
    };
}
#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(crate) use backend_values;

/// Of these, what rows and results say.
macro_rules! row_values {
    () => {
        fn affected(done: &Self::QueryResult) -> u64 {
            done.rows_affected()
        }

        fn number(row: &Self::Row, index: usize) -> sqlx::Result<i64> {
            sqlx::Row::try_get(row, index)
        }

        fn bytes(row: &Self::Row, index: usize) -> sqlx::Result<Option<Vec<u8>>> {
            sqlx::Row::try_get(row, index)
        }
    };
}
pub(crate) use row_values;

/// [`Driver::run`] on a connection, likewise.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! run_statement {
    ($connection:expr, $statement:expr) => {{
        let query = sqlx::query_with($statement.sql, $statement.values);
        $crate::statement::read_answer!($connection, query, 1)
    }};
}
#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(crate) use run_statement;

/// Reads the answers to some statements to their very end, not to the first row: SQLite commits with
/// the last step, and Postgres after it has said that the command is complete.
macro_rules! read_answer {
    ($connection:expr, $query:expr, $statements:expr) => {{
        use futures_util::TryStreamExt as _;
        use sqlx::Executor as _;

        let mut answer = $connection.fetch_many($query);
        let (mut rows, mut done, mut left) = (Vec::new(), None, $statements);
        loop {
            match answer.try_next().await {
                Ok(Some(sqlx::Either::Left(result))) => {
                    done = Some(result);
                    left -= 1;
                }
                Ok(Some(sqlx::Either::Right(row))) => rows.push(row),
                Ok(None) => break,
                Err(error) if left <= 0 => return Err($crate::statement::after_completion(error)),
                Err(error) => return Err(error),
            }
        }
        drop(answer);
        let done = done.unwrap_or_default();
        Ok($crate::statement::Answer { rows, done })
    }};
}
pub(crate) use read_answer;

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

#[cfg(all(test, any(feature = "postgres", feature = "mysql")))]
mod tests {
    use super::*;

    /// TLS encrypts, sends, and may fail after that: only what fails while the connection is made
    /// was not sent.
    fn it_is_open_whether_a_statement_was_done<DB: Driver>() {
        for error in [
            || sqlx::Error::Tls("broken".into()),
            || sqlx::Error::Io(std::io::ErrorKind::InvalidData.into()),
            || sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into()),
            || sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into()),
        ] as [fn() -> sqlx::Error; 4]
        {
            let failure = answered::<DB>(&error());
            assert!(!failure.is_repeatable(Effect::Write), "{failure:?}");
            let kind = failure.into_error(Effect::Write).kind();
            assert_eq!(kind, ErrorKind::Ambiguous);
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn an_error_of_tls_after_a_statement_leaves_it_open_on_postgres() {
        it_is_open_whether_a_statement_was_done::<sqlx::Postgres>();
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn an_error_of_tls_after_a_statement_leaves_it_open_on_mysql() {
        it_is_open_whether_a_statement_was_done::<sqlx::MySql>();
    }
}
