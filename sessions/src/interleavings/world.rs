//! The store of an exploration: it waits where the explorer wants to choose, loses what the explorer
//! wants lost, and looks after every call whether what must hold does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;

use super::requests::{Outcome, Request};
use crate::{
    Capabilities, Clock, ErrorKind, ManualClock, MemoryStore, Origin, Record, Result, Revision,
    SessionStore, StoreKey, Subject, SubjectIndex, SubjectSession, Timestamp, Token,
    commit::{CookieAction, Policy},
    header::Standing,
    payload::{self, Content},
    value::decode_value,
};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// A session that was ended stays ended, under every cookie.
    StaysEnded,
    /// A session whose sign-out was answered with Ok is ended.
    IsEnded,
    /// Nobody ends a session but who asked for it, with a secret that was worth something.
    EndedOnRequest,
    /// Nothing of a request from before a change of privilege gets into the session after it.
    NothingLate,
    /// Nothing of a request that saw one subject gets into the session of another.
    OneSubject,
    /// No write loses what an earlier one has stored.
    NoLostChange,
    /// Every change is made once.
    OnlyOnce,
    /// What the request was told about its changes is true.
    TrueAnswer,
    /// After a change of privilege no earlier secret works.
    DeadSecret,
    /// Every other write, and the time, leave each secret working that a browser may need.
    LivingSecret,
    /// A cookie goes to whom it belongs, and works.
    Cookie,
    /// No token is given to two creations.
    CreatedOnce,
    /// Each session can be read with its one present secret.
    Readable,
    /// A request whose calls all succeed does so too, or is told that the session is gone.
    NoFailure,
    /// No request waits for ever.
    NoDeadlock,
}

/// What happens to a call on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// It takes effect, and the answer is lost.
    LostAnswer,
    /// No answer comes, and it takes effect later, or never.
    Late,
    /// It takes no effect, and the caller knows.
    Refused,
}

#[derive(Clone)]
pub(super) enum Call {
    Create(Token, Record),
    Load(Token),
    Update(Token, Revision, Record),
    Touch(Token, Timestamp),
    Delete(Token, Option<Revision>),
    Revoke(Subject, StoreKey),
    RevokeAll(Subject),
}

enum Answer {
    Token(Token),
    Record(Option<Record>),
    Flag(bool),
    Count(u64),
}

/// What is known of a session, which has one key for its life.
struct Family {
    /// Every token that it ever had, the present one last.
    tokens: Vec<Token>,
    /// How many changes of privilege there were.
    privileges: u32,
    ended: bool,
    /// The request that has written last; none for the one that began the session.
    writer: Option<usize>,
    /// Whether a browser has a cookie for it, or may have.
    handed_out: bool,
    /// Whether somebody has come with the present secret.
    presented: bool,
}

impl Family {
    fn present(&self) -> &Token {
        self.tokens.last().expect("a session begins with a token")
    }
}

/// What a request knew of a session when it came.
struct Seen {
    subject: Option<Subject>,
    privileges: u32,
}

/// The state of a request.
pub(super) struct Task {
    pub(super) request: Request,
    /// The call that it is about to make.
    pub(super) waiting: Option<Call>,
    /// Whether it is saving in a way that can be given up.
    pub(super) saving: bool,
    pub(super) given_up: bool,
    pub(super) faults: u32,
    token: Option<Token>,
    loaded: bool,
    seen: BTreeMap<StoreKey, Seen>,
    /// The sessions that its changes got into.
    stored_in: BTreeSet<StoreKey>,
    /// The tokens that worked when it last called the store.
    working: BTreeMap<StoreKey, Vec<Token>>,
    told: Option<Outcome>,
}

pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) text: String,
}

pub(super) struct State {
    memory: MemoryStore,
    clock: Arc<ManualClock>,
    policy: Policy,
    pub(super) tasks: Vec<Task>,
    /// The task that runs, and what happens to its call.
    pub(super) current: usize,
    pub(super) fault: Fault,
    /// Whether the answer waits for another step.
    pub(super) hold: bool,
    /// Calls that may still take effect.
    pub(super) late: Vec<(usize, Call)>,
    families: BTreeMap<StoreKey, Family>,
    sent: Vec<Token>,
    pub(super) violations: Vec<Violation>,
    /// Whether half a minute has passed.
    ticked: bool,
    pub(super) trace: Option<Vec<String>>,
}

