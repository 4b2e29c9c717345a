//! Races of a few calls whose steps somebody chooses, and whether any order of the calls, one after
//! the other, answers the same and leaves the same behind.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use sessionkit::{
    ErrorKind, Record, Result, SessionStore, StoreKey, Subject, SubjectIndex, Sweep, Timestamp,
    Token,
};

use super::rounds::Store;
use crate::{
    Context, Outcome,
    interleave::{Plan, clash, play},
    verdict::{describe, describe_error},
};

/// What is stored under a token before the race.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    Absent,
    /// A session of Alice.
    Live,
    /// A session of Bob.
    Bobs,
    /// A session of Alice that has expired.
    Expired,
    /// A session of Alice that expires when a late sweep moves the clock.
    Soon,
}

/// A call of a race.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    /// A session of Alice.
    Create,
    Load,
    /// At the revision of the start; the subject stays.
    Update,
    /// An update that makes it Bob's.
    GiveToBob,
    /// An update that makes it Alice's.
    GiveToAlice,
    /// An update that makes it nobody's.
    GiveToNobody,
    Touch,
    Delete,
    /// At the revision of the start.
    DeleteAt,
    /// Another process opens the namespace, loads, and closes its handle.
    Visit,
    Sweep,
    /// The clock moves on, then the sweep begins.
    LateSweep,
    /// Of Alice's sessions.
    List,
    /// From Alice's sessions.
    Revoke,
    /// Of Alice's sessions.
    RevokeAll,
    /// Of Alice's sessions but the one of the token.
    RevokeOthers,
}

impl Start {
    /// The same where what has expired is to expire during the race.
    fn later(self) -> Self {
        match self {
            Self::Expired => Self::Soon,
            other => other,
        }
    }
}

impl Call {
    fn is_sweep(self) -> bool {
        matches!(self, Self::Sweep | Self::LateSweep)
    }

    fn writes(self) -> bool {
        !matches!(self, Self::Load | Self::Visit | Self::List)
    }

    /// The same where it moves the clock itself.
    fn later(self) -> Self {
        match self {
            Self::Sweep => Self::LateSweep,
            other => other,
        }
    }
}

/// Calls that are made at the same time, each about one of a few tokens.
pub(super) struct Race {
    pub(super) start: &'static [Start],
    pub(super) calls: &'static [(Call, usize)],
}

/// How long the races of a case may take that are not left out even on a slow store, and how long
/// those that come on top of them.
const PLANNED: Duration = Duration::from_secs(6);
const MORE: Duration = Duration::from_millis(1500);

/// In how many races two calls are to meet on two threads: each has a good chance to fall into a
/// window of the other.
const MEETINGS: usize = 200;

/// How long the threads may take for that, all races of a case together: on a machine that is busy
/// with other things they hardly ever run at the same time.
const THREADS: Duration = Duration::from_secs(4);

/// More steps than any call takes.
const MAX_STEPS: usize = 64;

/// Runs the races that apply to the store: by steps, on two threads, and by steps again.
pub(super) async fn run(cx: &Context, races: &[Race]) -> Outcome {
    let handles = [cx.open().await?, cx.open().await?];
    let ring = Ring { cx, handles };
    let races: Vec<_> = races.iter().filter(|race| ring.admits(race)).collect();
    if races.is_empty() {
        return Err(cx.without_clock());
    }
    let share = |all: Duration| all / u32::try_from(races.len()).unwrap_or(1);
    let mut lengths = Vec::new();
    for race in &races {
        lengths.push(ring.by_steps(race, share(PLANNED)).await?);
    }
    for race in &races {
        ring.by_threads(race, share(THREADS)).await?;
    }
    for (race, length) in races.iter().zip(lengths) {
        ring.by_more_steps(race, length, share(MORE)).await?;
    }
    Ok(())
}

/// Where races are run.
struct Ring<'a> {
    cx: &'a Context,
    handles: [Store; 2],
}

