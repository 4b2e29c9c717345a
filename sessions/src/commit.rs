//! Decides what happens to a session at the end of a request: what was loaded, plus what changed,
//! gives one store action after the other and one cookie action. Nothing here waits, so that the
//! policy is tested without a store, and is the same for every web framework.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

#[cfg(test)]
use crate::mistakes::{self, Mistake};
use crate::{
    CookieName, Entropy, Error, ErrorKind, Label, Record, Result, Revision, Subject, Timestamp,
    Token,
    cookie::{CookieOptions, MAX_AGE},
    header::{Header, Standing},
    payload::{self, Content, Flash, Protection},
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
    /// last, counted in whole seconds; at most 400 days, after which browsers drop every cookie
    /// (draft-ietf-httpbis-rfc6265bis, section 5.5).
    For(Duration),
}

/// The limits that one named session of a manager is kept within.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) idle_timeout: Duration,
    pub(crate) absolute_lifetime: Duration,
    pub(crate) persistence: Persistence,
    pub(crate) touch_after_percent: u8,
    /// How old a secret becomes before a routine rotation replaces it.
    pub(crate) rotate_every: Option<Duration>,
    pub(crate) protection: Protection,
    pub(crate) max_data: usize,
    pub(crate) max_keys: usize,
    pub(crate) max_flashes: usize,
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
        if matches!(persistence, Persistence::For(_)) && lifetime > MAX_AGE {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "browsers keep a cookie for at most 400 days",
            ));
        }
        Ok(())
    }

    /// Whether a value of this many bytes, or a message, has room when it is alone.
    pub(crate) fn check_value(&self, key: &str, len: usize) -> Result<()> {
        if key.len().saturating_add(len) > self.max_data {
            let max = self.max_data;
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{key:?} takes {len} bytes, and the session has at most {max}"),
            ));
        }
        Ok(())
    }

    /// Whether the session may have a value under this key beside those that it has.
    pub(crate) fn check_key(&self, key: &str, content: &Content) -> Result<()> {
        let values = &content.values;
        if values.len() >= self.max_keys && !values.contains_key(key) {
            let max = self.max_keys;
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the session has {max} keys, and takes no {key:?} beside them"),
            ));
        }
        Ok(())
    }

    /// Whether another message may wait to be read.
    pub(crate) fn check_flashes(&self, queue: &str, content: &Content) -> Result<()> {
        let waiting: usize = content.flashes.values().map(Vec::len).sum();
        if waiting >= self.max_flashes {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{waiting} messages wait to be read, and {queue:?} takes no more"),
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
    /// The token with the present secret.
    pub(crate) token: Token,
    /// Whether the browser's cookie has this token, signed by the newest key.
    pub(crate) cookie_current: bool,
    /// Whether the request came with the present secret.
    presented: bool,
    pub(crate) revision: Revision,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// None where the client has the record.
    header: Option<Header>,
    pub(crate) snapshot: Snapshot,
}

/// What a record is to a request that came with a token.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Its session.
    Live(Box<Stored>),
    /// Past its expiry or its absolute lifetime.
    Ended,
    /// Alive, and the token's secret is none of its own, or none any more.
    Unknown,
    /// As [`Unknown`](Self::Unknown), and the secret may have been replaced a moment ago.
    Replaced,
    /// A change of privilege has replaced the secret a moment ago.
    Renewed,
    /// A routine rotation has replaced the secret, and the grace is over; the record has this
    /// revision.
    Reused(Revision),
}

