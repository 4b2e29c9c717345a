use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    CookieOptions, Error, ErrorKind, Result,
    cookie::Incoming,
    manager::{Manager, Setup},
};

/// What the sessions of one request share about its response.
#[derive(Debug)]
pub(crate) struct ResponseState {
    incoming: Arc<Incoming>,
    /// Whether the request is one whose response has a head only.
    is_head: bool,
    /// Whether the head is on its way.
    head_sent: AtomicBool,
    /// Whether the application says that the response depends on no session.
    is_for_everybody: AtomicBool,
    /// What the cookies of the sessions take in later requests, by position, where this response
    /// changes it.
    cookies: Mutex<Vec<Option<usize>>>,
}

impl ResponseState {
    pub(crate) fn new(incoming: &Arc<Incoming>, is_head: bool) -> Self {
        Self {
            incoming: Arc::clone(incoming),
            is_head,
            head_sent: AtomicBool::default(),
            is_for_everybody: AtomicBool::default(),
            cookies: Mutex::default(),
        }
    }

    pub(crate) fn set_head_sent(&self) {
        self.head_sent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_head_sent(&self) -> bool {
        self.head_sent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_for_everybody(&self) {
        self.is_for_everybody.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_for_everybody(&self) -> bool {
        self.is_for_everybody.load(Ordering::Relaxed)
    }

    /// Whether nobody sees what is read for this response.
    pub(crate) fn shows_nothing(&self) -> bool {
        self.is_head
    }

    /// Takes room for the cookie of a session with a token of this many bytes, in what the cookies of
    /// all sessions of the manager may take together: those of this response, and those that the
    /// browser keeps. A session whose cookie does not grow has room.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] when there is not enough. The session keeps the room that it had.
    pub(crate) fn take_room(
        &self,
        manager: &Manager,
        session: &Arc<Setup>,
        options: &CookieOptions,
        token_len: usize,
    ) -> Result<()> {
        let mut cookies = self.cookies();
        cookies.resize(manager.setups.len(), None);
        let (mut own, mut total) = (None, options.size_in_requests(token_len));
        let size = total;
        for (setup, changed) in manager.setups.iter().zip(cookies.iter_mut()) {
            let present = changed.unwrap_or_else(|| self.incoming.size(&setup.cookie));
            if Arc::ptr_eq(setup, session) {
                own = Some((changed, present));
            } else {
                total += present;
            }
        }
        let (changed, present) = own.expect("a session is one of its manager's");
        let budget = manager.cookie_budget;
        if total > budget && size > present {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the cookies of all sessions take {total} bytes of at most {budget} with the \
                     {size} of session {:?}",
                    session.name
                ),
            ));
        }
        *changed = Some(size);
        Ok(())
    }

    /// A session has ended, and its cookie goes.
    pub(crate) fn give_room(&self, manager: &Manager, session: &Arc<Setup>) {
        let mut cookies = self.cookies();
        cookies.resize(manager.setups.len(), None);
        let of_session = manager.setups.iter().zip(cookies.iter_mut());
        for (_, size) in of_session.filter(|(setup, _)| Arc::ptr_eq(setup, session)) {
            *size = Some(0);
        }
    }

    fn cookies(&self) -> MutexGuard<'_, Vec<Option<usize>>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