impl Ring<'_> {
    fn admits(&self, race: &Race) -> bool {
        race.calls.iter().all(|(call, _)| match call {
            Call::Sweep => self.cx.capabilities().sweep == Sweep::Explicit,
            Call::LateSweep => {
                self.cx.capabilities().sweep == Sweep::Explicit && self.cx.has_manual_clock()
            }
            Call::List | Call::Revoke | Call::RevokeAll | Call::RevokeOthers => {
                self.handles[0].subjects().is_some()
            }
            // What a cache answers is no news.
            Call::Load | Call::Visit => self.cx.capabilities().staleness.is_zero(),
            _ => true,
        })
    }

    /// Every actor is held after each of its steps while the others run. Returns after how many
    /// steps at most.
    async fn by_steps(&self, race: &Race, limit: Duration) -> Outcome<usize> {
        let count = race.calls.len();
        let mut longest = 1;
        for who in 0..count {
            let begun = Instant::now();
            for steps in 1..MAX_STEPS {
                let mut last = false;
                for turn in 0..count - 1 {
                    let plan = Plan::Hold { who, steps, turn };
                    last |= self.step(race, &plan).await?[who] <= steps;
                }
                longest = longest.max(steps);
                if last || begun.elapsed() * count as u32 > limit {
                    break;
                }
            }
        }
        // In every order of their steps, also where a call has only one.
        self.cx.contended();
        Ok(longest)
    }

    /// Two actors are held after any of their steps; then it is anybody's turn.
    async fn by_more_steps(&self, race: &Race, longest: usize, limit: Duration) -> Outcome {
        let begun = Instant::now();
        let after = 1..longest;
        let held = (0..race.calls.len())
            .flat_map(|who| after.clone().map(move |steps| (who, steps)))
            .flat_map(|(who, steps)| {
                after
                    .clone()
                    .map(move |next| Plan::HoldBoth { who, steps, next })
            });
        let anybody = (0..64).map(|_| Plan::Anybody(self.cx.random().next()));
        for plan in held.chain(anybody) {
            if begun.elapsed() > limit {
                break;
            }
            self.step(race, &plan).await?;
        }
        Ok(())
    }

    /// One race, and how many steps each actor took.
    async fn step(&self, race: &Race, plan: &Plan) -> Outcome<Vec<usize>> {
        let plot = Plot {
            start: race.start,
            calls: race.calls,
            soon: self.cx.now() + self.cx.moment(),
            alone: true,
        };
        let scene = Scene::set(self.cx, &self.handles[0], &plot).await?;
        scene.begin(self.cx);
        let actors =
            (0..race.calls.len()).map(|number| scene.call(self.cx, self.handle(number), number));
        let played = play(actors.collect(), plan).await;
        self.judge(&scene, &played.answers, &played.times, &played)
            .await?;
        Ok(played.steps)
    }

    /// Pairs of the calls on two threads, until they have met often enough.
    async fn by_threads(&self, race: &Race, limit: Duration) -> Outcome {
        let count = race.calls.len();
        let pairs: Vec<[usize; 2]> = (0..count)
            .flat_map(|one| (0..one).map(move |other| [one, other]))
            .collect();
        let limit = limit / u32::try_from(pairs.len()).unwrap_or(1);
        for pair in &pairs {
            let calls = pair.map(|number| race.calls[number]);
            let (begun, mut met, mut size) = (Instant::now(), 0, 8);
            while met < MEETINGS && begun.elapsed() < limit {
                let start = Instant::now();
                met += self.batch(race.start, &calls, size).await?;
                let fast = start.elapsed() < Duration::from_millis(50);
                size = if fast {
                    (2 * size).min(512)
                } else {
                    (size / 2).max(8)
                };
            }
        }
        Ok(())
    }

    /// Races that are all prepared before the first of them begins. Returns in how many of them the
    /// two calls ran at the same time.
    async fn batch(&self, start: &[Start], calls: &[(Call, usize)], size: u32) -> Outcome<usize> {
        let sweeps = calls.iter().any(|(call, _)| call.is_sweep());
        let moves = sweeps && self.cx.has_manual_clock();
        // The first sweep would remove what the others race for, unless that expires one by one.
        let (start, calls): (Vec<_>, Vec<_>) = match moves {
            true => (
                start.iter().map(|start| start.later()).collect(),
                calls.iter().map(|(call, at)| (call.later(), *at)).collect(),
            ),
            false => (start.to_vec(), calls.to_vec()),
        };
        let size = if sweeps && !moves { 1 } else { size };
        let step = 2 * self.cx.margin() + Duration::from_millis(2);
        let first = self.cx.now() + self.cx.moment();
        let mut scenes = Vec::new();
        let mut pairs = Vec::new();
        for number in 0..size {
            let plot = Plot {
                start: &start,
                calls: &calls,
                soon: first + step * number,
                alone: size == 1,
            };
            let scene = Scene::set(self.cx, &self.handles[0], &plot).await?;
            pairs.push([0, 1].map(|number| scene.call(self.cx, self.handle(number), number)));
            scenes.push(scene);
        }
        scenes[0].begin(self.cx);
        let clashed = clash(pairs).await?;
        for (scene, clashed) in scenes.iter().zip(&clashed) {
            self.judge(scene, &clashed.answers, &clashed.times, &"on two threads")
                .await?;
        }
        Ok(clashed.iter().filter(|clashed| clashed.overlap()).count())
    }

    fn handle(&self, number: usize) -> Store {
        Arc::clone(&self.handles[number % 2])
    }

    async fn judge(
        &self,
        scene: &Scene,
        answers: &[Answer],
        times: &[(usize, usize)],
        how: &(dyn fmt::Display + Sync),
    ) -> Outcome {
        let left = Left::of(self.cx, &self.handles, scene).await?;
        let explained = Judge {
            scene,
            answers,
            times,
            left: &left,
        }
        .explains();
        self.cx.check(
            explained,
            format_args!(
                "an order of {} that explains the answers",
                scene.names().join(", ")
            ),
            Report {
                scene,
                answers,
                left: &left,
                how,
            },
        )?;
        scene.clear(&self.handles[0]).await
    }
}

