use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sessionkit::{
    Clock, CookieName, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    SystemClock, Timestamp, Token,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::Counts;
use crate::Random;

const WORKERS: usize = 16;

/// How many changes a session lives for.
const LIFE: usize = 200;

/// Longer than a soak.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// After this, a store has not recovered.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sixteen workers on one handle of a store, each with a session of its own at a time.
#[derive(Debug)]
pub struct Crew {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn SessionStore>,
    stop: AtomicBool,
    counts: Mutex<Counts>,
    /// How many calls of each worker have succeeded.
    done: [AtomicU64; WORKERS],
}

impl Crew {
    /// Sets the workers to work; what each does is decided by `seed`, and when, by the store.
    #[must_use]
    pub fn begin(store: Arc<dyn SessionStore>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            store,
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            done: Default::default(),
        });
        let workers = (0..WORKERS)
            .map(|number| {
                let worker = Worker {
                    number,
                    random: Random::new(seed + number as u64),
                    shared: Arc::clone(&shared),
                    expires_at: SystemClock.now() + LIFETIME,
                };
                tokio::spawn(worker.run())
            })
            .collect();
        Self { shared, workers }
    }

    /// Waits until each worker has succeeded with a call that it has made after now, and says how
    /// long that took.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    pub async fn recovered(&self) -> Duration {
        let begun = Instant::now();
        let done = || {
            self.shared
                .done
                .iter()
                .map(|done| done.load(Ordering::Acquire))
        };
        // The first may have been made before.
        let wanted: Vec<_> = done().map(|done| done + 2).collect();
        while done().zip(&wanted).any(|(done, wanted)| done < *wanted) {
            assert!(begun.elapsed() < PATIENCE, "the store does not recover");
            sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    }

    /// Lets the workers end their sessions, and returns what they have seen.
    ///
    /// # Panics
    /// When a worker has.
    pub async fn end(self) -> Counts {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.expect("no worker panics");
        }
        std::mem::take(&mut *self.shared.counts.lock().expect("not poisoned"))
    }
}

struct Worker {
    number: usize,
    random: Random,
    shared: Arc<Shared>,
    /// That of all its records: a touch whose caller has gone may be done late, after an update, and
    /// would give back the expiry from before it.
    expires_at: Timestamp,
}

/// A session, as it was acknowledged.
struct Session {
    token: Token,
    record: Record,
}

impl Worker {
    async fn run(self) {
        let mut dead = Vec::new();
        while !self.is_over() {
            self.live(&mut dead).await;
            for token in dead.iter().rev().take(8) {
                self.expect_dead(token).await;
            }
        }
        for token in &dead {
            self.expect_dead(token).await;
        }
    }

    /// One session from its creation to its end.
    async fn live(&self, dead: &mut Vec<Token>) {
        let mut session = self.create().await;
        for change in 1..LIFE {
            if change == LIFE / 2 {
                dead.push(self.rotate(&mut session).await);
            }
            self.update(&mut session).await;
            self.drop_call(&session).await;
            let seen = self.load(&session.token).await;
            if seen.as_ref() != Some(&session.record) {
                self.lost(&mut session).await;
            }
            if self.is_over() {
                break;
            }
        }
        self.delete(&session).await;
        dead.push(session.token);
        self.count(|counts| counts.sessions += 1);
    }

    async fn create(&self) -> Session {
        let (token, record) = (token(), self.record());
        let mut unsure = false;
        while let Err(error) = self
            .call(self.shared.store.create(token.clone(), &record))
            .await
        {
            unsure |= error.kind() == ErrorKind::Ambiguous;
            if self.load(&token).await.as_ref() == Some(&record) {
                self.is_false(!unsure);
                break;
            }
            self.is_false(!unsure && error.kind() == ErrorKind::Exists);
        }
        Session { token, record }
    }

    /// Until the next record is there.
    async fn update(&self, session: &mut Session) {
        let next = self.record();
        // Whether an attempt may have taken effect, or still will: the server may read it late.
        let mut unsure = false;
        loop {
            let update = self
                .shared
                .store
                .update(&session.token, session.record.revision, &next);
            let Err(error) = self.call(update).await else {
                break;
            };
            unsure |= error.kind() == ErrorKind::Ambiguous;
            let seen = self.load(&session.token).await;
            if seen.as_ref() == Some(&next) {
                self.is_false(!unsure);
                break;
            }
            if seen.as_ref() != Some(&session.record) {
                self.lost(session).await;
                return;
            }
            self.is_false(matches!(
                error.kind(),
                ErrorKind::Conflict | ErrorKind::Missing
            ));
        }
        session.record = next;
    }

