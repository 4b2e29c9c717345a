use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sessionkit::{
    Clock, CookieName, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    Subject, SystemClock, Timestamp, Token,
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
            self.update(&mut session).await;
            if change % (LIFE / 4) == 0 {
                // A renewal: the same record under the same key, by another secret from now on.
                session.token = renewed(&session.token);
            }
            self.drop_call(&session).await;
            let seen = self.load(&session.token).await;
            if seen.as_ref() != Some(&session.record) {
                self.lost(&mut session).await;
            }
            if self.is_over() {
                break;
            }
        }
        self.end(&mut session).await;
        dead.push(session.token);
        self.count(|counts| counts.sessions += 1);
    }

    async fn create(&self) -> Session {
        let (token, subject) = (token(), self.subject());
        let record = self.record(Some(&subject));
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
        let next = self.record(session.record.subject.as_ref());
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

    /// Ends a session in one of the ways there are, while other requests still use it.
    async fn end(&self, session: &mut Session) {
        let store = &self.shared.store;
        let way = match store.subjects() {
            Some(_) => self.random.below(4),
            None => self.random.below(2),
        };
        if way == 0 {
            return self.sign_out(session).await;
        }
        let (token, record) = (&session.token, &session.record);
        let next = self.record(record.subject.as_ref());
        let (_, updated, touched) = tokio::join!(
            self.until_ok(|| self.end_in(way, session)),
            store.renew(token, record.revision, &next),
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

    async fn end_in(&self, way: usize, session: &Session) -> Result<()> {
        let (store, token) = (&self.shared.store, &session.token);
        match (way, store.subjects(), &session.record.subject) {
            (2, Some(index), Some(subject)) => index.revoke(subject, &token.key()).await.map(drop),
            (3, Some(index), Some(subject)) => index.revoke_all(subject, None).await.map(drop),
            _ => store.delete(token, None).await.map(drop),
        }
    }

    /// Ends the session at the revision that is there, as a sign-out does: nobody else is to change
    /// it, but a call whose answer was lost may have ended it.
    async fn sign_out(&self, session: &mut Session) {
        let store = &self.shared.store;
        let mut unsure = false;
        loop {
            let delete = store.delete(&session.token, Some(session.record.revision));
            match self.call(delete).await {
                Ok(true) => break,
                Ok(false) => {
                    self.is_false(!unsure);
                    break;
                }
                Err(error) => {
                    unsure |= error.kind() == ErrorKind::Ambiguous;
                    self.is_false(error.kind() == ErrorKind::Conflict);
                }
            }
            let seen = self.load(&session.token).await;
            match seen {
                None => {
                    self.is_false(!unsure);
                    break;
                }
                Some(seen) if seen == session.record => {}
                Some(_) => {
                    self.lost(session).await;
                    return;
                }
            }
        }
        self.expect_dead(&session.token).await;
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

    /// Somebody who has no other session.
    fn subject(&self) -> Subject {
        let name = format!("soak-{}-{:016x}", self.number, self.random.next());
        Subject::new(name).expect("a short text")
    }

    /// A record unlike any other, of any length.
    fn record(&self, subject: Option<&Subject>) -> Record {
        let mut data = format!("{}:", self.number).into_bytes();
        data.extend(self.random.bytes(self.random.below(2000)));
        Record {
            data: data.into(),
            revision: Revision::random(&OsEntropy).expect("randomness"),
            created_at: SystemClock.now(),
            expires_at: self.expires_at,
            subject: subject.cloned(),
            label: Default::default(),
        }
    }
}

fn token() -> Token {
    let name = CookieName::new("id").expect("a cookie name");
    Token::random(&OsEntropy, &name).expect("randomness")
}

/// The token of the same session with another secret.
fn renewed(of: &Token) -> Token {
    let fresh = token();
    let (id, secret) = (
        &of.expose()[..Token::ID_LEN],
        &fresh.expose()[Token::ID_LEN..],
    );
    Token::from_bytes([id, secret].concat(), of.cookie())
}
