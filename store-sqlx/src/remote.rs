//! What the stores on a database server have in common: one statement for each call.

use std::{future::Future, sync::Arc};

use sessionkit::{
    Clock, ErrorKind, Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp, Token,
};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::time::Instant;

use crate::{
    StoreOptions, TableName,
    call::{Answer, Backend, Caller, Statement},
    failure::{Effect, Failure, Refusal, overtaken},
    record,
    schema::{Column, Table},
    sweeper::BATCH,
};

/// How often a call is decided anew because another was faster.
const ROUNDS: usize = 4;

/// What differs between the servers.
pub(crate) trait Dialect: Backend {
    /// The mark around names.
    const QUOTE: char;

    /// How often the statement that creates has the time among its parameters, at its end.
    const TIMES_IN_CREATE: usize;

    fn create(table: &str) -> String;

    /// Whether the record was stored.
    fn created(answer: &Answer<Self>) -> bool;

    /// The parameters of the database in the place of question marks.
    fn parameters(sql: String) -> String;

    /// What [`Remote::migrate`] executes, each statement without effect when it is not needed.
    fn migration(table: &TableName) -> Vec<String>;

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

    /// Ends a session of a subject, and returns whether it was live.
    fn revoke(
        remote: &Remote<Self>,
        end: Instant,
        subject: &[u8],
        key: &StoreKey,
    ) -> impl Future<Output = Result<bool>> + Send;

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
    pub(crate) caller: Caller<DB>,
    sql: Statements,
}

struct Statements {
    create: SqlStr,
    load: SqlStr,
    find: SqlStr,
    bury: SqlStr,
    update: SqlStr,
    touch: SqlStr,
    rotate: SqlStr,
    delete: SqlStr,
    delete_expired: SqlStr,
    list: SqlStr,
}

impl<DB: Dialect> Remote<DB> {
    pub(crate) fn new(caller: Caller<DB>, options: StoreOptions) -> Self {
        let quoted = options.table.quoted(DB::QUOTE);
        Self {
            sql: Statements::new::<DB>(&quoted),
            table: options.table,
            quoted,
            clock: options.clock,
            caller,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        let end = self.caller.end();
        let table = DB::table(self, end).await?;
        let wanted = DB::wanted();
        let checked = table.check(&self.table, &wanted);
        if checked.is_ok() || !table.can_be_completed(&wanted) {
            return checked;
        }
        for sql in DB::migration(&self.table).into_iter().map(safe) {
            self.write(end, || Statement::new(&sql)).await?;
        }
        DB::table(self, end).await?.check(&self.table, &wanted)
    }

    pub(crate) async fn drop_table(&self) -> Result<()> {
        let sql = safe(format!("DROP TABLE IF EXISTS {}", self.quoted));
        self.caller.write(|| Statement::new(&sql)).await?;
        Ok(())
    }

    pub(crate) async fn check(&self) -> Result<()> {
        let table = DB::table(self, self.caller.end()).await?;
        table.check(&self.table, &DB::wanted())
    }

    pub(crate) async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(record::MAX_DATA)?;
        let key = token.key();
        let statement = || {
            let (statement, now) = (Statement::new(&self.sql.create).key(&key), self.now());
            let statement = record::bind(statement, record, 2, now);
            (0..DB::TIMES_IN_CREATE).fold(statement, |statement, _| statement.time(now))
        };
        let answer = self.caller.write(statement).await?;
        if DB::created(&answer) {
            Ok(token)
        } else {
            Err(ErrorKind::Exists.into())
        }
    }

