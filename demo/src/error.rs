use std::{borrow::Cow, error};

use axum::{
    Form,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use serde::de::DeserializeOwned;
use sessionkit::ErrorKind;

/// Why a request is not answered as its sender hoped.
#[derive(Debug)]
pub(crate) enum Error {
    Invalid(Cow<'static, str>),
    CrossSite,
    /// A request of a script without the header that a form of another site cannot send.
    Unmarked,
    NotFound,
    MethodNotAllowed,
    /// Another request has ended the session meanwhile.
    Ended,
    TooLarge(String),
    Session(sessionkit::Error),
}

/// What has gone wrong, for the page that is shown in place of a line of text.
#[derive(Clone, Debug)]
pub(crate) struct Problem(pub(crate) Cow<'static, str>);

impl Error {
    pub(crate) fn invalid(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(problem.into())
    }
}

impl From<sessionkit::Error> for Error {
    fn from(error: sessionkit::Error) -> Self {
        match error.kind() {
            ErrorKind::TooLarge => Self::TooLarge(error.to_string()),
            _ => Self::Session(error),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Invalid(problem) => (StatusCode::BAD_REQUEST, problem),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "this request comes from another site".into(),
            ),
            Self::Unmarked => (
                StatusCode::FORBIDDEN,
                "the header X-Requested-With is missing".into(),
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "there is no such page".into()),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this cannot be done here".into(),
            ),
            Self::Ended => (StatusCode::CONFLICT, "the session has ended".into()),
            Self::TooLarge(problem) => (StatusCode::PAYLOAD_TOO_LARGE, problem.into()),
            Self::Session(error) => {
                log(&error);
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        };
        problem(status, text).map(Body::from)
    }
}

/// A line of text, which becomes a page for those who read HTML.
pub(crate) fn problem(status: StatusCode, text: Cow<'static, str>) -> http::Response<bytes::Bytes> {
    let mut response = http::Response::new(text.clone().into_owned().into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response.extensions_mut().insert(Problem(text));
    response
}

/// One line for the operator. Errors of sessions hold no secrets.
pub(crate) fn log(error: &dyn error::Error) {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    eprintln!("sessionkit-demo: {line}");
}

/// The parameters of a query, or a 400.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(params)| Self(params))
            .map_err(|_| Error::invalid("the parameters of the address are not understood"))
    }
}

/// The fields of a form, or a 400.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Fields<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match Form::from_request(request, state).await {
            Ok(Form(fields)) => Ok(Self(fields)),
            Err(error) => Err(unreadable(
                error.into_response().status(),
                "the form is not understood",
            )),
        }
    }
}

/// A body of text on one line, or a 400.
#[derive(Clone, Debug)]
pub(crate) struct Line(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for Line {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        const PROBLEM: &str = "the body is not one line of UTF-8 text";
        match String::from_request(request, state).await {
            Ok(text) if text.contains(['\n', '\r']) => Err(Error::invalid(PROBLEM)),
            Ok(text) => Ok(Self(text)),
            Err(error) => Err(unreadable(error.into_response().status(), PROBLEM)),
        }
    }
}

/// A segment of the path, or a 400.
#[derive(Clone, Debug)]
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let segment = Path::from_request_parts(parts, state).await;
        segment
            .map(|Path(text)| Self(text))
            .map_err(|_| Error::invalid("the path is not UTF-8 text"))
    }
}

fn unreadable(status: StatusCode, text: &'static str) -> Error {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Error::TooLarge("the body has more than 64 KiB".to_owned())
        }
        _ => Error::invalid(text),
    }
}