impl Reading {
    /// Reads a record for a request that came with `token`, whose cookie has a signature of the
    /// newest key or not.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the record cannot be read.
    pub(crate) fn of(
        record: &Record,
        token: Token,
        cookie_current: bool,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Self> {
        if !record.is_live(now) || now >= policy.end(record.created_at) {
            return Ok(Self::Ended);
        }
        let (header, start) = payload::read_header(record, policy.protection)?;
        let standing = header
            .as_ref()
            .map_or(Ok(Standing::Present), |header| header.standing(&token, now))?;
        let (token, presented) = match standing {
            Standing::Present => (token, true),
            Standing::Rotated(present) => (present, false),
            Standing::Renewed => return Ok(Self::Renewed),
            Standing::Reused => return Ok(Self::Reused(record.revision)),
            Standing::Replaced => return Ok(Self::Replaced),
            Standing::Unknown => return Ok(Self::Unknown),
        };
        Ok(Self::Live(Box::new(Stored {
            revision: record.revision,
            created_at: record.created_at,
            expires_at: record.expires_at,
            snapshot: Snapshot {
                content: payload::read_content(record, policy.protection, start, &token)?,
                subject: record.subject.clone(),
                label: record.label.clone(),
            },
            header,
            cookie_current: cookie_current && presented,
            presented,
            token,
        })))
    }
}

#[cfg(test)]
impl Reading {
    /// Reads a record without a look at the secret, which is a mistake.
    pub(crate) fn of_any(record: &Record, token: Token, policy: &Policy) -> Result<Self> {
        let (header, start) = payload::read_header(record, policy.protection)?;
        Ok(Self::Live(Box::new(Stored {
            revision: record.revision,
            created_at: record.created_at,
            expires_at: record.expires_at,
            snapshot: Snapshot {
                content: payload::read_content(record, policy.protection, start, &token)?,
                subject: record.subject.clone(),
                label: record.label.clone(),
            },
            header,
            cookie_current: true,
            presented: true,
            token,
        })))
    }
}

type UpdateFn = Box<dyn FnMut(Option<&Bytes>) -> Result<Bytes> + Send>;

/// One change that a handler made, to be made again on a fresh record after a conflict.
pub(crate) enum Change {
    Set(Box<str>, Bytes),
    Remove(Box<str>),
    /// Removes a value for one request alone: says so when it is not there any more.
    Claim(Box<str>, Bytes, Arc<AtomicBool>),
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
            Self::Claim(key, claimed, lost) => {
                if content.values.get(key) == Some(claimed) {
                    content.values.remove(key);
                } else {
                    lost.store(true, Ordering::Relaxed);
                }
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
        !matches!(self, Self::Update(..) | Self::Flash(..) | Self::Claim(..))
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
    /// The token that the record has now, the one that it gets, and what is written.
    Update(Token, Token, Revision, Record),
    /// An update to a new secret after which every other copy of the session is dead.
    Renew(Token, Token, Revision, Record),
    Touch(Token, Timestamp),
    /// With the revision to compare; none where the record cannot be read.
    Delete(Token, Option<Revision>),
    /// Ends another session that the request brought a cookie of.
    EndTwin(Token),
    /// Ends what a change of privilege by another request has made of the session, if it has this
    /// subject.
    EndSuccessor(Token, Subject),
}

/// An action with what is to be remembered once it has taken effect.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) action: Action,
    snapshot: Snapshot,
    header: Option<Header>,
    /// The changes below this number are part of the action.
    upto: u64,
    pub(crate) epoch: u64,
    /// Whether it does what a handler asked for by a renewal or a sign-in.
    renews: bool,
    /// Whether the handler asked for nothing that the action does: a touch, or a routine rotation.
    pub(crate) is_upkeep: bool,
}

impl Planned {
    /// What the action writes, under which token.
    fn write(&self) -> Option<(&Token, Revision)> {
        match &self.action {
            Action::Create(token, record)
            | Action::Update(_, token, _, record)
            | Action::Renew(_, token, _, record) => Some((token, record.revision)),
            Action::Touch(..)
            | Action::Delete(..)
            | Action::EndTwin(_)
            | Action::EndSuccessor(..) => None,
        }
    }

    /// The token that names the session in the store.
    pub(crate) fn token(&self) -> &Token {
        match &self.action {
            Action::Create(token, _)
            | Action::Update(token, ..)
            | Action::Renew(token, ..)
            | Action::Touch(token, _)
            | Action::Delete(token, _)
            | Action::EndTwin(token)
            | Action::EndSuccessor(token, _) => token,
        }
    }