/// The store that the managers of an exploration have.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<State>>);

impl World {
    pub(super) fn new(
        clock: Arc<ManualClock>,
        policy: Policy,
        requests: &[Request],
        stored: Option<(&Token, &Record)>,
        traced: bool,
    ) -> Self {
        let mut state = State {
            memory: MemoryStore::new().with_clock(Arc::clone(&clock) as _),
            clock,
            policy,
            tasks: requests.iter().map(|&request| Task::new(request)).collect(),
            current: 0,
            fault: Fault::None,
            hold: false,
            late: Vec::new(),
            families: BTreeMap::new(),
            sent: Vec::new(),
            violations: Vec::new(),
            ticked: false,
            trace: traced.then(Vec::new),
        };
        if let Some((token, record)) = stored {
            now(state.memory.create(token.clone(), record)).expect("the store is empty");
            state.families.insert(token.key(), Family::new(token, None));
            let family = state.families.get_mut(&token.key());
            family.expect("it was inserted").handed_out = true;
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, call: Call) -> Result<Answer> {
        let task = {
            let mut state = self.state();
            let task = state.current;
            state.tasks[task].waiting = Some(call.clone());
            task
        };
        step().await;
        let (answer, hold) = {
            let mut state = self.state();
            state.tasks[task].waiting = None;
            (state.act(task, &call), state.hold)
        };
        if hold {
            step().await;
        }
        answer
    }
}

impl Family {
    fn new(token: &Token, writer: Option<usize>) -> Self {
        Self {
            tokens: vec![token.clone()],
            privileges: 0,
            ended: false,
            writer,
            handed_out: false,
            presented: true,
        }
    }
}

impl Task {
    fn new(request: Request) -> Self {
        Self {
            request,
            waiting: None,
            saving: false,
            given_up: false,
            faults: 0,
            token: None,
            loaded: false,
            seen: BTreeMap::new(),
            stored_in: BTreeSet::new(),
            working: BTreeMap::new(),
            told: None,
        }
    }
}

impl State {
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    fn violated(&mut self, rule: Rule, text: impl Into<String>) {
        let text = text.into();
        self.note(|| format!("  !! {rule:?}: {text}"));
        self.violations.push(Violation { rule, text });
    }

    /// The request begins, with this token in its cookie.
    pub(super) fn begins(&mut self, task: usize, token: Option<Token>) {
        self.note(|| format!("{task} begins"));
        self.tasks[task].token = token;
    }

    fn act(&mut self, task: usize, call: &Call) -> Result<Answer> {
        let fault = std::mem::take(&mut self.fault);
        self.note(|| format!("{task} {call:?} {fault:?}"));
        if let (Call::Create(token, _), false) = (call, fault == Fault::Refused) {
            if self.sent.contains(token) {
                self.violated(Rule::CreatedOnce, "a token is given to a second creation");
            }
            self.sent.push(token.clone());
        }
        match fault {
            Fault::None => {
                let answer = self.apply(task, call);
                self.look(task);
                answer
            }
            Fault::LostAnswer => {
                let _lost = self.apply(task, call);
                self.look(task);
                Err(ErrorKind::Ambiguous.into())
            }
            Fault::Late => {
                self.late.push((task, call.clone()));
                Err(ErrorKind::Ambiguous.into())
            }
            Fault::Refused => Err(ErrorKind::Unavailable.into()),
        }
    }

    /// A call takes effect whose caller was told that it may or may not.
    pub(super) fn land(&mut self, late: usize) {
        let (task, call) = self.late.remove(late);
        self.note(|| format!("{task} {call:?} takes effect now"));
        let _nobody_waits = self.apply(task, &call);
    }

