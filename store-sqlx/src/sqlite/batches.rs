//! The calls of a batch as one statement of each kind.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sessionkit::{Clock, Error, ErrorKind, Record, Result, Revision, StoreKey, Timestamp};
use sqlx::{Connection, SqlStr, Sqlite, SqliteConnection};
use tokio::time::Instant;

use super::statements::{Sized, Statements};
use crate::{
    batch::Batch,
    codec,
    failure::{Cause, Effect, Failure, Refusal, overtaken},
    statement::{Answer, Driver, Runner, Statement},
};

/// How often a call is decided anew because another process was faster.
const ATTEMPTS: usize = 3;

/// Answers loads, each from what is committed when its batch begins.
pub(super) struct Reads {
    pub(super) runner: Runner<Sqlite>,
    pub(super) statements: Arc<Statements>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Commits writes.
pub(super) struct Writes {
    pub(super) runner: Runner<Sqlite>,
    pub(super) statements: Arc<Statements>,
    pub(super) clock: Arc<dyn Clock>,
    /// A statement tells the time and then waits for the database's lock, so that its time may be
    /// older than that of a call that finds the session expired meanwhile. So it prolongs only what
    /// lives for longer than that wait can be; what is about to expire is looked at under the lock.
    pub(super) margin: Duration,
}

#[derive(Clone)]
pub(super) enum Write {
    Create(StoreKey, Record),
    Update(StoreKey, Revision, Record),
    Touch(StoreKey, Timestamp),
    /// At a revision, or whatever is there.
    Delete(StoreKey, Option<Revision>),
}

/// Why a write was not done.
#[derive(Clone, Debug)]
pub(super) enum Undone {
    Rule(ErrorKind),
    Failed(Failure),
    /// Others were faster again and again.
    Overtaken,
}

impl From<Undone> for Error {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Rule(kind) => kind.into(),
            Undone::Failed(failure) => failure.into_error(Effect::Write),
            Undone::Overtaken => overtaken(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    Update,
    Touch,
    DeleteAt,
    Delete,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Create,
        Self::Update,
        Self::Touch,
        Self::DeleteAt,
        Self::Delete,
    ];
}

impl Batch for Reads {
    type Call = StoreKey;
    type Output = Result<Option<Record>>;

    const EXCLUSIVE: bool = false;

    fn key(key: &StoreKey) -> StoreKey {
        *key
    }

    fn weight(_: &StoreKey) -> usize {
        0
    }

    async fn answer(&self, end: Instant, keys: Vec<StoreKey>) -> Vec<Self::Output> {
        let sql = self.statements.load.at_least(keys.len());
        let statement = || keys.iter().fold(Statement::new(sql), Statement::key);
        match self.runner.call_until(end, Effect::Read, statement).await {
            Ok(answer) => self.distribute(&keys, &answer),
            Err(failure) => keys
                .iter()
                .map(|_| Err(failure.clone().into_error(Effect::Read)))
                .collect(),
        }
    }
}

impl Reads {
    fn distribute(
        &self,
        keys: &[StoreKey],
        answer: &Answer<Sqlite>,
    ) -> Vec<Result<Option<Record>>> {
        let rows: HashMap<_, _> = answer
            .rows
            .iter()
            .filter_map(|row| Some((codec::key::<Sqlite>(row, 0).ok()?, row)))
            .collect();
        let now = self.clock.now();
        keys.iter()
            .map(|key| {
                let Some(row) = rows.get(key) else {
                    return Ok(None);
                };
                if codec::timestamp::<Sqlite>(row, 3)? <= now {
                    return Ok(None);
                }
                codec::record::<Sqlite>(row, 1).map(Some)
            })
            .collect()
    }
}

impl Batch for Writes {
    type Call = Write;
    /// For a deletion whether there was a live record.
    type Output = Result<bool, Undone>;

    const EXCLUSIVE: bool = true;

    fn key(write: &Write) -> StoreKey {
        write.key()
    }

    fn weight(write: &Write) -> usize {
        match write {
            Write::Create(_, record) | Write::Update(_, _, record) => record.data.len(),
            Write::Touch(..) | Write::Delete(..) => 0,
        }
    }

