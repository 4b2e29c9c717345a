//! Decides what happens to a session at the end of a request: what was loaded, plus what changed,
//! gives one store action after the other and one cookie action. Nothing here waits, so that the
//! policy is tested without a store, and is the same for every web framework.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    Entropy, Error, ErrorKind, Label, Record, Result, Revision, Subject, Timestamp, Token,
    cookie::CookieOptions,
    payload::{self, Content, Flash},
};

/// How long a session lives when it is used, and when it is not; or until the browser is closed.
///
/// It is part of the session, so that it stays as it was set over all later requests.
///
/// ```
/// use sessionkit::Persistence;
/// use std::time::Duration;
///
/// let remember_me = Persistence::For(Duration::from_secs(14 * 24 * 3600));
/// assert_ne!(remember_me, Persistence::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// The browser forgets the cookie when it is closed, and the server ends the session after the
    /// idle timeout.
    #[default]
    Browser,
    /// The browser keeps the cookie, and the server the session, for this long after it was used
    /// last, counted in whole seconds.
    For(Duration),
}

/// The limits that one named session of a manager is kept within.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) idle_timeout: Duration,
    pub(crate) absolute_lifetime: Duration,
    pub(crate) persistence: Persistence,
    pub(crate) touch_after_percent: u8,
    /// Whether the data are sealed at rest under a key derived from the token.
    pub(crate) sealed: bool,
    pub(crate) max_data: usize,
}

impl Policy {
    fn idle_time(&self, persistence: Persistence) -> Duration {
        match persistence {
            Persistence::Browser => self.idle_timeout,
            Persistence::For(lifetime) => lifetime,
        }
    }

    /// Whether a session may be told to live this long.
    pub(crate) fn check(&self, persistence: Persistence) -> Result<()> {
        let lifetime = self.idle_time(persistence);
        if lifetime < Duration::from_secs(1) || lifetime > self.absolute_lifetime {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a session lives from one second to its absolute lifetime without being used",
            ));
        }
        Ok(())
    }

    fn end(&self, created_at: Timestamp) -> Timestamp {
        created_at + self.absolute_lifetime
    }

    /// The expiry from `now` on. It moves only when a part of the idle time has passed, so that
    /// neither the store nor the browser is told of every request.
    fn expiry(
        &self,
        persistence: Persistence,
        created_at: Timestamp,
        previous: Option<Timestamp>,
        now: Timestamp,
    ) -> Timestamp {
        let idle_time = self.idle_time(persistence);
        let target = (now + idle_time).min(self.end(created_at));
        let step = (idle_time / 100).saturating_mul(self.touch_after_percent.into());
        match previous {
            // Also when it would move back a little: the clocks of two hosts are never the same.
            Some(previous) if target == previous || distance(target, previous) < step => previous,
            _ => target,
        }
    }

    pub(crate) fn seal_for<'a>(&self, token: &'a Token) -> Option<&'a Token> {
        self.sealed.then_some(token)
    }
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.max(other).saturating_duration_since(one.min(other))
}

/// A session as its handler sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) content: Content,
    pub(crate) subject: Option<Subject>,
    pub(crate) label: Label,
}

impl Snapshot {
    fn new(persistence: Persistence) -> Self {
        Self {
            content: Content {
                persistence,
                ..Content::default()
            },
            ..Self::default()
        }
    }

    fn is_vacant(&self) -> bool {
        self.content.is_empty() && self.subject.is_none()
    }
}

/// What the store holds, as last seen.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) token: Token,
    /// Whether the newest key signed the cookie.
    pub(crate) token_current: bool,
    pub(crate) revision: Revision,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) snapshot: Snapshot,
}

