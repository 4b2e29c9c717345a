//! Two or three calls on one session in every order in which their steps can mix, with each answer of
//! the list lost once, before or after the call has taken effect.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, ErrorKind, MemoryStore, Record, Result, Revision, SessionStore, SubjectIndex,
    Timestamp, Token,
};
use sessionkit_cookie::CookieStore;

use crate::support::{HOUR, clock, keyring, record, token};

const LATER: Duration = Duration::from_secs(60);

/// Lets others go first before each call, and loses an answer.
#[derive(Debug)]
struct Stepping {
    inner: MemoryStore,
    calls: AtomicUsize,
    /// The call whose answer is lost, and whether it takes effect.
    lost: Option<(usize, bool)>,
}

impl Stepping {
    async fn step<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut waited = false;
        poll_fn(|context| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.lost {
            Some((lost, true)) if lost == number => {
                let _ = call.await;
                Err(ErrorKind::Ambiguous.into())
            }
            Some((lost, false)) if lost == number => Err(ErrorKind::Ambiguous.into()),
            _ => call.await,
        }
    }
}

#[async_trait]
impl SessionStore for Stepping {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.step(self.inner.create(token, record)).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.step(self.inner.load(token)).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.step(self.inner.update(token, expected, record)).await
    }

    async fn touch(&self, _: &Token, _: Timestamp) -> Result<Token> {
        unreachable!("entries are replaced as a whole")
    }

    async fn delete(&self, _: &Token, _: Option<Revision>) -> Result<bool> {
        unreachable!("entries are never deleted")
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.inner.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Renew,
    /// Twice, as somebody does who has changed something after it.
    RenewTwice,
    Update,
    SignOut,
    /// By whoever has no revision to compare.
    End,
}

const ACTS: [Act; 5] = [
    Act::Renew,
    Act::RenewTwice,
    Act::Update,
    Act::SignOut,
    Act::End,
];

const TRIPLES: [[Act; 3]; 5] = [
    [Act::Renew, Act::Renew, Act::Renew],
    [Act::Renew, Act::Renew, Act::SignOut],
    [Act::Renew, Act::Update, Act::SignOut],
    [Act::Renew, Act::SignOut, Act::End],
    [Act::RenewTwice, Act::Renew, Act::End],
];

/// What a call answered.
#[derive(Clone, Debug)]
enum Answer {
    Token(Token),
    Ended(bool),
    Failed(ErrorKind),
}

async fn perform(store: &CookieStore, act: Act, held: &Token, record: &Record) -> Answer {
    let (first, second) = (self::record("first"), self::record("second"));
    let token = match act {
        Act::Renew => store.renew(held, record.revision, &first).await,
        Act::RenewTwice => match store.renew(held, record.revision, &first).await {
            Ok(renewed) => store.renew(&renewed, first.revision, &second).await,
            failed => failed,
        },
        Act::Update => store.update(held, record.revision, &first).await,
        Act::SignOut | Act::End => {
            let expected = (act == Act::SignOut).then_some(record.revision);
            return match store.delete(held, expected).await {
                Ok(ended) => Answer::Ended(ended),
                Err(error) => Answer::Failed(error.kind()),
            };
        }
    };
    match token {
        Ok(token) => Answer::Token(token),
        Err(error) => Answer::Failed(error.kind()),
    }
}