    pub(crate) async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let (key, end) = (token.key(), self.caller.end());
        for _ in 0..ROUNDS {
            let statement = || Statement::new(&self.sql.load).key(&key);
            let answer = self.read(end, statement).await?;
            let Some(row) = answer.rows.first() else {
                return Ok(None);
            };
            if record::timestamp::<DB>(row, 2)? > self.now() {
                return record::record::<DB>(row, 0).map(Some);
            }
            if self.bury(end, &key).await? {
                return Ok(None);
            }
        }
        Err(overtaken())
    }

    pub(crate) async fn update(
        &self,
        token: &Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(record::MAX_DATA)?;
        let (key, end) = (token.key(), self.caller.end());
        for _ in 0..ROUNDS {
            let statement = || {
                let now = self.now();
                record::bind(Statement::new(&self.sql.update), record, 2, now)
                    .key(&key)
                    .revision(expected)
                    .time(now)
            };
            if self.write(end, statement).await?.affected() > 0 {
                return Ok(token.clone());
            }
            self.compare(end, &key, expected).await?;
        }
        Err(overtaken())
    }

    pub(crate) async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let (key, end) = (token.key(), self.caller.end());
        for _ in 0..ROUNDS {
            let statement = || {
                let now = self.now();
                let expiry = record::expiry(expires_at, now);
                Statement::new(&self.sql.touch)
                    .time(expiry)
                    .time(expiry)
                    .key(&key)
                    .time(now)
            };
            if self.write(end, statement).await?.affected() > 0 {
                return Ok(token.clone());
            }
            self.revision(end, &key).await?;
        }
        Err(overtaken())
    }

    pub(crate) async fn rotate(
        &self,
        from: &Token,
        to: Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(record::MAX_DATA)?;
        let (old, new, end) = (from.key(), to.key(), self.caller.end());
        if old == new {
            self.compare(end, &old, expected).await?;
            return Err(ErrorKind::Exists.into());
        }
        for _ in 0..ROUNDS {
            let statement = || {
                let (statement, now) = (Statement::new(&self.sql.rotate).key(&new), self.now());
                record::bind(statement, record, 2, now)
                    .key(&old)
                    .revision(expected)
                    .time(now)
            };
            match self.caller.call_until(end, Effect::Write, statement).await {
                Ok(answer) if answer.affected() > 0 => return Ok(to),
                Ok(_) => self.compare(end, &old, expected).await?,
                Err(Failure::Refused(Refusal::Duplicate, _)) => self.make_room(end, &new).await?,
                Err(failure) => return Err(failure.into_error(Effect::Write)),
            }
        }
        Err(overtaken())
    }

    pub(crate) async fn delete(&self, token: &Token) -> Result<()> {
        let key = token.key();
        let statement = || Statement::new(&self.sql.delete).key(&key);
        self.caller.write(statement).await.map(drop)
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
        let (limit, end) = (limit as u64, self.caller.end());
        let mut removed = 0;
        while removed < limit {
            let batch = (limit - removed).min(BATCH as u64).cast_signed();
            let Some(swept) = DB::sweep(self, end, batch, alone).await? else {
                return Ok((removed > 0).then_some(removed));
            };
            removed += swept.removed;
            let is_done = swept.removed + swept.put_off == 0;
            if is_done || Instant::now() + self.caller.deadline / 2 >= end {
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
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let statement = || {
            Statement::new(&self.sql.list)
                .bytes(subject.as_str().as_bytes())
                .bytes(key_or_empty(after))
                .time(self.now())
                .number(limit)
        };
        let answer = self.caller.read(statement).await?;
        let rows = answer.rows.iter();
        rows.map(record::subject_session::<DB>).collect()
    }

    pub(crate) async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        DB::revoke(self, self.caller.end(), subject.as_str().as_bytes(), key).await
    }

    pub(crate) async fn revoke_all(
        &self,
        subject: &Subject,
        except: Option<&StoreKey>,
    ) -> Result<u64> {
        DB::revoke_all(
            self,
            self.caller.end(),
            subject.as_str().as_bytes(),
            key_or_empty(except),
        )
        .await
    }

    /// Why nothing was changed: an error, or nothing if the record is as expected after all.
    async fn compare(&self, end: Instant, key: &StoreKey, expected: Revision) -> Result<()> {
        if self.revision(end, key).await? == expected {
            Ok(())
        } else {
            Err(ErrorKind::Conflict.into())
        }
    }

    /// The revision of the live record, without which nothing can be changed.
    async fn revision(&self, end: Instant, key: &StoreKey) -> Result<Revision> {
        for _ in 0..ROUNDS {
            let found = self.find(end, key).await?;
            let (revision, expires_at) = found.ok_or(ErrorKind::Missing)?;
            if expires_at > self.now() {
                return Ok(revision);
            }
            if self.bury(end, key).await? {
                return Err(ErrorKind::Missing.into());
            }
        }
        Err(overtaken())
    }

    /// The revision and the expiry of a record, live or not.
    async fn find(&self, end: Instant, key: &StoreKey) -> Result<Option<(Revision, Timestamp)>> {
        let statement = || Statement::new(&self.sql.find).key(key);
        let answer = self.read(end, statement).await?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        let revision = record::revision::<DB>(row, 0)?;
        Ok(Some((revision, record::timestamp::<DB>(row, 1)?)))
    }

    /// Makes sure that a record that is found expired stays so, whatever time the calls have told
    /// that the database takes later. Returns whether it had expired and was there still.
    async fn bury(&self, end: Instant, key: &StoreKey) -> Result<bool> {
        let statement = || Statement::new(&self.sql.bury).key(key).time(self.now());
        match self.caller.call_until(end, Effect::Write, statement).await {
            Ok(answer) => Ok(answer.affected() > 0),
            // Where nobody writes, nobody prolongs.
            Err(Failure::Refused(Refusal::ReadOnly, _)) => Ok(true),
            // Whatever was lost now, the call itself has not been done.
            Err(failure) => Err(failure.of_a_read().into_error(Effect::Write)),
        }
    }

    /// Removes an expired record that is in the way of a rotation.
    async fn make_room(&self, end: Instant, key: &StoreKey) -> Result<()> {
        let statement = || {
            Statement::new(&self.sql.delete_expired)
                .key(key)
                .time(self.now())
        };
        let removed = self.caller.call_until(end, Effect::Write, statement).await;
        removed.map_err(|failure| failure.of_a_read().into_error(Effect::Write))?;
        match self.find(end, key).await? {
            Some((_, expires_at)) if expires_at > self.now() => Err(ErrorKind::Exists.into()),
            _ => Ok(()),
        }
    }

    pub(crate) async fn read(
        &self,
        end: Instant,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        let answer = self.caller.call_until(end, Effect::Read, statement).await;
        answer.map_err(|failure| failure.into_error(Effect::Read))
    }

    pub(crate) async fn write(
        &self,
        end: Instant,
        statement: impl Fn() -> Statement<DB> + Send + Sync,
    ) -> Result<Answer<DB>> {
        let answer = self.caller.call_until(end, Effect::Write, statement).await;
        answer.map_err(|failure| failure.into_error(Effect::Write))
    }
}

