//! Random sequences of calls, answered by a store and by the simplest model of one.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sessionkit::{
    ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject, Sweep, Timestamp, Token,
};

use crate::{
    Context, Failure, Outcome, Random, Verdict,
    verdict::{describe, describe_difference, ended},
};

const TOKENS: usize = 4;

/// One call, made of small numbers so that a sequence can be shortened and still mean something.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Step {
    call: Call,
    handle: usize,
    token: usize,
    /// Whether the call names the revision that is stored.
    current: bool,
    len: usize,
    lifetime: u32,
    subject: usize,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Create,
    Load,
    Update,
    Touch,
    Delete,
    DeleteAt,
    Sweep,
    Pass,
    List,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = if self.current { "current" } else { "other" };
        let (handle, token, len) = (self.handle, self.token, self.len);
        match self.call {
            Call::Create => write!(f, "{handle}: create(t{token}, {len} bytes)"),
            Call::Update => write!(f, "{handle}: update(t{token}, {expected}, {len} bytes)"),
            Call::Touch => write!(f, "{handle}: touch(t{token}, {} units)", self.lifetime),
            Call::DeleteAt => write!(f, "{handle}: delete(t{token}, {expected})"),
            Call::Load => write!(f, "{handle}: load(t{token})"),
            Call::Delete => write!(f, "{handle}: delete(t{token})"),
            Call::Sweep | Call::Pass => write!(f, "{:?}", self.call),
            Call::List => write!(f, "{handle}: list(subject {})", self.subject),
        }
    }
}

impl Step {
    fn random(random: &Random, passes: bool) -> Self {
        use Call::{Create, Delete, DeleteAt, List, Load, Pass, Sweep, Touch, Update};
        const CALLS: [Call; 15] = [
            Create, Create, Create, Load, Load, Load, Update, Update, Update, Touch, Touch, Delete,
            DeleteAt, Sweep, List,
        ];
        let token = random.below(TOKENS);
        let call = *random.pick(&CALLS);
        Self {
            call: if passes { Pass } else { call },
            handle: random.below(2),
            token,
            current: random.below(4) > 0,
            len: *random.pick(&[0, 1, 7, 64, 300]),
            lifetime: *random.pick(&[1, 2, 3]),
            subject: random.below(3),
            number: random.next(),
        }
    }
}

/// Random sequences to be run at the same time. There is one clock, so they have in common when time
/// passes: each of them alone means the same.
pub(crate) fn sequences(random: &Random, count: usize, len: usize) -> Vec<Vec<Step>> {
    let passes: Vec<_> = (0..len).map(|_| random.below(16) == 0).collect();
    let sequence = |_| {
        let steps = passes.iter().map(|passes| Step::random(random, *passes));
        steps.collect()
    };
    (0..count).map(sequence).collect()
}

/// Sequences, one of which the store answered otherwise than the model, and how.
pub(crate) struct Deviation {
    sequences: Vec<Vec<Step>>,
    failure: Failure,
}

/// Runs sequences in one namespace, each with tokens and subjects of its own: the first step of all
/// of them at the same time, then the second, and so on.
pub(crate) async fn run(
    cx: &Context,
    name: &str,
    sequences: &[Vec<Step>],
) -> Outcome<Option<Deviation>> {
    let namespace = format!("{}_{name}", cx.namespace());
    let handles = [cx.open_in(&namespace).await?, cx.open_in(&namespace).await?];
    let mut pairs: Vec<_> = (0..sequences.len())
        .map(|number| Pair::new(cx, number, &handles))
        .collect();
    let longest = sequences.iter().map(Vec::len).max().unwrap_or_default();
    for position in 0..longest {
        let steps = sequences.iter().map(|sequence| &sequence[position]);
        if sequences[0][position].call == Call::Pass {
            pass(cx).await;
            continue;
        }
        let taken = pairs
            .iter_mut()
            .zip(steps)
            .map(|(pair, step)| pair.step(step));
        let outcomes = join_all(taken.collect::<Vec<_>>()).await;
        for (outcome, steps) in outcomes.into_iter().zip(sequences) {
            if let Err(failure) = outcome {
                let failure = named(failure, &steps[..=position], sequences.len());
                // Nothing that came later had a part in it.
                let until = |steps: &Vec<Step>| steps[..=position].to_vec();
                let sequences = sequences.iter().map(until).collect();
                return Ok(Some(Deviation { sequences, failure }));
            }
        }
    }
    Ok(None)
}

