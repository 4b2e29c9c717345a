//! What the stores on a database server have in common: one statement for each call.

use std::{future::Future, sync::Arc, time::Duration};

use sessionkit::{
    Clock, Error, ErrorKind, Record, Result, Revision, StoreKey, Subject, SubjectSession,
    Timestamp, Token,
};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::time::Instant;

use crate::{
    StoreOptions, TableName, codec,
    failure::{Cause, Effect, Failure, Refusal, overtaken},
    schema::{Column, Table},
    statement::{Answer, Driver, Runner, Statement},
};

/// How many rows a sweep looks at in one statement, so that it holds no lock for long.
pub(crate) const BATCH: usize = 256;

/// How often a call is decided anew because another was faster.
const ATTEMPTS: usize = 4;

/// What expires within this time is looked at under its lock before it is prolonged: at least as long
/// as a statement may be under way, and as much as a clock may plausibly step meanwhile.
const SOON: Duration = Duration::from_secs(60);

/// What differs between the servers.
pub(crate) trait Dialect: Driver {
    /// The mark around names.
    const QUOTE: char;

    /// How often the statement that creates has the time among its parameters, at its end.
    const TIMES_IN_CREATE: usize;

    /// 0 when the server takes writes.
    const PING: &'static str;

    fn create(table: &str) -> String;

    /// Whether the record was stored.
    fn created(answer: &Answer<Self>) -> bool;

    /// The parameters of the database in the place of question marks.
    fn parameters(sql: String) -> String;

    /// What [`Remote::migrate`] executes, each statement without effect when it is not needed.
    fn migration(table: &TableName, found: &Table) -> Vec<String>;

    fn wanted() -> Vec<Column>;

    /// What the catalogue says about the table.
    fn table(remote: &Remote<Self>, end: Instant) -> impl Future<Output = Result<Table>> + Send;

    /// Removes what has expired of the next `limit` rows that are due, and puts off the others.
    /// `None` when only one process at a time may do it and another one does.
    fn sweep(
        remote: &Remote<Self>,
        end: Instant,
        limit: i64,
        alone: bool,
    ) -> impl Future<Output = Result<Option<Swept>>> + Send;

    /// The statements of [`end`](Self::end).
    type Ending: Send + Sync;

    fn ending(table: &str, condition: &str) -> Self::Ending;

