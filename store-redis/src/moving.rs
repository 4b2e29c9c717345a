//! How a session moves between two nodes of a cluster in one instant.
//!
//! No command reaches two nodes. So the record is first put at the new key as one that is
//! *arriving*, which nobody takes for a session yet. Then the record at the old key, if it still has
//! the expected revision, is replaced by a note of where it has *gone*. That is the instant: before
//! it the old token is live, after it the new one. What follows only tidies up: the arriving record
//! becomes an ordinary one, and then the note is removed.
//!
//! Whoever meets a record that is arriving asks the old key to let go himself, and makes it an
//! ordinary one if that has happened: each step can be repeated by anybody at any time, because a
//! move has a number that no other has, and a revision never comes back. So a move that was dropped,
//! cut off or left by a process that ended is decided by the first call that wants to know. What a
//! move leaves behind, the note or a record that will never arrive, is removed by who began it, so
//! that he learns what became of it; or by who wants to begin another session there; or it expires.
//! The note outlives the arriving record, and nobody removes it before that record is an ordinary
//! one.

use std::time::Duration;

use redis::Value;
use sessionkit::{Error, ErrorKind, OsEntropy, Record, Result, Revision, StoreKey, Timestamp};
use tokio::time::Instant;

use crate::{
    RedisStore,
    backend::odd,
    codec::{self, Arrival, Move},
    fault::Effect,
    script::{self, Answer, Call},
    store::{done, millis},
};

/// How long the note at the old key outlives the record at the new one: more than the clocks of two
/// nodes differ.
const CLOCK_MARGIN: Duration = Duration::from_secs(60 * 60);

impl RedisStore {
    /// Moves a record to another node.
    pub(crate) async fn move_across_nodes(
        &self,
        from: &StoreKey,
        to: &StoreKey,
        expected: Revision,
        record: &Record,
    ) -> Result<()> {
        let deadline = self.backend.deadline();
        // An early answer for what cannot be moved, before anything is stored.
        self.check_revision(from, expected, deadline).await?;
        if let Some(subject) = &record.subject {
            self.keep_moving(subject, to, record, deadline).await?;
        }
        let arrival = Arrival {
            moved: Move {
                id: Revision::random(&OsEntropy)?.to_bits(),
                from: *from,
                to: *to,
            },
            expected,
            expires_at: record.expires_at,
        };
        self.announce(&arrival, record, deadline).await?;
        match self.let_go(&arrival, deadline).await {
            Ok(Answer::Done) => {
                // The move is made; what is left undone, the next one who meets it does.
                drop(self.tidy_up(&arrival.moved, deadline).await);
                Ok(())
            }
            Ok(why) => {
                self.withdraw(&arrival, record, refused(why), deadline)
                    .await
            }
            Err(error) if error.kind() == ErrorKind::Ambiguous => Err(error),
            Err(error) => self.withdraw(&arrival, record, error, deadline).await,
        }
    }

    /// Decides the move of what was found arriving at a key, whole or its beginning. `false`: it will
    /// never arrive. `true`: it is an ordinary record now, or something else has come since, so that
    /// the caller has to look again.
    pub(crate) async fn arrives(
        &self,
        key: &StoreKey,
        stored: &[u8],
        deadline: Instant,
    ) -> Result<bool> {
        let arrival = Arrival::read(key, stored).ok_or_else(codec::unreadable)?;
        if self.ask_to_go(&arrival, Effect::Read, deadline).await? == Answer::Done {
            self.settle(&arrival.moved, deadline).await?;
            return Ok(true);
        }
        // Only what still arrives was not let go: otherwise the note may have been there, and gone
        // before it was looked for.
        let stored = self.beginning(key, deadline).await?;
        Ok(!stored.starts_with(&arrival.moved.arriving()))
    }

    /// As [`arrives`](Self::arrives), for a key at which a script has met something that does.
    pub(crate) async fn has_arrived(&self, key: &StoreKey, deadline: Instant) -> Result<bool> {
        let stored = self.beginning(key, deadline).await?;
        match codec::is_arriving(&stored) {
            true => self.arrives(key, &stored, deadline).await,
            false => Ok(true),
        }
    }

