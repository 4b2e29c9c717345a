//! Decides whether the answers in a [`History`] can be explained.
//!
//! A store is linearizable when every history has an order of its calls in which each one takes
//! effect between its beginning and its answer, and which a store with one client at a time would
//! have answered in the same way. The search for such an order is the one of Wing and Gong
//! ("Testing and verifying concurrent objects", 1993) with Lowe's memory of the configurations that
//! were seen ("Testing for linearizability", 2017). Each key is searched by itself, because no call is
//! about two, and linearizability holds for all keys when it holds for each.
//!
//! Two things are particular to sessions. A record may vanish: from its expiry on (give or take the
//! declared granularity) the search may take it away, at the latest when the clock says so, and
//! never brings it back. And a call with an [`Unknown`](Answer::Unknown) answer takes effect
//! anywhere after its beginning, or nowhere.
//!
//! ```
//! use sessionkit::{CookieName, ManualClock, MemoryStore, OsEntropy, SessionStore, Timestamp, Token};
//! use sessionkit_conformance::{history::Recorder, linearizability::{Verdict, check}};
//! use std::sync::Arc;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let clock = Arc::new(ManualClock::new(Timestamp::MIN));
//! let store = Arc::new(MemoryStore::new().with_clock(clock.clone()));
//! let recorder = Recorder::new(clock);
//! let (alice, bob) = (recorder.client(0, store.clone()), recorder.client(1, store));
//! let token = Token::random(&OsEntropy, &CookieName::new("id")?)?;
//! let (_, _) = tokio::join!(alice.load(&token), bob.delete(&token, None));
//! assert_eq!(check(&recorder.history()), Verdict::Linearizable);
//! # Ok::<(), sessionkit::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod violation;

use std::collections::{HashMap, HashSet};

use sessionkit::{ErrorKind, Revision, StoreKey, Timestamp};

use crate::history::{Answer, Call, History, Operation, Version};

pub use violation::Violation;

/// The configurations that [`check`] looks at before it gives up on a key.
pub const BUDGET: usize = 200_000;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violation(Violation),
    /// The search was given up after that many configurations. This is not a pass.
    Inconclusive(usize),
}

/// Checks a history within [`BUDGET`].
#[must_use]
pub fn check(history: &History) -> Verdict {
    check_within(history, BUDGET)
}

/// Checks a history, looking at no more than `budget` configurations of each key.
#[must_use]
pub fn check_within(history: &History, budget: usize) -> Verdict {
    let mut verdict = Verdict::Linearizable;
    for operations in groups(&history.operations) {
        let group = History {
            operations,
            granularity: history.granularity,
        };
        match Search::new(&group, budget).run() {
            Outcome::Ordered => {}
            Outcome::Stuck(_) => return Verdict::Violation(Violation::find(group, budget)),
            Outcome::GaveUp => verdict = Verdict::Inconclusive(budget),
        }
    }
    verdict
}

/// The operations by the keys they are about.
fn groups(operations: &[Operation]) -> Vec<Vec<Operation>> {
    let mut group_of: HashMap<StoreKey, usize> = HashMap::new();
    let mut groups: Vec<Vec<Operation>> = Vec::new();
    for operation in operations {
        let next = groups.len();
        let group = *group_of.entry(operation.key).or_insert(next);
        if group == next {
            groups.push(Vec::new());
        }
        groups[group].push(*operation);
    }
    groups
}

/// How a search ended.
enum Outcome {
    Ordered,
    Stuck(Deepest),
    GaveUp,
}

/// The order with the most answers in it that a search that failed could make, and where it led.
struct Deepest {
    answered: usize,
    order: Vec<usize>,
    state: State,
}

/// What a store holds under the key after some of the calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    record: Option<Version>,
    /// The earliest instant at which the last of the calls can have taken effect.
    now: Timestamp,
}

/// Which of the operations have a place in the order already, one bit for each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn flip(&mut self, index: usize) {
        self.0[index / 64] ^= 1 << (index % 64);
    }
}

struct Search<'a> {
    history: &'a History,
    budget: usize,
    placed: Placed,
    order: Vec<usize>,
    deepest: Option<Deepest>,
}

impl<'a> Search<'a> {
    fn new(history: &'a History, budget: usize) -> Self {
        Self {
            history,
            budget,
            placed: Placed(vec![0; history.operations.len().div_ceil(64)].into()),
            order: Vec::new(),
            deepest: None,
        }
    }