async fn pass(cx: &Context) {
    if cx.has_manual_clock() {
        cx.pass(cx.moment() * 7 / 10).await;
    }
}

/// How often a failure is tried to be shortened, and for how long: a store may wait for a disk or a
/// network.
const SHRINKS: usize = 400;
const SHRINKING: Duration = Duration::from_secs(20);

/// Leaves out what does not matter to a failure: other sequences first, then steps of all of them,
/// many at once before single ones, until no single one can go; then makes plain what is left.
pub(crate) async fn shrink(cx: &Context, deviation: Deviation) -> Failure {
    let mut shrink = Shrink {
        cx,
        least: deviation,
        begun: Instant::now(),
        runs: 0,
    };
    for part in [Part::Sequences, Part::Steps] {
        let mut chunk = part.count(&shrink.least.sequences).div_ceil(2);
        while chunk > 0 {
            let smaller = shrink.leave_out(part, chunk).await;
            // Without one step another one may have become superfluous, which stood before it.
            chunk = match chunk {
                1 => usize::from(smaller),
                more => more / 2,
            };
        }
    }
    shrink.make_plain().await;
    shrink.least.failure
}

struct Shrink<'a> {
    cx: &'a Context,
    least: Deviation,
    begun: Instant,
    runs: usize,
}

impl Shrink<'_> {
    /// Whether something could be left out, in pieces of this size.
    async fn leave_out(&mut self, part: Part, chunk: usize) -> bool {
        let mut any = false;
        let mut start = 0;
        while start < part.count(&self.least.sequences) {
            let end = (start + chunk).min(part.count(&self.least.sequences));
            let fewer = part.without(&self.least.sequences, start..end);
            match self.still_fails(&fewer).await {
                true => any = true,
                false => start = end,
            }
        }
        any
    }

    /// Gives all steps, or each that can, the plainest of everything that the failure bears.
    async fn make_plain(&mut self) {
        let plain: [fn(&mut Step); 5] = [
            |step| step.handle = 0,
            |step| step.token = 0,
            |step| step.len = 1,
            |step| step.subject = 0,
            |step| step.lifetime = 1,
        ];
        for change in plain {
            let mut plainer = self.least.sequences.clone();
            plainer.iter_mut().flatten().for_each(change);
            if self.still_fails(&plainer).await {
                continue;
            }
            for sequence in 0..self.least.sequences.len() {
                for position in 0..self.least.sequences[sequence].len() {
                    let mut plainer = self.least.sequences.clone();
                    let step = &mut plainer[sequence][position];
                    let before = *step;
                    change(step);
                    if *step != before {
                        self.still_fails(&plainer).await;
                    }
                }
            }
        }
    }

    /// Runs the sequences, and keeps them when one of them deviates.
    async fn still_fails(&mut self, sequences: &[Vec<Step>]) -> bool {
        if sequences.is_empty() || self.runs == SHRINKS || self.begun.elapsed() >= SHRINKING {
            return false;
        }
        self.runs += 1;
        let name = format!("shrink{}", self.runs);
        match run(self.cx, &name, sequences).await {
            Ok(Some(smaller)) => {
                self.least = smaller;
                true
            }
            _ => false,
        }
    }
}

/// What can be left out.
#[derive(Clone, Copy)]
enum Part {
    Sequences,
    /// The same positions of all sequences, since the clock moves for all of them at once.
    Steps,
}

