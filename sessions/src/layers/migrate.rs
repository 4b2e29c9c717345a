mod mark;
mod subjects;

use async_trait::async_trait;

use self::mark::{Found, Moved, fence, fence_token, is_copy};
use crate::{
    Capabilities, Custody, Error, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore,
    SubjectIndex, Sweep, TimeSource, Timestamp, Token,
};

/// Each attempt that fails does so because another request made progress with the same session.
const ATTEMPTS: usize = 16;

/// Moves sessions from an old store to a new one, one by one as they are used, without ending any.
///
/// A load reads the new store, then the old one. New sessions are created in the new store. The
/// first write to a session that is still in the old store moves it. A session is never live in
/// both: a delete, rotation or revocation ends it for good, also when it meets a move half-way, and
/// a move that was interrupted anywhere is completed by the next write.
///
/// **Every process has to use the layer**, for one that knows only the old store would not find
/// the sessions that were moved. The old store can go when all sessions in it have expired; until
/// then a session that does not exist costs three loads, one that was moved costs one. A record
/// with more data than the new store takes can be read but not written. Both stores need an index
/// by subject for this one to have it.
///
/// ```
/// use sessionkit::{MemoryStore, layers::Migrate};
///
/// let (old, new) = (MemoryStore::new(), MemoryStore::new());
/// let store = Migrate::new(old, new)?;
/// # Ok::<(), sessionkit::Error>(())
/// ```
///
/// # How a session moves
///
/// 1. A copy is put into the new store under a key derived from the session's, where no client
///    finds it: the *fence*, named by a random revision.
/// 2. The record in the old store is replaced, by compare-and-swap, by a mark that names the fence.
///    From here on the fence is the session.
/// 3. The fence is rotated to the session's own key, and the mark removed.
///
/// A mark without its fence is void. Deleting the record, or the mark's fence, therefore ends the
/// session at one instant, and whoever is late with a step finds nothing to go on with: there is no
/// fence to rotate, and a new fence has a name that no mark mentions.
#[derive(Clone, Debug)]
pub struct Migrate<S, T> {
    old: S,
    new: T,
}