impl Stored {
    /// Reads a record, or `None` when it is past its expiry or its absolute lifetime.
    pub(crate) fn read(
        record: &Record,
        token: Token,
        token_current: bool,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Option<Self>> {
        if !record.is_live(now) || now >= policy.end(record.created_at) {
            return Ok(None);
        }
        Ok(Some(Self {
            revision: record.revision,
            created_at: record.created_at,
            expires_at: record.expires_at,
            snapshot: Snapshot {
                content: payload::read(record, policy.seal_for(&token))?,
                subject: record.subject.clone(),
                label: record.label.clone(),
            },
            token,
            token_current,
        }))
    }
}

type UpdateFn = Box<dyn FnMut(Option<&Bytes>) -> Result<Bytes> + Send>;

/// One change that a handler made, to be made again on a fresh record after a conflict.
pub(crate) enum Change {
    Set(Box<str>, Bytes),
    Remove(Box<str>),
    Update(Box<str>, UpdateFn),
    Clear,
    Flash(Box<str>, Bytes),
    /// Takes the messages of a queue with numbers below this one.
    TakeFlashes(Box<str>, u64),
    Persistence(Persistence),
    Subject(Option<Subject>),
    Label(Label),
}

impl Change {
    fn apply(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let content = &mut snapshot.content;
        match self {
            Self::Set(key, value) => {
                content.values.insert(key.clone(), value.clone());
            }
            Self::Remove(key) => {
                content.values.remove(key);
            }
            Self::Update(key, update) => {
                let value = update(content.values.get(key))?;
                content.values.insert(key.clone(), value);
            }
            Self::Clear => {
                content.values.clear();
                content.flashes.clear();
            }
            Self::Flash(queue, value) => {
                let flash = Flash {
                    number: content.next_flash,
                    value: value.clone(),
                };
                content.next_flash += 1;
                content
                    .flashes
                    .entry(queue.clone())
                    .or_default()
                    .push(flash);
            }
            Self::TakeFlashes(queue, below) => {
                if let Some(flashes) = content.flashes.get_mut(queue) {
                    flashes.retain(|flash| flash.number >= *below);
                    if flashes.is_empty() {
                        content.flashes.remove(queue);
                    }
                }
            }
            Self::Persistence(persistence) => content.persistence = *persistence,
            Self::Subject(subject) => snapshot.subject.clone_from(subject),
            Self::Label(label) => snapshot.label = label.clone(),
        }
        Ok(())
    }

    /// Whether this change leaves nothing of `earlier`.
    fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (
                Self::Set(key, _) | Self::Remove(key),
                Self::Set(other, _) | Self::Remove(other) | Self::Update(other, _),
            ) => key == other,
            // Messages of this very request were numbered provisionally.
            (Self::TakeFlashes(queue, _), Self::Flash(other, _) | Self::TakeFlashes(other, _)) => {
                queue == other
            }
            (
                Self::Clear,
                Self::Set(..)
                | Self::Remove(_)
                | Self::Update(..)
                | Self::Clear
                | Self::Flash(..)
                | Self::TakeFlashes(..),
            )
            | (Self::Persistence(_), Self::Persistence(_))
            | (Self::Subject(_), Self::Subject(_))
            | (Self::Label(_), Self::Label(_)) => true,
            _ => false,
        }
    }

    /// Whether making the change twice is the same as making it once.
    fn is_idempotent(&self) -> bool {
        !matches!(self, Self::Update(..) | Self::Flash(..))
    }
}

/// What the response says to the browser about the session.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum CookieAction {
    #[default]
    Keep,
    Set {
        token: Token,
        /// None for a cookie that ends with the browser.
        expires_at: Option<Timestamp>,
    },
    Remove,
}

/// One call of the store.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Create(Token, Record),
    Update(Token, Revision, Record),
    Touch(Token, Timestamp),
    Rotate(Token, Token, Revision, Record),
    Delete(Token),
}

/// An action with what is to be remembered once it has taken effect.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) action: Action,
    snapshot: Snapshot,
    /// The changes below this number are part of the action.
    upto: u64,
    epoch: u64,
}

impl Planned {
    /// The revision that the action writes.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match &self.action {
            Action::Create(_, record)
            | Action::Update(_, _, record)
            | Action::Rotate(_, _, _, record) => Some(record.revision),
            Action::Touch(..) | Action::Delete(_) => None,
        }
    }

    /// The token that the session has before the action.
    pub(crate) fn source(&self) -> &Token {
        match &self.action {
            Action::Create(token, _)
            | Action::Update(token, ..)
            | Action::Touch(token, _)
            | Action::Rotate(token, ..)
            | Action::Delete(token) => token,
        }
    }

    /// Whether the browser has to get another cookie afterwards, wherever the record is kept.
    pub(crate) fn changes_token(&self) -> bool {
        matches!(self.action, Action::Create(..) | Action::Rotate(..))
    }
}