impl Part {
    fn count(self, sequences: &[Vec<Step>]) -> usize {
        match self {
            Self::Sequences => sequences.len(),
            Self::Steps => sequences.first().map_or(0, Vec::len),
        }
    }

    fn without(self, sequences: &[Vec<Step>], range: Range<usize>) -> Vec<Vec<Step>> {
        let cut = |steps: &Vec<Step>| [&steps[..range.start], &steps[range.end..]].concat();
        match self {
            Self::Sequences => [&sequences[..range.start], &sequences[range.end..]].concat(),
            Self::Steps => sequences.iter().map(cut).collect(),
        }
    }
}

fn named(failure: Failure, steps: &[Step], sequences: usize) -> Failure {
    match failure.into_verdict() {
        Verdict::Fail { expected, actual } => {
            let steps: Vec<_> = steps.iter().map(Step::to_string).collect();
            let beside = match sequences {
                1 => String::new(),
                more => format!("; beside it ran {} others", more - 1),
            };
            let steps = steps.join(", ");
            Failure::new(expected, format!("{actual} after {steps}{beside}"))
        }
        other => Failure::from_verdict(other),
    }
}

/// What a sequence goes through: two handles, and the model beside them.
struct Pair<'a> {
    cx: &'a Context,
    /// Tells sequences apart that share a namespace.
    number: usize,
    handles: &'a [Arc<dyn SessionStore>; 2],
    tokens: [Token; TOKENS],
    model: HashMap<usize, Record>,
}

impl<'a> Pair<'a> {
    fn new(cx: &'a Context, number: usize, handles: &'a [Arc<dyn SessionStore>; 2]) -> Self {
        Self {
            cx,
            number,
            handles,
            tokens: std::array::from_fn(|_| cx.token()),
            model: HashMap::new(),
        }
    }

    /// The token of a step, with another secret each time: the id alone names the record.
    fn token(&self, step: &Step) -> Token {
        let token = &self.tokens[step.token];
        let id = &token.expose()[..Token::ID_LEN];
        let secret = step.number.to_le_bytes().repeat(2);
        Token::from_bytes([id, &secret].concat(), token.cookie())
    }

    fn live(&self, token: usize) -> Option<&Record> {
        let now = self.cx.now();
        self.model.get(&token).filter(|record| record.is_live(now))
    }

    fn subject(&self, number: usize) -> Option<Subject> {
        (number > 0).then(|| {
            let name = format!("subject{}-{number}", self.number);
            self.cx.subject(&name)
        })
    }

    fn record(&self, step: &Step) -> Record {
        let mut record = self
            .cx
            .record_for(vec![step.number as u8; step.len], self.lifetime(step));
        record.revision = Revision::from_bits(step.number);
        record.subject = self.subject(step.subject);
        record
    }

    fn lifetime(&self, step: &Step) -> Duration {
        match self.cx.has_manual_clock() {
            true => self.cx.moment() * step.lifetime,
            false => Duration::from_secs(3600) * step.lifetime,
        }
    }

    fn expected(&self, step: &Step) -> Revision {
        match self.live(step.token) {
            Some(record) if step.current => record.revision,
            _ => Revision::from_bits(!step.number),
        }
    }

    /// Why a write at this revision fails, if it does.
    fn refusal(&self, token: usize, expected: Revision) -> Option<ErrorKind> {
        match self.live(token) {
            None => Some(ErrorKind::Missing),
            Some(record) if record.revision != expected => Some(ErrorKind::Conflict),
            Some(_) => None,
        }
    }

