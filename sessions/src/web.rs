#[cfg(feature = "tower")]
mod answered;
#[cfg(feature = "axum")]
pub(crate) mod axum;
#[cfg(feature = "tower")]
pub(crate) mod body;
#[cfg(feature = "tower")]
pub(crate) mod tower;
