//! Runs tasks in every order in which their steps can be interleaved, and compares what came of
//! them with what a single store does one after the other.

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::SessionStore;

use crate::support::{Op, Outcome, now};

/// What one task did: the steps at which it began and ended, and what came of it unless it was
/// dropped.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) began: usize,
    pub(crate) ended: usize,
    pub(crate) outcome: Option<Outcome>,
}

/// Chooses among alternatives, and says afterwards how many there were.
pub(crate) trait Chooser {
    fn choose(&mut self, alternatives: usize) -> usize;
}

/// Takes the first alternative wherever it was not told otherwise.
#[derive(Default)]
struct Path {
    choices: Vec<(usize, usize)>,
    next: usize,
}

impl Path {
    /// The next path in depth-first order.
    fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((choice, alternatives)) = self.choices.pop() {
            if choice + 1 < alternatives {
                self.choices.push((choice + 1, alternatives));
                return true;
            }
        }
        false
    }
}

impl Chooser for Path {
    fn choose(&mut self, alternatives: usize) -> usize {
        if self.next == self.choices.len() {
            self.choices.push((0, alternatives));
        }
        let (choice, before) = self.choices[self.next];
        assert_eq!(before, alternatives, "the tasks are not deterministic");
        self.next += 1;
        choice
    }
}

/// A linear congruential generator (Knuth, MMIX).
struct Dice(u64);

impl Chooser for Dice {
    fn choose(&mut self, alternatives: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % alternatives
    }
}

/// Calls `trial` with every path through its choices, and returns how many there were.
pub(crate) fn exhaustively(mut trial: impl FnMut(&mut dyn Chooser)) -> usize {
    let mut path = Path::default();
    let mut count = 0;
    loop {
        trial(&mut path);
        count += 1;
        if !path.advance() {
            return count;
        }
    }
}

/// Calls `trial` with this many random choices.
pub(crate) fn randomly(trials: usize, mut trial: impl FnMut(&mut dyn Chooser)) {
    let mut dice = Dice(7);
    for _ in 0..trials {
        trial(&mut dice);
    }
}

/// Runs all operations together on one store, a step of one of them at a time. With `may_drop` one
/// of them is dropped somewhere half-way, or none.
pub(crate) fn together(
    store: &Arc<dyn SessionStore>,
    ops: &[Op],
    may_drop: bool,
    chooser: &mut dyn Chooser,
) -> Vec<Event> {
    let mut tasks: Vec<Option<BoxFuture<'_, Outcome>>> = ops
        .iter()
        .map(|op| Some(Box::pin(op.clone().run(&**store)) as _))
        .collect();
    let mut events = vec![
        Event {
            began: usize::MAX,
            ended: usize::MAX,
            outcome: None
        };
        ops.len()
    ];
    let mut droppable = may_drop;
    let mut context = Context::from_waker(Waker::noop());
    for step in 0.. {
        let ready: Vec<_> = (0..tasks.len()).filter(|&at| tasks[at].is_some()).collect();
        let begun = |at: &&usize| droppable && events[**at].began != usize::MAX;
        let victims: Vec<_> = ready.iter().filter(begun).copied().collect();
        if ready.is_empty() {
            break;
        }
        let choice = chooser.choose(ready.len() + victims.len());
        if let Some(&victim) = choice
            .checked_sub(ready.len())
            .and_then(|at| victims.get(at))
        {
            tasks[victim] = None;
            events[victim].ended = step;
            droppable = false;
            continue;
        }
        let at = ready[choice];
        events[at].began = events[at].began.min(step);
        let task = tasks[at].as_mut().expect("it is ready");
        if let Poll::Ready(outcome) = task.as_mut().poll(&mut context) {
            tasks[at] = None;
            events[at].ended = step;
            events[at].outcome = Some(outcome);
        }
    }
    events
}

/// Runs one operation by itself.
pub(crate) fn alone(store: &Arc<dyn SessionStore>, op: &Op) -> Outcome {
    let mut task = Box::pin(op.clone().run(&**store));
    loop {
        if let Some(outcome) = (&mut task).now_or_never() {
            return outcome;
        }
    }
}

/// Checks that what happened could have happened one after the other.
#[derive(Default)]
pub(crate) struct Judge {
    known: HashSet<String>,
}

impl Judge {
    /// `reference` makes the reference store in its initial state; `epilogue` is what was run on
    /// the store afterwards, alone, with its outcomes; `ops` and `events` belong together.
    pub(crate) fn check(
        &mut self,
        reference: &dyn Fn() -> Arc<dyn SessionStore>,
        ops: &[Op],
        events: &[Event],
        epilogue: &[(Op, Outcome)],
    ) {
        let before = |one: &Event, other: &Event| one.ended < other.began;
        let order: Vec<_> = events
            .iter()
            .flat_map(|one| events.iter().map(move |other| before(one, other)))
            .collect();
        let print = |outcome: Option<&Outcome>| outcome.map(Outcome::fingerprint);
        let seen: Vec<_> = events
            .iter()
            .map(|event| print(event.outcome.as_ref()))
            .chain(epilogue.iter().map(|(_, outcome)| print(Some(outcome))))
            .collect();
        if !self.known.insert(format!("{order:?} {seen:?}")) {
            return;
        }
        let explained = permutations(ops.len()).into_iter().any(|order| {
            let real = order.iter().enumerate().all(|(position, &late)| {
                order[position..]
                    .iter()
                    .all(|&early| !before(&events[early], &events[late]))
            });
            real && subsets(&order, events).any(|order| {
                let store = reference();
                order.iter().all(|&at| {
                    let outcome = now(ops[at].clone().run(&*store));
                    events[at]
                        .outcome
                        .as_ref()
                        .is_none_or(|seen| *seen == outcome)
                }) && epilogue
                    .iter()
                    .all(|(op, seen)| now(op.clone().run(&*store)) == *seen)
            })
        });
        assert!(
            explained,
            "no order explains {seen:#?} of {ops:#?} {events:#?} followed by {epilogue:#?}"
        );
    }
}

/// The order, and the order without each operation that was dropped: it took effect or it did not.
fn subsets<'a>(order: &'a [usize], events: &'a [Event]) -> impl Iterator<Item = Vec<usize>> + 'a {
    let dropped = order.iter().find(|&&at| events[at].outcome.is_none());
    let without = dropped.map(|dropped| {
        let kept = order.iter().filter(move |&at| at != dropped);
        kept.copied().collect()
    });
    [Some(order.to_vec()), without].into_iter().flatten()
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    if len == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(len - 1);
    shorter
        .iter()
        .flat_map(|order| {
            (0..len).map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, len - 1);
                longer
            })
        })
        .collect()
}