/// What a scene is set for.
#[derive(Clone, Copy)]
struct Plot<'a> {
    start: &'a [Start],
    calls: &'a [(Call, usize)],
    /// When that expires which is to expire during the race.
    soon: Timestamp,
    /// Whether no records of other races are about.
    alone: bool,
}

/// The tokens and records of one race.
struct Scene {
    tokens: Vec<Token>,
    start: Vec<Option<Record>>,
    calls: Vec<(Call, usize)>,
    /// What each call writes, where it writes something.
    records: Vec<Record>,
    alice: Subject,
    bob: Subject,
    /// The time, and the time after a late sweep has moved the clock.
    now: Timestamp,
    later: Timestamp,
    alone: bool,
    /// Whether there is something to sweep, sooner or later.
    expires: bool,
}

impl Scene {
    async fn set(cx: &Context, store: &Store, plot: &Plot<'_>) -> Outcome<Arc<Self>> {
        let number = cx.random().next();
        let (alice, bob) = (
            cx.subject(&format!("alice{number:x}")),
            cx.subject(&format!("bob{number:x}")),
        );
        let long = cx.record("first");
        let Plot {
            start,
            calls,
            soon,
            alone,
        } = *plot;
        let mut tokens = Vec::new();
        let mut stored = Vec::new();
        for start in start {
            let token = cx.token();
            let expires_at = match start {
                Start::Expired => cx.now() - cx.moment(),
                Start::Soon => soon,
                _ => long.expires_at,
            };
            let subject = if *start == Start::Bobs { &bob } else { &alice };
            let record = Record {
                expires_at,
                subject: Some(subject.clone()),
                ..cx.changed(&long, "first")
            };
            let record = (*start != Start::Absent).then_some(record);
            if let Some(record) = &record {
                store.create(token.clone(), record).await?;
            }
            tokens.push(token);
            stored.push(record);
        }
        let moves = calls.iter().any(|(call, _)| *call == Call::LateSweep);
        let (now, later) = match moves {
            true => (
                soon - cx.margin() - Duration::from_millis(1),
                soon + cx.margin(),
            ),
            false => (cx.now(), cx.now()),
        };
        let records = calls.iter().enumerate().map(|(number, (call, token))| {
            let before = stored[*token].as_ref().unwrap_or(&long);
            let subject = match call {
                Call::GiveToBob => Some(bob.clone()),
                Call::Create | Call::GiveToAlice => Some(alice.clone()),
                Call::GiveToNobody => None,
                _ => before.subject.clone(),
            };
            let expires_at = long.expires_at + Duration::from_secs(60) * (1 + number as u32);
            Record {
                subject,
                expires_at,
                ..cx.changed(before, format!("written by call {number}"))
            }
        });
        Ok(Arc::new(Self {
            records: records.collect(),
            calls: calls.to_vec(),
            start: stored,
            tokens,
            alice,
            bob,
            now,
            later,
            alone,
            expires: start
                .iter()
                .any(|start| matches!(start, Start::Expired | Start::Soon)),
        }))
    }

