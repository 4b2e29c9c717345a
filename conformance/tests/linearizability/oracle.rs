//! Thousands of small random histories, judged by our checker and by the one of `todc-utils`.
//!
//! The oracle knows neither expiry nor lost answers, so these are put to it in other terms than ours:
//! the clock's steps are operations of a client of their own, a lost answer comes at the very end
//! and fits always, and the state is all keys with the clock. What the two sides share is the list
//! of calls and answers, nothing else.

use sessionkit::{ErrorKind, StoreKey, Timestamp};
use sessionkit_conformance::{
    Random,
    history::{Answer, Call, History, Operation, Version},
    linearizability::{Verdict, check},
};
use todc_utils::{Action, History as OracleHistory, Specification, WGLChecker};

use super::{Done, Ended, Failed, Found, Unknown, until};

const KEYS: [StoreKey; 2] = [StoreKey::from_bytes([1; 32]), StoreKey::from_bytes([2; 32])];

/// What a store holds: the model of both the simulated store and the oracle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    records: [Option<Version>; 2],
    now: i64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Operation),
    Tick,
}

impl Store {
    fn slot(key: StoreKey) -> usize {
        usize::from(key == KEYS[1])
    }

    fn live(&self, key: StoreKey) -> Option<Version> {
        let now = Timestamp::from_millis(self.now);
        self.records[Self::slot(key)].filter(|version| now < version.expires_at)
    }

    /// Carries out a call as the contract has it, and returns the one right answer.
    fn call(&mut self, key: StoreKey, call: Call) -> Answer {
        let live = self.live(key);
        let revision = live.map(|version| version.revision);
        let stored = match call {
            Call::Load => return Found(live),
            Call::Create(_) if live.is_some() => return Failed(ErrorKind::Exists),
            Call::Create(new) => Some(new),
            Call::Delete(_) if live.is_none() => return Ended(false),
            Call::Delete(Some(expected)) if revision != Some(expected) => {
                return Failed(ErrorKind::Conflict);
            }
            Call::Delete(_) => {
                self.records[Self::slot(key)] = None;
                return Ended(true);
            }
            _ if live.is_none() => return Failed(ErrorKind::Missing),
            Call::Touch(expires_at) => live.map(|mut version| {
                version.expires_at = expires_at;
                version
            }),
            Call::Update { expected, .. } if revision != Some(expected) => {
                return Failed(ErrorKind::Conflict);
            }
            Call::Update { new, .. } => Some(new),
        };
        self.records[Self::slot(key)] = stored;
        Done
    }
}

struct Contract;

impl Specification for Contract {
    type State = Store;
    type Operation = Step;

    fn init() -> Store {
        Store::default()
    }

    fn apply(step: &Step, state: &Store) -> (bool, Store) {
        let mut next = *state;
        let fits = match step {
            Step::Tick => {
                next.now += 1;
                true
            }
            Step::Call(operation) => {
                let answer = next.call(operation.key, operation.call);
                operation.answer == Unknown || operation.answer == answer
            }
        };
        (fits, if fits { next } else { *state })
    }
}

/// What happens in a random history, in this order.
#[derive(Clone, Copy)]
enum Event {
    Begin(usize),
    End(usize),
    Tick,
}

struct Scenario {
    operations: Vec<Operation>,
    events: Vec<Event>,
}

/// How often a simulated store does what it must not, in percent of its calls.
#[derive(Clone, Copy)]
struct Faults {
    /// Answers from the past.
    stale: usize,
    /// Forgets what it has just done.
    lost: usize,
    /// Does not answer.
    silent: usize,
}

impl Scenario {
    /// Clients that call a simulated store: each call takes effect somewhere between its beginning
    /// and its end, while the clock ticks.
    fn random(random: &Random, clients: usize, faults: Faults) -> Self {
        let mut scenario = Self {
            operations: Vec::new(),
            events: Vec::new(),
        };
        let mut store = Store::default();
        let mut past = vec![store];
        // For each client: its call and whether that has taken effect.
        let mut busy: Vec<Option<(usize, bool)>> = vec![None; clients];
        for _ in 0..10 + random.below(50) {
            let client = random.below(clients);
            match busy[client] {
                None if random.below(10) == 0 && store.now < 8 => {
                    store.now += 1;
                    scenario.events.push(Event::Tick);
                }
                None => busy[client] = Some((scenario.begin(random, client, &store), false)),
                Some((index, false)) => {
                    scenario.take_effect(random, index, &mut store, &past, faults);
                    past.push(store);
                    busy[client] = Some((index, true));
                }
                Some((index, true)) => {
                    scenario.end(index, &store);
                    busy[client] = None;
                }
            }
        }
        for (index, _) in busy.into_iter().flatten() {
            scenario.operations[index].answer = Unknown;
        }
        scenario
    }