    /// Whether the browser has to get another cookie afterwards, wherever the record is kept.
    pub(crate) fn changes_token(&self) -> bool {
        match &self.action {
            Action::Create(..) | Action::Renew(..) | Action::EndSuccessor(..) => true,
            Action::Update(old, new, ..) => old != new,
            _ => false,
        }
    }
}

/// A write whose answer was lost or not waited for.
#[derive(Debug)]
struct Unsettled {
    revision: Revision,
    /// The token that the session has if it was done.
    token: Token,
    /// The changes below this number are part of it.
    upto: u64,
    /// Whether a renewal that was asked for is.
    renews: bool,
}

/// A session that is to be ended.
#[derive(Clone, Debug)]
struct Doomed {
    token: Token,
    revision: Option<Revision>,
}

/// What the handler has asked for beside changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    /// A new secret.
    Renew,
    /// A new secret, and a new absolute lifetime, for a subject.
    SignIn,
}

/// The state of a session during a request.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) stored: Option<Stored>,
    pub(crate) snapshot: Snapshot,
    pub(crate) cookie: CookieAction,
    /// Attributes for this session in place of the configured ones.
    pub(crate) cookie_options: Option<CookieOptions>,
    /// Another request has ended the session, or renewed it with a change of privilege: nothing of
    /// this one is kept.
    pub(crate) gone: bool,
    /// Changes of this request were dropped.
    dropped: bool,
    /// The session that a change of privilege by another request has taken from this one.
    successor: Option<Token>,
    /// The record that cannot be read, in whose place this session is.
    unreadable: Option<Token>,
    /// The token of the request names a live session, and its secret is worth nothing.
    dead_secret: bool,
    /// Of the cookies that the request brought one is of a session that has ended, none is of one
    /// that lives, and none of a session that was renewed a moment ago.
    pub(crate) has_ended_cookie: bool,
    /// Other tokens that the request brought and that may name sessions, to be ended with this one.
    twins: Vec<Token>,
    /// Those of them that are to be ended now.
    doomed_twins: Vec<Token>,
    /// The browser is to get a cookie although nothing of the session changes.
    wants_cookie: bool,
    /// Counts what the handler has asked for.
    pub(crate) asked: u64,
    changes: Vec<(u64, Change)>,
    next_change: u64,
    renewal: Option<Renewal>,
    doomed: Option<Doomed>,
    unsettled: Vec<Unsettled>,
    /// Counts the sessions that this request has ended.
    pub(crate) epoch: u64,
    default_persistence: Persistence,
}

/// What a draft is planned with.
pub(crate) struct Planner<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
    pub(crate) entropy: &'a dyn Entropy,
    pub(crate) cookie_name: &'a CookieName,
    /// Whether a cookie can still be sent.
    pub(crate) may_send: bool,
}

impl Draft {
    pub(crate) fn new(stored: Option<Stored>, policy: &Policy) -> Self {
        let snapshot = stored.as_ref().map_or_else(
            || Snapshot::new(policy.persistence),
            |stored| stored.snapshot.clone(),
        );
        let wants_cookie = stored.as_ref().is_some_and(|stored| !stored.presented);
        Self {
            stored,
            snapshot,
            wants_cookie,
            default_persistence: policy.persistence,
            ..Self::default()
        }
    }

    /// For a request with a token that a change of privilege has replaced a moment ago.
    pub(crate) fn late(token: Token, policy: &Policy) -> Self {
        Self {
            gone: true,
            successor: Some(token),
            ..Self::new(None, policy)
        }
    }

    /// For a request whose token names a live session with a secret that is worth nothing: it may
    /// begin another session, and cannot end that one.
    pub(crate) fn with_dead_secret(policy: &Policy) -> Self {
        Self {
            dead_secret: true,
            ..Self::new(None, policy)
        }
    }

    /// In place of the first of the records that cannot be read.
    pub(crate) fn in_place_of(unreadable: Vec<Token>, policy: &Policy) -> Self {
        let mut unreadable = unreadable.into_iter();
        Self {
            unreadable: unreadable.next(),
            twins: unreadable.collect(),
            ..Self::new(None, policy)
        }
    }

