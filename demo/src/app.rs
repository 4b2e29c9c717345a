use std::{sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware};
use bytes::Bytes;
use http::{Response, StatusCode};
use sessionkit::{
    Clock, CookieOptions, Custody, ErrorKind, Failure, Keyring, Persistence, Result, SessionConfig,
    SessionLayer, SessionManager, SessionStore, SystemClock,
};
use sessionkit_cookie::CookieStore;
use tower_http::csrf::CsrfLayer;

use crate::{
    api,
    error::{Error, log, problem},
    pages, prefs,
};

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;

/// How long the look of the pages is remembered after the last visit.
const PREFS_LIFETIME: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// The web app: what it is made of, and its routes.
#[derive(Debug)]
pub struct App {
    store: Arc<dyn SessionStore>,
    keyring: Keyring,
    clock: Arc<dyn Clock>,
    https: bool,
}

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) manager: SessionManager,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) custody: Custody,
    pub(crate) keeps_subjects: bool,
}

impl App {
    /// An app that keeps the main session in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>, keyring: Keyring) -> Self {
        Self {
            store,
            keyring,
            clock: Arc::new(SystemClock),
            https: false,
        }
    }

    /// Sets the clock, which has to be the store's too; [`SystemClock`] by default.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets whether browsers reach the app over HTTPS only; they do not by default.
    #[must_use]
    pub fn with_https(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    /// The app as a service.
    ///
    /// Forms are protected against other sites by `SameSite=Lax` and by the headers `Sec-Fetch-Site`
    /// and `Origin`, which no page can forge: a token in the session would be no better, and would
    /// give every visitor a session for having looked at a form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] as [`sessionkit::SessionManagerBuilder::build`].
    pub fn router(self) -> Result<Router> {
        let state = State {
            custody: self.store.capabilities().custody,
            keeps_subjects: self.store.subjects().is_some(),
            clock: Arc::clone(&self.clock),
            manager: self.manager()?,
        };
        let csrf = CsrfLayer::new().with_rejection_response(|_| {
            axum::response::IntoResponse::into_response(Error::CrossSite)
        });
        Ok(pages::router()
            .nest("/api", api::router())
            .fallback(async || Error::NotFound)
            .method_not_allowed_fallback(async || Error::MethodNotAllowed)
            .layer(SessionLayer::new(state.manager.clone()))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(csrf)
            .layer(middleware::from_fn(pages::show_problems))
            .layer(middleware::map_response(pages::harden))
            .with_state(state))
    }

    fn manager(self) -> Result<SessionManager> {
        let cookie = |name| -> Result<_> {
            let cookie = CookieOptions::new(name)?;
            if self.https {
                return Ok(cookie);
            }
            Ok(cookie.insecure_allow_plain_http())
        };
        let prefs = CookieStore::new(self.keyring.clone()).with_clock(Arc::clone(&self.clock));
        let main = SessionConfig::new(Arc::clone(&self.store)).cookie(cookie("__Host-id")?);
        let prefs = SessionConfig::new(prefs)
            .cookie(cookie("__Host-prefs")?)
            .absolute_lifetime(PREFS_LIFETIME)
            .persistence(Persistence::For(PREFS_LIFETIME));
        SessionManager::builder(self.keyring)
            .clock(self.clock)
            .session("main", main)
            .session(prefs::SESSION, prefs)
            .on_failure(on_failure)
            .build()
    }
}

/// Too much in a session is the visitor's to correct; with everything else the store is in trouble,
/// and the operator is told.
fn on_failure(failure: &Failure<'_>) -> Option<Response<Bytes>> {
    match failure {
        Failure::Load(error) => log(error),
        Failure::Save(errors) => {
            let too_large = |error: &sessionkit::Error| error.kind() == ErrorKind::TooLarge;
            if let Some((_, error)) = errors.iter().find(|(_, error)| too_large(error)) {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Some(problem(status, error.to_string().into()));
            }
            errors.iter().for_each(|(_, error)| log(error));
        }
        Failure::Gone(_) => {
            let text = "the session has ended, or somebody has signed in, meanwhile";
            return Some(problem(StatusCode::CONFLICT, text.into()));
        }
        _ => {}
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Some(response)
}
