use std::sync::Arc;

use http::Response;

use crate::{Error, Failure};

/// The error that a handler has answered with, in the extensions of its response, so that the layer
/// can ask the application what the client is to see.
#[derive(Clone)]
pub(super) struct Answered(Arc<Error>);

impl Answered {
    #[cfg(feature = "axum")]
    pub(super) fn new(error: Error) -> Self {
        Self(Arc::new(error))
    }

    pub(super) fn is_in<B>(response: &Response<B>) -> bool {
        response.extensions().get::<Self>().is_some()
    }

    pub(super) fn take<B>(response: &mut Response<B>) -> Option<Self> {
        response.extensions_mut().remove()
    }

    pub(super) fn failure(&self) -> Failure<'_> {
        Failure::Handler(&self.0)
    }
}