    /// Sets the clock to shortly before what is to expire during the race does.
    fn begin(&self, cx: &Context) {
        if let (true, Some(clock)) = (self.now < self.later, cx.manual_clock()) {
            clock.set(self.now);
        }
    }

    fn names(&self) -> Vec<String> {
        let many = self.tokens.len() > 1;
        let name = |&(call, token): &(Call, usize)| match many {
            true => format!("{call:?}({token})"),
            false => format!("{call:?}"),
        };
        self.calls.iter().map(name).collect()
    }

    fn call(
        self: &Arc<Self>,
        cx: &Context,
        store: Store,
        number: usize,
    ) -> BoxFuture<'static, Answer> {
        let (scene, clock) = (Arc::clone(self), cx.manual_clock());
        let opening = cx.opening();
        async move {
            let (call, token) = scene.calls[number];
            if let (Call::LateSweep, Some(clock)) = (call, &clock) {
                clock.set(scene.later);
            }
            let store = match call {
                Call::Visit => match opening.await {
                    Ok(store) => store,
                    Err(error) => return Answer::Failed(error.kind(), describe_error(&error)),
                },
                _ => store,
            };
            let answer = scene
                .make(&*store, call, &scene.tokens[token], &scene.records[number])
                .await;
            answer.unwrap_or_else(|error| Answer::Failed(error.kind(), describe_error(&error)))
        }
        .boxed()
    }

    async fn make(
        &self,
        store: &dyn SessionStore,
        call: Call,
        token: &Token,
        record: &Record,
    ) -> Result<Answer> {
        // The start may be no record at all.
        let expected = self.revision_of(token).unwrap_or(record.revision);
        let done = |_| Answer::Done;
        match call {
            Call::Create => store.create(token.clone(), record).await.map(done),
            Call::Load | Call::Visit => store.load(token).await.map(Answer::Found),
            Call::Update | Call::GiveToBob | Call::GiveToAlice | Call::GiveToNobody => {
                store.update(token, expected, record).await.map(done)
            }
            Call::Touch => store.touch(token, record.expires_at).await.map(done),
            Call::Delete => store.delete(token, None).await.map(Answer::Ended),
            Call::DeleteAt => store.delete(token, Some(expected)).await.map(Answer::Ended),
            Call::Sweep | Call::LateSweep => store.sweep(1000).await.map(Answer::Count),
            Call::List => {
                let index = index(store)?;
                list(index, &self.alice).await.map(Answer::Listed)
            }
            Call::Revoke => {
                let index = index(store)?;
                index
                    .revoke(&self.alice, &token.key())
                    .await
                    .map(Answer::Ended)
            }
            Call::RevokeAll => {
                let index = index(store)?;
                index.revoke_all(&self.alice, None).await.map(Answer::Count)
            }
            Call::RevokeOthers => {
                let index = index(store)?;
                let revoked = index.revoke_all(&self.alice, Some(&token.key())).await;
                revoked.map(Answer::Count)
            }
        }
    }

    fn revision_of(&self, token: &Token) -> Option<sessionkit::Revision> {
        let at = self.tokens.iter().position(|known| known == token)?;
        Some(self.start[at].as_ref()?.revision)
    }

    /// Leaves nothing behind that the sweep of another race would count.
    async fn clear(&self, store: &Store) -> Outcome {
        if self.expires {
            for token in &self.tokens {
                store.delete(token, None).await?;
            }
        }
        Ok(())
    }
}