    /// Removes the row of the ending's condition, whose values `bind` binds, and returns whether it was
    /// live.
    fn end(
        remote: &Remote<Self>,
        end: Instant,
        ending: &Self::Ending,
        bind: impl Fn(Statement<Self>) -> Statement<Self> + Send + Sync,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Begins and ends transactions.
    fn execute(
        link: &mut Self::Link,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Ends all sessions of a subject but one, and returns how many were live.
    fn revoke_all(
        remote: &Remote<Self>,
        end: Instant,
        subject: &[u8],
        except: &[u8],
    ) -> impl Future<Output = Result<u64>> + Send;
}

#[derive(Clone, Copy)]
pub(crate) struct Swept {
    pub(crate) removed: u64,
    pub(crate) put_off: u64,
}

/// A store on a server. A clone is the same store.
pub(crate) struct Remote<DB: Dialect> {
    pub(crate) table: TableName,
    /// The table's name in a statement.
    pub(crate) quoted: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runner: Runner<DB>,
    sql: Statements<DB>,
    /// A statement tells the time and then waits for the network and for the row's lock, so that its
    /// time may be older than that of a call that finds the session expired meanwhile. So it prolongs
    /// only what lives for longer than that can take.
    margin: Duration,
}

struct Statements<DB: Dialect> {
    create: SqlStr,
    load: SqlStr,
    find: SqlStr,
    lock: SqlStr,
    update: SqlStr,
    touch: SqlStr,
    delete_at: SqlStr,
    delete: DB::Ending,
    revoke: DB::Ending,
    list: SqlStr,
    ping: SqlStr,
}

/// What a write does to a record that is there.
#[derive(Clone)]
enum Change {
    Update(Revision, Record),
    Touch(Timestamp),
}

impl<DB: Dialect> Remote<DB> {
    pub(crate) fn new(runner: Runner<DB>, options: StoreOptions) -> Self {
        let quoted = options.table.quoted(DB::QUOTE);
        Self {
            sql: Statements::new(&quoted),
            table: options.table,
            quoted,
            clock: options.clock,
            margin: SOON.max(options.deadline),
            runner,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        let end = self.runner.end();
        let table = DB::table(self, end).await?;
        let wanted = DB::wanted();
        let checked = table.check(&self.table, &wanted);
        if checked.is_ok() || !table.can_be_completed(&wanted) {
            return checked;
        }
        for sql in DB::migration(&self.table, &table).into_iter().map(safe) {
            self.write(end, || Statement::new(&sql)).await?;
        }
        DB::table(self, end).await?.check(&self.table, &wanted)
    }

    pub(crate) async fn drop_table(&self) -> Result<()> {
        let sql = safe(format!("DROP TABLE IF EXISTS {}", self.quoted));
        self.runner.write(|| Statement::new(&sql)).await?;
        Ok(())
    }

    pub(crate) async fn check(&self) -> Result<()> {
        let table = DB::table(self, self.runner.end()).await?;
        table.check(&self.table, &DB::wanted())
    }

    pub(crate) async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(codec::MAX_DATA)?;
        let key = token.key();
        let statement = || {
            let (statement, now) = (Statement::new(&self.sql.create).key(&key), self.now());
            let statement = codec::bind(statement, record, 2, now);
            (0..DB::TIMES_IN_CREATE).fold(statement, |statement, _| statement.time(now))
        };
        let answer = self.runner.write(statement).await?;
        if DB::created(&answer) {
            Ok(token)
        } else {
            Err(ErrorKind::Exists.into())
        }
    }

    pub(crate) async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        let answer = self
            .runner
            .read(|| Statement::new(&self.sql.load).key(&key))
            .await?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        if codec::timestamp::<DB>(row, 2)? <= self.now() {
            return Ok(None);
        }
        codec::record::<DB>(row, 0).map(Some)
    }

    pub(crate) async fn update(
        &self,
        token: &Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(codec::MAX_DATA)?;
        let update = Change::Update(expected, record.clone());
        self.change(token, &self.sql.update, update).await
    }

    pub(crate) async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let touch = Change::Touch(expires_at);
        self.change(token, &self.sql.touch, touch).await
    }

