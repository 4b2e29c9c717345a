use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{answered::Answered, body::SessionBody};
use crate::{SessionManager, Sessions};

/// Gives every request its [`Sessions`], as a request extension, and saves them before the head of
/// the response is sent.
///
/// A save that fails replaces the response, unless the manager's
/// [`on_failure`](crate::SessionManagerBuilder::on_failure) says otherwise: the body of the response
/// is a [`SessionBody`], the service's or the replacement. A body that is still being streamed comes too late:
/// what it changes is saved only by [`Session::save`](crate::Session::save), and not if the session
/// is new then, or renewed, or kept by the client, because its cookie could not be sent.
///
/// A response of 5xx stores nothing of what its handler has changed, as if it had failed with an
/// error or a panic: the visitor is told that it did not work, and flash messages on a page that was
/// not shown are still there. A session that the handler has ended is ended, and what it has
/// [saved](crate::Session::save) itself is stored.
///
/// Twice around one handler, on a nested router for example, the layers of one manager are one: the
/// outer one loads and saves.
///
/// If the client disconnects, the server drops the request: sessions that were being saved are then
/// saved or not.
///
/// ```
/// use sessionkit::{Key, Keyring, MemoryStore, SessionLayer, SessionManager};
///
/// let keyring = Keyring::new([Key::generate()?])?;
/// let layer = SessionLayer::new(SessionManager::new(MemoryStore::new(), keyring)?);
/// # let _ = layer;
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionLayer {
    manager: SessionManager,
}

impl SessionLayer {
    /// A layer for the sessions of this manager.
    #[must_use]
    pub fn new(manager: SessionManager) -> Self {
        Self { manager }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService {
            inner,
            manager: self.manager.clone(),
        }
    }
}

/// The service that [`SessionLayer`] makes of another one.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    manager: SessionManager,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Send + 'static,
{
    type Response = Response<SessionBody<ResBody>>;
    type Error = S::Error;
    type Future = SessionFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // A layer outside of this one, around a nested router, has begun and will finish them.
        let begun = request.extensions().get::<Sessions>();
        let sessions = if begun.is_some_and(|sessions| sessions.belong_to(&self.manager)) {
            None
        } else {
            let manager = &self.manager;
            let sessions = manager.begin_for(request.method(), request.headers());
            request.extensions_mut().insert(sessions.clone());
            Some(sessions)
        };
        SessionFuture {
            handler: self.inner.call(request),
            sessions,
            finish: None,
        }
    }
}

type Finish<B> = Pin<Box<dyn Future<Output = Response<SessionBody<B>>> + Send>>;

pin_project! {
    /// The response of a [`SessionService`].
    pub struct SessionFuture<F, B> {
        #[pin]
        handler: F,
        sessions: Option<Sessions>,
        finish: Option<Finish<B>>,
    }
}

impl<F, B, E> Future for SessionFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Send + 'static,
{
    type Output = Result<Response<SessionBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.finish.is_none() {
            let response = ready!(this.handler.poll(context))?;
            let Some(sessions) = this.sessions else {
                return Poll::Ready(Ok(response.map(SessionBody::of_service)));
            };
            if !sessions.is_used() && !Answered::is_in(&response) {
                sessions.head_sent();
                return Poll::Ready(Ok(response.map(SessionBody::of_service)));
            }
            *this.finish = Some(Box::pin(finish(sessions.clone(), response)));
        }
        match this.finish {
            Some(finish) => finish.as_mut().poll(context).map(Ok),
            None => Poll::Pending,
        }
    }
}

impl<F, B> fmt::Debug for SessionFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFuture")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

async fn finish<B: Send>(
    sessions: Sessions,
    mut response: Response<B>,
) -> Response<SessionBody<B>> {
    let answered = Answered::take(&mut response);
    let saved = if response.status().is_server_error() {
        sessions.finish_failed(response.headers_mut()).await
    } else {
        sessions.finish(response.headers_mut()).await
    };
    let replacement = match (&saved, &answered) {
        (Err(errors), _) => sessions.failure_response(&errors.failure()),
        (Ok(()), Some(answered)) => sessions.failure_response(&answered.failure()),
        (Ok(()), None) => None,
    };
    let response = match replacement {
        Some(replacement) => {
            let mut replacement = replacement.map(SessionBody::of_failure);
            sessions.write_headers(replacement.headers_mut());
            replacement
        }
        None => response.map(SessionBody::of_service),
    };
    sessions.head_sent();
    response
}