    /// For a request that brought other tokens, too, which may name sessions.
    pub(crate) fn with_twins(self, twins: Vec<Token>) -> Self {
        Self { twins, ..self }
    }

    /// Sends the browser the cookie of its session once more.
    pub(crate) fn repeat_cookie(&mut self) {
        self.wants_cookie = true;
    }

    /// Whether the browser has nothing but the cookie of a session that has ended, and nothing came
    /// in its place.
    pub(crate) fn leaves_ended_cookie(&self) -> bool {
        self.has_ended_cookie && self.stored.is_none() && !self.gone && !self.is_unsaved()
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
        self.asked += 1;
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
        self.asked += 1;
        self.renewal.get_or_insert(Renewal::Renew);
    }

    /// Sets attributes of the cookie, and sends it with them.
    pub(crate) fn set_cookie_options(&mut self, options: CookieOptions) {
        self.cookie_options = Some(options);
        self.wants_cookie = true;
    }

    /// Makes the session the subject's: what another subject left in it goes, and it gets a new
    /// secret and a new absolute lifetime. A request that is late for such a change begins anew.
    pub(crate) fn sign_in(&mut self, subject: Subject) {
        let other = |present: &Subject| *present != subject;
        if self.snapshot.subject.as_ref().is_some_and(other) {
            self.change(Change::Clear);
            self.change(Change::Label(Label::default()));
        }
        self.change(Change::Subject(Some(subject)));
        self.renewal = Some(Renewal::SignIn);
        if self.successor.is_some() {
            self.gone = false;
            self.dropped = false;
        }
    }

    /// Ends the session. What is written afterwards begins another one.
    pub(crate) fn destroy(&mut self, browser_has_cookie: bool) {
        self.asked += 1;
        if self.gone || self.successor.is_some() {
            self.gone = true;
            self.dropped = true;
            return;
        }
        self.doomed_twins.append(&mut self.twins);
        // What a save before has to hand out is not handed out any more.
        if matches!(self.cookie, CookieAction::Set { .. }) {
            self.cookie = CookieAction::Keep;
        }
        if self.dead_secret && self.stored.is_none() && self.doomed.is_none() {
            self.gone = true;
            self.dropped = true;
            self.cookie = CookieAction::Remove;
        } else if let Some(stored) = self.stored.take() {
            self.doomed = Some(Doomed {
                token: stored.token,
                revision: Some(stored.revision),
            });
        } else if let Some(token) = self.unreadable.take() {
            self.doomed = Some(Doomed {
                token,
                revision: None,
            });
        } else if self.doomed.is_none() && browser_has_cookie {
            self.cookie = CookieAction::Remove;
        }
        self.forget();
    }

    /// Another request has ended the session.
    pub(crate) fn set_gone(&mut self) {
        self.dropped = self.has_changes();
        self.stored = None;
        self.doomed = None;
        self.gone = true;
        self.cookie = CookieAction::Keep;
        self.forget();
    }

    /// Another request has ended or renewed the session, and this one has asked for nothing that it
    /// still wants.
    pub(crate) fn set_gone_unchanged(&mut self) {
        self.renewal = None;
        self.set_gone();
    }

    /// Another request has renewed the session with a change of privilege. A sign-in begins anew
    /// with what this request has seen of the session; all else is refused.
    pub(crate) fn set_renewed(&mut self) {
        let token = self.stored.as_ref().map(|stored| stored.token.clone());
        if self.renewal == Some(Renewal::SignIn) {
            self.stored = None;
            self.unsettled.clear();
            self.cookie = CookieAction::Keep;
            for (_, change) in &self.changes {
                // The session that had the value is another request's now.
                if let Change::Claim(_, _, lost) = change {
                    lost.store(true, Ordering::Relaxed);
                }
            }
        } else {
            self.set_gone();
        }
        self.successor = token;
    }

    /// Whether the handler has asked for anything that is not stored.
    fn has_changes(&self) -> bool {
        !self.changes.is_empty() || self.renewal.is_some()
    }