    async fn answer(&self, end: Instant, writes: Vec<Write>) -> Vec<Self::Output> {
        let mut outputs: Vec<_> = writes.iter().map(|_| Ok(true)).collect();
        for kind in Kind::ALL {
            let indices: Vec<_> = (0..writes.len())
                .filter(|&index| writes[index].kind() == kind)
                .collect();
            if indices.is_empty() {
                continue;
            }
            let same: Vec<_> = indices.iter().map(|&index| &writes[index]).collect();
            for (index, output) in indices.iter().zip(self.write_all(end, kind, &same).await) {
                outputs[*index] = output;
            }
        }
        outputs
    }
}

impl Writes {
    /// Writes of one kind in one statement; one by one where the database refuses it, so that a
    /// write that it cannot take harms no other.
    async fn write_all(
        &self,
        end: Instant,
        kind: Kind,
        writes: &[&Write],
    ) -> Vec<Result<bool, Undone>> {
        let done = match self.execute(end, kind, writes).await {
            Ok(done) => done,
            Err(Failure::Refused(refusal, _))
                if writes.len() > 1
                    && !matches!(refusal, Refusal::Contention | Refusal::Disconnected) =>
            {
                let mut outputs = Vec::with_capacity(writes.len());
                for write in writes {
                    outputs.push(self.write_one(end, kind, write).await);
                }
                return outputs;
            }
            Err(failure) => {
                let failed = |_: &&Write| Err(Undone::Failed(failure.clone()));
                return writes.iter().map(failed).collect();
            }
        };
        let mut outputs = Vec::with_capacity(writes.len());
        for write in writes {
            outputs.push(match done.get(&write.key()) {
                Some(was_live) => Ok(*was_live),
                None => self.settle(end, kind, write).await,
            });
        }
        outputs
    }

    async fn write_one(&self, end: Instant, kind: Kind, write: &Write) -> Result<bool, Undone> {
        let done = self.execute(end, kind, &[write]).await;
        match done.map_err(Undone::Failed)?.get(&write.key()) {
            Some(was_live) => Ok(*was_live),
            None => self.settle(end, kind, write).await,
        }
    }

    /// Sends the statement and returns the keys of the writes that it has done.
    async fn execute(
        &self,
        end: Instant,
        kind: Kind,
        writes: &[&Write],
    ) -> Result<HashMap<StoreKey, bool>, Failure> {
        let sql = kind.sql(&self.statements).at_least(writes.len());
        let statement = || {
            let now = self.clock.now();
            let told = match kind {
                Kind::Update | Kind::Touch => now + self.margin,
                Kind::Create | Kind::DeleteAt | Kind::Delete => now,
            };
            let statement = Statement::new(sql).time(told);
            writes.iter().fold(statement, |s, write| write.bind(s, now))
        };
        let answer = self
            .runner
            .call_until(end, Effect::Write, statement)
            .await?;
        Ok(kind.done(&answer))
    }

    /// Why a write has not been done, or its success in the end.
    async fn settle(&self, end: Instant, kind: Kind, write: &Write) -> Result<bool, Undone> {
        let expected = match write {
            Write::Create(..) => return Err(Undone::Rule(ErrorKind::Exists)),
            Write::Delete(_, None) => return Ok(false),
            Write::Update(_, expected, _) | Write::Delete(_, Some(expected)) => Some(*expected),
            Write::Touch(..) => None,
        };
        for _ in 0..ATTEMPTS {
            let Some(found) = self.revision(end, &write.key()).await? else {
                return match write {
                    Write::Delete(..) => Ok(false),
                    _ => Err(Undone::Rule(ErrorKind::Missing)),
                };
            };
            if expected.is_some_and(|expected| expected != found) {
                return Err(Undone::Rule(ErrorKind::Conflict));
            }
            if Instant::now() + self.runner.patience >= end {
                // The wait for the lock could be cut off, and it would be open what was done.
                return Err(Undone::Failed(Failure::Unsent(Cause(
                    "other processes keep the database busy until the deadline".into(),
                ))));
            }
            let done = self.execute_locked(end, kind, write).await;
            if done.map_err(Undone::Failed)?.contains_key(&write.key()) {
                return Ok(true);
            }
        }
        Err(Undone::Overtaken)
    }