    async fn step(&mut self, step: &Step) -> Outcome {
        let store = Arc::clone(&self.handles[step.handle]);
        let token = self.token(step);
        match step.call {
            Call::Create => {
                let record = self.record(step);
                let refusals = self.live(step.token).map(|_| ErrorKind::Exists);
                let created = store.create(token, &record).await;
                self.settle(step, refusals.as_slice(), created, |model| {
                    model.insert(step.token, record);
                })
            }
            Call::Update => {
                let (record, expected) = (self.record(step), self.expected(step));
                let refusals = self.refusal(step.token, expected);
                let updated = store.update(&token, expected, &record).await;
                self.settle(step, refusals.as_slice(), updated, |model| {
                    model.insert(step.token, record);
                })
            }
            Call::Touch => {
                let expires_at = self.cx.now() + self.lifetime(step);
                let refusals = self
                    .live(step.token)
                    .is_none()
                    .then_some(ErrorKind::Missing);
                let touched = store.touch(&token, expires_at).await;
                self.settle(step, refusals.as_slice(), touched, |model| {
                    set_expiry(model, step.token, expires_at);
                })
            }
            Call::Load => {
                let found = self.cx.ok("load", store.load(&token).await)?;
                let expected = self.live(step.token);
                let text = format!("{step} is {}", describe(expected));
                let same = found.as_ref() == expected;
                let actual = match expected {
                    Some(expected) => describe_difference(expected, found.as_ref()),
                    None => describe(found.as_ref()),
                };
                self.cx.check(same, text, actual)
            }
            Call::Delete => {
                let live = self.live(step.token).is_some();
                let ended = self
                    .cx
                    .ok(&step.to_string(), store.delete(&token, None).await)?;
                self.model.remove(&step.token);
                self.cx
                    .equal(&format!("{step} has ended a record:"), &ended, &live)
            }
            Call::DeleteAt => {
                let expected = self.expected(step);
                // An absent record is nothing that could have another revision.
                let refusal = self.refusal(step.token, expected);
                let deleted = store.delete(&token, Some(expected)).await;
                self.settle(step, refusal.as_slice(), ended(deleted), |model| {
                    model.remove(&step.token);
                })
            }
            // For all sequences together.
            Call::Pass => Ok(()),
            Call::Sweep => self.sweep(&*store).await,
            Call::List => self.list(step, &*store).await,
        }
    }

    /// Compares the answer to a write, and does the same to the model.
    fn settle(
        &mut self,
        step: &Step,
        refusals: &[ErrorKind],
        answer: Result<impl Sized>,
        change: impl FnOnce(&mut HashMap<usize, Record>),
    ) -> Outcome {
        let call = step.to_string();
        if refusals.is_empty() {
            self.cx.ok(&call, answer)?;
            change(&mut self.model);
            return Ok(());
        }
        self.cx.err_in(&call, refusals, answer)
    }

    async fn sweep(&self, store: &dyn SessionStore) -> Outcome {
        if self.cx.capabilities().sweep != Sweep::Explicit {
            return Ok(());
        }
        self.cx.ok("sweep", store.sweep(100).await).map(drop)
    }

    async fn list(&self, step: &Step, store: &dyn SessionStore) -> Outcome {
        let (Some(index), Some(subject)) = (store.subjects(), self.subject(step.subject)) else {
            return Ok(());
        };
        let mut expected: Vec<StoreKey> = (0..TOKENS)
            .filter(|token| {
                self.live(*token)
                    .is_some_and(|record| record.subject.as_ref() == Some(&subject))
            })
            .map(|token| self.tokens[token].key())
            .collect();
        expected.sort();
        let listed = self.cx.ok("list", index.list(&subject, None, 100).await)?;
        let listed: Vec<_> = listed.iter().map(|session| session.key.to_hex()).collect();
        let expected: Vec<_> = expected.iter().map(StoreKey::to_hex).collect();
        self.cx.equal(&format!("{step} is"), &listed, &expected)
    }
}

fn set_expiry(model: &mut HashMap<usize, Record>, token: usize, expires_at: Timestamp) {
    if let Some(record) = model.get_mut(&token) {
        record.expires_at = expires_at;
    }
}
