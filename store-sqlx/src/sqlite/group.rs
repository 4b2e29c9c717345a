//! The calls of a round as one statement of each kind.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sessionkit::{Clock, Error, ErrorKind, Record, Result, Revision, StoreKey, Timestamp};
use sqlx::{SqlStr, Sqlite};
use tokio::time::Instant;

use super::statements::{Sized, Statements};
use crate::{
    call::{Answer, Caller, Statement},
    failure::{Effect, Failure, Refusal, overtaken},
    lane::Group,
    record,
};

/// How often a call is decided anew because another process was faster.
pub(super) const ROUNDS: usize = 3;

/// Answers loads, each from what is committed when its round begins.
pub(super) struct Reads {
    pub(super) caller: Caller<Sqlite>,
    pub(super) statements: Arc<Statements>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Commits writes.
pub(super) struct Writes {
    pub(super) caller: Caller<Sqlite>,
    pub(super) statements: Arc<Statements>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a load has found.
pub(super) enum Loaded {
    Nothing,
    Live(Box<Record>),
    /// A record that has expired, and that a call may prolong that told the time earlier.
    Expired,
}

pub(super) enum Write {
    Create(StoreKey, Record),
    Update(StoreKey, Revision, Record),
    Touch(StoreKey, Timestamp),
    Rotate(StoreKey, StoreKey, Revision, Record),
    Delete(StoreKey),
    /// Lets a record that has expired stay so.
    Bury(StoreKey),
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
    Rotate,
    Delete,
    Bury,
}

impl Group for Reads {
    type Call = StoreKey;
    type Output = Result<Loaded>;

    const EXCLUSIVE: bool = false;

    fn keys(key: &StoreKey) -> (StoreKey, Option<StoreKey>) {
        (*key, None)
    }

    fn weight(_: &StoreKey) -> usize {
        0
    }

    async fn answer(&self, end: Instant, keys: Vec<StoreKey>) -> Vec<Self::Output> {
        let sql = self.statements.load.at_least(keys.len());
        let statement = || {
            // In the place of the time.
            let statement = Statement::new(sql).time(record::BURIED);
            keys.iter().fold(statement, Statement::key)
        };
        match self.caller.call_until(end, Effect::Read, statement).await {
            Ok(answer) => self.distribute(&keys, &answer),
            Err(failure) => keys
                .iter()
                .map(|_| Err(failure.clone().into_error(Effect::Read)))
                .collect(),
        }
    }
}

impl Reads {
    fn distribute(&self, keys: &[StoreKey], answer: &Answer<Sqlite>) -> Vec<Result<Loaded>> {
        let rows: HashMap<_, _> = answer
            .rows
            .iter()
            .filter_map(|row| Some((record::key::<Sqlite>(row, 0).ok()?, row)))
            .collect();
        let now = self.clock.now();
        keys.iter()
            .map(|key| {
                let Some(row) = rows.get(key) else {
                    return Ok(Loaded::Nothing);
                };
                if record::timestamp::<Sqlite>(row, 3)? <= now {
                    return Ok(Loaded::Expired);
                }
                let record = record::record::<Sqlite>(row, 1)?;
                Ok(Loaded::Live(Box::new(record)))
            })
            .collect()
    }
}

impl Group for Writes {
    type Call = Write;
    type Output = Result<(), Undone>;

    const EXCLUSIVE: bool = true;

    fn keys(write: &Write) -> (StoreKey, Option<StoreKey>) {
        match write {
            Write::Rotate(from, to, ..) => (*from, Some(*to)),
            write => (write.key(), None),
        }
    }

    fn weight(write: &Write) -> usize {
        match write {
            Write::Create(_, record)
            | Write::Update(_, _, record)
            | Write::Rotate(_, _, _, record) => record.data.len(),
            Write::Touch(..) | Write::Delete(_) | Write::Bury(_) => 0,
        }
    }

    async fn answer(&self, end: Instant, writes: Vec<Write>) -> Vec<Self::Output> {
        let mut outputs: Vec<_> = writes.iter().map(|_| Ok(())).collect();
        for kind in [
            Kind::Create,
            Kind::Update,
            Kind::Touch,
            Kind::Rotate,
            Kind::Delete,
            Kind::Bury,
        ] {
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
    ) -> Vec<Result<(), Undone>> {
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
            outputs.push(if done.contains(&write.key_afterwards()) {
                Ok(())
            } else {
                self.settle(end, kind, write).await
            });
        }
        outputs
    }

    async fn write_one(&self, end: Instant, kind: Kind, write: &Write) -> Result<(), Undone> {
        let done = self
            .execute(end, kind, &[write])
            .await
            .map_err(Undone::Failed)?;
        if done.contains(&write.key_afterwards()) {
            return Ok(());
        }
        self.settle(end, kind, write).await
    }

    /// Sends the statement and returns the keys, as they are afterwards, of the writes it has done.
    async fn execute(
        &self,
        end: Instant,
        kind: Kind,
        writes: &[&Write],
    ) -> Result<HashSet<StoreKey>, Failure> {
        let sql = kind.sql(&self.statements).at_least(writes.len());
        self.send(end, kind, sql, writes).await
    }

    async fn send(
        &self,
        end: Instant,
        kind: Kind,
        sql: &SqlStr,
        writes: &[&Write],
    ) -> Result<HashSet<StoreKey>, Failure> {
        let statement = || {
            let now = self.clock.now();
            let statement = Statement::new(sql).time(now);
            writes.iter().fold(statement, |s, write| write.bind(s, now))
        };
        let answer = self
            .caller
            .call_until(end, Effect::Write, statement)
            .await?;
        if matches!(kind, Kind::Delete | Kind::Bury) {
            return Ok(writes.iter().map(|write| write.key()).collect());
        }
        let keys = answer.rows.iter();
        Ok(keys
            .filter_map(|row| record::key::<Sqlite>(row, 0).ok())
            .collect())
    }