    /// The revision of the live record.
    async fn revision(&self, end: Instant, key: &StoreKey) -> Result<Option<Revision>, Undone> {
        let statement = || Statement::new(&self.statements.find).key(key);
        let answer = self.runner.call_until(end, Effect::Read, statement).await;
        // Whatever is lost now, the write itself has not been done.
        let answer = answer.map_err(|failure| Undone::Failed(failure.of_a_read()))?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        let timestamp = |index| codec::timestamp::<Sqlite>(row, index);
        let revision = timestamp(1).and_then(|expires_at| {
            if expires_at <= self.clock.now() {
                return Ok(None);
            }
            timestamp(2)?;
            codec::revision::<Sqlite>(row, 0).map(Some)
        });
        revision.map_err(|error| Undone::Rule(error.kind()))
    }

    /// A write by the time that is told under the database's lock.
    async fn execute_locked(
        &self,
        end: Instant,
        kind: Kind,
        write: &Write,
    ) -> Result<HashMap<StoreKey, bool>, Failure> {
        let locked = Locked {
            sql: kind.sql_locked(&self.statements).clone(),
            write: write.clone(),
            clock: Arc::clone(&self.clock),
        };
        let answer = self.runner.session(end, Effect::Write, move |connection| {
            Box::pin(locked.clone().run(connection))
        });
        Ok(kind.done(&answer.await?))
    }
}

#[derive(Clone)]
struct Locked {
    sql: SqlStr,
    write: Write,
    clock: Arc<dyn Clock>,
}

impl Locked {
    /// Dropped in the middle, it changes nothing.
    async fn run(self, connection: &mut SqliteConnection) -> sqlx::Result<Answer<Sqlite>> {
        let mut lock = connection.begin_with("BEGIN IMMEDIATE").await?;
        let now = self.clock.now();
        let statement = self.write.bind(Statement::new(&self.sql).time(now), now);
        let answer = Sqlite::run(&mut lock, statement).await?;
        lock.commit().await?;
        Ok(answer)
    }
}

impl Write {
    fn kind(&self) -> Kind {
        match self {
            Self::Create(..) => Kind::Create,
            Self::Update(..) => Kind::Update,
            Self::Touch(..) => Kind::Touch,
            Self::Delete(_, Some(_)) => Kind::DeleteAt,
            Self::Delete(_, None) => Kind::Delete,
        }
    }

    fn key(&self) -> StoreKey {
        match self {
            Self::Create(key, ..)
            | Self::Update(key, ..)
            | Self::Touch(key, ..)
            | Self::Delete(key, ..) => *key,
        }
    }

    /// Binds the columns of one row.
    fn bind(&self, statement: Statement<Sqlite>, now: Timestamp) -> Statement<Sqlite> {
        let statement = statement.key(&self.key());
        match self {
            Self::Create(_, record) => codec::bind(statement, record, 1, now),
            Self::Update(_, expected, record) => {
                codec::bind(statement.revision(*expected), record, 1, now)
            }
            Self::Touch(_, expires_at) => statement.time(codec::expiry(*expires_at, now)),
            Self::Delete(_, Some(expected)) => statement.revision(*expected),
            Self::Delete(_, None) => statement,
        }
    }
}

impl Kind {
    /// For one write by a time that was told under the lock, also of a record that is going to
    /// expire earlier.
    fn sql_locked(self, statements: &Statements) -> &SqlStr {
        match self {
            Self::Update => &statements.update_locked,
            Self::Touch => &statements.touch_locked,
            kind => kind.sql(statements).at_least(1),
        }
    }

    fn sql(self, statements: &Statements) -> &Sized {
        match self {
            Self::Create => &statements.create,
            Self::Update => &statements.update,
            Self::Touch => &statements.touch,
            Self::DeleteAt => &statements.delete_at,
            Self::Delete => &statements.delete,
        }
    }

    /// The keys of the writes that a statement has done; for a deletion with whether there was a
    /// live record.
    fn done(self, answer: &Answer<Sqlite>) -> HashMap<StoreKey, bool> {
        let was_live = |row| self != Self::Delete || matches!(Sqlite::number(row, 1), Ok(1));
        let rows = answer.rows.iter();
        rows.filter_map(|row| Some((codec::key::<Sqlite>(row, 0).ok()?, was_live(row))))
            .collect()
    }
}