fn index(store: &dyn SessionStore) -> Result<&dyn SubjectIndex> {
    store
        .subjects()
        .ok_or_else(|| ErrorKind::Unsupported.into())
}

type Listed = Vec<(StoreKey, Timestamp)>;

async fn list(index: &dyn SubjectIndex, subject: &Subject) -> Result<Listed> {
    let listed = index.list(subject, None, 1000).await?;
    Ok(listed
        .into_iter()
        .map(|it| (it.key, it.expires_at))
        .collect())
}

/// What a call says.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Done,
    Ended(bool),
    Found(Option<Record>),
    Listed(Listed),
    Count(u64),
    Failed(ErrorKind, String),
}

/// What both handles find after a race.
struct Left {
    records: Vec<[Option<Record>; 2]>,
    /// The lists of Alice and Bob.
    lists: Option<[Listed; 2]>,
}

impl Left {
    async fn of(cx: &Context, handles: &[Store; 2], scene: &Scene) -> Outcome<Self> {
        cx.settle().await;
        let mut records = Vec::new();
        for token in &scene.tokens {
            let [one, other] = handles;
            let found = [one.load(token).await, other.load(token).await];
            let [one, other] = found.map(|found| cx.ok("load after a race", found));
            records.push([one?, other?]);
        }
        let lists = match handles[1].subjects() {
            Some(index) => {
                let lists = [
                    list(index, &scene.alice).await,
                    list(index, &scene.bob).await,
                ];
                let [alice, bob] = lists.map(|listed| cx.ok("list after a race", listed));
                Some([alice?, bob?])
            }
            None => None,
        };
        Ok(Self { records, lists })
    }
}

/// Looks for an order of the calls that explains everything.
///
/// Every call but those about all sessions of a subject, or all that have expired, takes effect at
/// one instant; those do so for each session at an instant of its own. So each token is looked at by
/// itself, and what such a call counts is the sum.
struct Judge<'a> {
    scene: &'a Scene,
    answers: &'a [Answer],
    times: &'a [(usize, usize)],
    left: &'a Left,
}

/// What each call counts of one token, or of all.
type Counts = Vec<u64>;