    pub(crate) async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let (key, end) = (token.key(), self.runner.end());
        let Some(expected) = expected else {
            return DB::end(self, end, &self.sql.delete, |statement| statement.key(&key)).await;
        };
        for _ in 0..ATTEMPTS {
            let statement = || {
                Statement::new(&self.sql.delete_at)
                    .key(&key)
                    .revision(expected)
                    .time(self.now())
            };
            if self.write(end, statement).await?.affected() > 0 {
                return Ok(true);
            }
            match self.revision(end, &key).await? {
                None => return Ok(false),
                Some(revision) if revision != expected => return Err(ErrorKind::Conflict.into()),
                Some(_) => {}
            }
        }
        Err(overtaken())
    }

    /// Whether the server takes writes.
    pub(crate) async fn ping(&self) -> Result<()> {
        let answer = self.runner.read(|| Statement::new(&self.sql.ping)).await?;
        let row = answer.rows.first();
        if row.is_some_and(|row| matches!(DB::number(row, 0), Ok(0))) {
            return Ok(());
        }
        // After a failover the server that takes writes is behind other connections.
        self.runner.connections.clear();
        let cause = Cause("the server is in a mode that allows no writes".into());
        Err(Failure::Refused(Refusal::ReadOnly, cause).into_error(Effect::Read))
    }

    pub(crate) async fn sweep(&self, limit: usize) -> Result<u64> {
        let swept = self.sweep_batches(limit, false).await?;
        Ok(swept.unwrap_or_default())
    }

    /// The same, if no other process is sweeping.
    pub(crate) async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.sweep_batches(limit, true).await
    }

    /// Removes batch after batch, and begins none in the second half of the deadline, so that the
    /// last one has time to end.
    async fn sweep_batches(&self, limit: usize, alone: bool) -> Result<Option<u64>> {
        let (limit, end) = (limit as u64, self.runner.end());
        let mut removed = 0;
        while removed < limit {
            let batch = (limit - removed).min(BATCH as u64).cast_signed();
            match DB::sweep(self, end, batch, alone).await {
                Ok(Some(swept)) if swept.removed + swept.put_off == 0 => break,
                Ok(Some(swept)) => removed += swept.removed,
                Ok(None) => return Ok((removed > 0).then_some(removed)),
                // It is told the next time.
                Err(_) if removed > 0 => break,
                Err(error) => return Err(error),
            }
            if Instant::now() + self.runner.deadline / 2 >= end {
                break;
            }
        }
        Ok(Some(removed))
    }

    pub(crate) async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let statement = |after: &[u8], rows| {
            Statement::new(&self.sql.list)
                .bytes(subject.as_str().as_bytes())
                .bytes(after)
                .time(self.now())
                .number(rows)
        };
        codec::list(&self.runner, after, limit, statement).await
    }

    pub(crate) async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let bind = |statement: Statement<DB>| statement.key(key).bytes(subject.as_str().as_bytes());
        DB::end(self, self.runner.end(), &self.sql.revoke, bind).await
    }

    pub(crate) async fn revoke_all(
        &self,
        subject: &Subject,
        except: Option<&StoreKey>,
    ) -> Result<u64> {
        DB::revoke_all(
            self,
            self.runner.end(),
            subject.as_str().as_bytes(),
            key_or_empty(except),
        )
        .await
    }

    /// Changes a live record in one statement, or by the time that is told under the row's lock when
    /// it is about to expire.
    async fn change(&self, token: &Token, sql: &SqlStr, change: Change) -> Result<Token> {
        let (key, end) = (token.key(), self.runner.end());
        let statement = || {
            let now = self.now();
            change.statement(sql, &key, now, now + self.margin)
        };
        if self.write(end, statement).await?.affected() > 0 {
            return Ok(token.clone());
        }
        let found = self.revision(end, &key).await?.ok_or(ErrorKind::Missing)?;
        if change.expected().is_some_and(|expected| expected != found) {
            return Err(ErrorKind::Conflict.into());
        }
        if Instant::now() + self.runner.patience >= end {
            // The wait for the lock could be cut off, and it would be open what was done.
            let cause = Cause("no time is left to wait for a lock".into());
            return Err(Failure::Unsent(cause).into_error(Effect::Write));
        }
        let locked = Locked {
            lock: self.sql.lock.clone(),
            sql: sql.clone(),
            key,
            change,
            clock: Arc::clone(&self.clock),
        };
        let done = self.runner.session(end, Effect::Write, move |link| {
            let locked = locked.clone();
            Box::pin(async move { locked.run::<DB>(link).await })
        });
        done.await
            .map_err(|failure| failure.into_error(Effect::Write))??;
        Ok(token.clone())
    }

    /// The revision of the live record.
    async fn revision(&self, end: Instant, key: &StoreKey) -> Result<Option<Revision>> {
        let statement = || Statement::new(&self.sql.find).key(key);
        let answer = self.read(end, statement).await?;
        live_revision::<DB>(&answer, self.now()).map_err(Into::into)
    }

    pub(crate) async fn read(
        &self,
        end: Instant,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        let answer = self.runner.call_until(end, Effect::Read, statement).await;
        answer.map_err(|failure| failure.into_error(Effect::Read))
    }

    pub(crate) async fn write(
        &self,
        end: Instant,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        let answer = self.runner.call_until(end, Effect::Write, statement).await;
        answer.map_err(|failure| failure.into_error(Effect::Write))
    }
}