    fn apply(&mut self, task: usize, call: &Call) -> Result<Answer> {
        let answer = match call {
            Call::Load(token) => self.load(task, token),
            Call::Create(token, record) => self.create(task, token, record),
            Call::Update(token, expected, record) => self.update(task, token, *expected, record),
            Call::Touch(token, at) => now(self.memory.touch(token, *at)).map(Answer::Token),
            Call::Delete(token, expected) => self.delete(task, token, *expected),
            Call::Revoke(subject, key) => {
                let revoked = now(self.memory.revoke(subject, key));
                self.end_those_of(subject, Some(key));
                revoked.map(Answer::Flag)
            }
            Call::RevokeAll(subject) => {
                let revoked = now(self.memory.revoke_all(subject, None));
                self.end_those_of(subject, None);
                revoked.map(Answer::Count)
            }
        };
        self.note(|| match &answer {
            Ok(_) => "    done".into(),
            Err(error) => format!("    {:?}", error.kind()),
        });
        self.check_ended();
        answer
    }

    fn load(&mut self, task: usize, token: &Token) -> Result<Answer> {
        let record = self.record(token);
        if !self.tasks[task].loaded {
            self.tasks[task].loaded = true;
            self.came(task, record.as_ref());
        }
        Ok(Answer::Record(record))
    }

    /// The request sees the session that its cookie names, if the secret is worth anything.
    fn came(&mut self, task: usize, record: Option<&Record>) {
        let (Some(token), Some(record)) = (self.tasks[task].token.clone(), record) else {
            return;
        };
        let Some(family) = self.families.get_mut(&token.key()) else {
            return;
        };
        family.presented |= token == *family.present();
        let privileges = family.privileges;
        if self.works(&token, record) {
            let subject = record.subject.clone();
            let seen = Seen {
                subject,
                privileges,
            };
            self.tasks[task].seen.insert(token.key(), seen);
        }
    }

    fn create(&mut self, task: usize, token: &Token, record: &Record) -> Result<Answer> {
        now(self.memory.create(token.clone(), record))?;
        let key = token.key();
        if let Some(family) = self.families.get_mut(&key) {
            family.tokens.push(token.clone());
        } else {
            self.families.insert(key, Family::new(token, Some(task)));
        }
        let seen = Seen {
            subject: record.subject.clone(),
            privileges: self.families[&key].privileges,
        };
        let before = self.subject_seen(task);
        let stranger = before.is_some() && before != record.subject;
        self.tasks[task].seen.insert(key, seen);
        let Some(keys) = self.check_content(token, record) else {
            return Ok(Answer::Token(token.clone()));
        };
        let signs_in = self.tasks[task].request.subject().is_some();
        let own = self.tasks[task].request.key(task);
        if keys.iter().any(|key| *key != own) && (stranger || !signs_in) {
            self.violated(
                Rule::OneSubject,
                "a new session holds what is not its request's",
            );
        }
        self.stored(task, key, &keys);
        Ok(Answer::Token(token.clone()))
    }

