use axum_core::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use super::answered::Answered;
use crate::{Error, Failure, Session, Sessions};

/// An empty response with the status of [`Error::status`]. Around it,
/// [`SessionLayer`](crate::SessionLayer) asks
/// [`on_failure`](crate::SessionManagerBuilder::on_failure) for another one and logs the error, so
/// that a handler can end with `?`:
///
/// ```
/// use sessionkit::Session;
///
/// async fn home(session: Session) -> sessionkit::Result<String> {
///     Ok(session.get("name")?.unwrap_or_default())
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(home));
/// ```
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Answered::new(self));
        response
    }
}

/// The default session. A store that fails gives the response of
/// [`on_failure`](crate::SessionManagerBuilder::on_failure), 503 by default: never an empty session.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let sessions = Sessions::from_request_parts(parts, state).await?;
        let session = sessions.session().await;
        session.map_err(|error| SessionRejection::failed(&sessions, error))
    }
}

/// All sessions of the request.
impl<S: Sync> FromRequestParts<S> for Sessions {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let sessions = parts.extensions.get::<Self>().cloned();
        sessions.ok_or(SessionRejection(Reason::NoLayer))
    }
}

/// Why a handler could not be given its session.
#[derive(Debug)]
pub struct SessionRejection(Reason);

#[derive(Debug)]
enum Reason {
    NoLayer,
    Failed(Sessions, Error),
}

impl SessionRejection {
    /// The rejection of a request for which a session could not be loaded, for handlers that load
    /// sessions themselves with [`Sessions::get`].
    #[must_use]
    pub fn failed(sessions: &Sessions, error: Error) -> Self {
        Self(Reason::Failed(sessions.clone(), error))
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        match self.0 {
            Reason::NoLayer => {
                let text = "the handler asks for a session, and there is no SessionLayer";
                (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
            }
            Reason::Failed(sessions, error) => {
                let response = sessions.failure_response(&Failure::Load(&error));
                response.map_or_else(
                    || StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    |response| response.map(Body::from),
                )
            }
        }
    }
}
