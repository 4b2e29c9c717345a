use std::{
    fmt,
    ops::{Deref, DerefMut},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    CookieOptions, Custody, Error, ErrorKind, Label, Persistence, Result, Saved, StoreKey, Subject,
    Timestamp,
    commit::{Change, Draft},
    manager::{Manager, Setup},
    payload::Flash,
    response::ResponseState,
    save,
    value::{decode_value, encode_value},
};

/// The queue of messages that have no queue of their own.
const DEFAULT_QUEUE: &str = "";

/// One session of a request: typed values, flash messages, and how long it lives.
///
/// It was loaded when the handler asked for it, so that reading and writing need no waiting. A
/// handle is cheap to clone, and all clones are one session. Changes are recorded key by key and
/// saved together before the head of the response is sent. If another request has changed the
/// session meanwhile, they are made again on what it has left: keys set by one do not overwrite keys
/// set by the other. Of two values for one key the one saved last stays, except with
/// [`update`](Self::update), which computes its value anew.
///
/// # Values
///
/// Values are stored as MessagePack with field names. A struct that has gained a field with
/// `#[serde(default)]` still reads what was stored before. Types that have a form for people, such
/// as addresses, are stored in that form, also where the representation of an enum (`tag`,
/// `untagged`) or `flatten` makes serde read a value before it knows its type.
///
/// What could not be read back is refused when it is written, with
/// [`ErrorKind::InvalidValue`] naming the key and the type:
///
/// - `u128` and `i128`, for which MessagePack has no number: store text, or two `u64`;
/// - a `Some` that holds nothing, such as `Some(None)`, `Some(())` or a unit struct, which would be
///   read as `None`: store an enum;
/// - more than 64 levels. Each struct, sequence, map, tuple, newtype and `Some` is one, and each
///   variant with a content, two if its content has several fields. Stored values with more are not
///   read either, so that no value exhausts a stack of 256 KiB;
/// - sequences and maps whose length is not the one that their `Serialize` tells (builds with debug
///   assertions look for it).
///
/// Only the type itself can break the rest: a field that is skipped when it is written and has no
/// default, or an untagged enum with an earlier variant that reads what a later one has written.
/// [`update`](Self::update), which knows how the value is to be read, tries that too.
///
/// # Example
///
/// ```
/// # futures_util::FutureExt::now_or_never(async {
/// # use sessionkit::{Key, Keyring, MemoryStore, SessionManager};
/// # let manager = SessionManager::new(MemoryStore::new(), Keyring::new([Key::generate()?])?)?;
/// # let sessions = manager.begin(&http::HeaderMap::new());
/// let session = sessions.session().await?;
/// session.insert("user", "alice")?;
/// let visits = session.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
/// session.flash("Welcome back!")?;
///
/// assert_eq!(session.get::<String>("user")?.as_deref(), Some("alice"));
/// assert_eq!(visits, 1);
/// # Ok::<(), sessionkit::Error>(())
/// # }).unwrap().unwrap();
/// ```
#[derive(Clone)]
pub struct Session(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) manager: Arc<Manager>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) origin: Origin,
    pub(crate) saving: tokio::sync::Mutex<()>,
    draft: Mutex<Draft>,
    /// The thread that has the lock of the draft, by the address of a thread-local of it; or zero.
    holder: AtomicUsize,
    /// Whether a closure of [`update`](Session::update) made a call that could not tell it that it
    /// was refused.
    refused: Arc<AtomicBool>,
    /// What all sessions of a request share.
    pub(crate) response: Arc<ResponseState>,
    /// What the handler's own last save told it, if that was bad news.
    told: Mutex<Option<BadNews>>,
}

#[derive(Clone, Copy)]
enum BadNews {
    /// It failed, of this kind, in this epoch of the draft, when this much had been asked for.
    Failed(ErrorKind, u64, u64),
    Gone,
}