    fn run(mut self) -> Outcome {
        let start = State {
            record: None,
            now: Timestamp::MIN,
        };
        let mut seen = HashSet::new();
        let mut waiting = self
            .history
            .operations
            .iter()
            .filter(|operation| operation.answer != Answer::Unknown)
            .count();
        let mut path = vec![self.choices(&start)];
        self.remember(&start);
        while waiting > 0 {
            let Some(choices) = path.last_mut() else {
                return self.deepest.map_or(Outcome::GaveUp, Outcome::Stuck);
            };
            if let Some((index, state)) = choices.pop() {
                self.placed.flip(index);
                if !seen.insert((self.placed.clone(), state)) {
                    self.placed.flip(index);
                    continue;
                }
                if seen.len() > self.budget {
                    return Outcome::GaveUp;
                }
                waiting -= usize::from(self.is_answered(index));
                self.order.push(index);
                self.remember(&state);
                path.push(self.choices(&state));
            } else {
                path.pop();
                if let Some(index) = self.order.pop() {
                    self.placed.flip(index);
                    waiting += usize::from(self.is_answered(index));
                }
            }
        }
        Outcome::Ordered
    }

    fn is_answered(&self, index: usize) -> bool {
        self.history.operations[index].answer != Answer::Unknown
    }

    fn remember(&mut self, state: &State) {
        let placed = self.order.iter();
        let answered = placed.filter(|&&index| self.is_answered(index)).count();
        let most = self.deepest.as_ref().map(|deepest| deepest.answered);
        if most.is_none_or(|most| most < answered) {
            self.deepest = Some(Deepest {
                answered,
                order: self.order.clone(),
                state: *state,
            });
        }
    }

    /// The operations that can come next, and the states they lead to, the most promising last:
    /// the answer that came first, and nothing of unknown effect unless it is needed.
    fn choices(&self, state: &State) -> Vec<(usize, State)> {
        let operations = &self.history.operations;
        let mut candidates = self.candidates();
        candidates.sort_by_key(|&index| std::cmp::Reverse(operations[index].returned));
        candidates
            .into_iter()
            .flat_map(|index| {
                let next = self.successors(&operations[index], state);
                next.into_iter().map(move |state| (index, state))
            })
            .collect()
    }

    /// The operations that began before any of the others that have no place yet was answered.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut first_answer = u64::MAX;
        for (index, operation) in self.history.operations.iter().enumerate() {
            if operation.invoked > first_answer {
                break;
            }
            if !self.placed.contains(index) {
                first_answer = first_answer.min(operation.returned);
                candidates.push(index);
            }
        }
        candidates
    }

    /// The states in which an operation can leave the store, given its answer. None when the answer
    /// does not fit.
    fn successors(&self, operation: &Operation, state: &State) -> Vec<State> {
        let now = state.now.max(operation.earliest);
        let state = State { now, ..*state };
        std::iter::once(state)
            .chain(self.without(&state))
            .filter(|state| state.now <= operation.latest && self.may_live(state))
            .filter_map(|state| apply(operation, state))
            .collect()
    }

    /// The state in which the record has just expired, if there is one.
    fn without(&self, state: &State) -> Option<State> {
        let expires_at = state.record?.expires_at;
        Some(State {
            record: None,
            now: state.now.max(expires_at - self.history.granularity),
        })
    }

    fn may_live(&self, state: &State) -> bool {
        state
            .record
            .is_none_or(|record| state.now < record.expires_at + self.history.granularity)
    }
}

/// The contract as a sequential machine: what the store holds after a call, if it may have answered
/// so.
fn apply(operation: &Operation, state: State) -> Option<State> {
    use Answer::{Done, Ended, Failed, Found, Unknown};

    let stored = state.record;
    let is_stored = |revision| stored.is_some_and(|version| version.revision == revision);
    let may_end = |expected: Option<Revision>| expected.is_none_or(is_stored);
    let with = |record: Option<Version>| Some(State { record, ..state });
    match (operation.call, operation.answer) {
        (Call::Load, Found(found)) if found == stored => Some(state),
        (Call::Create(new), Done | Unknown) if stored.is_none() => with(Some(new)),
        (Call::Update { expected, new }, Done | Unknown) if is_stored(expected) => with(Some(new)),
        (Call::Touch(expires_at), Done | Unknown) if stored.is_some() => {
            with(stored.map(|record| Version {
                expires_at,
                ..record
            }))
        }
        (Call::Delete(expected), Ended(true)) if stored.is_some() && may_end(expected) => {
            with(None)
        }
        (Call::Delete(_), Ended(false)) if stored.is_none() => Some(state),
        (Call::Delete(expected), Unknown) if may_end(expected) => with(None),
        (Call::Create(_), Failed(ErrorKind::Exists)) if stored.is_some() => Some(state),
        (
            Call::Update { expected, .. } | Call::Delete(Some(expected)),
            Failed(ErrorKind::Conflict),
        ) if stored.is_some() && !is_stored(expected) => Some(state),
        (Call::Update { .. } | Call::Touch(_), Failed(ErrorKind::Missing)) if stored.is_none() => {
            Some(state)
        }
        (_, Failed(kind)) if !says_what_is_stored(kind) => Some(state),
        _ => None,
    }
}

fn says_what_is_stored(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Exists | ErrorKind::Conflict | ErrorKind::Missing
    )
}
