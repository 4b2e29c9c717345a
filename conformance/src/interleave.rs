//! Calls that get in each other's way on purpose: not by luck, but because somebody decides after
//! every step who takes the next one.
//!
//! A call is a future, and what it does between two of its await points it does at one poll. So the
//! order of the polls is the order of the steps, and a call can be held wherever it waits while
//! others run to their end: a check and the write that depends on it come apart at exactly that
//! place. A store that gives others a chance only within one step, because it takes a lock twice or
//! works on a thread of its own, is raced on two threads instead, whose starts move against each
//! other.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, poll_fn},
    task::AtomicWaker,
};
use tokio::{runtime::Handle, task::yield_now};

use crate::{Failure, Outcome, Random};

/// The calls of a race, each by an actor of its own.
pub(crate) type Actors<T> = Vec<BoxFuture<'static, T>>;

/// How long an actor may wait for something before another one gets its turn: what it waits for may
/// be held by that one. Long for a server that works on an answer.
const PATIENCE: Duration = Duration::from_millis(25);

/// Who takes the next step.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// An actor takes so many steps and is held. Then the others run to the end, one after the
    /// other, and then that one goes on.
    Hold {
        /// Who is held.
        who: usize,
        /// After how many steps.
        steps: usize,
        /// Which of the others is first, counted from the one behind the one held.
        turn: usize,
    },
    /// As `Hold`, but the next one is held, too, after so many steps, until the first has ended.
    HoldBoth {
        /// Who is held first.
        who: usize,
        /// After how many steps.
        steps: usize,
        /// After how many steps the next one is held.
        next: usize,
    },
    /// Anybody, for one step or for a few.
    Anybody(u64),
}

/// What came of a race.
#[derive(Debug)]
pub(crate) struct Played<T> {
    /// The answers, in the order of the actors.
    pub(crate) answers: Vec<T>,
    /// When each actor began and ended, in steps of all of them.
    pub(crate) times: Vec<(usize, usize)>,
    /// How many steps each actor took.
    pub(crate) steps: Vec<usize>,
    script: Vec<usize>,
}

/// The steps of each actor in their order: `A×3 B×5 A×2`.
impl<T> fmt::Display for Played<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.script.chunk_by(|one, next| one == next);
        for (number, run) in runs.enumerate() {
            let space = if number == 0 { "" } else { " " };
            let actor = char::from(b'A' + u8::try_from(run[0]).unwrap_or(25).min(25));
            write!(f, "{space}{actor}")?;
            if run.len() > 1 {
                write!(f, "×{}", run.len())?;
            }
        }
        Ok(())
    }
}

/// Lets the actors take steps by a plan until all have ended.
pub(crate) async fn play<T: Send>(actors: Actors<T>, plan: &Plan) -> Played<T> {
    let mut stage = Stage::new(actors);
    match *plan {
        Plan::Hold { who, steps, turn } => {
            let count = stage.cast.len();
            stage.steps(who, steps).await;
            for other in (0..count - 1).map(|at| (who + 1 + (turn + at) % (count - 1)) % count) {
                stage.run_out(other).await;
            }
        }
        Plan::HoldBoth { who, steps, next } => {
            let count = stage.cast.len();
            stage.steps(who, steps).await;
            stage.steps((who + 1) % count, next).await;
            for other in (2..count).map(|at| (who + at) % count) {
                stage.run_out(other).await;
            }
            stage.run_out(who).await;
        }
        Plan::Anybody(seed) => stage.anybody(&Random::new(seed)).await,
    }
    stage.finish().await
}

struct Stage<T> {
    cast: Vec<Actor<T>>,
    script: Vec<usize>,
}

struct Actor<T> {
    future: Option<BoxFuture<'static, T>>,
    bell: Arc<Bell>,
    answer: Option<T>,
    began: usize,
    ended: usize,
    steps: usize,
}

/// Rings when an actor can take a step.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        self.listener.wake();
    }
}

impl<T: Send> Stage<T> {
    fn new(actors: Actors<T>) -> Self {
        let cast = actors.into_iter().map(|future| Actor {
            future: Some(future),
            bell: Arc::new(Bell {
                rung: AtomicBool::new(true),
                ..Bell::default()
            }),
            answer: None,
            began: usize::MAX,
            ended: usize::MAX,
            steps: 0,
        });
        Self {
            cast: cast.collect(),
            script: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.cast.iter().all(|actor| actor.future.is_none())
    }

    /// One step of an actor. Returns whether it could take one within the patience of the others.
    async fn step(&mut self, who: usize) -> bool {
        let now = self.script.len();
        let actor = &mut self.cast[who];
        let Some(future) = &mut actor.future else {
            return false;
        };
        // What yields is woken as soon as the runtime has its turn.
        yield_now().await;
        if !actor.bell.rung.load(Ordering::SeqCst)
            && tokio::time::timeout(PATIENCE, actor.bell.wait())
                .await
                .is_err()
        {
            return false;
        }
        actor.bell.rung.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&actor.bell));
        let polled = future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker));
        actor.began = actor.began.min(now);
        actor.steps += 1;
        if let Poll::Ready(answer) = polled {
            actor.future = None;
            actor.answer = Some(answer);
            actor.ended = now;
        }
        self.script.push(who);
        true
    }

    async fn steps(&mut self, who: usize, steps: usize) {
        for _ in 0..steps {
            if !self.step(who).await {
                break;
            }
        }
    }

    /// Lets an actor go on until it has ended, or waits for one that is held.
    async fn run_out(&mut self, who: usize) {
        while self.step(who).await {}
    }

    async fn anybody(&mut self, random: &Random) {
        while !self.is_over() {
            let waiting: Vec<_> = (0..self.cast.len())
                .filter(|&at| self.cast[at].future.is_some())
                .collect();
            let who = waiting[random.below(waiting.len())];
            let steps = match random.below(3) {
                0 => 1,
                1 => 1 + random.below(8),
                _ => usize::MAX,
            };
            self.steps(who, steps).await;
        }
    }

    async fn finish(mut self) -> Played<T> {
        while !self.is_over() {
            for who in 0..self.cast.len() {
                self.run_out(who).await;
            }
        }
        Played {
            times: self.cast.iter().map(|it| (it.began, it.ended)).collect(),
            steps: self.cast.iter().map(|it| it.steps).collect(),
            answers: self.cast.into_iter().filter_map(|it| it.answer).collect(),
            script: self.script,
        }
    }
}

