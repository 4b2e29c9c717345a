//! Random histories, and whether any order of their calls explains the answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sessionkit::{
    Clock, Durability, ErrorKind, ManualClock, Record, Revision, SessionStore, SystemClock,
    Timestamp, Token,
};

use crate::{
    Context, Failure, Outcome, Random,
    history::{Recorded, Recorder},
    linearizability::{Verdict as Linearity, check},
};

/// Ten keys at a time, so that a backend with many connections is used as in practice.
const KEYS: usize = 10;

pub(super) async fn c12_random_histories_are_linearizable(cx: &Context) -> Outcome {
    let handles = [cx.open().await?, cx.open().await?];
    let begun = Instant::now();
    let (mut batches, mut overlaps) = (0, 0);
    // 200 keys, but where every call waits for a disk; calls of less than a microsecond do not
    // always meet.
    let waits = cx.capabilities().durability == Durability::Disk;
    let enough = if waits { 8 } else { 20 };
    while batches < enough || (overlaps == 0 && begun.elapsed().as_secs() < 10) {
        batches += 1;
        overlaps += batch(cx, &handles).await?;
    }
    match overlaps {
        0 => Err(Failure::inconclusive(
            "no two calls about one key ran at the same time",
        )),
        _ => Ok(()),
    }
}

/// Four clients make eight calls about each of the keys. Returns how many calls about one key ran at
/// the same time.
async fn batch(cx: &Context, handles: &[Arc<dyn SessionStore>; 2]) -> Outcome<usize> {
    let clock: Arc<dyn Clock> = match cx.manual_clock() {
        Some(clock) => clock,
        None => Arc::new(SystemClock),
    };
    let granularity = match cx.has_manual_clock() {
        true => cx.capabilities().expiry_granularity,
        false => cx.margin(),
    };
    let recorders: Vec<_> = (0..KEYS)
        .map(|_| Recorder::new(Arc::clone(&clock)))
        .collect();
    let pace = cx.manual_clock().map(|clock| Arc::new(Pace::new(clock)));
    let mut clients = Vec::new();
    for recorder in &recorders {
        let tokens = [cx.token(), cx.token()];
        clients.extend((0..4).map(|number| Client {
            store: recorder.client(number, Arc::clone(&handles[number % 2])),
            random: Random::new(cx.random().next()),
            pace: pace.clone(),
            template: cx.record("history"),
            tokens: tokens.clone(),
            known: [Revision::from_bits(0); 2],
        }));
    }
    for outcome in cx.race(clients.into_iter().map(Client::run)).await? {
        outcome?;
    }
    let mut overlaps = 0;
    for recorder in recorders {
        let history = recorder.history().with_granularity(granularity);
        overlaps += history.overlaps();
        match check(&history) {
            Linearity::Linearizable => cx.check(true, "", "")?,
            Linearity::Violation(violation) => {
                let expected = "an order of the calls that explains their answers";
                cx.check(false, expected, violation)?;
            }
            Linearity::Inconclusive(steps) => {
                let reason = format!("the search for an order was given up after {steps} steps");
                return Err(Failure::inconclusive(reason));
            }
        }
    }
    Ok(overlaps)
}

/// One of the clients of a random history: eight calls about two tokens.
struct Client {
    store: Recorded,
    random: Random,
    pace: Option<Arc<Pace>>,
    template: Record,
    tokens: [Token; 2],
    /// The revision last seen under each token.
    known: [Revision; 2],
}

impl Client {
    async fn run(mut self) -> Outcome {
        for _ in 0..8 {
            let number = usize::from(self.random.below(4) == 0);
            self.call(number).await?;
        }
        Ok(())
    }

    async fn call(&mut self, number: usize) -> Outcome {
        let Some(pace) = self.pace.clone() else {
            return self.call_untimed(number).await.map(drop);
        };
        let call = pace.begin();
        let settled = self.call_untimed(number).await?;
        if settled {
            pace.end(call);
        }
        Ok(())
    }

    /// Returns whether the call cannot take effect any more.
    async fn call_untimed(&mut self, number: usize) -> Outcome<bool> {
        let record = self.record();
        let (token, known) = (&self.tokens[number], self.known[number]);
        let answer = match self.random.below(16) {
            0..4 => {
                if let Some(found) = self.store.load(token).await? {
                    self.known[number] = found.revision;
                }
                return Ok(true);
            }
            4..8 => self.store.create(token.clone(), &record).await,
            8..12 => self.store.update(token, known, &record).await,
            12 => {
                // The revision stays, so that nothing is learned.
                let touched = self.store.touch(token, record.expires_at).await;
                return Ok(!touched.is_err_and(|error| error.kind() == ErrorKind::Ambiguous));
            }
            13 => {
                let deleted = self.store.delete(token, Some(known)).await;
                deleted.map(|_| token.clone())
            }
            14 => self.store.delete(token, None).await.map(|_| token.clone()),
            _ => {
                if let Some(pace) = &self.pace {
                    pace.step();
                }
                return Ok(true);
            }
        };
        match answer {
            Ok(_) => self.known[number] = record.revision,
            Err(error) if EXPECTED.contains(&error.kind()) => {
                return Ok(error.kind() != ErrorKind::Ambiguous);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn record(&self) -> Record {
        let now = self
            .pace
            .as_ref()
            .map_or_else(|| SystemClock.now(), |pace| pace.clock.now());
        let lifetime = match self.pace {
            // Some of them expire on the way.
            Some(_) => 30 * (1 + self.random.below(20) as u64),
            None => 3600,
        };
        Record {
            revision: Revision::from_bits(self.random.next()),
            expires_at: now + Duration::from_secs(lifetime),
            ..self.template.clone()
        }
    }
}

/// Moves the clock while calls are under way, by no more than the contract lets it move during one:
/// the clients together would otherwise make hours of the time that a statement takes.
struct Pace {
    clock: Arc<ManualClock>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    /// When each call that may still take effect began.
    begun: BTreeMap<u64, Timestamp>,
}

impl Pace {
    const STEP: Duration = Duration::from_secs(20);
    const MOST: Duration = Duration::from_secs(60);

    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            clock,
            calls: Mutex::default(),
        }
    }

    fn begin(&self) -> u64 {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let number = calls.next;
        calls.next += 1;
        calls.begun.insert(number, self.clock.now());
        number
    }

    fn end(&self, number: u64) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.begun.remove(&number);
    }

    fn step(&self) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = calls.begun.values().min().copied();
        let later = self.clock.now() + Self::STEP;
        if earliest.is_none_or(|begun| later <= begun + Self::MOST) {
            self.clock.advance(Self::STEP);
        }
    }
}

/// The errors that a client of many has to expect.
const EXPECTED: [ErrorKind; 4] = [
    ErrorKind::Exists,
    ErrorKind::Conflict,
    ErrorKind::Missing,
    ErrorKind::Ambiguous,
];
