//! The client of an application: keeps a cookie and sends it.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{
    Clock, Keyring, Result, Session, SessionConfig, SessionManager, SessionStore, SystemClock,
};

use crate::{Context, Failure, Outcome, Random};

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
    let config = configure(SessionConfig::new(Arc::clone(store)));
    let builder = cx.harness().manager(config, keyring.clone());
    // Tokens and seals are random choices of the case, too.
    let entropy = Random::new(cx.random().next());
    Ok(builder.clock(clock).entropy(Arc::new(entropy)).build()?)
}

#[derive(Debug, Default)]
pub(crate) struct Browser {
    /// Name and value of each cookie.
    cookies: Vec<(String, String)>,
}

impl Browser {
    /// Makes a request, in which the application does something with its session.
    pub(crate) async fn visit<T>(
        &mut self,
        manager: &SessionManager,
        act: impl FnOnce(&Session) -> Result<T>,
    ) -> Outcome<T> {
        let sessions = manager.begin(&self.request()?);
        let session = sessions.session().await?;
        let result = act(&session)?;
        let mut response = HeaderMap::new();
        let finished = sessions.finish(&mut response).await;
        let sent = response.get_all(SET_COOKIE).iter().count();
        if let Err(errors) = finished {
            let (_, error) = errors
                .iter()
                .next()
                .ok_or_else(|| Failure::error("no error"))?;
            let text = crate::verdict::describe_error(error);
            return Err(Failure::new(
                "the session is saved",
                format!("{text}; {sent} cookies"),
            ));
        }
        for cookie in response.get_all(SET_COOKIE) {
            self.receive(cookie);
        }
        Ok(result)
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
