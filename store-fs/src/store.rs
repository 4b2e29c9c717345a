use std::{
    fmt, panic,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{
    Capabilities, Error, ErrorKind, Record, Result, Revision, SessionStore, StoreKey, Subject,
    SubjectIndex, SubjectSession, Timestamp, Token,
};
use tokio::{task, time};

use crate::{
    FsOptions, Quota, SyncPolicy,
    call::{Call, late},
    fail::Fail,
    format::MAX_DATA,
    tree::Tree,
};

/// Keeps sessions in the files of a directory: for one machine without a database, for one process
/// or several, with everything that other backends promise.
///
/// Shared as an `Arc<FsStore>`, or opened as often as one likes, in as many processes. Dropping it
/// closes the directory; nothing is buffered.
///
/// ```
/// use sessionkit::{CookieName, OsEntropy, Record, Revision, SessionStore, Timestamp, Token};
/// use sessionkit_fs::FsStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let path = parent.path().join("sessions");
/// let store = FsStore::open(&path).await?;
/// let token = Token::random(&OsEntropy, &CookieName::new("id")?)?;
/// let record = Record {
///     data: "hello".into(),
///     revision: Revision::random(&OsEntropy)?,
///     created_at: Timestamp::MIN,
///     expires_at: Timestamp::MAX,
///     subject: None,
///     label: Default::default(),
/// };
/// let token = store.create(token, &record).await?;
/// assert_eq!(FsStore::open(&path).await?.load(&token).await?, Some(record));
/// # Ok(())
/// # }
/// ```
pub struct FsStore {
    tree: Arc<Tree>,
    path: PathBuf,
    quota: Option<Quota>,
    deadline: Duration,
}

impl FsStore {
    /// The largest payload, in bytes.
    pub const MAX_DATA: usize = MAX_DATA;

    /// Opens the store in a directory with the default [`FsOptions`].
    ///
    /// # Errors
    /// As [`FsOptions::open`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        FsOptions::new().open(path).await
    }

    pub(crate) async fn open_with(path: PathBuf, options: FsOptions) -> Result<Self> {
        if options.deadline.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a deadline of zero leaves no time for anything",
            ));
        }
        let (opened, settings) = (path.clone(), options.clone());
        let tree = hop(options.deadline, move |_| {
            Ok(Tree::open(&opened, &settings)?)
        })
        .await?;
        Ok(Self {
            tree: Arc::new(tree),
            path,
            quota: options.quota,
            deadline: options.deadline,
        })
    }

    /// What is synchronized with the disk before a write is acknowledged.
    #[must_use]
    pub fn sync_policy(&self) -> SyncPolicy {
        self.tree.sync
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree, &Call) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T> {
        let tree = Arc::clone(&self.tree);
        hop(self.deadline, move |call| work(&tree, call)).await
    }
}

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsStore")
            .field("path", &self.path)
            .field("sync", &self.tree.sync)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for FsStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::server(MAX_DATA).durability(self.tree.sync.durability())
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        let (key, record) = (token.key(), record.clone());
        self.run(move |tree, call| Ok(tree.create(call, &key, &record)?))
            .await?;
        Ok(token)
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        let key = token.key();
        self.run(move |tree, call| tree.load(call, &key)).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let (key, record) = (token.key(), record.clone());
        self.run(move |tree, call| Ok(tree.update(call, &key, expected, &record)?))
            .await?;
        Ok(token.clone())
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let key = token.key();
        self.run(move |tree, call| Ok(tree.touch(call, &key, expires_at)?))
            .await?;
        Ok(token.clone())
    }

    async fn rotate(
        &self,
        from: &Token,
        to: Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        let (old, new, record) = (from.key(), to.key(), record.clone());
        self.run(move |tree, call| Ok(tree.rotate(call, [&old, &new], expected, &record)?))
            .await?;
        Ok(to)
    }

    async fn delete(&self, token: &Token) -> Result<()> {
        let key = token.key();
        self.run(move |tree, call| Ok(tree.delete(call, &key)?))
            .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.run(move |tree, call| Ok(tree.sweep(call, limit)?))
            .await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        Some(self)
    }
}

#[async_trait]
impl SubjectIndex for FsStore {
    async fn list(
        &self,
        subject: &Subject,
        after: Option<&StoreKey>,
        limit: usize,
    ) -> Result<Vec<SubjectSession>> {
        let (subject, after) = (subject.clone(), after.copied());
        self.run(move |tree, call| tree.list(call, &subject, after.as_ref(), limit))
            .await
    }

    async fn revoke(&self, subject: &Subject, key: &StoreKey) -> Result<bool> {
        let (subject, key) = (subject.clone(), *key);
        self.run(move |tree, call| Ok(tree.revoke(call, &subject, &key)?))
            .await
    }

    async fn revoke_all(&self, subject: &Subject, except: Option<&StoreKey>) -> Result<u64> {
        let (subject, except) = (subject.clone(), except.copied());
        self.run(move |tree, call| Ok(tree.revoke_all(call, &subject, except.as_ref())?))
            .await
    }
}

/// Runs `work` on a thread that may block, the one hop of an operation.
///
/// The thread is not told to stop: it finds the call cancelled when it asks, and leaves nothing
/// half done. So it makes no difference where the future is dropped.
async fn hop<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce(&Call) -> Result<T, Fail> + Send + 'static,
) -> Result<T> {
    let call = CancelOnDrop(Arc::new(Call::new(deadline)));
    let theirs = Arc::clone(&call.0);
    let thread = task::spawn_blocking(move || {
        theirs.check()?;
        work(&theirs)
    });
    match time::timeout(deadline, thread).await {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(ended)) => match ended.try_into_panic() {
            Ok(payload) => panic::resume_unwind(payload),
            Err(cancelled) => Err(Error::new(
                ErrorKind::Unavailable,
                "the runtime is shutting down",
            )
            .with_source(cancelled)),
        },
        Err(_) if call.0.cancel() => Err(late()),
        Err(_) => Err(Error::new(
            ErrorKind::Ambiguous,
            "the session directory did not finish a write in time",
        )),
    }
}

struct CancelOnDrop(Arc<Call>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
