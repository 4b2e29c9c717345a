use std::{collections::BTreeMap, str::FromStr};

use sessionkit::{Error, ErrorKind, Result};

/// A URL taken apart. It has no `Debug`, and no error shows a part of it: any part may hold a
/// password, most of all when the URL is malformed.
///
/// The part between scheme and query is left to the backend. URLs with several hosts are common
/// among databases, and no standard covers them.
pub(crate) struct Address {
    scheme: String,
    /// The whole URL without its query.
    base: String,
    query: BTreeMap<String, String>,
}

/// The options in the query of a URL.
pub(crate) struct Options(BTreeMap<String, String>);

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let scheme = base.split_once(':').map(|(scheme, _)| scheme);
        let scheme = scheme.filter(|scheme| is_scheme(scheme)).ok_or_else(|| {
            invalid("the store's URL does not begin with a scheme such as `memory:`")
        })?;
        if url.contains('#') {
            return Err(invalid("the store's URL has a fragment"));
        }
        let mut options = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if options
                .insert(name.into_owned(), value.into_owned())
                .is_some()
            {
                return Err(invalid("the store's URL gives an option twice"));
            }
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            base: base.to_owned(),
            query: options,
        })
    }

    /// The scheme in lower case.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands between the colon behind the scheme and the query.
    pub(crate) fn rest(&self) -> &str {
        &self.base[self.scheme.len() + 1..]
    }

    /// The URL without its query.
    #[cfg(feature = "redis")]
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The options in `own`, and the URL with the others, which the backend reads for itself.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn split(self, own: &[&str]) -> (Options, String) {
        let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .query
            .into_iter()
            .partition(|(name, _)| own.contains(&name.as_str()));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(others);
        let url = match query.finish().as_str() {
            "" => self.base,
            query => format!("{}?{query}", self.base),
        };
        (Options(own), url)
    }

    /// The options, all of which have to be among those that the backend knows.
    pub(crate) fn options(self, known: &[&str]) -> Result<Options> {
        if self.query.keys().all(|name| known.contains(&name.as_str())) {
            return Ok(Options(self.query));
        }
        Err(invalid(format!(
            "the store's URL has an option that `{}` does not; it has {}",
            self.scheme,
            known.join(", ")
        )))
    }
}

impl Options {
    /// The text of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of an option, read as the type asked for.
    pub(crate) fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let read = |text: &str| {
            text.parse().map_err(|_| {
                invalid(format!(
                    "the option {name} of the store's URL has no valid value"
                ))
            })
        };
        self.get(name).map(read).transpose()
    }
}

/// The grammar of RFC 3986, section 3.1.
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