impl Bell {
    async fn wait(&self) {
        poll_fn(|context| {
            self.listener.register(context.waker());
            match self.rung.load(Ordering::SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// What came of a pair on two threads: the answers, and when each began and ended.
pub(crate) struct Clashed<T> {
    pub(crate) answers: [T; 2],
    pub(crate) times: [(usize, usize); 2],
}

impl<T> Clashed<T> {
    /// Whether each began before the other had ended.
    pub(crate) fn overlap(&self) -> bool {
        let [one, other] = self.times;
        one.0 < other.1 && other.0 < one.1
    }
}

/// Runs pairs of actors, the two of each at the same moment on two threads, the start of one moved
/// against that of the other by a bit more or less from pair to pair.
///
/// # Errors
/// When an actor panics.
pub(crate) async fn clash<T: Send + 'static>(
    pairs: Vec<[BoxFuture<'static, T>; 2]>,
) -> Outcome<Vec<Clashed<T>>> {
    let line = Arc::new(Line::default());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for [one, other] in pairs {
        first.push(one);
        second.push(other);
    }
    let run = |actors: Vec<BoxFuture<'static, T>>, side: usize| {
        let line = Arc::clone(&line);
        tokio::task::spawn_blocking(move || {
            let _leaving = Leaving(Arc::clone(&line));
            let handle = Handle::current();
            let answers = actors.into_iter().enumerate().map(|(round, actor)| {
                line.meet(side, round + 1);
                // Now the one is late, now the other, and each time by a little more.
                let (late, turns) = (round % 2 == side, round / 2 % 32);
                (0..if late { turns * turns } else { 0 }).for_each(|_| std::hint::spin_loop());
                let began = line.now.fetch_add(1, Ordering::SeqCst);
                let answer = handle.block_on(actor);
                (answer, (began, line.now.fetch_add(1, Ordering::SeqCst)))
            });
            answers.collect::<Vec<_>>()
        })
    };
    let (one, other) = (run(first, 0), run(second, 1));
    let panicked = |panic| Failure::new("the call returns", format!("it ended: {panic}"));
    let one = one.await.map_err(panicked)?;
    let other = other.await.map_err(panicked)?;
    let both = one.into_iter().zip(other);
    let clashed = both.map(|((one, its_times), (other, other_times))| Clashed {
        answers: [one, other],
        times: [its_times, other_times],
    });
    Ok(clashed.collect())
}

/// Where two threads wait for each other before each round.
#[derive(Default)]
struct Line {
    /// The round that each is ready for.
    arrived: [AtomicUsize; 2],
    /// The round that each knows the other one to be ready for.
    awake: [AtomicUsize; 2],
    /// Counts what happens.
    now: AtomicUsize,
    left: AtomicBool,
    asleep: Mutex<()>,
    alarm: Condvar,
}

impl Line {
    /// How often to look for the other one before going to sleep: no longer than it takes for its
    /// call. Who sleeps leaves the core to it, and is put on another one when it is woken.
    const LOOKS: usize = 2_000;
    /// How often to look whether it has woken up.
    const PATIENCE: usize = 100_000;

    fn meet(&self, side: usize, round: usize) {
        let other = 1 - side;
        let there = || {
            self.arrived[other].load(Ordering::SeqCst) >= round || self.left.load(Ordering::SeqCst)
        };
        self.arrived[side].store(round, Ordering::SeqCst);
        drop(self.guard());
        self.alarm.notify_one();
        if !looking(Self::LOOKS, there) {
            let mut guard = self.guard();
            while !there() {
                let woken = self.alarm.wait(guard);
                guard = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        self.awake[side].store(round, Ordering::SeqCst);
        looking(Self::PATIENCE, || {
            self.awake[other].load(Ordering::SeqCst) >= round || self.left.load(Ordering::SeqCst)
        });
    }

    fn guard(&self) -> MutexGuard<'_, ()> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks so many times at most whether something has come.
fn looking(times: usize, come: impl Fn() -> bool) -> bool {
    (0..times).any(|_| {
        std::hint::spin_loop();
        come()
    })
}

/// Nobody waits for a thread that has ended, by a panic too.
struct Leaving(Arc<Line>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::SeqCst);
        drop(self.0.guard());
        self.0.alarm.notify_one();
    }
}