/// Runs the calls with the steps in the order of `schedule`, and the rest of them as they come.
/// Returns the answers, and for each step how many calls could have taken it.
fn run(
    store: &CookieStore,
    acts: &[Act],
    schedule: &[usize],
    held: &Token,
    record: &Record,
) -> (Vec<Answer>, Vec<usize>) {
    let mut answers: Vec<Option<Answer>> = vec![None; acts.len()];
    let mut calls: Vec<Pin<Box<dyn Future<Output = Answer> + '_>>> = Vec::new();
    for &act in acts {
        calls.push(Box::pin(perform(store, act, held, record)));
    }
    let mut choices = Vec::new();
    let mut schedule: VecDeque<_> = schedule.iter().copied().collect();
    loop {
        let open: Vec<_> = (0..acts.len()).filter(|&n| answers[n].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let next = open[schedule.pop_front().unwrap_or(0)];
        choices.push(open.len());
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = calls[next].as_mut().poll(&mut context) {
            answers[next] = Some(answer);
        }
    }
    drop(calls);
    (answers.into_iter().flatten().collect(), choices)
}

/// Every schedule, as an odometer: the last step that had another choice takes it next.
fn next_schedule(schedule: &[usize], choices: &[usize]) -> Option<Vec<usize>> {
    let mut taken: Vec<_> = schedule.to_vec();
    taken.resize(choices.len(), 0);
    while let Some(last) = taken.pop() {
        if last + 1 < choices[taken.len()] {
            taken.push(last + 1);
            return Some(taken);
        }
    }
    None
}

/// Checks everything that has to hold after the calls.
fn check(
    acts: &[Act],
    answers: &[Answer],
    what: &str,
    load: impl Fn(&Token) -> bool,
    held: &Token,
) {
    let tokens: Vec<_> = acts
        .iter()
        .zip(answers)
        .filter_map(|(act, answer)| match answer {
            Answer::Token(token) => Some((*act, token)),
            _ => None,
        })
        .collect();
    let is_renewal = |act: &Act| matches!(act, Act::Renew | Act::RenewTwice);
    let ambiguous = answers
        .iter()
        .any(|answer| matches!(answer, Answer::Failed(ErrorKind::Ambiguous)));
    let is_ended = |answer: &&Answer| matches!(answer, Answer::Ended(_));
    let ended = answers.iter().filter(is_ended).count();
    let ended_by = answers
        .iter()
        .filter(|answer| matches!(answer, Answer::Ended(true)))
        .count();
    let renewed = tokens.iter().filter(|(act, _)| is_renewal(act)).count();

    assert!(renewed <= 1, "{what}: two renewals of one token");
    assert!(ended_by <= 1, "{what}: two calls ended the session");
    if ended > 0 {
        assert!(ambiguous || ended_by == 1, "{what}: nobody ended it");
        let alive = tokens.iter().any(|(_, token)| load(token));
        assert!(!alive && !load(held), "{what}: it lives after its end");
    }
    if !ambiguous && ended == 0 {
        for (act, token) in &tokens {
            // One that was made before a renewal belongs to the generation that has ended.
            let survives = is_renewal(act) || renewed == 0;
            assert!(!survives || load(token), "{what}: {act:?} is lost");
        }
        let renewals = acts.iter().filter(|act| is_renewal(act)).count();
        assert_eq!(renewed, renewals.min(1), "{what}: no renewal succeeded");
        assert_eq!(load(held), renewals == 0, "{what}: the old token");
    }
    for answer in answers {
        let expected = [ErrorKind::Missing, ErrorKind::Ambiguous];
        if let Answer::Failed(kind) = answer {
            assert!(expected.contains(kind), "{what}: {kind:?}");
        }
    }
}

#[test]
fn renewals_writes_and_ends_of_one_session_mix_in_any_order() {
    let keyring = keyring();
    let mut pairs_and_triples = Vec::new();
    for (number, one) in ACTS.into_iter().enumerate() {
        pairs_and_triples.extend(ACTS[number..].iter().map(|two| vec![one, *two]));
    }
    pairs_and_triples.extend(TRIPLES.map(Vec::from));
    let mut runs = 0;
    for acts in pairs_and_triples {
        // Of the triples every order, of the pairs also each loss, until there is no such call.
        let mut losses = vec![None];
        if acts.len() == 2 {
            losses.extend(
                (0..)
                    .flat_map(|call| [Some((call, true)), Some((call, false))])
                    .take(40),
            );
        }
        for lost in losses {
            let mut most_calls = 0;
            let mut schedule = Some(Vec::new());
            while let Some(taken) = schedule {
                let clock = clock();
                let list = Arc::new(Stepping {
                    inner: MemoryStore::new().with_clock(clock.clone()),
                    calls: AtomicUsize::new(0),
                    lost,
                });
                let store = CookieStore::new(keyring.clone())
                    .with_clock(clock.clone())
                    .with_revocations(list.clone(), 2 * HOUR)
                    .unwrap();
                let record = record("data");
                let held = answer_of(store.create(token(), &record)).unwrap();
                let (answers, choices) = run(&store, &acts, &taken, &held, &record);
                most_calls = most_calls.max(list.calls.load(Ordering::SeqCst));
                clock.advance(LATER);
                let load = |token: &Token| loop {
                    match answer_of(store.load(token)) {
                        // The answer that had not been lost yet.
                        Err(error) if error.kind() == ErrorKind::Ambiguous => {}
                        loaded => break loaded.unwrap().is_some(),
                    }
                };
                check(
                    &acts,
                    &answers,
                    &format!("{acts:?} {lost:?} {taken:?} {answers:?}"),
                    load,
                    &held,
                );
                runs += 1;
                schedule = next_schedule(&taken, &choices);
            }
            if lost.is_some_and(|(lost, _)| lost >= most_calls) {
                break;
            }
        }
    }
    println!("{runs} interleavings");
    assert!(runs > 5_000, "{runs}");
}

/// The answer of a call that has nobody to wait for.
fn answer_of<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
    }
}