    /// Whether anything that the handler has asked for is still to be done.
    pub(crate) fn is_unsaved(&self) -> bool {
        !self.gone
            && (self.has_changes()
                || self.doomed.is_some()
                || !self.doomed_twins.is_empty()
                || self.stored.is_none() && !self.snapshot.is_vacant())
    }

    /// Whether a session is to be ended that the store has.
    pub(crate) fn is_ending(&self) -> bool {
        self.doomed.is_some()
    }

    /// Whether the handler has asked for anything that was dropped.
    pub(crate) fn has_dropped(&self) -> bool {
        self.gone && (self.dropped || self.has_changes())
    }

    fn forget(&mut self) {
        self.epoch += 1;
        self.changes.clear();
        self.renewal = None;
        self.successor = None;
        self.wants_cookie = false;
        self.unsettled.clear();
        self.snapshot = Snapshot::new(self.default_persistence);
    }

    /// The next call of the store, or `None` when there is nothing left to do.
    pub(crate) fn plan(&mut self, planner: &Planner<'_>) -> Result<Option<Planned>> {
        if self.gone {
            return Ok(None);
        }
        // Before the session itself: if one of them fails, the browser keeps its cookie.
        if let Some(twin) = self.doomed_twins.last() {
            return Ok(Some(self.planned(Action::EndTwin(twin.clone()), None)));
        }
        if let Some(Doomed { token, revision }) = self.doomed.clone() {
            return Ok(Some(self.planned(Action::Delete(token, revision), None)));
        }
        if let (Some(token), Some(subject)) = (&self.successor, &self.snapshot.subject) {
            let action = Action::EndSuccessor(token.clone(), subject.clone());
            return Ok(Some(self.planned(action, None)));
        }
        match self.stored.clone() {
            None if self.snapshot.is_vacant() => Ok(None),
            None => self.plan_creation(planner).map(Some),
            Some(stored) => self.plan_write(planner, &stored),
        }
    }

    /// A token is given to a creation once: one whose answer was lost could otherwise come back
    /// after it was ended.
    fn plan_creation(&self, planner: &Planner<'_>) -> Result<Planned> {
        let token = Token::random(planner.entropy, planner.cookie_name)?;
        #[cfg(test)]
        let token = mistakes::kept_token().unwrap_or(token);
        let header = planner.policy.has_header().then(|| Header::new(&token));
        let record = self.record(planner, None, &token, header.as_ref())?;
        Ok(self.planned(Action::Create(token, record), header))
    }

    fn plan_write(&self, planner: &Planner<'_>, stored: &Stored) -> Result<Option<Planned>> {
        let (now, entropy) = (planner.now, planner.entropy);
        let (old, revision) = (stored.token.clone(), stored.revision);
        if self.renewal.is_some() || self.snapshot.subject != stored.snapshot.subject {
            let (new, header) = match &stored.header {
                None => (old.clone(), None),
                Some(header) => {
                    let new = old.with_new_secret(entropy)?;
                    let renewed = header.renewed(&new, now);
                    #[cfg(test)]
                    let renewed = if mistakes::made(Mistake::LateLetIn) {
                        header.rotated(&old, &new, now, entropy)?
                    } else {
                        renewed
                    };
                    (new, Some(renewed))
                }
            };
            let record = self.record(planner, Some(stored), &new, header.as_ref())?;
            let action = Action::Renew(old, new, revision, record);
            return Ok(Some(self.planned(action, header)));
        }
        if let Some(rotation) = self.plan_rotation(planner, stored) {
            return Ok(Some(rotation));
        }
        let expires_at = self.expiry(planner, Some(stored));
        let is_due = expires_at != stored.expires_at;
        if !self.changes.is_empty() || self.must_compare(planner, stored, is_due) {
            let header = stored.header.as_ref();
            let header = header.map(|header| header.kept(stored.presented, now));
            let record = self.record(planner, Some(stored), &old, header.as_ref())?;
            let action = Action::Update(old.clone(), old, revision, record);
            return Ok(Some(self.planned(action, header)));
        }
        Ok(is_due.then(|| self.planned(Action::Touch(old, expires_at), None)))
    }

