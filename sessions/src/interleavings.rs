//! Runs requests to one session in every order in which their calls of the store can be interleaved,
//! loses calls and answers, drops requests half-way, and checks after every call what must hold.

mod chooser;
mod requests;
mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, header::SET_COOKIE};

use self::{
    chooser::{Chooser, Dice, Path},
    requests::{ALICE, BOB, Finished, Request, run},
    world::{Fault, Rule, Violation, World, now},
};
use crate::{
    CookieName, Entropy, ErrorKind, Key, Keyring, ManualClock, MemoryStore, Persistence, Record,
    Result, SessionConfig, SessionManager, SessionStore, Subject, Timestamp, Token,
    commit::Policy,
    mistakes::{self, Mistake},
    payload::Protection,
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// What the requests find.
#[derive(Clone, Copy, Debug)]
struct Setting {
    session: Begun,
    due: Due,
    /// Whether each request is in a process of its own, or all are in one.
    processes: bool,
    /// Whether handlers save, or the end of the request does.
    saves: bool,
    sealed: bool,
    /// How much may go wrong.
    mishaps: usize,
    /// Whether a request also stops between the effect of a call and its answer.
    fine: bool,
    /// Whether half a minute may pass at some point.
    ticks: bool,
}

/// The session that the browser has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    None,
    Anonymous,
    Alices,
}

/// What is due when a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Touch,
    Rotation,
}

const SETTING: Setting = Setting {
    session: Begun::Anonymous,
    due: Due::Nothing,
    processes: true,
    saves: false,
    sealed: false,
    mishaps: 0,
    fine: false,
    ticks: false,
};

/// What becomes of a request once the call it waits with was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoesOn,
    IsDropped,
    /// Its handler gives up waiting for the save.
    GivesUp,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request comes, with one of the cookies that browsers have or had.
    Begin(usize, usize),
    Run(usize, Fault, Then),
    Land(usize),
    Tick,
}

/// Random bytes, the same ones every time, and none for a pause, which would take real time.
#[derive(Debug)]
struct Sequence(AtomicU64);

impl Entropy for Sequence {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        if bytes.len() == 1 {
            return Err(ErrorKind::Unavailable.into());
        }
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
            let mut state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// What is the same in every trial of an exploration.
struct Stage {
    setting: Setting,
    keyring: Keyring,
    session: Option<(Token, Record, String)>,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new(setting: Setting) -> Self {
        let key = Key::generate().expect("the system has random bytes");
        let mut stage = Self {
            setting,
            keyring: Keyring::new([key]).expect("there is a key"),
            session: None,
            // Nothing runs on it: the time limit of a queue asks for one.
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime starts"),
        };
        stage.session = stage.begin();
        stage
    }

    fn begin(&self) -> Option<(Token, Record, String)> {
        let store = Arc::new(MemoryStore::new().with_clock(Arc::new(ManualClock::new(START))));
        let clock = Arc::new(ManualClock::new(START));
        let manager = self.manager(Arc::clone(&store), clock, Arc::new(Sequence(1.into())));
        let sessions = manager.begin(&HeaderMap::new());
        let session = now(sessions.session()).expect("the memory answers");
        match self.setting.session {
            Begun::None => return None,
            Begun::Anonymous => {}
            Begun::Alices => {
                let alice = Subject::new(ALICE).expect("a name is a subject");
                session.sign_in(alice).expect("the store has an index");
            }
        }
        session.insert("seed", &()).expect("it can be stored");
        let mut response = HeaderMap::new();
        now(sessions.finish(&mut response)).expect("the memory stores it");
        let token = session.0.draft().stored.as_ref()?.token.clone();
        let record = now(store.load(&token)).ok()??;
        let cookie = response[SET_COOKIE].to_str().ok()?.split(';').next()?;
        Some((token, record, cookie.to_owned()))
    }

    fn manager(
        &self,
        store: impl SessionStore,
        clock: Arc<ManualClock>,
        entropy: Arc<dyn Entropy>,
    ) -> SessionManager {
        let mut config = SessionConfig::new(store);
        if self.setting.due == Due::Rotation {
            config = config.rotate_every(HOUR / 2);
        }
        if !self.setting.sealed {
            config = config.insecure_readable_at_rest();
        }
        SessionManager::builder(self.keyring.clone())
            .session("session", config)
            .clock(clock)
            .entropy(entropy)
            .build()
            .expect("the configuration is good")
    }