/// Where a session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The store had it.
    Stored,
    /// It is new: the request had no cookie for it.
    NoCookie,
    /// It is new: no cookie for it in the request was signed or sealed by a key of the keyring. The
    /// response leaves it alone.
    Rejected,
    /// It is new: the session that the cookie names has ended, or never was. Unless a session takes
    /// its place, the response removes the cookie, if it is sent within five seconds and the secret
    /// was not replaced a moment ago: later the browser may have a new cookie of this name.
    Ended,
    /// There is none: another request has renewed the session with a change of privilege a moment
    /// ago, a sign-in for example, and this one came with the secret from before. What it writes is
    /// dropped and reported, and the browser keeps the cookie it has, or is about to get;
    /// [`sign_in`](Session::sign_in) alone begins another session.
    Renewed,
    /// It is new: the application asked for it in place of one that cannot be read.
    Restarted,
}

impl Session {
    pub(crate) fn new(
        manager: Arc<Manager>,
        setup: Arc<Setup>,
        origin: Origin,
        draft: Draft,
        response: Arc<ResponseState>,
    ) -> Self {
        Self(Arc::new(Inner {
            manager,
            setup,
            origin,
            saving: tokio::sync::Mutex::default(),
            draft: Mutex::new(draft),
            holder: AtomicUsize::default(),
            refused: Arc::default(),
            response,
            told: Mutex::default(),
        }))
    }

    /// Stores a value under a key, in place of what was there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value cannot be serialized, or not be read
    /// back, and [`ErrorKind::TooLarge`] naming it when the session has no room for the value or for
    /// another key; nothing has changed then.
    pub fn insert<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<()> {
        let policy = &self.0.setup.policy;
        let value = encode_value(key, value)?;
        policy.check_value(key, value.len())?;
        let mut draft = self.0.enter()?;
        policy.check_key(key, &draft.snapshot.content)?;
        draft.change(Change::Set(key.into(), value));
        Ok(())
    }

    /// Computes a value from the present one, and stores and returns it.
    ///
    /// If another request changes the session meanwhile, `f` runs again on the value that it has
    /// left: a counter counts every request. While `f` runs, other threads wait for the session, so
    /// that `f` must neither use the session itself, nor wait for a thread that does. A call of the
    /// session from within `f` fails at once with [`ErrorKind::Reentrant`] and does nothing; one that
    /// returns no `Result` answers as an empty session would, and makes `update` fail in its place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the present value is not a `T`, or the new
    /// one cannot be serialized, or not be read back; [`ErrorKind::TooLarge`] naming it when the
    /// session has no room for the value or for another key; [`ErrorKind::Reentrant`]. Nothing has
    /// changed then.
    pub fn update<T, F>(&self, key: &str, mut f: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> T + Send + 'static,
    {
        let name: Box<str> = key.into();
        let refused = Arc::clone(&self.0.refused);
        let setup = Arc::clone(&self.0.setup);
        let update = Box::new(move |present: Option<&bytes::Bytes>| {
            let present = present
                .map(|bytes| decode_value(&name, bytes))
                .transpose()?;
            refused.store(false, Ordering::Relaxed);
            let value = f(present);
            if refused.swap(false, Ordering::Relaxed) {
                return Err(ErrorKind::Reentrant.into());
            }
            let value = encode_value(&name, &value)?;
            setup.policy.check_value(&name, value.len())?;
            decode_value::<T>(&name, &value)?;
            Ok(value)
        });
        let mut draft = self.0.enter()?;
        let policy = &self.0.setup.policy;
        policy.check_key(key, &draft.snapshot.content)?;
        draft.try_change(Change::Update(key.into(), update))?;
        let value = draft.snapshot.content.values.get(key);
        decode_value(key, value.map_or(&[], |value| value))
    }

    /// Removes a value, and returns whether there was one.
    pub fn remove(&self, key: &str) -> bool {
        let Some(mut draft) = self.0.enter_or_refuse() else {
            return false;
        };
        let present = draft.snapshot.content.values.contains_key(key);
        if present {
            draft.change(Change::Remove(key.into()));
        }
        present
    }

    /// Removes a value and returns it. Two requests at the same time may both get it: what may be
    /// used once only, such as the state of an OAuth flow, is for [`claim`](Self::claim).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value is not a `T`; it stays then.
    pub fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let value = self.get(key)?;
        self.remove(key);
        Ok(value)
    }

