//! The task that removes expired sessions, over stores that answer as they are told.

#![cfg(feature = "tokio")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, CookieName, ErrorKind, ManualClock, MemoryStore, OsEntropy, Record, Result,
    Revision, SessionStore, SubjectIndex, Sweep, Sweeper, Timestamp, Token,
};
use tokio::sync::{Semaphore, mpsc};

const OFTEN: Duration = Duration::from_millis(1);

/// Tells of each sweep, lets it begin when it may, and answers it from a list.
#[derive(Debug)]
struct Told {
    sweep: Sweep,
    answers: Mutex<VecDeque<Result<Option<u64>>>>,
    may_answer: Arc<Semaphore>,
    asked: mpsc::UnboundedSender<usize>,
}

fn told(
    sweep: Sweep,
    answers: impl IntoIterator<Item = Result<Option<u64>>>,
) -> (Told, mpsc::UnboundedReceiver<usize>) {
    let (asked, was_asked) = mpsc::unbounded_channel();
    let answers = Mutex::new(answers.into_iter().collect());
    let may_answer = Arc::new(Semaphore::new(1_000));
    let store = Told {
        sweep,
        answers,
        may_answer,
        asked,
    };
    (store, was_asked)
}

#[async_trait]
impl SessionStore for Told {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(10).sweep(self.sweep)
    }

    async fn create(&self, _: Token, _: &Record) -> Result<Token> {
        unreachable!("nobody creates")
    }

    async fn load(&self, _: &Token) -> Result<Option<Record>> {
        unreachable!("nobody loads")
    }

    async fn update(&self, _: &Token, _: Revision, _: &Record) -> Result<Token> {
        unreachable!("nobody updates")
    }

    async fn touch(&self, _: &Token, _: Timestamp) -> Result<Token> {
        unreachable!("nobody touches")
    }

    async fn delete(&self, _: &Token, _: Option<Revision>) -> Result<bool> {
        unreachable!("nobody deletes")
    }

    async fn sweep(&self, _: usize) -> Result<u64> {
        unreachable!("a sweeper leaves the work to others that are at it")
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        let _ = self.asked.send(limit);
        self.may_answer.acquire().await.unwrap().forget();
        self.answers.lock().unwrap().pop_front().unwrap_or(Ok(None))
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        None
    }
}

#[tokio::test]
async fn it_sweeps_in_batches_of_the_same_size_until_less_is_left() {
    let answers = [Ok(Some(256)), Ok(Some(256)), Ok(Some(3))];
    let (store, mut asked) = told(Sweep::Explicit, answers);
    let store = Arc::new(store);
    let sweeper = Sweeper::spawn(store.clone(), OFTEN).unwrap();
    for _ in 0..3 {
        assert_eq!(asked.recv().await, Some(256));
    }
    sweeper.shutdown().await;
    assert!(store.answers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn it_goes_on_after_an_error_and_after_another_process() {
    let answers = [
        Err(ErrorKind::Unavailable.into()),
        Ok(None),
        Err(ErrorKind::Ambiguous.into()),
        Ok(Some(0)),
    ];
    let (store, mut asked) = told(Sweep::Explicit, answers);
    let _sweeper = Sweeper::spawn(Arc::new(store), OFTEN).unwrap();
    for _ in 0..5 {
        assert!(asked.recv().await.is_some());
    }
}

#[tokio::test]
async fn dropping_it_ends_the_task() {
    let (store, mut asked) = told(Sweep::Explicit, []);
    let sweeper = Sweeper::spawn(Arc::new(store), OFTEN).unwrap();
    assert!(asked.recv().await.is_some());
    drop(sweeper);
    // The channel closes with the store, which the task alone holds.
    while asked.recv().await.is_some() {}
}

#[tokio::test]
async fn shutdown_waits_for_the_batch_and_begins_no_other() {
    let (mut store, mut asked) = told(Sweep::Explicit, [Ok(Some(256)), Ok(Some(256))]);
    let may_answer = Arc::new(Semaphore::new(0));
    store.may_answer = may_answer.clone();
    let store = Arc::new(store);
    let sweeper = Sweeper::spawn(store.clone(), OFTEN).unwrap();
    assert!(asked.recv().await.is_some());
    let shutdown = tokio::spawn(sweeper.shutdown());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!shutdown.is_finished());
    may_answer.add_permits(10);
    shutdown.await.unwrap();
    assert_eq!(Arc::strong_count(&store), 1);
    assert_eq!(store.answers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_needs_no_sweeping_is_left_alone() {
    for sweep in [Sweep::Native, Sweep::Unsupported] {
        let (store, mut asked) = told(sweep, []);
        let store = Arc::new(store);
        let sweeper = Sweeper::spawn(store.clone(), OFTEN).unwrap();
        assert_eq!(Arc::strong_count(&store), 1, "no task holds it");
        sweeper.shutdown().await;
        assert!(asked.try_recv().is_err());
    }
}

#[tokio::test]
async fn an_interval_of_nothing_is_refused() {
    let (store, _asked) = told(Sweep::Explicit, []);
    let error = Sweeper::spawn(Arc::new(store), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn expired_sessions_go() {
    let clock = Arc::new(ManualClock::new(Timestamp::MIN));
    let store = Arc::new(MemoryStore::new().with_clock(clock.clone()));
    let cookie = CookieName::new("id").unwrap();
    for lifetime in 1..=600 {
        let record = Record {
            data: "data".into(),
            revision: Revision::from_bits(1),
            created_at: Timestamp::MIN,
            expires_at: Timestamp::from_millis(lifetime),
            subject: None,
            label: Default::default(),
        };
        let token = Token::random(&OsEntropy, &cookie).unwrap();
        store.create(token, &record).await.unwrap();
    }
    clock.set(Timestamp::from_millis(590));
    let sweeper = Sweeper::spawn(store.clone(), OFTEN).unwrap();
    while store.len() > 10 {
        tokio::task::yield_now().await;
    }
    sweeper.shutdown().await;
    assert_eq!(store.len(), 10);
}