/// The state of a session during a request.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) stored: Option<Stored>,
    pub(crate) snapshot: Snapshot,
    pub(crate) cookie: CookieAction,
    /// Attributes for this session in place of the configured ones.
    pub(crate) cookie_options: Option<CookieOptions>,
    /// Another request has ended the session: nothing of this one is kept.
    pub(crate) gone: bool,
    /// No cookie can be sent any more.
    pub(crate) head_sent: bool,
    changes: Vec<(u64, Change)>,
    next_change: u64,
    renew: bool,
    doomed: Option<Token>,
    /// The token of a session to be created or rotated, the same over all attempts.
    next_token: Option<Token>,
    /// The writes whose answers were lost or not waited for: the revision of each, and below which
    /// number the changes are part of it.
    unsettled: Vec<(Revision, u64)>,
    /// Counts the sessions that this request has ended.
    epoch: u64,
    default_persistence: Persistence,
}

impl Draft {
    pub(crate) fn new(stored: Option<Stored>, policy: &Policy) -> Self {
        let snapshot = stored.as_ref().map_or_else(
            || Snapshot::new(policy.persistence),
            |stored| stored.snapshot.clone(),
        );
        Self {
            stored,
            snapshot,
            default_persistence: policy.persistence,
            ..Self::default()
        }
    }

    /// Makes a change that is no update, and keeps it to make it again.
    pub(crate) fn change(&mut self, change: Change) {
        self.try_change(change).expect("only an update can fail");
    }

    /// Makes a change, and keeps it to make it again.
    ///
    /// # Errors
    /// Those of an update.
    pub(crate) fn try_change(&mut self, mut change: Change) -> Result<()> {
        change.apply(&mut self.snapshot)?;
        self.changes
            .retain(|(_, earlier)| !change.supersedes(earlier));
        self.changes.push((self.next_change, change));
        self.next_change += 1;
        Ok(())
    }

    /// Takes every message of a queue, and remembers which of them the store has.
    pub(crate) fn take_flashes(&mut self, queue: &str) {
        self.change(Change::TakeFlashes(queue.into(), u64::MAX));
        let below = self
            .stored
            .as_ref()
            .map_or(0, |stored| stored.snapshot.content.next_flash);
        if let Some((_, Change::TakeFlashes(_, limit))) = self.changes.last_mut() {
            *limit = below;
        }
    }

    pub(crate) fn renew(&mut self) {
        self.renew = true;
    }

    /// Ends the session. What is written afterwards begins another one.
    pub(crate) fn destroy(&mut self, browser_has_cookie: bool) {
        if let Some(stored) = self.stored.take() {
            self.doomed = Some(stored.token);
        } else if self.doomed.is_none() && browser_has_cookie {
            self.cookie = CookieAction::Remove;
        }
        self.forget();
    }

    /// Another request has ended the session.
    pub(crate) fn set_gone(&mut self) {
        self.stored = None;
        self.doomed = None;
        self.gone = true;
        self.cookie = CookieAction::Keep;
        self.forget();
    }

    fn forget(&mut self) {
        self.epoch += 1;
        self.changes.clear();
        self.renew = false;
        self.next_token = None;
        self.unsettled.clear();
        self.snapshot = Snapshot::new(self.default_persistence);
    }

    /// The next call of the store, or `None` when there is nothing left to do.
    pub(crate) fn plan(
        &mut self,
        policy: &Policy,
        now: Timestamp,
        entropy: &dyn Entropy,
        new_token: impl FnOnce() -> Result<Token>,
    ) -> Result<Option<Planned>> {
        let Some(action) = self.next_action(policy, now, entropy, new_token)? else {
            return Ok(None);
        };
        Ok(Some(Planned {
            action,
            snapshot: self.snapshot.clone(),
            upto: self.next_change,
            epoch: self.epoch,
        }))
    }

