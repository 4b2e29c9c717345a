use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use sessionkit::{Result, Session, SessionRejection, Sessions};

/// The name of the second session.
pub(crate) const SESSION: &str = "prefs";

const KEY: &str = "look";

/// The second session of a request. It lives in a cookie of its own, whatever the store of the
/// first one is, and outlasts every sign-out.
#[derive(Clone, Debug)]
pub(crate) struct Prefs(pub(crate) Session);

/// How the pages look.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(crate) struct Look {
    pub(crate) theme: Theme,
    pub(crate) accent: Accent,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Theme {
    /// As the system of the visitor.
    #[default]
    Auto,
    Light,
    Dark,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accent {
    #[default]
    Blue,
    Green,
    Plum,
    Rust,
}

impl Prefs {
    pub(crate) fn look(&self) -> Result<Look> {
        Ok(self.0.get(KEY)?.unwrap_or_default())
    }

    pub(crate) fn set_look(&self, look: Look) -> Result<()> {
        self.0.insert(KEY, &look)
    }
}

impl<S: Sync> FromRequestParts<S> for Prefs {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, SessionRejection> {
        let sessions = Sessions::from_request_parts(parts, state).await?;
        let session = sessions.get(SESSION).await;
        session
            .map(Self)
            .map_err(|error| SessionRejection::failed(&sessions, error))
    }
}

impl Theme {
    pub(crate) const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

impl Accent {
    pub(crate) const ALL: [Self; 4] = [Self::Blue, Self::Green, Self::Plum, Self::Rust];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
            Self::Plum => "plum",
            Self::Rust => "rust",
        }
    }
}