    /// Until the session is under another token, and returns the old one.
    async fn rotate(&self, session: &mut Session) -> Token {
        let (to, next) = (token(), self.record());
        let mut unsure = false;
        loop {
            let rotate = self.shared.store.rotate(
                &session.token,
                to.clone(),
                session.record.revision,
                &next,
            );
            let Err(error) = self.call(rotate).await else {
                break;
            };
            unsure |= error.kind() == ErrorKind::Ambiguous;
            if self.load(&to).await.as_ref() == Some(&next) {
                self.is_false(!unsure);
                // After an error both may be there.
                self.until_ok(|| self.shared.store.delete(&session.token))
                    .await;
                break;
            }
            let seen = self.load(&session.token).await;
            if seen.as_ref() != Some(&session.record)
                && self.load(&to).await.as_ref() != Some(&next)
            {
                self.lost(session).await;
                break;
            }
        }
        session.record = next;
        std::mem::replace(&mut session.token, to)
    }

    /// Ends a session while other requests still use it.
    async fn delete(&self, session: &Session) {
        let store = &self.shared.store;
        let (token, record) = (&session.token, &session.record);
        let next = self.record();
        let (_, updated, touched) = tokio::join!(
            self.until_ok(|| store.delete(token)),
            store.update(token, record.revision, &next),
            store.touch(token, record.expires_at),
        );
        for error in updated.err().into_iter().chain(touched.err()) {
            // Gone or not yet.
            if error.kind() != ErrorKind::Missing {
                self.note(&error);
            }
        }
        self.expect_dead(token).await;
    }

    /// Begins a call that changes nothing, and does not wait for its end.
    async fn drop_call(&self, session: &Session) {
        let patience = Duration::from_micros(self.random.below(1500) as u64);
        let store = &self.shared.store;
        let ended = match self.random.below(8) {
            0 => timeout(patience, store.load(&session.token)).await.is_ok(),
            1 => {
                let touch = store.touch(&session.token, session.record.expires_at);
                timeout(patience, touch).await.is_ok()
            }
            _ => return,
        };
        self.count(|counts| counts.dropped += u64::from(!ended));
    }

    async fn expect_dead(&self, token: &Token) {
        let seen = self.load(token).await;
        self.count(|counts| counts.seen_again += u64::from(seen.is_some()));
    }

    async fn lost(&self, session: &mut Session) {
        self.count(|counts| counts.lost_updates += 1);
        *session = self.create().await;
    }

    /// Until there is an answer, which has to be one of this worker's records.
    async fn load(&self, token: &Token) -> Option<Record> {
        let seen = self.until_ok(|| self.shared.store.load(token)).await;
        let mine = format!("{}:", self.number);
        let is_mine = |record: &Record| record.data.starts_with(mine.as_bytes());
        let foreign = seen.as_ref().is_some_and(|record| !is_mine(record));
        self.count(|counts| counts.foreign_answers += u64::from(foreign));
        seen
    }

    async fn until_ok<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> T {
        loop {
            match self.call(call()).await {
                Ok(answer) => return answer,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = call.await;
        match &answer {
            Ok(_) => {
                self.shared.done[self.number].fetch_add(1, Ordering::AcqRel);
                self.count(|counts| counts.operations += 1);
            }
            Err(error) => self.note(error),
        }
        answer
    }

    fn note(&self, error: &Error) {
        let kind = format!("{:?}", error.kind());
        self.count(|counts| *counts.errors.entry(kind).or_default() += 1);
    }

    fn is_false(&self, so: bool) {
        self.count(|counts| counts.false_errors += u64::from(so));
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.shared.counts.lock().expect("not poisoned"));
    }

    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// A record unlike any other, of any length.
    fn record(&self) -> Record {
        let mut data = format!("{}:", self.number).into_bytes();
        data.extend(self.random.bytes(self.random.below(2000)));
        Record {
            data: data.into(),
            revision: Revision::random(&OsEntropy).expect("randomness"),
            created_at: SystemClock.now(),
            expires_at: self.expires_at,
            subject: None,
            label: Default::default(),
        }
    }
}

fn token() -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::random(&OsEntropy, &name).expect("randomness")
}