    fn next_action(
        &mut self,
        policy: &Policy,
        now: Timestamp,
        entropy: &dyn Entropy,
        new_token: impl FnOnce() -> Result<Token>,
    ) -> Result<Option<Action>> {
        if self.gone {
            return Ok(None);
        }
        if let Some(doomed) = &self.doomed {
            return Ok(Some(Action::Delete(doomed.clone())));
        }
        let stored = match &self.stored {
            None if self.snapshot.is_vacant() => return Ok(None),
            None => {
                let token = self.take_next_token(new_token)?;
                let record = self.record(policy, now, None, &token, entropy)?;
                return Ok(Some(Action::Create(token, record)));
            }
            Some(stored) => stored.clone(),
        };
        let (from, expected) = (stored.token.clone(), stored.revision);
        if self.renew {
            let to = self.take_next_token(new_token)?;
            let record = self.record(policy, now, Some(&stored), &to, entropy)?;
            return Ok(Some(Action::Rotate(from, to, expected, record)));
        }
        if !self.changes.is_empty() {
            let record = self.record(policy, now, Some(&stored), &from, entropy)?;
            return Ok(Some(Action::Update(from, expected, record)));
        }
        let expires_at = self.expiry(policy, now, Some(&stored));
        Ok((expires_at != stored.expires_at).then_some(Action::Touch(from, expires_at)))
    }

    fn take_next_token(&mut self, new_token: impl FnOnce() -> Result<Token>) -> Result<Token> {
        let token = match self.next_token.take() {
            Some(token) => token,
            None => new_token()?,
        };
        self.next_token = Some(token.clone());
        Ok(token)
    }

    fn expiry(&self, policy: &Policy, now: Timestamp, stored: Option<&Stored>) -> Timestamp {
        let persistence = self.snapshot.content.persistence;
        let created_at = stored.map_or(now, |stored| stored.created_at);
        let previous = stored
            .filter(|stored| stored.snapshot.content.persistence == persistence)
            .map(|stored| stored.expires_at);
        policy.expiry(persistence, created_at, previous, now)
    }

    fn record(
        &self,
        policy: &Policy,
        now: Timestamp,
        stored: Option<&Stored>,
        token: &Token,
        entropy: &dyn Entropy,
    ) -> Result<Record> {
        let mut record = Record {
            data: Bytes::new(),
            revision: Revision::random(entropy)?,
            created_at: stored.map_or(now, |stored| stored.created_at),
            expires_at: self.expiry(policy, now, stored),
            subject: self.snapshot.subject.clone(),
            label: self.snapshot.label.clone(),
        };
        payload::write(
            &self.snapshot.content,
            &mut record,
            policy.seal_for(token),
            entropy,
        )?;
        if record.data.len() > policy.max_data {
            return Err(too_large(
                record.data.len(),
                policy.max_data,
                &self.snapshot,
            ));
        }
        Ok(record)
    }

    /// Remembers that a write is under way, until its outcome is known.
    pub(crate) fn begin(&mut self, planned: &Planned) {
        let write = planned.revision().map(|revision| (revision, planned.upto));
        self.unsettled.extend(write);
    }

    /// The write has certainly not taken effect.
    pub(crate) fn not_done(&mut self, planned: &Planned) {
        self.unsettled
            .retain(|&(revision, _)| Some(revision) != planned.revision());
    }

    /// Whether the outcome of an earlier write is not known.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether a revision found in the store was written by this session.
    pub(crate) fn wrote(&self, revision: Revision) -> bool {
        self.unsettled.iter().any(|&(own, _)| own == revision)
    }

    /// The store holds what an unsettled write has written: that one is done.
    pub(crate) fn recover(&mut self, stored: Stored) -> Result<()> {
        let written = self
            .unsettled
            .iter()
            .find(|(revision, _)| *revision == stored.revision);
        if let Some(&(_, upto)) = written {
            self.changes.retain(|(number, _)| *number >= upto);
        }
        if self.next_token.as_ref() == Some(&stored.token) {
            self.renew = false;
            self.next_token = None;
        }
        self.rebase(stored)?;
        self.offer_cookie(None);
        Ok(())
    }