impl Statements {
    fn new<DB: Dialect>(t: &str) -> Self {
        let sql = |sql: String| safe(DB::parameters(sql));
        // Before the expiry, because MySQL assigns from left to right. The least: what was extended
        // since the row was noted for the sweep may be looked at in vain, what was shortened must
        // not be missed. So an extension leaves the indexes as they are.
        let record = "revision = ?, created_at = ?, sweep_at = LEAST(sweep_at, ?), expires_at = ?, \
                      subject = ?, label = ?, data = ?";
        let at_revision = "session_key = ? AND revision = ? AND expires_at > ?";
        let buried = record::BURIED.as_millis();
        Self {
            create: sql(DB::create(t)),
            load: sql(format!(
                "SELECT revision, created_at, expires_at, subject, label, data FROM {t} \
                 WHERE session_key = ? AND expires_at > {buried}"
            )),
            find: sql(format!(
                "SELECT revision, expires_at FROM {t} \
                 WHERE session_key = ? AND expires_at > {buried}"
            )),
            bury: sql(format!(
                "UPDATE {t} SET expires_at = {buried} \
                 WHERE session_key = ? AND expires_at > {buried} AND expires_at <= ?"
            )),
            update: sql(format!("UPDATE {t} SET {record} WHERE {at_revision}")),
            touch: sql(format!(
                "UPDATE {t} SET sweep_at = LEAST(sweep_at, ?), expires_at = ? \
                 WHERE session_key = ? AND expires_at > ?"
            )),
            rotate: sql(format!(
                "UPDATE {t} SET session_key = ?, {record} WHERE {at_revision}"
            )),
            delete: sql(format!("DELETE FROM {t} WHERE session_key = ?")),
            delete_expired: sql(format!(
                "DELETE FROM {t} WHERE session_key = ? AND expires_at <= ?"
            )),
            list: sql(format!(
                "SELECT session_key, created_at, expires_at, label FROM {t} \
                 WHERE subject = ? AND session_key > ? AND expires_at > ? \
                 ORDER BY session_key LIMIT ?"
            )),
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
            pub const MAX_DATA: usize = $crate::record::MAX_DATA;

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

            /// Removes expired sessions about once each `interval` from now on, unless another
            /// process is at it.
            ///
            /// # Panics
            /// Outside of a Tokio runtime.
            #[must_use = "dropping the sweeper ends it"]
            pub fn spawn_sweeper(&self, interval: std::time::Duration) -> $crate::Sweeper {
                let remote = std::sync::Arc::clone(&self.0);
                $crate::Sweeper::spawn(interval, move || {
                    let remote = std::sync::Arc::clone(&remote);
                    async move { remote.try_sweep($crate::sweeper::BATCH).await }
                })
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

            async fn rotate(
                &self,
                from: &Token,
                to: Token,
                expected: Revision,
                record: &Record,
            ) -> Result<Token> {
                self.0.rotate(from, to, expected, record).await
            }

            async fn delete(&self, token: &Token) -> Result<()> {
                self.0.delete(token).await
            }

            async fn sweep(&self, limit: usize) -> Result<u64> {
                self.0.sweep(limit).await
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