    /// A routine rotation if one is due and the record takes it; if not, what else is to be written
    /// is written without.
    fn plan_rotation(&self, planner: &Planner<'_>, stored: &Stored) -> Option<Planned> {
        let header = stored.header.as_ref()?;
        if !planner.is_rotation_due(stored, header) {
            return None;
        }
        let old = stored.token.clone();
        let new = old.with_new_secret(planner.entropy).ok()?;
        let header = header.rotated(&old, &new, planner.now, planner.entropy);
        let header = Some(header.ok()?);
        let record = self.record(planner, Some(stored), &new, header.as_ref());
        let action = Action::Update(old, new, stored.revision, record.ok()?);
        Some(self.planned(action, header))
    }

    /// Whether something is to be written that a touch cannot do, since it compares nothing: to note
    /// that a new secret was presented, or to send a cookie, which must not take the place of the one
    /// that a change of privilege has handed out meanwhile.
    fn must_compare(&self, planner: &Planner<'_>, stored: &Stored, is_due: bool) -> bool {
        let header = stored.header.as_ref();
        let first_presented =
            stored.presented && header.is_some_and(|header| header.awaits_presentation());
        let lasting = self.snapshot.content.persistence != Persistence::Browser;
        let sends_cookie = self.wants_cookie || is_due && (lasting || !stored.cookie_current);
        first_presented || planner.may_send && sends_cookie
    }

    fn planned(&self, action: Action, header: Option<Header>) -> Planned {
        let asked_for = matches!(
            action,
            Action::Create(..)
                | Action::Renew(..)
                | Action::Delete(..)
                | Action::EndTwin(_)
                | Action::EndSuccessor(..)
        );
        let renews = matches!(action, Action::Create(..) | Action::Renew(..));
        Planned {
            action,
            renews,
            snapshot: self.snapshot.clone(),
            header,
            upto: self.next_change,
            epoch: self.epoch,
            is_upkeep: !asked_for && self.changes.is_empty(),
        }
    }

    fn expiry(&self, planner: &Planner<'_>, stored: Option<&Stored>) -> Timestamp {
        let persistence = self.snapshot.content.persistence;
        let created_at = self.created_at(planner.now, stored);
        let previous = stored
            .filter(|stored| stored.snapshot.content.persistence == persistence)
            .map(|stored| stored.expires_at);
        planner
            .policy
            .expiry(persistence, created_at, previous, planner.now)
    }

    /// The absolute lifetime counts from the last sign-in.
    fn created_at(&self, now: Timestamp, stored: Option<&Stored>) -> Timestamp {
        let signs_in = |stored: &&Stored| {
            self.renewal == Some(Renewal::SignIn)
                || self.snapshot.subject.is_some()
                    && self.snapshot.subject != stored.snapshot.subject
        };
        stored
            .filter(|stored| !signs_in(stored))
            .map_or(now, |stored| stored.created_at)
    }