    /// Another session has the token that this one was to get.
    pub(crate) fn reject_next_token(&mut self) {
        self.next_token = None;
    }

    /// The action has taken effect, and `token` names the session now.
    pub(crate) fn done(&mut self, planned: Planned, token: Token) {
        if planned.epoch != self.epoch {
            // The handler ended the session while this was under way.
            if !matches!(planned.action, Action::Delete(_)) {
                self.doomed = Some(token);
            }
            return;
        }
        let before = self.stored.take();
        match planned.action {
            Action::Delete(_) => {
                self.doomed = None;
                self.cookie = CookieAction::Remove;
            }
            Action::Touch(_, expires_at) => {
                self.stored = before.clone().map(|stored| Stored {
                    token,
                    expires_at,
                    ..stored
                });
            }
            Action::Create(_, record)
            | Action::Update(_, _, record)
            | Action::Rotate(_, _, _, record) => {
                self.changes.retain(|(number, _)| *number >= planned.upto);
                self.next_token = None;
                self.unsettled.clear();
                self.renew = false;
                self.stored = Some(Stored {
                    token_current: before.as_ref().is_none_or(|old| old.token_current),
                    token,
                    revision: record.revision,
                    created_at: record.created_at,
                    expires_at: record.expires_at,
                    snapshot: planned.snapshot,
                });
            }
        }
        self.offer_cookie(before.as_ref());
    }

    /// Sends the cookie when the browser has to see something new: another token or key, or another
    /// lifetime.
    fn offer_cookie(&mut self, before: Option<&Stored>) {
        let Some(stored) = &mut self.stored else {
            return;
        };
        let persistence = stored.snapshot.content.persistence;
        let lasting = persistence != Persistence::Browser;
        let known = before.is_some_and(|before| {
            before.token == stored.token
                && before.token_current
                && before.snapshot.content.persistence == persistence
                && (before.expires_at == stored.expires_at || !lasting)
        });
        if !known {
            stored.token_current = true;
            self.cookie = CookieAction::Set {
                token: stored.token.clone(),
                expires_at: lasting.then_some(stored.expires_at),
            };
        }
    }

    /// What the response says, once there is nothing left to do.
    pub(crate) fn cookie_action(&self) -> CookieAction {
        match (&self.cookie, &self.stored, &self.cookie_options) {
            (CookieAction::Keep, Some(stored), Some(_)) => CookieAction::Set {
                token: stored.token.clone(),
                expires_at: (stored.snapshot.content.persistence != Persistence::Browser)
                    .then_some(stored.expires_at),
            },
            (action, ..) => action.clone(),
        }
    }

    /// The session as another request has left it, with the changes of this one made again.
    ///
    /// # Errors
    /// Those of a change that cannot be made on the fresh value; and
    /// [`Ambiguous`](ErrorKind::Ambiguous) when an earlier write may have taken effect and been
    /// overwritten since, so that making the changes again could make them twice.
    pub(crate) fn rebase(&mut self, stored: Stored) -> Result<()> {
        let repeatable = self
            .changes
            .iter()
            .all(|(_, change)| change.is_idempotent());
        if self.is_unsettled() && !self.wrote(stored.revision) && !repeatable {
            return Err(ErrorKind::Ambiguous.into());
        }
        let mut snapshot = stored.snapshot.clone();
        for (_, change) in &mut self.changes {
            change.apply(&mut snapshot)?;
        }
        self.snapshot = snapshot;
        self.stored = Some(stored);
        self.unsettled.clear();
        Ok(())
    }

    /// Drops every change and shows the session as it is stored.
    pub(crate) fn reset(&mut self, stored: Stored) {
        self.forget();
        self.snapshot = stored.snapshot.clone();
        self.stored = Some(stored);
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("stored", &self.stored.is_some())
            .field("changes", &self.changes.len())
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

/// The error for a session that does not fit, with the keys to look at.
pub(crate) fn too_large(size: usize, limit: usize, snapshot: &Snapshot) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the session takes {size} bytes of at most {limit}; the largest are {}",
            snapshot.content.largest()
        ),
    )
}