fn live_revision<DB: Driver>(
    answer: &Answer<DB>,
    now: Timestamp,
) -> Result<Option<Revision>, ErrorKind> {
    let Some(row) = answer.rows.first() else {
        return Ok(None);
    };
    let read = || {
        let is_live = codec::timestamp::<DB>(row, 1)? > now;
        codec::timestamp::<DB>(row, 2)?;
        is_live.then(|| codec::revision::<DB>(row, 0)).transpose()
    };
    read().map_err(|error: Error| error.kind())
}

impl Change {
    fn expected(&self) -> Option<Revision> {
        match self {
            Self::Update(expected, _) => Some(*expected),
            Self::Touch(_) => None,
        }
    }

    /// The change of a record that lives longer than `until`.
    fn statement<DB: Driver>(
        &self,
        sql: &SqlStr,
        key: &StoreKey,
        now: Timestamp,
        until: Timestamp,
    ) -> Statement<DB> {
        let statement = Statement::new(sql);
        match self {
            Self::Update(expected, record) => codec::bind(statement, record, 2, now)
                .key(key)
                .time(until)
                .revision(*expected),
            Self::Touch(expires_at) => {
                let expiry = codec::expiry(*expires_at, now);
                statement.time(expiry).time(expiry).key(key).time(until)
            }
        }
    }
}

/// A change by the time that is told under the row's lock.
#[derive(Clone)]
struct Locked {
    lock: SqlStr,
    sql: SqlStr,
    key: StoreKey,
    change: Change,
    clock: Arc<dyn Clock>,
}