    /// Removes a value and saves the session: of all requests that do so one gets the value, and the
    /// others `None`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value is not a `T`; it stays then.
    /// [`ErrorKind::Gone`] when another request has ended or renewed the session.
    /// [`ErrorKind::Ambiguous`] when the answer of the store was lost: the value may be used up.
    /// [`ErrorKind::Unsupported`] when the client keeps the session, which can send an old copy
    /// again. And as [`save`](Self::save).
    ///
    /// # Cancel safety
    /// The value is then used up or not.
    pub async fn claim<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        if self.0.setup.custody == Custody::Client {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "nothing can be claimed from a session that the client keeps",
            ));
        }
        let value = self.get(key)?;
        let lost = Arc::new(AtomicBool::new(false));
        {
            let mut draft = self.0.enter()?;
            let Some(bytes) = draft.snapshot.content.values.get(key).cloned() else {
                return Ok(None);
            };
            draft.change(Change::Claim(key.into(), bytes, Arc::clone(&lost)));
        }
        match self.save().await? {
            Saved::Gone => Err(ErrorKind::Gone.into()),
            _ => Ok(value.filter(|_| !lost.load(Ordering::Relaxed))),
        }
    }

    /// Removes all values and flash messages. Subject, label and persistence stay.
    pub fn clear(&self) {
        if let Some(mut draft) = self.0.enter_or_refuse()
            && !draft.snapshot.content.is_empty()
        {
            draft.change(Change::Clear);
        }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value is not a `T`. Other values are not
    /// affected.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let bytes = self.0.enter()?.snapshot.content.values.get(key).cloned();
        bytes.map(|bytes| decode_value(key, &bytes)).transpose()
    }

    /// Whether there is a value under a key.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        let draft = self.0.enter_or_refuse();
        draft.is_some_and(|draft| draft.snapshot.content.values.contains_key(key))
    }

    /// The keys of all values, in ascending order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let Some(draft) = self.0.enter_or_refuse() else {
            return Vec::new();
        };
        let keys = draft.snapshot.content.values.keys();
        keys.map(|key| key.to_string()).collect()
    }

    /// Whether there is neither a value nor a flash message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let draft = self.0.enter_or_refuse();
        draft.is_none_or(|draft| draft.snapshot.content.is_empty())
    }

    /// Adds a message that lasts until it is read.
    ///
    /// # Errors
    /// As [`flash_to`](Self::flash_to).
    pub fn flash<T: Serialize + ?Sized>(&self, message: &T) -> Result<()> {
        self.flash_to(DEFAULT_QUEUE, message)
    }

    /// Adds a message to a named queue. Messages added by parallel requests are all kept, each
    /// request's in the order in which it added them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the queue when the message cannot be serialized, or not be
    /// read back, and [`ErrorKind::TooLarge`] naming it when the session has no room for the message,
    /// or [so many](crate::SessionConfig::max_flashes) wait to be read.
    pub fn flash_to<T: Serialize + ?Sized>(&self, queue: &str, message: &T) -> Result<()> {
        let policy = &self.0.setup.policy;
        let message = encode_value(queue, message)?;
        policy.check_value(queue, message.len())?;
        let mut draft = self.0.enter()?;
        policy.check_flashes(queue, &draft.snapshot.content)?;
        draft.change(Change::Flash(queue.into(), message));
        Ok(())
    }

    /// Takes the messages that were added with [`flash`](Self::flash), the oldest first.
    ///
    /// # Errors
    /// As [`flashes_from`](Self::flashes_from).
    pub fn flashes<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.flashes_from(DEFAULT_QUEUE)
    }

    /// Takes the messages of a named queue, the oldest first. Two requests at the same time may both
    /// get one.
    ///
    /// A `HEAD` request shows them to nobody: it gets the messages too, so that its response has the
    /// head of the page, and they stay.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the queue when one of them is not a `T`; all of them stay
    /// then.
    pub fn flashes_from<T: DeserializeOwned>(&self, queue: &str) -> Result<Vec<T>> {
        let mut draft = self.0.enter()?;
        let Some(flashes) = draft.snapshot.content.flashes.get(queue) else {
            return Ok(Vec::new());
        };
        let decode = |flash: &Flash| decode_value(queue, &flash.value);
        let messages = flashes.iter().map(decode).collect::<Result<_>>()?;
        if !self.0.response.shows_nothing() {
            draft.take_flashes(queue);
        }
        Ok(messages)
    }

    /// Gives the session a new secret when it is saved, and makes the old one worthless: to be
    /// called whenever the user gains rights, so that a token planted before is worth nothing
    /// (session fixation, CWE-384). The data stay, and the session keeps its
    /// [`store_key`](Self::store_key). [`sign_in`](Self::sign_in) and a change of subject do it too.
    ///
    /// Another request that came with the old secret can change nothing any more: its changes are
    /// dropped, and it is told [`Saved::Gone`].
    pub fn renew(&self) {
        if let Some(mut draft) = self.0.enter_or_refuse() {
            draft.renew();
        }
    }

    /// Makes this the session of a user who has just signed in: sets the subject, gives the session
    /// a new secret as [`renew`](Self::renew) does, and begins its absolute lifetime anew. If it
    /// was another subject's, the values, flash messages and label of that one go.
    ///
    /// A request that is late for another change of privilege, the second click on a form for
    /// example, begins another session, after it has ended the first one if that has the same
    /// subject.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the store keeps no index by subject.
    pub fn sign_in(&self, subject: Subject) -> Result<()> {
        self.0.setup.subjects()?;
        self.0.enter()?.sign_in(subject);
        Ok(())
    }

    /// Ends the session: the record is deleted and the cookie removed, whatever other requests do
    /// to it meanwhile. What is written afterwards begins another session with another token. If the
    /// request brought cookies of other sessions under the same name, of up to three in all, those
    /// end too.
    ///
    /// A request whose secret was worth nothing when it came cannot end the session, and is told
    /// [`Saved::Gone`].
    pub fn destroy(&self) {
        let Some(mut draft) = self.0.enter_or_refuse() else {
            return;
        };
        // That an earlier save was refused says nothing about the end of the session.
        self.0.told().take_if(|told| matches!(told, BadNews::Gone));
        let options = draft.cookie_options.as_ref();
        let options = options.unwrap_or(&self.0.setup.cookie);
        // A cookie in an old place need not be sent with this request.
        let has_cookie = self.0.origin != Origin::NoCookie || options.has_old_places();
        draft.destroy(has_cookie);
    }

    /// Sets how long the session lives, for this and all later requests.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for less than a second, and for more than the absolute lifetime
    /// of the session's configuration.
    pub fn set_persistence(&self, persistence: Persistence) -> Result<()> {
        self.0.setup.policy.check(persistence)?;
        let mut draft = self.0.enter()?;
        draft.change(Change::Persistence(persistence));
        Ok(())
    }

    /// Sets whose session this is, so that it is listed and ended with the subject's others. A
    /// change of subject renews the session; [`sign_in`](Self::sign_in) is the call for a login.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the store keeps no index by subject.
    pub fn set_subject(&self, subject: Option<Subject>) -> Result<()> {
        if subject.is_some() {
            self.0.setup.subjects()?;
        }
        self.0.enter()?.change(Change::Subject(subject));
        Ok(())
    }

    /// Sets the text that stands for this session in the list of a subject's sessions.
    pub fn set_label(&self, label: Label) {
        if let Some(mut draft) = self.0.enter_or_refuse() {
            draft.change(Change::Label(label));
        }
    }

    /// Sets the attributes of the cookie in this response, in place of the configured ones.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when a browser would refuse the cookie, or its name is not the
    /// configured one.
    pub fn set_cookie_options(&self, options: CookieOptions) -> Result<()> {
        options.validate()?;
        if options.name() != self.0.setup.cookie.name() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the name of a session's cookie cannot change",
            ));
        }
        self.0.enter()?.set_cookie_options(options);
        Ok(())
    }

    /// The attributes of the cookie in this response.
    #[must_use]
    pub fn cookie_options(&self) -> CookieOptions {
        let draft = self.0.enter_or_refuse();
        let options = draft.and_then(|draft| draft.cookie_options.clone());
        options.unwrap_or_else(|| self.0.setup.cookie.clone())
    }

    /// Says that the response is the same for everybody, although the request has asked for a
    /// session: its cache headers are left to the application, `public` included. Called in error, it
    /// lets shared caches hand one visitor's page to others. It does not count for a response that
    /// sets the cookie of a session.
    pub fn insecure_response_for_everybody(&self) {
        self.0.response.set_for_everybody();
    }

    /// Whether the store does not hold the session yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let draft = self.0.enter_or_refuse();
        draft.is_none_or(|draft| draft.stored.is_none())
    }

    /// Where the session comes from, and if it is new, why.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// How long the session lives.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        let draft = self.0.enter_or_refuse();
        draft.map_or_else(Persistence::default, |draft| {
            draft.snapshot.content.persistence
        })
    }

    /// Whose session this is.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        let draft = self.0.enter_or_refuse()?;
        draft.snapshot.subject.clone()
    }

    /// The text that stands for this session in the list of a subject's sessions.
    #[must_use]
    pub fn label(&self) -> Label {
        let draft = self.0.enter_or_refuse();
        draft.map_or_else(Label::default, |draft| draft.snapshot.label.clone())
    }

    /// When the session began; `None` for a new one.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        let draft = self.0.enter_or_refuse()?;
        draft.stored.as_ref().map(|stored| stored.created_at)
    }

    /// When the session ends unless it is used, as of the last save; `None` for a new one.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let draft = self.0.enter_or_refuse()?;
        draft.stored.as_ref().map(|stored| stored.expires_at)
    }

    /// The handle of this session in the list of its subject's sessions; `None` for a new one.
    #[must_use]
    pub fn store_key(&self) -> Option<StoreKey> {
        let draft = self.0.enter_or_refuse()?;
        draft.stored.as_ref().map(|stored| stored.token.key())
    }

    /// Saves the session now instead of at the end of the request. The cookie goes out with the
    /// head of the response all the same.
    ///
    /// # Errors
    /// As the store says. [`ErrorKind::Ambiguous`] means that the changes may or may not have been
    /// stored; with any other kind they were not. The end of the request does not save what failed
    /// here, since the handler may have answered accordingly; another call does. What the handler
    /// asks for after a failure and does not save is reported, except that it can
    /// [end](Self::destroy) the session.
    ///
    /// # Cancel safety
    /// The session is then stored or not, and a later save finds out which.
    pub async fn save(&self) -> Result<Saved> {
        self.0.check_reentrance()?;
        let saved = save::save(&self.0).await;
        let (epoch, asked) = {
            let draft = self.0.draft();
            (draft.epoch, draft.asked)
        };
        *self.0.told() = match &saved {
            Err(error) => Some(BadNews::Failed(error.kind(), epoch, asked)),
            Ok(Saved::Gone) => Some(BadNews::Gone),
            Ok(_) => None,
        };
        saved
    }

    /// Saves what the handler left to the end of the request.
    pub(crate) async fn save_at_end(&self) -> Result<()> {
        self.0.check_reentrance()?;
        let told = *self.0.told();
        if let Some(BadNews::Failed(kind, epoch, asked)) = told {
            let draft = self.0.draft();
            // A handler that has ended the session since asks for nothing of what failed.
            if draft.epoch == epoch {
                return if draft.asked == asked {
                    Ok(())
                } else {
                    let text = "what the handler asked for after a failed save is not saved";
                    Err(Error::new(kind, text))
                };
            }
        }
        save::save(&self.0).await?;
        if !matches!(told, Some(BadNews::Gone)) && self.0.draft().has_dropped() {
            return Err(ErrorKind::Gone.into());
        }
        Ok(())
    }

    /// Drops what the handler has asked for and not saved, because its response says that it has
    /// failed. Returns whether it has ended the session, which stands.
    pub(crate) fn drop_all_but_end(&self) -> bool {
        let Some(mut draft) = self.0.enter_or_refuse() else {
            return false;
        };
        let ends = draft.is_ending();
        if ends {
            draft.drop_changes();
        }
        ends
    }

    /// Loads the session anew and drops every change that was not saved; a renewal that was asked
    /// for stays.
    ///
    /// # Errors
    /// As the store says; the session stays as it is then.
    pub async fn reload(&self) -> Result<()> {
        self.0.check_reentrance()?;
        save::reload_discarding(&self.0).await?;
        *self.0.told() = None;
        Ok(())
    }

    /// Ends every other session of this session's subject, and returns how many were live.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the session has no subject or the store keeps no index by
    /// subject; and as the store says.
    pub async fn revoke_others(&self) -> Result<u64> {
        self.0.check_reentrance()?;
        let subject = self
            .subject()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "the session has no subject"))?;
        let except = self.store_key();
        let index = self.0.setup.subjects()?;
        index.revoke_all(&subject, except.as_ref()).await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.0.setup.name)
            .field("origin", &self.0.origin)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The draft, for a caller that no closure of an update runs.
    pub(crate) fn draft(&self) -> DraftGuard<'_> {
        self.enter()
            .expect("who calls the store is not called from within an update")
    }

    /// The draft, unless this thread has it: it runs the closure of an update then, or another
    /// function of the application, and would wait for itself.
    ///
    /// # Errors
    /// [`ErrorKind::Reentrant`].
    pub(crate) fn enter(&self) -> Result<DraftGuard<'_>> {
        self.check_reentrance()?;
        let draft = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
        self.holder.store(this_thread(), Ordering::Relaxed);
        Ok(DraftGuard {
            holder: &self.holder,
            draft,
        })
    }

    /// [`enter`](Self::enter) for calls that return no error; the update is told in their place.
    pub(crate) fn enter_or_refuse(&self) -> Option<DraftGuard<'_>> {
        let draft = self.enter();
        if draft.is_err() {
            self.refused.store(true, Ordering::Relaxed);
        }
        draft.ok()
    }

    fn check_reentrance(&self) -> Result<()> {
        // A thread sees its own writes; those of others name others.
        if self.holder.load(Ordering::Relaxed) == this_thread() {
            return Err(ErrorKind::Reentrant.into());
        }
        Ok(())
    }

    pub(crate) fn is_head_sent(&self) -> bool {
        self.response.is_head_sent()
    }

    fn told(&self) -> MutexGuard<'_, Option<BadNews>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock of a draft. Whose closures, values and types the application brings may be called
/// while it is held.
pub(crate) struct DraftGuard<'a> {
    holder: &'a AtomicUsize,
    draft: MutexGuard<'a, Draft>,
}

impl Deref for DraftGuard<'_> {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}

impl DerefMut for DraftGuard<'_> {
    fn deref_mut(&mut self) -> &mut Draft {
        &mut self.draft
    }
}

impl Drop for DraftGuard<'_> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

/// A number that no other living thread has; never zero.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| ptr::from_ref(mark).addr())
}
