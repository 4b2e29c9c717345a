//! What happens to a request on its way to the backend and back, and to a record in it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use sessionkit::{Error, ErrorKind, Label, Record, Result, Timestamp, Token};
use tokio::task::yield_now;

use super::store::{BrokenStore, lock};
use crate::Fault;

/// What lies between a check and the write that depends on it, where a bug makes two of one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Window {
    /// One yield.
    Step,
    /// One yield, but the check is made again after another one.
    SecondStep,
    /// No await: the lock is released, the thread yields, and the lock is taken again.
    Locks,
    /// A task on another thread.
    Tasks,
}

impl Window {
    const ALL: [(&str, Self); 4] = [
        ("-in-two-steps", Self::Step),
        ("-in-three-steps", Self::SecondStep),
        ("-in-two-locks", Self::Locks),
        ("-in-two-tasks", Self::Tasks),
    ];

    /// The call that a bug is about, and its window, where it is one of this kind.
    pub(super) fn of(bug: &'static str) -> Option<(&'static str, Self)> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(suffix, window)| Some((bug.strip_suffix(suffix)?, window)))
    }
}

pub(super) enum Access {
    Read,
    Write,
    Remove,
}

impl BrokenStore {
    /// The record as a backend with the wrong column types would keep it.
    pub(super) fn spoiled(&self, record: &Record) -> Record {
        let mut record = record.clone();
        let text = |change: fn(&str) -> String| {
            Label::from_stored(&change(record.label.as_str())).expect("a shorter label")
        };
        match self.shared.bug {
            "keeps-no-subject" => record.subject = None,
            "drops-the-label" => record.label = Label::default(),
            "creation-in-13-digits" => {
                let last = Timestamp::from_millis(9_999_999_999_999);
                record.created_at = record.created_at.min(last);
            }
            "drops-the-creation" => record.created_at = self.now() + Duration::from_millis(1),
            "data-are-text" => {
                record.data = String::from_utf8_lossy(&record.data)
                    .into_owned()
                    .into_bytes()
                    .into();
            }
            "data-end-at-nul" => {
                let end = record.data.iter().position(|byte| *byte == 0);
                record.data.truncate(end.unwrap_or(record.data.len()));
            }
            "labels-are-ascii" => {
                record.label = text(|label| label.chars().filter(char::is_ascii).collect())
            }
            "labels-are-trimmed" => record.label = text(|label| label.trim().into()),
            "labels-are-quoted" => record.label = text(|label| label.replace(['\'', '\\'], "")),
            "data-are-cut-at-64k" => record.data.truncate(65_535),
            "expiry-in-seconds" => {
                let millis = record.expires_at.as_millis() - 1;
                record.expires_at = Timestamp::from_millis(millis - millis % 1000);
            }
            "expiry-in-32-bits" => {
                record.expires_at = record
                    .expires_at
                    .min(Timestamp::from_millis(2_147_483_647_000));
            }
            "past-expiry-is-forever" if record.expires_at <= self.now() => {
                record.expires_at = Timestamp::MAX;
            }
            "short-expiry-is-forever"
                if record.expires_at < self.now() + Duration::from_secs(1) =>
            {
                record.expires_at = Timestamp::MAX;
            }
            _ => {}
        }
        record
    }