    fn record(
        &self,
        planner: &Planner<'_>,
        stored: Option<&Stored>,
        token: &Token,
        header: Option<&Header>,
    ) -> Result<Record> {
        let policy = planner.policy;
        let mut record = Record {
            data: Bytes::new(),
            revision: Revision::random(planner.entropy)?,
            created_at: self.created_at(planner.now, stored),
            expires_at: self.expiry(planner, stored),
            subject: self.snapshot.subject.clone(),
            label: self.snapshot.label.clone(),
        };
        payload::write(
            &self.snapshot.content,
            &mut record,
            policy.protection,
            header,
            token,
            planner.entropy,
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
        let upto = planned.upto;
        let write = planned.write().map(|(token, revision)| Unsettled {
            revision,
            token: token.clone(),
            upto,
            renews: planned.renews,
        });
        self.unsettled.extend(write);
    }

    /// The write has certainly not taken effect.
    pub(crate) fn not_done(&mut self, planned: &Planned) {
        let revision = planned.write().map(|(_, revision)| revision);
        self.unsettled
            .retain(|write| Some(write.revision) != revision);
    }

    /// Whether something that the handler still waits for may be part of a write whose outcome is
    /// not known.
    pub(crate) fn may_have_written(&self) -> bool {
        let first = self.changes.first().map(|(number, _)| *number);
        self.unsettled.iter().any(|write| {
            write.renews && self.renewal.is_some() || first.is_some_and(|first| first < write.upto)
        })
    }

    /// Under which token the session is if a write of its own is what the store holds.
    pub(crate) fn written_under(&self, revision: Revision) -> Option<Token> {
        let own = |write: &&Unsettled| write.revision == revision;
        self.unsettled
            .iter()
            .find(own)
            .map(|write| write.token.clone())
    }

    /// The token of a creation whose outcome is not known.
    pub(crate) fn lost_creation(&self) -> Option<Token> {
        let creation = self.unsettled.last().filter(|_| self.stored.is_none());
        creation.map(|write| write.token.clone())
    }

    /// The creation whose outcome was not known has not taken effect yet. If it still does, nobody
    /// has its token.
    pub(crate) fn give_up_creation(&mut self) {
        let _lost = self.unsettled.pop();
        #[cfg(test)]
        if mistakes::made(Mistake::CreationRepeated) {
            mistakes::keep_token(_lost.map(|write| write.token));
        }
    }

    /// The store holds what an unsettled write has written: that one is done.
    pub(crate) fn recover(&mut self, stored: Stored) -> Result<()> {
        let written = self
            .unsettled
            .iter()
            .find(|write| write.revision == stored.revision);
        if let Some(write) = written {
            let (upto, renews) = (write.upto, write.renews);
            self.changes.retain(|(number, _)| *number >= upto);
            if renews {
                self.renewal = None;
                self.successor = None;
            }
        }
        self.replay(Stored {
            cookie_current: false,
            ..stored
        })?;
        self.offer_cookie(None);
        Ok(())
    }

    /// The session that is to be ended is not there any more.
    pub(crate) fn set_ended(&mut self) {
        self.doomed = None;
        self.cookie = CookieAction::Remove;
    }

    /// The session that is to be ended has another revision now.
    pub(crate) fn doom_at(&mut self, revision: Option<Revision>) {
        if let Some(doomed) = &mut self.doomed {
            doomed.revision = revision;
        }
    }

    /// The handler ended the session while this write was under way, whose outcome is not known.
    pub(crate) fn doom_write(&mut self, planned: &Planned) {
        if let Action::Create(token, _) = &planned.action {
            self.doomed = Some(Doomed {
                token: token.clone(),
                revision: None,
            });
        }
    }

    /// The action has taken effect, and `token` names the session now.
    pub(crate) fn done(&mut self, planned: Planned, token: Token) {
        if let Action::EndTwin(twin) = &planned.action {
            self.doomed_twins.retain(|other| other != twin);
            return;
        }
        if planned.epoch != self.epoch {
            // The handler ended the session while this was under way.
            let revision = planned.write().map(|(_, revision)| revision);
            match planned.action {
                Action::Delete(..) | Action::EndTwin(_) | Action::EndSuccessor(..) => {}
                Action::Touch(..) => {}
                _ => self.doomed = Some(Doomed { token, revision }),
            }
            return;
        }
        let before = self.stored.take();
        match planned.action {
            Action::Delete(..) => self.set_ended(),
            Action::EndTwin(_) => {}
            Action::EndSuccessor(..) => self.successor = None,
            Action::Touch(_, expires_at) => {
                self.stored = before.clone().map(|stored| Stored {
                    token,
                    expires_at,
                    ..stored
                });
            }
            Action::Create(_, record)
            | Action::Update(_, _, _, record)
            | Action::Renew(_, _, _, record) => {
                self.changes.retain(|(number, _)| *number >= planned.upto);
                self.unsettled.clear();
                if planned.renews {
                    self.renewal = None;
                }
                self.unreadable = None;
                let same_token = before.as_ref().filter(|before| before.token == token);
                self.stored = Some(Stored {
                    cookie_current: same_token.is_some_and(|before| before.cookie_current),
                    presented: same_token.is_some_and(|before| before.presented),
                    token,
                    revision: record.revision,
                    created_at: record.created_at,
                    expires_at: record.expires_at,
                    header: planned.header,
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
            !self.wants_cookie
                && before.token == stored.token
                && before.cookie_current
                && before.snapshot.content.persistence == persistence
                && (before.expires_at == stored.expires_at || !lasting)
        });
        if !known {
            self.wants_cookie = false;
            stored.cookie_current = true;
            self.cookie = set_cookie(stored);
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
        if self.may_have_written() && !repeatable {
            return Err(ErrorKind::Ambiguous.into());
        }
        let seen = self.stored.as_ref();
        if seen.is_some_and(|seen| seen.snapshot.subject != stored.snapshot.subject) {
            // What this request has seen is another's: nothing of it may get there.
            self.set_renewed();
            return Ok(());
        }
        let current = seen.is_some_and(|seen| seen.cookie_current && seen.token == stored.token);
        // A browser whose secret a rotation has replaced gets its new cookie.
        self.wants_cookie |= seen.is_some_and(|seen| seen.token != stored.token);
        self.replay(Stored {
            cookie_current: current,
            ..stored
        })
    }

    fn replay(&mut self, stored: Stored) -> Result<()> {
        let stored = self.as_presented(stored);
        let mut snapshot = stored.snapshot.clone();
        for (_, change) in &mut self.changes {
            change.apply(&mut snapshot)?;
        }
        self.snapshot = snapshot;
        self.stored = Some(stored);
        self.unsettled.clear();
        Ok(())
    }

    /// Drops every change. A renewal that was asked for stays, since it guards against a planted
    /// token, as far as there is a session to renew.
    pub(crate) fn drop_changes(&mut self) {
        let renews = self.renewal.is_some() && self.stored.is_some();
        let (successor, wants_cookie) = (self.successor.take(), self.wants_cookie);
        self.forget();
        self.renewal = renews.then_some(Renewal::Renew);
        self.wants_cookie = wants_cookie;
        self.gone |= successor.is_some();
        self.successor = successor;
        self.dropped = false;
        if let Some(stored) = &self.stored {
            self.snapshot = stored.snapshot.clone();
        }
    }

    /// Shows the session as it is stored, once every change is dropped. If a write of this request
    /// is what the store holds, the browser has to get its token.
    pub(crate) fn reset(&mut self, stored: Stored, is_own: bool) {
        let before = self.stored.as_ref();
        self.wants_cookie |= before.is_none_or(|before| before.token != stored.token);
        let stored = self.as_presented(stored);
        if is_own {
            self.renewal = None;
        }
        self.snapshot = stored.snapshot.clone();
        self.stored = Some(stored);
    }

    /// The request came with the present secret only if it did so from the start.
    fn as_presented(&self, stored: Stored) -> Stored {
        let seen = self.stored.as_ref();
        let presented = seen.is_some_and(|seen| seen.presented && seen.token == stored.token);
        Stored {
            presented,
            ..stored
        }
    }
}

fn set_cookie(stored: &Stored) -> CookieAction {
    let lasting = stored.snapshot.content.persistence != Persistence::Browser;
    CookieAction::Set {
        token: stored.token.clone(),
        expires_at: lasting.then_some(stored.expires_at),
    }
}

impl Policy {
    /// Whether the data begin with what the record knows of its secrets.
    fn has_header(&self) -> bool {
        self.protection != Protection::Client
    }
}

impl Planner<'_> {
    fn is_rotation_due(&self, stored: &Stored, header: &Header) -> bool {
        let due = self.policy.rotate_every.is_some_and(|every| {
            self.now
                .saturating_duration_since(header.drawn_at(stored.created_at))
                >= every
        });
        // Another rotation would make the secret worthless that the browser still has.
        due && self.may_send
            && stored.presented
            && !header.awaits_presentation()
            && !header.is_in_grace(self.now)
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