    /// Why a write has not been done, or its success in the end.
    async fn settle(&self, end: Instant, kind: Kind, write: &Write) -> Result<(), Undone> {
        for _ in 0..ROUNDS {
            let expected = match write {
                Write::Create(..) => return Err(Undone::Rule(ErrorKind::Exists)),
                Write::Update(_, expected, _) | Write::Rotate(_, _, expected, _) => Some(*expected),
                _ => None,
            };
            let found = self.revision(end, &write.key()).await?;
            if expected.is_some_and(|expected| expected != found) {
                return Err(Undone::Rule(ErrorKind::Conflict));
            }
            if let Write::Rotate(_, to, ..) = write {
                self.delete_expired(end, to).await?;
                if self.is_live(end, to).await? {
                    return Err(Undone::Rule(ErrorKind::Exists));
                }
            }
            let sql = kind.sql_to_earlier(&self.statements);
            let done = self.send(end, kind, sql, &[write]).await;
            let done = done.map_err(Undone::Failed)?;
            if done.contains(&write.key_afterwards()) {
                return Ok(());
            }
        }
        Err(Undone::Overtaken)
    }

    /// The revision of the live record, without which nothing can be changed.
    async fn revision(&self, end: Instant, key: &StoreKey) -> Result<Revision, Undone> {
        for _ in 0..ROUNDS {
            let found = self.find(end, key).await?;
            let (revision, expires_at) = found.ok_or(Undone::Rule(ErrorKind::Missing))?;
            if expires_at > self.clock.now() {
                return Ok(revision);
            }
            let bury = Write::Bury(*key);
            let buried = self.execute(end, Kind::Bury, &[&bury]).await;
            buried.map_err(|failure| Undone::Failed(failure.of_a_read()))?;
        }
        Err(Undone::Overtaken)
    }

    async fn is_live(&self, end: Instant, key: &StoreKey) -> Result<bool, Undone> {
        let found = self.find(end, key).await?;
        Ok(found.is_some_and(|(_, expires_at)| expires_at > self.clock.now()))
    }

    /// The revision and the expiry of a record, live or not.
    async fn find(
        &self,
        end: Instant,
        key: &StoreKey,
    ) -> Result<Option<(Revision, Timestamp)>, Undone> {
        let statement = || Statement::new(&self.statements.find).key(key);
        let answer = self.caller.call_until(end, Effect::Read, statement).await;
        // Whatever is lost now, the write itself has not been done.
        let answer = answer.map_err(|failure| Undone::Failed(failure.of_a_read()))?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        let columns = record::revision::<Sqlite>(row, 0)
            .and_then(|revision| Ok((revision, record::timestamp::<Sqlite>(row, 1)?)));
        columns
            .map(Some)
            .map_err(|error| Undone::Rule(error.kind()))
    }

    /// Removes an expired record that is in the way of a rotation.
    async fn delete_expired(&self, end: Instant, key: &StoreKey) -> Result<(), Undone> {
        let statement = || {
            Statement::new(&self.statements.delete_expired)
                .time(self.clock.now())
                .key(key)
        };
        let answer = self.caller.call_until(end, Effect::Write, statement).await;
        answer.map_err(|failure| Undone::Failed(failure.of_a_read()))?;
        Ok(())
    }
}

impl Write {
    fn kind(&self) -> Kind {
        match self {
            Self::Create(..) => Kind::Create,
            Self::Update(..) => Kind::Update,
            Self::Touch(..) => Kind::Touch,
            Self::Rotate(..) => Kind::Rotate,
            Self::Delete(_) => Kind::Delete,
            Self::Bury(_) => Kind::Bury,
        }
    }

    fn key(&self) -> StoreKey {
        match self {
            Self::Create(key, ..)
            | Self::Update(key, ..)
            | Self::Touch(key, ..)
            | Self::Rotate(key, ..)
            | Self::Delete(key)
            | Self::Bury(key) => *key,
        }
    }

    fn key_afterwards(&self) -> StoreKey {
        match self {
            Self::Rotate(_, to, ..) => *to,
            write => write.key(),
        }
    }

    /// Binds the columns of one row.
    fn bind(&self, statement: Statement<Sqlite>, now: Timestamp) -> Statement<Sqlite> {
        let statement = statement.key(&self.key());
        match self {
            Self::Create(_, record) => record::bind(statement, record, 1, now),
            Self::Update(_, expected, record) => {
                record::bind(statement.revision(*expected), record, 1, now)
            }
            Self::Touch(_, expires_at) => statement.time(record::expiry(*expires_at, now)),
            Self::Rotate(_, to, expected, record) => {
                record::bind(statement.revision(*expected).key(to), record, 1, now)
            }
            Self::Delete(_) | Self::Bury(_) => statement,
        }
    }
}

impl Kind {
    /// For one write, also of a record that is going to expire earlier.
    fn sql_to_earlier(self, statements: &Statements) -> &SqlStr {
        match self {
            Self::Update => &statements.update_to_earlier,
            Self::Touch => &statements.touch_to_earlier,
            kind => kind.sql(statements).at_least(1),
        }
    }

    fn sql(self, statements: &Statements) -> &Sized {
        match self {
            Self::Create => &statements.create,
            Self::Update => &statements.update,
            Self::Touch => &statements.touch,
            Self::Rotate => &statements.rotate,
            Self::Delete => &statements.delete,
            Self::Bury => &statements.bury,
        }
    }
}