    /// The way of a request to the backend.
    pub(super) async fn arrive(&self, access: Access, token: Option<&Token>) -> Result<()> {
        if self.has("stays-busy-after-a-drop") && self.busy.swap(true, Ordering::SeqCst) {
            return Err(ErrorKind::Unavailable.into());
        }
        if self.has("drops-leak-tasks") {
            tokio::spawn(std::future::pending::<()>());
        }
        if let (Access::Write | Access::Remove, Some(token)) = (&access, token) {
            self.wait_for_lock(&self.key(token)).await?;
        }
        if self.has("logs-the-token")
            && let Some(token) = token
        {
            tracing::trace!("asking for {}", token.expose().escape_ascii());
        }
        if let Some(token) = token {
            *lock(&self.shared.last) = Some(token.clone());
        }
        yield_now().await;
        match (self.shared.fault(), access) {
            (Fault::Down | Fault::Vanished, _) if self.has("errors-name-the-token") => {
                let token = token.map_or(String::new(), |token| {
                    token.expose().escape_ascii().to_string()
                });
                let text = format!("no answer for {token}");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            (Fault::Down | Fault::Vanished, _) => Err(ErrorKind::Unavailable.into()),
            (Fault::Hang, _) if self.has("hangs-with-the-server") => std::future::pending().await,
            (Fault::Hang | Fault::Busy, _) if self.has("busy-is-conflict") => {
                Err(ErrorKind::Conflict.into())
            }
            (Fault::Hang, _) => {
                tokio::time::sleep(self.shared.deadline).await;
                match self.has("late-answers-name-the-key") {
                    true => Err(self.names_the_last(ErrorKind::Unavailable)),
                    false => Err(ErrorKind::Unavailable.into()),
                }
            }
            (Fault::Busy, Access::Write | Access::Remove) => {
                tokio::time::sleep(self.shared.deadline / 2).await;
                Err(ErrorKind::Unavailable.into())
            }
            (Fault::Full, Access::Write) if self.has("full-evicts") => {
                self.disk().clear();
                Err(ErrorKind::Full.into())
            }
            (Fault::Full, Access::Write) => Err(ErrorKind::Full.into()),
            (Fault::ReadOnly, Access::Read) if self.has("read-only-is-down") => {
                Err(ErrorKind::Unavailable.into())
            }
            (Fault::ReadOnly, Access::Write | Access::Remove) => Err(ErrorKind::Unavailable.into()),
            (Fault::Slow, _) => {
                for _ in 0..50 {
                    yield_now().await;
                }
                match self.has("short-reads") {
                    true => Err(ErrorKind::Corrupt.into()),
                    false => Ok(()),
                }
            }
            _ if self.shared.take_closed(&self.namespace)
                && self.has("closed-connection-fails") =>
            {
                Err(ErrorKind::Unavailable.into())
            }
            _ => Ok(()),
        }
    }

    /// The way of a request for the index.
    pub(super) async fn request(&self, access: Access) -> Result<()> {
        let access = match self.has("revokes-on-a-replica") {
            true => Access::Read,
            false => access,
        };
        self.arrive_or_hang(access, "index-hangs").await
    }

    /// The way of a request that a bug waits for without a deadline.
    pub(super) async fn arrive_or_hang(&self, access: Access, bug: &str) -> Result<()> {
        if self.has(bug) && self.shared.fault() == Fault::Hang {
            std::future::pending::<()>().await;
        }
        self.arrive(access, None).await
    }

    /// The way of the answer back.
    pub(super) async fn answer(&self) -> Result<()> {
        yield_now().await;
        self.busy.store(false, Ordering::SeqCst);
        match self.shared.fault() {
            Fault::LoseReply => {
                *lock(&self.shared.fault) = Fault::None;
                Err(ErrorKind::Ambiguous.into())
            }
            Fault::LoseReplies if self.has("lost-reply-is-unavailable") => {
                Err(ErrorKind::Unavailable.into())
            }
            Fault::LoseReplies if self.has("lost-answers-name-the-key") => {
                Err(self.names_the_last(ErrorKind::Ambiguous))
            }
            Fault::LoseReplies => Err(ErrorKind::Ambiguous.into()),
            _ => Ok(()),
        }
    }

    /// Whether an answer was lost, and a bug makes the call again instead of saying so. What the call
    /// has done is there then; the answer to the second one arrives.
    pub(super) fn repeats(&self, answer: &Result<()>, bug: &str) -> bool {
        answer.is_err() && self.has(bug) && self.shared.fault() == Fault::None
    }

    /// Answers while something is locked, which stays so when the call is dropped.
    pub(super) async fn answer_and_unlock(&self, key: Vec<u8>, bug: &str) -> Result<()> {
        if !self.has(bug) {
            return self.answer().await;
        }
        lock(&self.shared.locked).insert(key.clone());
        let answer = self.answer().await;
        lock(&self.shared.locked).remove(&key);
        answer
    }

    async fn wait_for_lock(&self, key: &[u8]) -> Result<()> {
        let begun = Instant::now();
        while lock(&self.shared.locked).contains(key) {
            if begun.elapsed() > self.shared.deadline {
                return Err(ErrorKind::Unavailable.into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// What a call has checked before it lets go of the backend, where the bug is that it does.
    pub(super) async fn split<T: Send>(
        &self,
        call: &str,
        check: impl Fn() -> T + Send + Sync,
    ) -> Option<T> {
        let (_, window) = Window::of(self.shared.bug).filter(|(split, _)| *split == call)?;
        let mut checked = check();
        match window {
            Window::Step => yield_now().await,
            Window::SecondStep => {
                yield_now().await;
                checked = check();
                yield_now().await;
            }
            Window::Locks => std::thread::yield_now(),
            // Nothing is done there.
            Window::Tasks => tokio::task::spawn_blocking(|| {}).await.unwrap_or_default(),
        }
        Some(checked)
    }

    /// An error whose cause names what the last call was about.
    fn names_the_last(&self, kind: ErrorKind) -> Error {
        let key = lock(&self.shared.last).as_ref().map(Token::key);
        let key = key.map(|key| key.to_hex()).unwrap_or_default();
        Error::from(kind).with_source(format!("no answer about {key}"))
    }

    /// Between a check and what depends on it, where only a broken store can be interrupted.
    pub(super) async fn gap(&self, bug: &str) {
        if self.has(bug) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) fn forgives(&self, error: &Error) -> bool {
        match self.shared.bug {
            "missing-is-ok" => error.kind() == ErrorKind::Missing,
            _ => false,
        }
    }
}
