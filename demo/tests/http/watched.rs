use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, ErrorKind, Record, Result, Revision, SessionStore, SubjectIndex, Timestamp, Token,
};
use tokio::sync::Semaphore;

/// A store that counts its calls, can be down, and can hold updates back.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn SessionStore>,
    down: AtomicBool,
    calls: AtomicUsize,
    updates: Semaphore,
    waiting: Semaphore,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn SessionStore>) -> Self {
        Self {
            inner,
            down: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            updates: Semaphore::new(1 << 16),
            waiting: Semaphore::new(0),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The calls since this was asked last.
    pub(crate) fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }

    /// Makes every update wait.
    pub(crate) fn hold_updates(&self) {
        self.updates.forget_permits(usize::MAX);
    }

    pub(crate) fn release_updates(&self) {
        self.updates.add_permits(1 << 16);
    }

    /// Until an update waits.
    pub(crate) async fn update_arrived(&self) {
        self.waiting.acquire().await.unwrap().forget();
    }

    fn call(&self) -> Result<&dyn SessionStore> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(ErrorKind::Unavailable.into());
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl SessionStore for Watched {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.call()?.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.call()?.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.waiting.add_permits(1);
        let _permit = self.updates.acquire().await.unwrap();
        self.call()?.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.call()?.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.call()?.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.call()?.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.call()?.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.inner.subjects()
    }
}