    fn policy(&self) -> Policy {
        Policy {
            idle_timeout: 24 * HOUR,
            absolute_lifetime: 30 * 24 * HOUR,
            persistence: Persistence::Browser,
            touch_after_percent: 10,
            rotate_every: None,
            protection: if self.setting.sealed {
                Protection::Sealed
            } else {
                Protection::Readable
            },
            max_data: MemoryStore::MAX_DATA,
            max_keys: 256,
            max_flashes: 100,
        }
    }

    /// Runs the requests once, and returns what was violated and how it came about.
    fn trial(
        &self,
        requests: &[Request],
        traced: bool,
        chooser: &mut dyn Chooser,
    ) -> (Vec<Violation>, Vec<String>) {
        let _guard = self.runtime.enter();
        let later = match self.setting.due {
            Due::Nothing => Duration::ZERO,
            Due::Touch => 3 * HOUR,
            Due::Rotation => HOUR,
        };
        let clock = Arc::new(ManualClock::new(START + later));
        let stored = self.session.as_ref();
        let world = World::new(
            Arc::clone(&clock),
            self.policy(),
            requests,
            stored.map(|(token, record, _)| (token, record)),
            traced,
        );
        let entropy: Arc<dyn Entropy> = Arc::new(Sequence(2.into()));
        let new_manager = || self.manager(world.clone(), Arc::clone(&clock), Arc::clone(&entropy));
        let shared = new_manager();
        let managers: Vec<_> = requests
            .iter()
            .map(|_| match self.setting.processes {
                true => new_manager(),
                false => shared.clone(),
            })
            .collect();
        let mut explorer = Explorer {
            setting: self.setting,
            world: world.clone(),
            managers,
            tasks: requests.iter().map(|_| Task::Coming).collect(),
            cookies: vec![stored.map(|(token, _, cookie)| (token.clone(), cookie.clone()))],
            mishaps: self.setting.mishaps,
            ticks: usize::from(self.setting.ticks),
        };
        explorer.explore(requests, chooser);
        let mut state = world.state();
        (
            std::mem::take(&mut state.violations),
            state.trace.take().unwrap_or_default(),
        )
    }
}

enum Task {
    Coming,
    Running(BoxFuture<'static, Finished>, Arc<Woken>),
    Over,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One trial.
struct Explorer {
    setting: Setting,
    world: World,
    managers: Vec<SessionManager>,
    tasks: Vec<Task>,
    /// Every cookie that a browser has or had.
    cookies: Vec<Option<(Token, String)>>,
    mishaps: usize,
    ticks: usize,
}

impl Explorer {
    fn explore(&mut self, requests: &[Request], chooser: &mut dyn Chooser) {
        loop {
            let steps = self.steps(requests);
            let runs = |step: &Step| matches!(step, Step::Begin(..) | Step::Run(..));
            if !steps.iter().any(runs) {
                break;
            }
            self.take(requests, steps[chooser.choose(steps.len())]);
        }
        let mut state = self.world.state();
        if self.tasks.iter().any(|task| !matches!(task, Task::Over)) {
            state.deadlock();
        }
        state.check_answers();
        let signs_in_twice = self.cookies[0].is_some()
            && matches!(requests, [one @ Request::SignIn(_), other] if one == other);
        if signs_in_twice && state.all_done() && state.living() != 1 {
            state.twice();
        }
        while !state.late.is_empty() {
            state.land(0);
        }
        state.check_answers();
    }

    /// What can happen next.
    fn steps(&self, requests: &[Request]) -> Vec<Step> {
        let state = self.world.state();
        let mut steps = Vec::new();
        for (task, running) in self.tasks.iter().enumerate() {
            match running {
                Task::Coming if requests[task].has_session() => {
                    steps.extend((0..self.cookies.len()).map(|cookie| Step::Begin(task, cookie)));
                }
                Task::Coming => steps.push(Step::Begin(task, 0)),
                Task::Running(_, woken) => {
                    if woken.0.load(Ordering::Relaxed) {
                        steps.push(Step::Run(task, Fault::None, Then::GoesOn));
                    }
                    if self.mishaps > 0 {
                        steps.extend(mishaps(task, &state.tasks[task]));
                    }
                }
                Task::Over => {}
            }
        }
        steps.extend((0..state.late.len()).map(Step::Land));
        steps.extend((0..self.ticks).map(|_| Step::Tick));
        steps
    }

    fn take(&mut self, requests: &[Request], step: Step) {
        self.world.state().note(|| format!("{step:?}"));
        match step {
            Step::Begin(task, cookie) => self.begin(requests, task, cookie),
            Step::Run(task, fault, then) => {
                let is_mishap = fault != Fault::None || then != Then::GoesOn;
                self.mishaps -= usize::from(is_mishap);
                {
                    let mut state = self.world.state();
                    state.tasks[task].faults += u32::from(is_mishap);
                    state.fault = fault;
                }
                self.run(task, then != Then::GoesOn);
                self.end(task, then);
            }
            Step::Land(late) => self.world.state().land(late),
            Step::Tick => {
                self.ticks -= 1;
                self.world.state().tick();
            }
        }
    }

    /// A request comes; if its first call is to load its session, that takes effect.
    fn begin(&mut self, requests: &[Request], task: usize, cookie: usize) {
        let (token, text) = self.cookies[cookie].clone().unzip();
        self.world.state().begins(task, token);
        let first = self.cookies[0].as_ref();
        let nobody = Token::from_bytes(vec![0; Token::LEN], &name());
        let key = first.map_or(&nobody, |(token, _)| token).key();
        let request = run(
            self.world.clone(),
            self.managers[task].clone(),
            requests[task],
            task,
            text,
            key,
            self.setting.saves,
        );
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.tasks[task] = Task::Running(Box::pin(request), woken);
        self.run(task, false);
        let loads = matches!(
            self.world.state().tasks[task].waiting,
            Some(world::Call::Load(_))
        );
        if loads {
            self.run(task, false);
        }
    }

    fn run(&mut self, task: usize, hold: bool) {
        {
            let mut state = self.world.state();
            state.current = task;
            state.hold = hold || self.setting.fine;
        }
        let Task::Running(running, woken) = &mut self.tasks[task] else {
            return;
        };
        woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(woken));
        let Poll::Ready(finished) = running.as_mut().poll(&mut Context::from_waker(&waker)) else {
            return;
        };
        self.tasks[task] = Task::Over;
        let Finished {
            told,
            origin,
            cookie,
            header,
        } = finished;
        let mut state = self.world.state();
        state.finished(task, told, origin, &cookie);
        if let (crate::commit::CookieAction::Set { token, .. }, Some(header)) = (cookie, header) {
            let known = self.cookies.iter().flatten();
            if !known.into_iter().any(|(known, _)| *known == token) {
                self.cookies.push(Some((token, header)));
            }
        }
    }

    fn end(&mut self, task: usize, then: Then) {
        match then {
            Then::GoesOn => {}
            Then::IsDropped => {
                self.tasks[task] = Task::Over;
                self.world.state().tasks[task].waiting = None;
            }
            Then::GivesUp => {
                {
                    let mut state = self.world.state();
                    state.tasks[task].waiting = None;
                    state.tasks[task].given_up = true;
                }
                self.run(task, false);
            }
        }
    }
}

/// What can go wrong with a request that runs.
fn mishaps(task: usize, state: &world::Task) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut thens = vec![Then::IsDropped];
    if state.saving {
        thens.push(Then::GivesUp);
    }
    let faults: &[_] = match &state.waiting {
        None => &[Fault::None],
        Some(world::Call::Load(_)) => {
            steps.push(Step::Run(task, Fault::Refused, Then::GoesOn));
            &[Fault::Refused]
        }
        Some(_) => {
            let faults = [Fault::LostAnswer, Fault::Late, Fault::Refused];
            steps.extend(faults.map(|fault| Step::Run(task, fault, Then::GoesOn)));
            &[Fault::None, Fault::Late, Fault::Refused]
        }
    };
    for then in thens {
        steps.extend(faults.iter().map(|fault| Step::Run(task, *fault, then)));
    }
    steps
}

fn name() -> CookieName {
    CookieName::new("id").expect("two letters are a name")
}

/// What an exploration has found.
struct Found {
    /// How many interleavings it has looked at.
    count: usize,
    violation: Option<String>,
}

/// Looks at every interleaving of these requests up to the first one that violates a rule, or this
/// one.
fn explore(setting: Setting, requests: &[Request], rule: Option<Rule>) -> Found {
    let stage = Stage::new(setting);
    let mut path = Path::default();
    let mut count = 0;
    loop {
        count += 1;
        let violation = stage.violation(requests, &mut path, Path::again, rule);
        if violation.is_some() || !path.advance() {
            return Found { count, violation };
        }
    }
}

/// Looks at so many interleavings of these requests, chosen at random.
fn sample(setting: Setting, requests: &[Request], trials: usize) -> Found {
    let stage = Stage::new(setting);
    let mut dice = Dice(7);
    for count in 1..=trials {
        let before = dice.clone();
        let violation = stage.violation(requests, &mut dice, |_| before.clone(), None);
        if violation.is_some() {
            return Found { count, violation };
        }
    }
    Found {
        count: trials,
        violation: None,
    }
}

impl Stage {
    /// What one interleaving violates; `again` gives the same choices once more.
    fn violation<C: Chooser>(
        &self,
        requests: &[Request],
        chooser: &mut C,
        again: impl FnOnce(&C) -> C,
        rule: Option<Rule>,
    ) -> Option<String> {
        let (violations, _) = self.trial(requests, false, chooser);
        let counts = |violation: &Violation| rule.is_none_or(|rule| violation.rule == rule);
        let violation = violations.into_iter().find(counts)?;
        let (_, trace) = self.trial(requests, true, &mut again(chooser));
        Some(format!(
            "{:?}, {}: {requests:?} in {:?}\n{}\n",
            violation.rule,
            violation.text,
            self.setting,
            trace.join("\n")
        ))
    }
}

const REQUESTS: [Request; 9] = [
    Request::Read,
    Request::Change,
    Request::Renew,
    Request::SignIn(ALICE),
    Request::SignIn(BOB),
    Request::SignOut,
    Request::ChangeAndSignOut,
    Request::EndByKey,
    Request::EndAll,
];

fn pairs() -> Vec<Vec<Request>> {
    let from = |at: usize| REQUESTS[at..].iter();
    let pairs =
        (0..REQUESTS.len()).flat_map(|at| from(at).map(move |other| vec![REQUESTS[at], *other]));
    pairs.collect()
}

fn triples(requests: &[Request]) -> Vec<Vec<Request>> {
    let mut triples = Vec::new();
    for (first, one) in requests.iter().enumerate() {
        for (second, two) in requests.iter().enumerate().skip(first) {
            let third = requests[second..].iter();
            triples.extend(third.map(|three| vec![*one, *two, *three]));
        }
    }
    triples
}

/// Asserts that nothing is violated, and says how many interleavings there were.
fn assert_none(settings: &[Setting], all: &[Vec<Request>], trials: Option<usize>) {
    let mut total = 0;
    for setting in settings {
        let mut count = 0;
        for requests in all {
            let found = match trials {
                None => explore(*setting, requests, None),
                Some(trials) => sample(*setting, requests, trials),
            };
            count += found.count;
            if let Some(violation) = found.violation {
                panic!("after {count} interleavings: {violation}");
            }
        }
        println!("{count} interleavings in {setting:?}");
        total += count;
    }
    println!("{total} interleavings");
}

fn every_setting(setting: Setting) -> Vec<Setting> {
    let dues = [Due::Nothing, Due::Touch, Due::Rotation];
    let sessions = [Begun::None, Begun::Anonymous, Begun::Alices];
    let settings = dues.into_iter().flat_map(|due| {
        sessions.map(|session| Setting {
            session,
            due,
            ..setting
        })
    });
    settings.collect()
}

#[test]
fn two_requests_and_the_end_of_a_grace() {
    let setting = Setting {
        ticks: true,
        ..SETTING
    };
    assert_none(&every_setting(setting), &pairs(), None);
}

#[test]
fn two_requests_whose_handlers_save_and_one_mishap() {
    let setting = Setting {
        saves: true,
        mishaps: 1,
        ..SETTING
    };
    assert_none(&[setting], &pairs(), None);
}

#[test]
fn two_requests_beside_a_rotation_and_one_mishap() {
    let setting = Setting {
        session: Begun::Alices,
        due: Due::Rotation,
        mishaps: 1,
        ..SETTING
    };
    assert_none(&[setting], &pairs(), None);
}

#[test]
fn two_requests_that_begin_a_session_and_one_mishap() {
    let setting = Setting {
        session: Begun::None,
        saves: true,
        mishaps: 1,
        ..SETTING
    };
    assert_none(&[setting], &pairs(), None);
}

#[test]
fn two_requests_to_a_sealed_session() {
    let setting = Setting {
        sealed: true,
        session: Begun::Alices,
        ..SETTING
    };
    let rotation = Setting {
        due: Due::Rotation,
        ..setting
    };
    assert_none(&[setting, rotation], &pairs(), None);
}

#[test]
fn three_requests() {
    const THREE: [Request; 5] = [
        Request::Change,
        Request::Renew,
        Request::SignIn(ALICE),
        Request::SignOut,
        Request::EndAll,
    ];
    assert_none(&[SETTING], &triples(&THREE), None);
}

/// With everything that can go wrong; the samples are larger when `SESSIONKIT_INTERLEAVINGS` says how
/// many interleavings of each three requests to look at.
#[test]
fn three_requests_and_two_mishaps() {
    let trials = std::env::var("SESSIONKIT_INTERLEAVINGS");
    let trials = trials.map_or(12, |trials| trials.parse().expect("a number"));
    let setting = Setting {
        mishaps: 2,
        saves: true,
        fine: true,
        ..SETTING
    };
    let alices = Setting {
        session: Begun::Alices,
        due: Due::Rotation,
        saves: false,
        ..setting
    };
    let one_process = Setting {
        due: Due::Touch,
        processes: false,
        ticks: true,
        ..setting
    };
    let settings = [setting, alices, one_process];
    assert_none(&settings, &triples(&REQUESTS), Some(trials));
}

#[test]
#[ignore = "takes half an hour"]
fn everything() {
    let fine = Setting {
        fine: true,
        ..SETTING
    };
    let mishap = Setting {
        mishaps: 1,
        saves: true,
        ..SETTING
    };
    let one_process = Setting {
        processes: false,
        mishaps: 1,
        ..SETTING
    };
    for setting in [fine, mishap, one_process] {
        assert_none(&every_setting(setting), &pairs(), None);
    }
    let settings = [Begun::Anonymous, Begun::Alices].map(|session| Setting { session, ..SETTING });
    assert_none(&settings, &triples(&REQUESTS), None);
}

/// Asserts that the exploration finds a mistake.
fn assert_found(mistake: Mistake, rule: Rule, session: Begun, all: &[Vec<Request>]) {
    let mut count = 0;
    let setting = Setting {
        session,
        mishaps: 1,
        ..SETTING
    };
    for requests in all {
        let found = mistakes::with(mistake, || explore(setting, requests, Some(rule)));
        count += found.count;
        if let Some(violation) = found.violation {
            println!("after {count} interleavings: {violation}");
            return;
        }
    }
    panic!("{count} interleavings do not show {mistake:?}");
}

#[test]
fn finds_a_secret_that_is_not_compared() {
    let mistake = Mistake::SecretNotCompared;
    assert_found(mistake, Rule::NothingLate, Begun::Anonymous, &pairs());
}

#[test]
fn finds_a_sign_out_that_stops_at_a_conflict() {
    let mistake = Mistake::SignOutStopsAtConflict;
    assert_found(mistake, Rule::IsEnded, Begun::Anonymous, &pairs());
}

#[test]
fn finds_an_end_without_a_revision() {
    let mistake = Mistake::EndedWithoutRevision;
    let sign_ins = [
        Request::SignIn(ALICE),
        Request::SignIn(ALICE),
        Request::SignIn(BOB),
    ];
    let all = [sign_ins.to_vec()];
    assert_found(mistake, Rule::EndedOnRequest, Begun::Anonymous, &all);
}

#[test]
fn finds_a_creation_that_is_repeated() {
    let mistake = Mistake::CreationRepeated;
    assert_found(mistake, Rule::StaysEnded, Begun::None, &pairs());
}

#[test]
fn finds_a_late_request_that_is_let_in() {
    let mistake = Mistake::LateLetIn;
    assert_found(mistake, Rule::NothingLate, Begun::Anonymous, &pairs());
}