    fn begin(&mut self, random: &Random, client: usize, store: &Store) -> usize {
        let index = self.operations.len();
        let key = KEYS[random.below(2)];
        let new = until(index as u64 + 1, 1 + random.below(19) as i64);
        let expected = match store.records[Store::slot(key)] {
            Some(version) if random.below(4) > 0 => version.revision,
            _ => until(1 + random.below(19) as u64, 0).revision,
        };
        let call = match random.below(10) {
            0..3 => Call::Load,
            3..5 => Call::Create(new),
            5..7 => Call::Update { expected, new },
            7 => Call::Touch(Timestamp::from_millis(random.below(20) as i64)),
            8 => Call::Delete(None),
            _ => Call::Delete(Some(expected)),
        };
        self.events.push(Event::Begin(index));
        self.operations.push(Operation {
            client,
            key,
            call,
            answer: Unknown,
            invoked: self.events.len() as u64,
            returned: u64::MAX,
            earliest: Timestamp::from_millis(store.now),
            latest: Timestamp::MAX,
        });
        index
    }

    fn take_effect(
        &mut self,
        random: &Random,
        index: usize,
        store: &mut Store,
        past: &[Store],
        faults: Faults,
    ) {
        let operation = &mut self.operations[index];
        let before = *store;
        operation.answer = store.call(operation.key, operation.call);
        if random.below(100) < faults.stale {
            let mut old = past[random.below(past.len())];
            operation.answer = old.call(operation.key, operation.call);
        }
        if random.below(100) < faults.lost {
            *store = before;
        }
        if random.below(100) < faults.silent {
            operation.answer = Unknown;
        }
    }

    fn end(&mut self, index: usize, store: &Store) {
        self.events.push(Event::End(index));
        let operation = &mut self.operations[index];
        if operation.answer != Unknown {
            operation.returned = self.events.len() as u64;
            operation.latest = Timestamp::from_millis(store.now);
        }
    }

    fn history(&self) -> History {
        self.operations.iter().copied().collect()
    }

    fn is_linearizable_to_the_oracle(&self) -> bool {
        let actions = self.actions();
        actions.is_empty()
            || WGLChecker::<Contract>::is_linearizable(OracleHistory::from_actions(actions))
    }

    fn actions(&self) -> Vec<(usize, Action<Step>)> {
        let step = |index: usize| Step::Call(self.operations[index]);
        let is_lost_load = |index: usize| {
            let operation = &self.operations[index];
            operation.call == Call::Load && operation.answer == Unknown
        };
        let ticker = self.operations.len();
        let mut actions = Vec::new();
        // Each call is its own process: after a lost answer a client goes on calling.
        for event in &self.events {
            match *event {
                Event::Begin(index) if !is_lost_load(index) => {
                    actions.push((index, Action::Call(step(index))));
                }
                Event::End(index) if self.operations[index].answer != Unknown => {
                    actions.push((index, Action::Response(step(index))));
                }
                Event::Tick => {
                    actions.push((ticker, Action::Call(Step::Tick)));
                    actions.push((ticker, Action::Response(Step::Tick)));
                }
                Event::Begin(_) | Event::End(_) => {}
            }
        }
        for index in 0..self.operations.len() {
            if self.operations[index].answer == Unknown && !is_lost_load(index) {
                actions.push((index, Action::Response(step(index))));
            }
        }
        actions
    }
}

/// Compares the two checkers and returns how many histories were linearizable and how many not.
fn compare(seed: u64, count: usize, faults: Faults) -> (usize, usize) {
    let random = Random::new(seed);
    let (mut good, mut bad) = (0, 0);
    for number in 0..count {
        let clients = 2 + random.below(3);
        let scenario = Scenario::random(&random, clients, faults);
        let expected = scenario.is_linearizable_to_the_oracle();
        let verdict = check(&scenario.history());
        match &verdict {
            Verdict::Linearizable => good += 1,
            Verdict::Violation(_) => bad += 1,
            Verdict::Inconclusive(_) => panic!("history {number} of seed {seed}: {verdict:?}"),
        }
        assert_eq!(
            verdict == Verdict::Linearizable,
            expected,
            "history {number} of seed {seed}: {verdict:?}\n{:#?}",
            scenario.operations
        );
    }
    (good, bad)
}

#[test]
fn agrees_with_the_oracle_that_a_right_store_is_right() {
    let faults = Faults {
        stale: 0,
        lost: 0,
        silent: 10,
    };
    let (good, bad) = compare(1, 3_000, faults);
    assert_eq!((good, bad), (3_000, 0));
}

#[test]
fn agrees_with_the_oracle_about_stores_that_are_sometimes_wrong() {
    let faults = Faults {
        stale: 20,
        lost: 5,
        silent: 5,
    };
    let (good, bad) = compare(2, 5_000, faults);
    assert!(good > 1_000 && bad > 1_000, "one-sided: {good} {bad}");
}

#[test]
fn agrees_with_the_oracle_when_many_answers_are_lost() {
    let faults = Faults {
        stale: 40,
        lost: 25,
        silent: 20,
    };
    let (good, bad) = compare(3, 2_000, faults);
    assert!(good > 300 && bad > 300, "one-sided: {good} {bad}");
}