impl Locked {
    async fn run<DB: Dialect>(self, link: &mut DB::Link) -> sqlx::Result<Result<(), ErrorKind>> {
        DB::execute(link, "BEGIN").await?;
        let done = self.run_in_transaction::<DB>(link).await;
        let end = if matches!(done, Ok(Ok(()))) {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        // If this fails, so does the connection.
        DB::execute(link, end).await?;
        done
    }

    async fn run_in_transaction<DB: Dialect>(
        self,
        link: &mut DB::Link,
    ) -> sqlx::Result<Result<(), ErrorKind>> {
        let lock = Statement::new(&self.lock).key(&self.key);
        let answer = DB::run(link, lock).await?;
        let now = self.clock.now();
        let revision = match live_revision::<DB>(&answer, now) {
            Ok(Some(revision)) => revision,
            Ok(None) => return Ok(Err(ErrorKind::Missing)),
            Err(kind) => return Ok(Err(kind)),
        };
        let expected = self.change.expected();
        if expected.is_some_and(|expected| expected != revision) {
            return Ok(Err(ErrorKind::Conflict));
        }
        let change = self.change.statement(&self.sql, &self.key, now, now);
        let is_done = DB::run(link, change).await?.affected() > 0;
        Ok(is_done.then_some(()).ok_or(ErrorKind::Missing))
    }
}

impl<DB: Dialect> Statements<DB> {
    fn new(t: &str) -> Self {
        let sql = |sql: String| safe(DB::parameters(sql));
        // Before the expiry, because MySQL assigns from left to right. The least: what was extended
        // since the row was noted for the sweep may be looked at in vain, what was shortened must
        // not be missed. So an extension leaves the indexes as they are.
        let record = "revision = ?, created_at = ?, sweep_at = LEAST(sweep_at, ?), expires_at = ?, \
                      subject = ?, label = ?, data = ?";
        let find =
            format!("SELECT revision, expires_at, created_at FROM {t} WHERE session_key = ?");
        let (first, last) = (Timestamp::MIN.as_millis(), Timestamp::MAX.as_millis());
        Self {
            create: sql(DB::create(t)),
            load: sql(format!(
                "SELECT revision, created_at, expires_at, subject, label, data FROM {t} \
                 WHERE session_key = ?"
            )),
            lock: sql(format!("{find} FOR UPDATE")),
            find: sql(find),
            update: sql(format!(
                "UPDATE {t} SET {record} WHERE session_key = ? AND expires_at > ? AND revision = ?"
            )),
            touch: sql(format!(
                "UPDATE {t} SET sweep_at = LEAST(sweep_at, ?), expires_at = ? \
                 WHERE session_key = ? AND expires_at > ?"
            )),
            delete_at: sql(format!(
                "DELETE FROM {t} WHERE session_key = ? AND revision = ? AND expires_at > ? \
                 AND created_at BETWEEN {first} AND {last}"
            )),
            delete: DB::ending(t, "session_key = ?"),
            revoke: DB::ending(t, "session_key = ? AND subject = ?"),
            list: sql(format!(
                "SELECT session_key, created_at, expires_at, label FROM {t} \
                 WHERE subject = ? AND session_key > ? AND expires_at > ? \
                 ORDER BY session_key LIMIT ?"
            )),
            ping: sql(DB::PING.to_owned()),
        }
    }
}

/// A statement made of literals and of a [`TableName`], which can hold nothing else than a name.
pub(crate) fn safe(sql: String) -> SqlStr {
    // Shared, so that a clone copies nothing.
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}

/// No key is empty, and every key is greater.
fn key_or_empty(key: Option<&StoreKey>) -> &[u8] {
    key.map_or(&[], |key| key.as_bytes())
}

/// The implementation of a store whose field `0` is an `Arc<Remote<_>>`.
macro_rules! remote_store {
    ($store:ident) => {
        impl $store {
            /// The largest payload, in bytes.
            pub const MAX_DATA: usize = $crate::codec::MAX_DATA;

            /// Makes the table and its indexes if they are not there, and checks them. May be
            /// called at every start, by any number of processes at a time; needs the right to
            /// create only when there is something to create, and never makes a schema.
            ///
            /// # Errors
            /// Those of [`check`](Self::check), and those of the database.
            pub async fn migrate(&self) -> Result<()> {
                self.0.migrate().await
            }

            /// Checks that the table and its indexes are as they have to be.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig), which says each
            /// difference; and the errors of the database.
            pub async fn check(&self) -> Result<()> {
                self.0.check().await
            }

            /// Drops the table with every session in it, for tests and for an application that
            /// moves elsewhere. A table that is not there is no error.
            ///
            /// # Errors
            /// Those of the database.
            pub async fn drop_table(&self) -> Result<()> {
                self.0.drop_table().await
            }
        }

        #[async_trait::async_trait]
        impl sessionkit::SessionStore for $store {
            fn capabilities(&self) -> sessionkit::Capabilities {
                sessionkit::Capabilities::server(Self::MAX_DATA)
                    .durability(sessionkit::Durability::Disk)
            }

            async fn create(&self, token: Token, record: &Record) -> Result<Token> {
                self.0.create(token, record).await
            }

            async fn load(&self, token: &Token) -> Result<Option<Record>> {
                self.0.load(token).await
            }

            async fn update(
                &self,
                token: &Token,
                expected: Revision,
                record: &Record,
            ) -> Result<Token> {
                self.0.update(token, expected, record).await
            }

            async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
                self.0.touch(token, expires_at).await
            }

            async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
                self.0.delete(token, expected).await
            }

            async fn sweep(&self, limit: usize) -> Result<u64> {
                self.0.sweep(limit).await
            }

            async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
                self.0.try_sweep(limit).await
            }

            async fn ping(&self) -> Result<()> {
                self.0.ping().await
            }

            fn subjects(&self) -> Option<&dyn sessionkit::SubjectIndex> {
                Some(self)
            }
        }

        #[async_trait::async_trait]
        impl sessionkit::SubjectIndex for $store {
            async fn list(
                &self,
                subject: &Subject,
                after: Option<&StoreKey>,
                limit: usize,
            ) -> Result<Vec<SubjectSession>> {
                self.0.list(subject, after, limit).await
            }

            async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
                self.0.revoke(subject, key).await
            }

            async fn revoke_all(
                &self,
                subject: &Subject,
                except: Option<&StoreKey>,
            ) -> Result<u64> {
                self.0.revoke_all(subject, except).await
            }
        }

        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($store))
                    .field("table", &self.0.table)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use remote_store;
