use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Capabilities, Error, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, Timestamp, Token,
};

/// Ends every call by a deadline, for a store that has none of its own.
///
/// A read that runs out is [`ErrorKind::Unavailable`]; a write is [`ErrorKind::Ambiguous`], for the
/// backend may still carry it out. The call is dropped, which a store has to stand at any await
/// point; one that blocks its thread instead of waiting cannot be interrupted.
///
/// Needs the feature `tokio`, and a tokio runtime with its timer enabled.
///
/// ```
/// use sessionkit::{MemoryStore, layers::Timeout};
/// use std::time::Duration;
///
/// let store = Timeout::new(MemoryStore::new()).with_deadline(Duration::from_secs(1));
/// ```
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    store: S,
    deadline: Duration,
}

impl<S> Timeout<S> {
    /// Five seconds for each call.
    pub const fn new(store: S) -> Self {
        Self {
            store,
            deadline: Duration::from_secs(5),
        }
    }

    /// Sets the longest time that a call may take; five seconds by default.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<S: SessionStore> Timeout<S> {
    async fn read<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.limit(call, ErrorKind::Unavailable).await
    }

    async fn write<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.limit(call, ErrorKind::Ambiguous).await
    }

    async fn limit<T>(
        &self,
        call: impl Future<Output = Result<T>> + Send,
        otherwise: ErrorKind,
    ) -> Result<T> {
        tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    otherwise,
                    format!("the session store gave no answer in {:?}", self.deadline),
                ))
            })
    }

    fn index(&self) -> Result<&dyn SubjectIndex> {
        self.store
            .subjects()
            .ok_or_else(|| ErrorKind::Unsupported.into())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SessionStore for Timeout<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.write(self.store.create(token, record)).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.read(self.store.load(token)).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.write(self.store.update(token, expected, record)).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.write(self.store.touch(token, expires_at)).await
    }

    async fn renew(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.write(self.store.renew(token, expected, record)).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.write(self.store.delete(token, expected)).await
    }

    async fn try_sweep(&self, limit: usize) -> Result<Option<u64>> {
        self.write(self.store.try_sweep(limit)).await
    }

    async fn ping(&self) -> Result<()> {
        self.read(self.store.ping()).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.write(self.store.sweep(limit)).await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.store.subjects().map(|_| self as &dyn SubjectIndex)
    }

    fn has_made(&self, token: &Token) -> bool {
        self.store.has_made(token)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore> SubjectIndex for Timeout<S> {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        self.read(self.index()?.list(subject, after, limit)).await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        self.write(self.index()?.revoke(subject, key)).await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        self.write(self.index()?.revoke_all(subject, except)).await
    }
}