    /// Removes what a move has left under a key where another session is to begin, so that it can be
    /// tried again. `Exists` if there is one already.
    pub(crate) async fn make_way(&self, key: &StoreKey, deadline: Instant) -> Result<()> {
        let exists = || Error::from(ErrorKind::Exists);
        let stored = match self.beginning(key, deadline).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Err(exists()),
            stored => stored?,
        };
        if stored.is_empty() {
            return Ok(());
        }
        if codec::is_gone(&stored) {
            let moved = Move::read_gone(key, &stored).ok_or_else(exists)?;
            return self.tidy_up(&moved, deadline).await;
        }
        let arrival = Arrival::read(key, &stored).ok_or_else(exists)?;
        if !self.arrives(key, &stored, deadline).await? {
            self.remove_arriving(&arrival, deadline).await?;
        }
        Ok(())
    }

    /// What the value at a key begins with; nothing where there is none.
    pub(crate) async fn beginning(&self, key: &StoreKey, deadline: Instant) -> Result<Vec<u8>> {
        let call = Call::new("GETRANGE", &self.record_key(key))
            .arg(0)
            .arg(Arrival::LEN - 1);
        match self.backend.run(&call, Effect::Read, deadline).await? {
            Value::BulkString(stored) => Ok(stored),
            _ => Err(odd()),
        }
    }

    async fn check_revision(
        &self,
        key: &StoreKey,
        expected: Revision,
        deadline: Instant,
    ) -> Result<()> {
        loop {
            let stored = self.beginning(key, deadline).await?;
            let arriving = codec::is_arriving(&stored);
            if arriving && self.arrives(key, &stored, deadline).await? {
                continue;
            }
            if arriving || codec::is_gone(&stored) || stored.is_empty() {
                return Err(ErrorKind::Missing.into());
            }
            let head = codec::head(expected);
            return match stored.get(..head.len()) {
                Some(found) if *found == head => Ok(()),
                Some(found) if found[0] == head[0] => Err(ErrorKind::Conflict.into()),
                _ => Err(codec::unreadable()),
            };
        }
    }

    /// Puts the record at its new key, where it waits for the old one to go.
    async fn announce(&self, arrival: &Arrival, record: &Record, deadline: Instant) -> Result<()> {
        let Move { from, to, .. } = &arrival.moved;
        let value = arrival.encode(record);
        let announced = self.set_new(to, value, record.expires_at, deadline).await;
        let Err(error) = announced else {
            return Ok(());
        };
        match error.kind() {
            // Both have to be true at one time: that there is something to move, and no room for it.
            ErrorKind::Exists => {
                self.check_revision(from, arrival.expected, deadline)
                    .await?;
                Err(error)
            }
            // Found and removed, it cannot come later any more. Otherwise that is not known.
            ErrorKind::Ambiguous => match self.remove_arriving(arrival, deadline).await {
                Ok(Answer::Done) => Err(Error::new(
                    ErrorKind::Unavailable,
                    "the session could not be moved",
                )
                .with_source(error)),
                _ => Err(error),
            },
            _ => Err(error),
        }
    }

    /// Asks the old key to let its session go. A lost answer is asked for again.
    async fn let_go(&self, arrival: &Arrival, deadline: Instant) -> Result<Answer> {
        match self.ask_to_go(arrival, Effect::Write, deadline).await {
            Err(lost) if lost.kind() == ErrorKind::Ambiguous => self
                .ask_to_go(arrival, Effect::Read, deadline)
                .await
                .map_err(|_| lost),
            answer => answer,
        }
    }

    async fn ask_to_go(
        &self,
        arrival: &Arrival,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Answer> {
        let moved = &arrival.moved;
        let call = script::GO.call(
            &[&self.record_key(&moved.from)],
            &[
                &codec::head(arrival.expected),
                &moved.encode_gone(),
                &millis(note_ends(arrival.expires_at)),
                &moved.gone(),
            ],
        );
        self.backend.answer(&call, effect, deadline).await
    }

    /// Makes the arriving record an ordinary one, and only then removes the note at the old key.
    async fn tidy_up(&self, moved: &Move, deadline: Instant) -> Result<()> {
        self.settle(moved, deadline).await?;
        let remove = script::REMOVE.call(&[&self.record_key(&moved.from)], &[&moved.gone()]);
        self.backend.run(&remove, Effect::Read, deadline).await?;
        Ok(())
    }

    async fn settle(&self, moved: &Move, deadline: Instant) -> Result<()> {
        let call = script::SETTLE.call(&[&self.record_key(&moved.to)], &[&moved.arriving()]);
        self.backend.run(&call, Effect::Read, deadline).await?;
        Ok(())
    }

    /// Takes back a move that the old key has refused, for the reason `error`. When others have begun
    /// sessions in both places meanwhile, nobody can tell whether it had been made before.
    async fn withdraw(
        &self,
        arrival: &Arrival,
        record: &Record,
        error: Error,
        deadline: Instant,
    ) -> Result<()> {
        match self.remove_arriving(arrival, deadline).await {
            Ok(Answer::Done) => return Err(error),
            Ok(_) => {}
            Err(_) => return Err(unknown(error)),
        }
        match self.beginning(&arrival.moved.to, deadline).await {
            Ok(stored) if stored.starts_with(&codec::head(record.revision)) => Ok(()),
            _ => Err(unknown(error)),
        }
    }

    /// Removes a record that is still arriving.
    async fn remove_arriving(&self, arrival: &Arrival, deadline: Instant) -> Result<Answer> {
        let moved = &arrival.moved;
        let call = script::REMOVE.call(&[&self.record_key(&moved.to)], &[&moved.arriving()]);
        self.backend.answer(&call, Effect::Read, deadline).await
    }
}

fn note_ends(expires_at: Timestamp) -> Timestamp {
    expires_at + CLOCK_MARGIN
}

fn refused(answer: Answer) -> Error {
    match answer {
        // Another session has begun to arrive where the one to be moved was: that one is gone.
        Answer::Arriving => ErrorKind::Missing.into(),
        answer => done(answer).err().unwrap_or_else(odd),
    }
}

fn unknown(error: Error) -> Error {
    Error::new(
        ErrorKind::Ambiguous,
        "the session may have moved to its new token",
    )
    .with_source(error)
}