impl<S: SessionStore, T: SessionStore> Migrate<S, T> {
    /// Moves sessions from `old` to `new`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when one of the stores leaves its records with the client, or
    /// does not compare revisions.
    pub fn new(old: S, new: T) -> Result<Self> {
        for capabilities in [old.capabilities(), new.capabilities()] {
            if capabilities.custody != Custody::Server || !capabilities.compare_and_swap {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "sessions move only between stores that keep them on a server",
                ));
            }
        }
        Ok(Self { old, new })
    }

    /// The live record of a token that has not arrived in the new store.
    async fn load_old(&self, token: &Token) -> Result<Option<Record>> {
        match self.old.load(token).await?.map(Found::new).transpose()? {
            None => Ok(None),
            Some(Found::Whole(record)) => Ok(Some(record)),
            Some(Found::Moved(moved)) => {
                let fence = self.fence_of(token, &moved).await?;
                Ok(fence.map(|fence| moved.restore(fence)))
            }
        }
    }

    /// The fence that a mark names, unless the mark is void.
    async fn fence_of(&self, token: &Token, moved: &Moved) -> Result<Option<Record>> {
        let fence = self.new.load(&fence_token(&token.key())).await?;
        Ok(fence.filter(|fence| fence.revision == moved.fence))
    }

    /// Sees to it that the record of a token is in the new store, if there is one.
    ///
    /// Nothing changes that a caller could see, whatever the outcome, so no error of this is
    /// ambiguous.
    async fn bring(&self, token: &Token) -> Result<()> {
        self.try_bring(token).await.map_err(|error| {
            if error.kind() == ErrorKind::Ambiguous {
                Error::new(ErrorKind::Unavailable, "the session could not be moved")
                    .with_source(error)
            } else {
                error
            }
        })
    }

    async fn try_bring(&self, token: &Token) -> Result<()> {
        let mut raised = false;
        for _ in 0..ATTEMPTS {
            match self.old.load(token).await?.map(Found::new).transpose()? {
                None => {
                    self.lower_fence(token, raised).await;
                    return Ok(());
                }
                Some(Found::Moved(moved)) => return self.finish(token, &moved, raised).await,
                Some(Found::Whole(record)) => {
                    raised = true;
                    if let Some(fence) = self.raise_fence(token, &record).await? {
                        let moved = Moved::new(&record, fence);
                        if self.replace_old(token, &record, &moved).await? {
                            return self.finish(token, &moved, raised).await;
                        }
                    }
                }
            }
        }
        Err(busy())
    }

    /// Step 1: the revision of a fence that holds this record, or `None` when others interfered.
    async fn raise_fence(&self, token: &Token, record: &Record) -> Result<Option<Revision>> {
        let place = fence_token(&token.key());
        let fence = fence(record, Revision::random(&OsEntropy)?);
        match self.new.create(place.clone(), &fence).await {
            Ok(_) => return Ok(Some(fence.revision)),
            Err(error) if error.kind() == ErrorKind::Exists => {}
            Err(error) => return Err(error),
        }
        match self.new.load(&place).await? {
            // Another request is moving the session: whoever is first takes the next step.
            Some(found) if is_copy(&found, record) => Ok(Some(found.revision)),
            Some(found) => {
                let replaced = self.new.update(&place, found.revision, &fence).await;
                Ok(unless_changed(replaced)?.then_some(fence.revision))
            }
            None => Ok(None),
        }
    }

    /// Step 2, and the end of a record that has not moved. Whether the old store still had it.
    async fn replace_old(&self, token: &Token, record: &Record, moved: &Moved) -> Result<bool> {
        let mark = moved.mark(record, Revision::random(&OsEntropy)?);
        unless_changed(self.old.update(token, record.revision, &mark).await)
    }

    /// Step 3, of a move that this or another request has begun.
    async fn finish(&self, token: &Token, moved: &Moved, raised: bool) -> Result<()> {
        match self.fence_of(token, moved).await? {
            Some(fence) => {
                let place = fence_token(&token.key());
                let record = moved.restore(fence);
                let arrived = self
                    .new
                    .rotate(&place, token.clone(), moved.fence, &record)
                    .await;
                unless_changed(arrived)?;
            }
            None => self.lower_fence(token, raised).await,
        }
        // The mark is void now and does no harm; it goes with its expiry if it has to stay.
        let _ = self.old.delete(token).await;
        Ok(())
    }

    /// Removes a fence that no mark can name any more: a copy of the data that nobody needs, which
    /// would otherwise stay until it expires.
    async fn lower_fence(&self, token: &Token, raised: bool) {
        if raised {
            let _ = self.new.delete(&fence_token(&token.key())).await;
        }
    }

    /// Ends a session that has not arrived in the new store, at one instant. Returns whether it
    /// found something to end.
    async fn end_old(&self, token: &Token) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            match self
                .old
                .load(token)
                .await
                .and_then(|record| record.map(Found::new).transpose())
            {
                Ok(None) => return Ok(false),
                Ok(Some(Found::Moved(_))) => {
                    self.new.delete(&fence_token(&token.key())).await?;
                    return Ok(true);
                }
                Ok(Some(Found::Whole(record))) => {
                    // Nothing is under this name: the mark is void from the beginning.
                    let nowhere = Moved::new(&record, Revision::random(&OsEntropy)?);
                    if self.replace_old(token, &record, &nowhere).await? {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Err(busy())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: SessionStore, T: SessionStore> SessionStore for Migrate<S, T> {
    fn capabilities(&self) -> Capabilities {
        let (old, new) = (self.old.capabilities(), self.new.capabilities());
        let mut both = new.clone();
        both.expiry_granularity = old.expiry_granularity.max(new.expiry_granularity);
        both.durability = old.durability.min(new.durability);
        both.staleness = old.staleness.max(new.staleness);
        if old.time_source == TimeSource::Server {
            both.time_source = TimeSource::Server;
        }
        if old.sweep == Sweep::Explicit {
            both.sweep = Sweep::Explicit;
        }
        both
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        record.check_size(self.new.capabilities().max_data)?;
        if self.load_old(&token).await?.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        self.new.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        if let Some(record) = self.new.load(token).await? {
            return Ok(Some(record));
        }
        if let Some(record) = self.load_old(token).await? {
            return Ok(Some(record));
        }
        // It may have arrived after the first look.
        self.new.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        let result = self.new.update(token, expected, record).await;
        if !is_missing(&result) {
            return result;
        }
        self.bring(token).await?;
        self.new.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        let result = self.new.touch(token, expires_at).await;
        if !is_missing(&result) {
            return result;
        }
        self.bring(token).await?;
        self.new.touch(token, expires_at).await
    }

    async fn rotate(
        &self,
        from: &Token,
        to: Token,
        expected: Revision,
        record: &Record,
    ) -> Result<Token> {
        record.check_size(self.new.capabilities().max_data)?;
        if self.load_old(&to).await?.is_some() {
            return match self.load(from).await? {
                None => Err(ErrorKind::Missing.into()),
                Some(found) if found.revision != expected => Err(ErrorKind::Conflict.into()),
                Some(_) => Err(ErrorKind::Exists.into()),
            };
        }
        let result = self.new.rotate(from, to.clone(), expected, record).await;
        if !is_missing(&result) {
            return result;
        }
        self.bring(from).await?;
        self.new.rotate(from, to, expected, record).await
    }

    async fn delete(&self, token: &Token) -> Result<()> {
        let ended = self.end_old(token).await?;
        match self.new.delete(token).await {
            Err(error) if ended => return Err(half_done(error)),
            result => result?,
        }
        // What is left is void, or cannot be read.
        self.old.delete(token).await.map_err(half_done)?;
        let fence = fence_token(&token.key());
        self.new.delete(&fence).await.map_err(half_done)
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let mut removed = 0;
        for (store, capabilities) in [
            (&self.old as &dyn SessionStore, self.old.capabilities()),
            (&self.new, self.new.capabilities()),
        ] {
            let rest = limit.saturating_sub(usize::try_from(removed).unwrap_or(usize::MAX));
            if capabilities.sweep == Sweep::Explicit && rest > 0 {
                removed += store.sweep(rest).await?;
            }
        }
        Ok(removed)
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.old.subjects()?;
        self.new.subjects()?;
        Some(self)
    }
}

fn is_missing<V>(result: &Result<V>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::Missing)
}

/// Whether a write took effect, where it is no failure that somebody else was faster.
fn unless_changed<V>(result: Result<V>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::Missing | ErrorKind::Conflict | ErrorKind::Exists => Ok(false),
            _ => Err(error),
        },
    }
}

fn busy() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the session is being written in the old store by something else",
    )
}

fn half_done(error: Error) -> Error {
    Error::new(
        ErrorKind::Ambiguous,
        "the session was ended in one of two stores",
    )
    .with_source(error)
}
