//! The client of an application: keeps a cookie and sends it.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    Clock, Error, Keyring, Result, Session, SessionConfig, SessionManager, SessionStore, Sessions,
    SystemClock,
};

use crate::{Context, Failure, Outcome, Random, verdict::describe_error};

/// The manager that the harness builds, by the clock of the case.
pub(crate) fn manager(
    cx: &Context,
    store: &Arc<dyn SessionStore>,
    keyring: &Keyring,
    configure: impl FnOnce(SessionConfig) -> SessionConfig,
) -> Outcome<SessionManager> {
    let clock: Arc<dyn Clock> = match cx.manual_clock() {
        Some(clock) => clock,
        None => Arc::new(SystemClock),
    };
    manager_by(cx, store, keyring, clock, configure)
}

/// The manager that the harness builds, by another clock.
pub(crate) fn manager_by(
    cx: &Context,
    store: &Arc<dyn SessionStore>,
    keyring: &Keyring,
    clock: Arc<dyn Clock>,
    configure: impl FnOnce(SessionConfig) -> SessionConfig,
) -> Outcome<SessionManager> {
    let config = configure(SessionConfig::new(Arc::clone(store)));
    let builder = cx.harness().manager(config, keyring.clone());
    // Tokens and seals are random choices of the case, too.
    let entropy = Random::new(cx.random().next());
    Ok(builder.clock(clock).entropy(Arc::new(entropy)).build()?)
}

/// A client with its cookies. A clone is one that has the same cookies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    /// Name and value of each cookie.
    cookies: Vec<(String, String)>,
}

/// A request that the application is at work on.
pub(crate) struct Visit {
    sessions: Sessions,
    pub(crate) session: Session,
}

/// The end of a request.
pub(crate) struct Closed {
    /// How many cookies the response has.
    pub(crate) cookies: usize,
    /// What could not be saved.
    pub(crate) failure: Option<Error>,
}

impl Browser {
    /// Sends a request.
    pub(crate) async fn open(&self, manager: &SessionManager) -> Outcome<Visit> {
        let sessions = manager.begin(&self.request()?);
        let session = sessions.session().await?;
        Ok(Visit { sessions, session })
    }

    /// Gets the response.
    pub(crate) async fn close(&mut self, visit: Visit) -> Closed {
        let mut response = HeaderMap::new();
        let finished = visit.sessions.finish(&mut response).await;
        for cookie in response.get_all(SET_COOKIE) {
            self.receive(cookie);
        }
        let failure = finished.err().and_then(|errors| {
            let (_, error) = errors.iter().next()?;
            Some(Error::new(error.kind(), describe_error(error)))
        });
        Closed {
            cookies: response.get_all(SET_COOKIE).iter().count(),
            failure,
        }
    }

    /// Makes a request, in which the application does something with its session.
    pub(crate) async fn visit<T>(
        &mut self,
        manager: &SessionManager,
        act: impl FnOnce(&Session) -> Result<T>,
    ) -> Outcome<T> {
        let visit = self.open(manager).await?;
        let result = act(&visit.session)?;
        let closed = self.close(visit).await;
        match closed.failure {
            None => Ok(result),
            Some(error) => Err(Failure::new(
                "the session is saved",
                format!("{error}; {} cookies", closed.cookies),
            )),
        }
    }

    /// The value of the session's cookie, in the one cookie there is.
    pub(crate) fn cookie(&self) -> Option<&str> {
        self.cookies.first().map(|(_, value)| value.as_str())
    }

    fn request(&self) -> Outcome<HeaderMap> {
        let mut headers = HeaderMap::new();
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self
                .cookies
                .iter()
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            let header = HeaderValue::from_str(&pairs.join("; "));
            let header = header.map_err(|_| Failure::error("a cookie that no header takes"))?;
            headers.insert(COOKIE, header);
        }
        Ok(headers)
    }

    fn receive(&mut self, cookie: &HeaderValue) {
        let text = String::from_utf8_lossy(cookie.as_bytes()).into_owned();
        let pair = text.split(';').next().unwrap_or_default();
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        self.cookies.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.cookies.push((name.into(), value.into()));
        }
    }
}