    fn update(
        &mut self,
        task: usize,
        token: &Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Answer> {
        let key = token.key();
        let before = self.record(token);
        let worked = self.working(key);
        now(self.memory.update(token, expected, record))?;
        let before = before.expect("there was a record to update");
        let family = self.families.get_mut(&key);
        let family = family.expect("every session was created here");
        let old = family.present().clone();
        let writer = family.writer.replace(task);
        let changes_token = old != *token;
        let is_privilege = changes_token && self.tasks[task].request.renews();

        self.check_writer(task, key, &before, writer);
        let family = self.families.get_mut(&key).expect("it was there before");
        if changes_token {
            family.tokens.push(token.clone());
            family.presented = false;
        }
        if is_privilege {
            family.privileges += 1;
        }
        let seen = Seen {
            subject: record.subject.clone(),
            privileges: family.privileges,
        };
        // What a request has seen stays what it saw, except by its own write.
        if self.tasks[task].seen.contains_key(&key) {
            self.tasks[task].seen.insert(key, seen);
        }
        self.check_secrets(key, &worked, is_privilege);
        self.check_changes(task, key, &old, &before, record);
        Ok(Answer::Token(token.clone()))
    }

    /// Who writes has seen the session as it is, as far as subject and privilege go.
    fn check_writer(&mut self, task: usize, key: StoreKey, before: &Record, writer: Option<usize>) {
        let privileges = self.families[&key].privileges;
        let (late, stranger) = match self.tasks[task].seen.get(&key) {
            None => (true, false),
            Some(seen) => (
                seen.privileges != privileges,
                seen.subject != before.subject && writer != Some(task),
            ),
        };
        if late {
            self.violated(
                Rule::NothingLate,
                format!("{task} writes after a change of privilege"),
            );
        }
        if stranger {
            self.violated(
                Rule::OneSubject,
                format!("{task} writes into another's session"),
            );
        }
    }

    fn check_secrets(&mut self, key: StoreKey, worked: &[Token], is_privilege: bool) {
        let works = self.working(key);
        let present = self.families[&key].present().clone();
        if !works.contains(&present) {
            self.violated(
                Rule::LivingSecret,
                "the present secret does not open the session",
            );
        }
        if is_privilege && works.iter().any(|token| *token != present) {
            self.violated(
                Rule::DeadSecret,
                "an old secret works after a change of privilege",
            );
        }
        // After half a minute the grace of a secret may end with the write that begins it.
        let in_time = !is_privilege && !self.ticked;
        if in_time && worked.iter().any(|token| !works.contains(token)) {
            self.violated(
                Rule::LivingSecret,
                "a write made a secret worthless that worked",
            );
        }
    }

    /// The write keeps what was there, unless the session has become another's, and adds at most
    /// what its request has changed.
    fn check_changes(
        &mut self,
        task: usize,
        key: StoreKey,
        old: &Token,
        before: &Record,
        after: &Record,
    ) {
        let present = self.families[&key].present().clone();
        let kept = self.content(old, before).as_ref().map(keys);
        let Some(keys) = self.check_content(&present, after) else {
            return;
        };
        let kept = kept.unwrap_or_default();
        let own = self.tasks[task].request.key(task);
        let cleared = before.subject.is_some() && before.subject != after.subject;
        if cleared {
            if keys.iter().any(|key| *key != own) {
                self.violated(Rule::OneSubject, "what another subject left is still there");
            }
        } else if !kept.is_subset(&keys) {
            self.violated(Rule::NoLostChange, format!("{kept:?} became {keys:?}"));
        }
        if keys.iter().any(|key| *key != own && !kept.contains(key)) {
            self.violated(Rule::NothingLate, format!("{kept:?} became {keys:?}"));
        }
        self.stored(task, key, &keys);
    }

    /// The keys in a record, whose counter must have counted them.
    fn check_content(&mut self, token: &Token, record: &Record) -> Option<BTreeSet<String>> {
        let Some(content) = self.content(token, record) else {
            self.violated(Rule::Readable, "the session cannot be read");
            return None;
        };
        let keys = keys(&content);
        let counted = content
            .values
            .get("n")
            .map_or(Ok(0), |count| decode_value::<usize>("n", count));
        let changes = keys.iter().filter(|key| *key != "seed").count();
        if counted.ok() != Some(changes) {
            self.violated(
                Rule::OnlyOnce,
                format!("the counter is not that of {keys:?}"),
            );
        }
        Some(keys)
    }

    fn stored(&mut self, task: usize, key: StoreKey, keys: &BTreeSet<String>) {
        let task_key = self.tasks[task].request.key(task);
        if keys.contains(&task_key) {
            self.tasks[task].stored_in.insert(key);
        }
    }

    fn delete(&mut self, task: usize, token: &Token, expected: Option<Revision>) -> Result<Answer> {
        let before = self.record(token);
        let deleted = now(self.memory.delete(token, expected))?;
        let Some(before) = before else {
            return Ok(Answer::Flag(deleted));
        };
        let key = token.key();
        let request = self.tasks[task].request;
        let asked_for = match request.subject() {
            Some(subject) => before.subject.as_ref() == Some(&subject),
            None => request.signs_out() && self.tasks[task].seen.contains_key(&key),
        };
        if !asked_for {
            self.violated(
                Rule::EndedOnRequest,
                format!("{task} ends a session that is not its own"),
            );
        }
        if let Some(family) = self.families.get_mut(&key) {
            family.ended = true;
        }
        Ok(Answer::Flag(deleted))
    }

    fn end_those_of(&mut self, subject: &Subject, only: Option<&StoreKey>) {
        let mut lives = false;
        let keys: Vec<_> = self.families.keys().copied().collect();
        for key in keys {
            let family = &self.families[&key];
            let record = self.record(family.present());
            match record {
                None => self.families.get_mut(&key).expect("it is there").ended = true,
                Some(record) => {
                    lives |= record.subject.as_ref() == Some(subject)
                        && only.is_none_or(|only| *only == key);
                }
            }
        }
        if lives {
            self.violated(Rule::IsEnded, "the index has ended a session that lives");
        }
    }

    fn check_ended(&mut self) {
        let back = self
            .families
            .values()
            .any(|family| family.ended && self.record(family.present()).is_some());
        if back {
            self.violated(Rule::StaysEnded, "a session that was ended is back");
        }
    }

    fn look(&mut self, task: usize) {
        let keys: Vec<_> = self.families.keys().copied().collect();
        for key in keys {
            let working = self.working(key);
            self.tasks[task].working.insert(key, working);
        }
    }

    /// Moves the clock past the grace of a rotation.
    pub(super) fn tick(&mut self) {
        self.note(|| "half a minute passes".into());
        let families: Vec<_> = self
            .families
            .iter()
            .map(|(key, family)| (*key, family.presented))
            .collect();
        let before: Vec<_> = families.iter().map(|(key, _)| self.working(*key)).collect();
        self.clock.advance(Duration::from_secs(31));
        self.ticked = true;
        for ((key, presented), before) in families.into_iter().zip(before) {
            let works = self.working(key);
            let present = self.families[&key].present();
            let needed = before
                .iter()
                .filter(|token| !presented || *token == present);
            if needed.into_iter().any(|token| !works.contains(token)) {
                self.violated(
                    Rule::LivingSecret,
                    "a secret died before the new one was presented",
                );
            }
        }
    }

    /// The request is answered, and its cookie is on the way.
    pub(super) fn finished(
        &mut self,
        task: usize,
        told: Outcome,
        origin: Option<Origin>,
        cookie: &CookieAction,
    ) {
        let action = match cookie {
            CookieAction::Set { .. } => "a cookie",
            CookieAction::Remove => "no cookie any more",
            CookieAction::Keep => "nothing new",
        };
        self.note(|| format!("{task} is told {told:?} and gets {action}, origin {origin:?}"));
        self.tasks[task].told = Some(told);
        let request = self.tasks[task].request;
        let own = self.tasks[task].token.as_ref().map(Token::key);
        // With a dead secret it may have begun another session, and ended that one.
        let seen = &self.tasks[task].seen;
        let lives =
            own.is_some_and(|key| (seen.is_empty() || seen.contains_key(&key)) && self.lives(key));
        match told {
            Outcome::Done if request.signs_out() && lives => {
                self.violated(Rule::IsEnded, format!("{task} has signed out for nothing"));
            }
            Outcome::Gone if !self.is_gone(task, origin) => {
                self.violated(Rule::TrueAnswer, format!("{task}'s session is not gone"));
            }
            Outcome::Failed(kind) => {
                let faulty = self.tasks[task].faults > 0;
                // After half a minute a save that has lost an answer does not try again.
                let expected = matches!(kind, ErrorKind::Ambiguous | ErrorKind::Unavailable)
                    || self.ticked && kind == ErrorKind::Conflict;
                if !faulty || !expected {
                    self.violated(Rule::NoFailure, format!("{task} fails: {kind:?}"));
                }
            }
            _ => {}
        }
        self.check_cookie(task, told, origin, cookie);
    }

    /// Whether somebody else has ended the session that the request came for, or changed its
    /// privilege.
    fn is_gone(&self, task: usize, origin: Option<Origin>) -> bool {
        let seen = &self.tasks[task].seen;
        origin == Some(Origin::Renewed)
            || seen.is_empty() && self.tasks[task].request.signs_out()
            || seen.iter().any(|(key, seen)| {
                let family = &self.families[key];
                family.ended || family.privileges != seen.privileges
            })
    }

    fn check_cookie(
        &mut self,
        task: usize,
        told: Outcome,
        origin: Option<Origin>,
        cookie: &CookieAction,
    ) {
        let state = &self.tasks[task];
        let request = state.request;
        let own = state.token.as_ref().map(Token::key);
        let may_begin = request.subject().is_some()
            || request.signs_out()
            || own.is_none_or(|own| !state.seen.contains_key(&own));
        let may_set = told != Outcome::Gone
            && (origin != Some(Origin::Renewed) || request.subject().is_some());
        let wrong = match cookie {
            CookieAction::Set { .. } if !may_set => Some("is late and gets a cookie"),
            CookieAction::Set { token, .. } => {
                let works = state.working.get(&token.key());
                // It does not know whether its own renewal, which was the last, was done.
                let in_doubt = told == Outcome::Failed(ErrorKind::Ambiguous)
                    && self.families[&token.key()].writer == Some(task);
                if !in_doubt && works.is_none_or(|works| !works.contains(token)) {
                    Some("gets a cookie that did not work")
                } else if own != Some(token.key()) && !may_begin {
                    Some("gets the cookie of another session")
                } else {
                    None
                }
            }
            CookieAction::Remove if !request.signs_out() => Some("loses its cookie"),
            CookieAction::Remove
                if told != Outcome::Done
                    && (origin != Some(Origin::Ended) || !state.seen.is_empty()) =>
            {
                Some("has not signed out and loses its cookie")
            }
            CookieAction::Keep if told == Outcome::Done && request.renews() => {
                Some("renews the session and gets no cookie")
            }
            _ => None,
        };
        if let CookieAction::Set { token, .. } = cookie
            && let Some(family) = self.families.get_mut(&token.key())
        {
            family.handed_out = true;
        }
        if let Some(wrong) = wrong {
            self.violated(Rule::Cookie, format!("{task} {wrong}"));
        }
    }

    /// Compares what each request was told about its changes with what there is.
    pub(super) fn check_answers(&mut self) {
        for task in 0..self.tasks.len() {
            let state = &self.tasks[task];
            let stored = state.stored_in.iter();
            let known = stored.filter(|key| self.families[*key].handed_out).count();
            let wrong = match state.told {
                Some(Outcome::Done) => state.request.must_store() && known == 0,
                Some(Outcome::Failed(ErrorKind::Ambiguous)) | None => false,
                Some(Outcome::Gone | Outcome::Failed(_)) => !state.request.signs_out() && known > 0,
            };
            if wrong || known > 1 {
                let told = state.told;
                self.violated(
                    Rule::TrueAnswer,
                    format!("{task} was told {told:?}, its changes are in {known} sessions"),
                );
            }
        }
    }

    /// How many sessions live that a browser has.
    pub(super) fn living(&self) -> usize {
        let families = self.families.iter();
        families
            .filter(|(key, family)| family.handed_out && self.lives(**key))
            .count()
    }

    pub(super) fn all_done(&self) -> bool {
        let done = |task: &Task| task.told == Some(Outcome::Done) && task.faults == 0;
        !self.ticked && self.tasks.iter().all(done)
    }

    pub(super) fn twice(&mut self) {
        self.violated(
            Rule::CreatedOnce,
            "a double click leaves two sessions, or none",
        );
    }

    pub(super) fn deadlock(&mut self) {
        self.violated(Rule::NoDeadlock, "requests wait for each other");
    }

    fn subject_seen(&self, task: usize) -> Option<Subject> {
        let task = &self.tasks[task];
        let seen = task.seen.get(&task.token.as_ref()?.key())?;
        seen.subject.clone()
    }

    fn lives(&self, key: StoreKey) -> bool {
        let family = self.families.get(&key);
        family.is_some_and(|family| self.record(family.present()).is_some())
    }

    fn record(&self, token: &Token) -> Option<Record> {
        now(self.memory.load(token)).expect("the memory always answers")
    }

    /// The tokens of a session that open it.
    fn working(&self, key: StoreKey) -> Vec<Token> {
        let family = &self.families[&key];
        let Some(record) = self.record(family.present()) else {
            return Vec::new();
        };
        let tokens = family.tokens.iter();
        tokens
            .filter(|token| self.works(token, &record))
            .cloned()
            .collect()
    }

    fn works(&self, token: &Token, record: &Record) -> bool {
        let header = payload::read_header(record, self.policy.protection);
        let standing = header.map(|(header, _)| {
            let header = header.expect("a record of a server has a header");
            header.standing(token, self.clock.now())
        });
        matches!(standing, Ok(Ok(Standing::Present | Standing::Rotated(_))))
    }

    fn content(&self, token: &Token, record: &Record) -> Option<Content> {
        let protection = self.policy.protection;
        let (_, start) = payload::read_header(record, protection).ok()?;
        payload::read_content(record, protection, start, token).ok()
    }
}

fn keys(content: &Content) -> BTreeSet<String> {
    let keys = content.values.keys().map(|key| key.to_string());
    keys.filter(|key| key != "n").collect()
}

/// Lets the explorer choose who goes on.
async fn step() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The memory never waits.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the memory answers at once")
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |token: &Token| {
            let bytes = token.expose();
            format!("{:02x}/{:02x}", bytes[0], bytes[Token::ID_LEN])
        };
        let revision = |revision: &Revision| revision.to_bits() as u8;
        match self {
            Self::Create(token, record) => {
                write!(f, "create {} {:?}", short(token), record.subject)
            }
            Self::Load(token) => write!(f, "load {}", short(token)),
            Self::Update(token, expected, record) => write!(
                f,
                "update {} from {:02x} to {:02x} {:?}",
                short(token),
                revision(expected),
                revision(&record.revision),
                record.subject
            ),
            Self::Touch(token, _) => write!(f, "touch {}", short(token)),
            Self::Delete(token, expected) => {
                let expected = expected.as_ref().map(revision);
                write!(f, "delete {} {expected:02x?}", short(token))
            }
            Self::Revoke(..) => f.write_str("revoke"),
            Self::RevokeAll(_) => f.write_str("revoke all"),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Answer {
    fn token(self) -> Token {
        match self {
            Self::Token(token) => token,
            _ => unreachable!("the call is answered with a token"),
        }
    }

    fn flag(self) -> bool {
        match self {
            Self::Flag(flag) => flag,
            _ => unreachable!("the call is answered with yes or no"),
        }
    }
}

#[async_trait]
impl SessionStore for World {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(MemoryStore::MAX_DATA)
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let answer = self.call(Call::Create(token, record.clone())).await;
        answer.map(Answer::token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        match self.call(Call::Load(token.clone())).await? {
            Answer::Record(record) => Ok(record),
            _ => unreachable!("the call is answered with a record"),
        }
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let call = Call::Update(token.clone(), expected, record.clone());
        self.call(call).await.map(Answer::token)
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let answer = self.call(Call::Touch(token.clone(), expires_at)).await;
        answer.map(Answer::token)
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        let answer = self.call(Call::Delete(token.clone(), expected)).await;
        answer.map(Answer::flag)
    }

    async fn sweep(&self, _limit: usize) -> Result<u64> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for World {
    async fn list(
        &self,
        _subject: &Subject,
        _after: Option<&StoreKey>,
        _limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        Err(ErrorKind::Unsupported.into())
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let answer = self.call(Call::Revoke(subject.clone(), *key)).await;
        answer.map(Answer::flag)
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        assert_eq!(except, None, "no request keeps its own session");
        match self.call(Call::RevokeAll(subject.clone())).await? {
            Answer::Count(count) => Ok(count),
            _ => unreachable!("the call is answered with a number"),
        }
    }
}
