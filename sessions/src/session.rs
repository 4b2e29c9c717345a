use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    CookieOptions, Custody, Error, ErrorKind, Label, Persistence, Result, Saved, StoreKey, Subject,
    Timestamp,
    commit::{Change, Draft},
    manager::{Manager, Setup},
    payload::{Flash, decode_value, encode_value},
    save,
};

/// The queue of messages that have no queue of their own.
const DEFAULT_QUEUE: &str = "";

/// How many messages of a session may wait to be read: a page that forgets to show them does not
/// fill the store.
const MAX_FLASHES: usize = 100;

/// One session of a request: typed values, flash messages, and how long it lives.
///
/// It was loaded when the handler asked for it, so that reading and writing need no waiting. A
/// handle is cheap to clone, and all clones are one session. Changes are recorded key by key and
/// saved together before the head of the response is sent. If another request has changed the
/// session meanwhile, they are made again on what it has left: keys set by one do not overwrite keys
/// set by the other. Of two values for one key the one saved last stays, except with
/// [`update`](Self::update), which computes its value anew.
///
/// Values are stored as MessagePack with field names. A struct that has gained a field with
/// `#[serde(default)]` still reads what was stored before.
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
    /// Whether the head of the response is on its way: one flag for all sessions of a request.
    head_sent: Arc<AtomicBool>,
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
        head_sent: Arc<AtomicBool>,
    ) -> Self {
        Self(Arc::new(Inner {
            manager,
            setup,
            origin,
            saving: tokio::sync::Mutex::default(),
            draft: Mutex::new(draft),
            head_sent,
            told: Mutex::default(),
        }))
    }

    /// Stores a value under a key, in place of what was there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value cannot be serialized; nothing has
    /// changed then.
    pub fn insert<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<()> {
        let value = encode_value(key, value)?;
        self.0.draft().change(Change::Set(key.into(), value));
        Ok(())
    }

    /// Computes a value from the present one, and stores and returns it.
    ///
    /// If another request changes the session meanwhile, `f` runs again on the value that it has
    /// left: a counter counts every request. `f` must not use the session itself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the present value is not a `T`, or the new
    /// one cannot be serialized; nothing has changed then.
    pub fn update<T, F>(&self, key: &str, mut f: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> T + Send + 'static,
    {
        let name: Box<str> = key.into();
        let update = Box::new(move |present: Option<&bytes::Bytes>| {
            let present = present
                .map(|bytes| decode_value(&name, bytes))
                .transpose()?;
            encode_value(&name, &f(present))
        });
        let mut draft = self.0.draft();
        draft.try_change(Change::Update(key.into(), update))?;
        let value = draft.snapshot.content.values.get(key);
        decode_value(key, value.map_or(&[], |value| value))
    }

    /// Removes a value, and returns whether there was one.
    pub fn remove(&self, key: &str) -> bool {
        let mut draft = self.0.draft();
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
            let mut draft = self.0.draft();
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
        let mut draft = self.0.draft();
        if !draft.snapshot.content.is_empty() {
            draft.change(Change::Clear);
        }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the key when the value is not a `T`. Other values are not
    /// affected.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let bytes = self.0.draft().snapshot.content.values.get(key).cloned();
        bytes.map(|bytes| decode_value(key, &bytes)).transpose()
    }

    /// Whether there is a value under a key.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.draft().snapshot.content.values.contains_key(key)
    }

    /// The keys of all values, in ascending order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let draft = self.0.draft();
        let keys = draft.snapshot.content.values.keys();
        keys.map(|key| key.to_string()).collect()
    }

    /// Whether there is neither a value nor a flash message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.draft().snapshot.content.is_empty()
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
    /// [`ErrorKind::InvalidValue`] naming the queue when the message cannot be serialized, and
    /// [`ErrorKind::TooLarge`] when a hundred messages wait to be read.
    pub fn flash_to<T: Serialize + ?Sized>(&self, queue: &str, message: &T) -> Result<()> {
        let message = encode_value(queue, message)?;
        let mut draft = self.0.draft();
        let waiting: usize = draft.snapshot.content.flashes.values().map(Vec::len).sum();
        if waiting >= MAX_FLASHES {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{MAX_FLASHES} messages wait to be read, and {queue:?} takes no more"),
            ));
        }
        draft.change(Change::Flash(queue.into(), message));
        Ok(())
    }

    /// Takes the messages that were added with [`flash`](Self::flash), the oldest first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] when one of them is not a `T`; all of them stay then.
    pub fn flashes<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        self.flashes_from(DEFAULT_QUEUE)
    }

    /// Takes the messages of a named queue, the oldest first. Two requests at the same time may both
    /// get one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] naming the queue when one of them is not a `T`; all of them stay
    /// then.
    pub fn flashes_from<T: DeserializeOwned>(&self, queue: &str) -> Result<Vec<T>> {
        let mut draft = self.0.draft();
        let Some(flashes) = draft.snapshot.content.flashes.get(queue) else {
            return Ok(Vec::new());
        };
        let decode = |flash: &Flash| decode_value(queue, &flash.value);
        let messages = flashes.iter().map(decode).collect::<Result<_>>()?;
        draft.take_flashes(queue);
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
        self.0.draft().renew();
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
        self.0.draft().sign_in(subject);
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
        // That an earlier save was refused says nothing about the end of the session.
        self.0.told().take_if(|told| matches!(told, BadNews::Gone));
        let mut draft = self.0.draft();
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
        self.0.draft().change(Change::Persistence(persistence));
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
        self.0.draft().change(Change::Subject(subject));
        Ok(())
    }

    /// Sets the text that stands for this session in the list of a subject's sessions.
    pub fn set_label(&self, label: Label) {
        self.0.draft().change(Change::Label(label));
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
        self.0.draft().set_cookie_options(options);
        Ok(())
    }

    /// The attributes of the cookie in this response.
    #[must_use]
    pub fn cookie_options(&self) -> CookieOptions {
        let options = self.0.draft().cookie_options.clone();
        options.unwrap_or_else(|| self.0.setup.cookie.clone())
    }

    /// Whether the store does not hold the session yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.0.draft().stored.is_none()
    }

    /// Where the session comes from, and if it is new, why.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// How long the session lives.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        self.0.draft().snapshot.content.persistence
    }

    /// Whose session this is.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        self.0.draft().snapshot.subject.clone()
    }

    /// The text that stands for this session in the list of a subject's sessions.
    #[must_use]
    pub fn label(&self) -> Label {
        self.0.draft().snapshot.label.clone()
    }

    /// When the session began; `None` for a new one.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        let draft = self.0.draft();
        draft.stored.as_ref().map(|stored| stored.created_at)
    }

    /// When the session ends unless it is used, as of the last save; `None` for a new one.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let draft = self.0.draft();
        draft.stored.as_ref().map(|stored| stored.expires_at)
    }

    /// The handle of this session in the list of its subject's sessions; `None` for a new one.
    #[must_use]
    pub fn store_key(&self) -> Option<StoreKey> {
        let draft = self.0.draft();
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

    /// Loads the session anew and drops every change that was not saved; a renewal that was asked
    /// for stays.
    ///
    /// # Errors
    /// As the store says; the session stays as it is then.
    pub async fn reload(&self) -> Result<()> {
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
    pub(crate) fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_head_sent(&self) -> bool {
        self.head_sent.load(Ordering::Relaxed)
    }

    fn told(&self) -> MutexGuard<'_, Option<BadNews>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