impl Judge<'_> {
    fn explains(&self) -> bool {
        let calls = self.answers.len();
        let mut sums = BTreeSet::from([vec![0; calls]]);
        for token in 0..self.scene.tokens.len() {
            let mut counts = BTreeSet::new();
            let mut todo: Vec<_> = (0..calls)
                .filter(|&call| self.is_about(call, token))
                .collect();
            let start = self.scene.start[token].as_ref();
            self.search(token, start, &mut todo, vec![0; calls], &mut counts);
            let add =
                |sum: &Counts, part: &Counts| sum.iter().zip(part).map(|(a, b)| a + b).collect();
            sums = sums
                .iter()
                .flat_map(|sum| counts.iter().map(move |part| add(sum, part)))
                .collect();
        }
        sums.iter().any(|sum| {
            let answers = self.answers.iter().zip(sum).enumerate();
            answers
                .into_iter()
                .all(|(call, (answer, sum))| match answer {
                    // It sweeps up after other races, too.
                    Answer::Count(_)
                        if !self.scene.alone && self.scene.calls[call].0.is_sweep() =>
                    {
                        true
                    }
                    Answer::Count(count) => count == sum,
                    _ => true,
                })
        }) && self.answers.iter().all(|answer| self.is_a_list(answer))
    }

    fn is_about(&self, call: usize, token: usize) -> bool {
        match self.scene.calls[call] {
            (Call::Sweep | Call::LateSweep | Call::List | Call::RevokeAll, _) => true,
            (Call::RevokeOthers, except) => token != except,
            (_, about) => token == about,
        }
    }

    /// In ascending order, and of sessions of the race.
    fn is_a_list(&self, answer: &Answer) -> bool {
        let Answer::Listed(listed) = answer else {
            return true;
        };
        let known = |key: &StoreKey| self.scene.tokens.iter().any(|token| token.key() == *key);
        listed.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && listed.iter().all(|(key, _)| known(key))
    }

    /// Tries every order of the calls that are left, and notes what they count.
    fn search(
        &self,
        token: usize,
        state: Option<&Record>,
        todo: &mut Vec<usize>,
        counts: Counts,
        found: &mut BTreeSet<Counts>,
    ) {
        if todo.is_empty() {
            if self.is_left(token, state) {
                found.insert(counts);
            }
            return;
        }
        for at in 0..todo.len() {
            let call = todo[at];
            let too_early = todo
                .iter()
                .any(|&other| self.times[other].1 < self.times[call].0);
            if too_early {
                continue;
            }
            todo.remove(at);
            for now in self.instants(call) {
                for (next, count) in self.effects(token, call, state, now) {
                    let mut counts = counts.clone();
                    counts[call] += count;
                    self.search(token, next.as_ref(), todo, counts, found);
                }
            }
            todo.insert(at, call);
        }
    }

    /// What the clock may have shown a call.
    fn instants(&self, call: usize) -> Vec<Timestamp> {
        let (now, later) = (self.scene.now, self.scene.later);
        let mover = self
            .scene
            .calls
            .iter()
            .position(|(call, _)| *call == Call::LateSweep);
        match mover {
            None => vec![now],
            Some(mover) if mover == call || self.times[mover].1 < self.times[call].0 => vec![later],
            Some(mover) if self.times[call].1 < self.times[mover].0 => vec![now],
            Some(_) => vec![now, later],
        }
    }

    /// What a call does that answers as this one did, and what it counts; nothing where it cannot
    /// have answered so.
    fn effects(
        &self,
        token: usize,
        call: usize,
        state: Option<&Record>,
        now: Timestamp,
    ) -> Vec<(Option<Record>, u64)> {
        let (kind, answer) = (self.scene.calls[call].0, &self.answers[call]);
        let record = &self.scene.records[call];
        let live = state.filter(|state| state.is_live(now));
        let alices = |record: &&Record| record.subject.as_ref() == Some(&self.scene.alice);
        let expected = self.scene.start[token]
            .as_ref()
            .map_or(record.revision, |start| start.revision);
        let failed = |kind| Answer::Failed(kind, String::new());
        let kept = state.cloned();
        let (next, says) = match (kind, live) {
            (Call::Create, None) => (Some(record.clone()), Answer::Done),
            (Call::Create, Some(_)) => (kept, failed(ErrorKind::Exists)),
            (Call::Load | Call::Visit, live) => (kept, Answer::Found(live.cloned())),
            (Call::Update | Call::GiveToBob | Call::GiveToAlice | Call::GiveToNobody, live) => {
                match live {
                    None => (kept, failed(ErrorKind::Missing)),
                    Some(live) if live.revision != expected => (kept, failed(ErrorKind::Conflict)),
                    Some(_) => (Some(record.clone()), Answer::Done),
                }
            }
            (Call::Touch, None) => (kept, failed(ErrorKind::Missing)),
            (Call::Touch, Some(live)) => {
                let touched = Record {
                    expires_at: record.expires_at,
                    ..live.clone()
                };
                (Some(touched), Answer::Done)
            }
            (Call::Delete, live) => (None, Answer::Ended(live.is_some())),
            (Call::DeleteAt, None) => (None, Answer::Ended(false)),
            (Call::DeleteAt, Some(live)) if live.revision != expected => {
                (kept, failed(ErrorKind::Conflict))
            }
            (Call::DeleteAt, Some(_)) => (None, Answer::Ended(true)),
            (Call::Revoke, live) => match live.filter(alices) {
                Some(_) => (None, Answer::Ended(true)),
                None => (kept, Answer::Ended(false)),
            },
            (Call::List, live) => {
                let entry = live.filter(alices).map(|record| record.expires_at);
                let listed = self.listed(answer, token);
                return if listed == entry {
                    vec![(kept, 0)]
                } else {
                    vec![]
                };
            }
            (Call::RevokeAll | Call::RevokeOthers, live) => match live.filter(alices) {
                Some(_) => return vec![(None, 1)],
                None => return vec![(kept, 0)],
            },
            // What has expired may have gone earlier, and is not counted then.
            (Call::Sweep | Call::LateSweep, None) if state.is_some() => {
                return vec![(None, 1), (kept, 0)];
            }
            (Call::Sweep | Call::LateSweep, _) => return vec![(kept, 0)],
        };
        let same = match (&says, answer) {
            // It has taken effect or not: a layer over two stores may not know which.
            (_, Answer::Failed(ErrorKind::Ambiguous, _)) if kind.writes() => {
                return vec![(next, 0), (state.cloned(), 0)];
            }
            (Answer::Failed(says, _), Answer::Failed(kind, _)) => says == kind,
            (says, answer) => says == answer,
        };
        if same { vec![(next, 0)] } else { vec![] }
    }

    fn listed(&self, answer: &Answer, token: usize) -> Option<Timestamp> {
        let key = self.scene.tokens[token].key();
        match answer {
            Answer::Listed(listed) => listed
                .iter()
                .find(|(listed, _)| *listed == key)
                .map(|(_, at)| *at),
            _ => None,
        }
    }

    /// Whether this state is what was found after the race.
    fn is_left(&self, token: usize, state: Option<&Record>) -> bool {
        let live = state.filter(|state| state.is_live(self.scene.later));
        let key = self.scene.tokens[token].key();
        let of =
            |subject: &Subject| live.is_some_and(|live| live.subject.as_ref() == Some(subject));
        let lists =
            self.left.lists.iter().flat_map(|[alice, bob]| {
                [(alice, of(&self.scene.alice)), (bob, of(&self.scene.bob))]
            });
        self.left.records[token]
            .iter()
            .all(|found| found.as_ref() == live)
            && lists
                .into_iter()
                .all(|(list, listed)| list.iter().any(|(known, _)| *known == key) == listed)
    }
}

/// What happened, for people.
struct Report<'a> {
    scene: &'a Scene,
    answers: &'a [Answer],
    left: &'a Left,
    how: &'a (dyn fmt::Display + Sync),
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, answer)) in self.scene.names().iter().zip(self.answers).enumerate() {
            let actor = char::from(b'A' + u8::try_from(number).unwrap_or(25).min(25));
            write!(f, "{actor} {name} = {answer}, ")?;
        }
        write!(f, "in the steps {}, then", self.how)?;
        for (number, [one, other]) in self.left.records.iter().enumerate() {
            write!(f, " token {number} is {}", describe(one.as_ref()))?;
            if one != other {
                write!(f, " and on another handle {}", describe(other.as_ref()))?;
            }
        }
        if let Some([alice, bob]) = &self.left.lists {
            write!(
                f,
                ", and in the lists are {} and {}",
                alice.len(),
                bob.len()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Ok"),
            Self::Ended(ended) => write!(f, "{ended}"),
            Self::Found(found) => f.write_str(&describe(found.as_ref())),
            Self::Listed(listed) => write!(f, "a list of {}", listed.len()),
            Self::Count(count) => write!(f, "{count}"),
            Self::Failed(_, error) => f.write_str(error),
        }
    }
}
