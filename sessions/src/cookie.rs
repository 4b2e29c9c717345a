use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::{Cookie, Expiration, time::OffsetDateTime};
use http::{HeaderMap, HeaderValue, header::COOKIE};

use crate::{CookieName, Error, ErrorKind, Result};

/// The most that browsers keep of a cookie's name and value together, in bytes (RFC 6265,
/// section 6.1).
const MAX_COOKIE: usize = 4096;

/// The longest attribute value that browsers read (draft-ietf-httpbis-rfc6265bis, section 5.6).
const MAX_ATTRIBUTE: usize = 1024;

/// The longest lifetime that browsers grant (draft-ietf-httpbis-rfc6265bis, section 5.5).
pub(crate) const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The cookie that carries a session: its name and attributes.
///
/// The default is the strictest that works for a website: `__Host-id`, with `Secure`, `HttpOnly`,
/// `SameSite=Lax` and `Path=/`. A combination that browsers would refuse is an error when the
/// session manager is built. How long a browser keeps the cookie follows from the session's
/// [`Persistence`](crate::Persistence).
///
/// ```
/// use sessionkit::{CookieOptions, SameSite};
///
/// let cookie = CookieOptions::new("__Host-account")?.same_site(SameSite::Strict);
/// assert!(cookie.validate().is_ok());
/// assert!(cookie.domain("example.com").validate().is_err());
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieOptions {
    name: CookieName,
    path: String,
    domain: Option<String>,
    same_site: SameSite,
    secure: bool,
    http_only: bool,
    partitioned: bool,
    max_chunks: usize,
}

/// When a browser sends the cookie with requests that another site caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user follows a link.
    Lax,
    /// Always; browsers ask for `Secure` then.
    None,
}

impl CookieOptions {
    /// A cookie of this name with the default attributes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when no cookie can have the name.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self {
            name: CookieName::new(name)?,
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
            partitioned: false,
            max_chunks: 1,
        })
    }

    /// Sets `Path`: the cookie is sent to this path and those below. `/` by default; another one
    /// needs a name without the prefix `__Host-`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets `Domain`: the cookie is sent to this host and all below. Not set by default: it is sent
    /// to the host that set it. Needs a name without the prefix `__Host-`.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets `SameSite`; [`SameSite::Lax`] by default.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets `Partitioned`: embedded in another site, the browser keeps one cookie for each site
    /// that embeds it. Off by default.
    #[must_use]
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.partitioned = partitioned;
        self
    }

    /// Lets a value that is too long for one cookie take up to `max_chunks` cookies, 1 to 16. One
    /// by default: each further one costs up to 4 KiB in every request, and many servers refuse
    /// more than 8 KiB of headers. More than one full cookie needs a larger
    /// [`cookie_budget`](crate::SessionManagerBuilder::cookie_budget).
    #[must_use]
    pub fn max_chunks(mut self, max_chunks: usize) -> Self {
        self.max_chunks = max_chunks;
        self
    }

    /// Lets the cookie travel over plain HTTP, where everybody on the way can take the session: for
    /// development on one machine. Drops `Secure`, and the prefix of the name that demands it.
    #[must_use]
    pub fn insecure_allow_plain_http(mut self) -> Self {
        self.secure = false;
        let name = self.name.as_str();
        if let Some((_, bare)) = prefix(name)
            && let Ok(bare) = CookieName::new(bare)
        {
            self.name = bare;
        }
        self
    }

    /// Drops `HttpOnly`, so that any script on the page can take the session.
    #[must_use]
    pub fn insecure_readable_by_scripts(mut self) -> Self {
        self.http_only = false;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &CookieName {
        &self.name
    }

    /// Checks that a browser would accept the cookie; the builder of a session manager does it too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] naming the attribute that does not fit.
    pub fn validate(&self) -> Result<()> {
        let required = prefix(self.name.as_str()).map(|(prefix, _)| prefix);
        let domain_ok = self.domain.as_deref().is_none_or(is_domain);
        let problem = if required.is_some() && !self.secure {
            "the prefix of the cookie name needs Secure"
        } else if required == Some(Prefix::Host) && (self.domain.is_some() || self.path != "/") {
            "a cookie with the prefix __Host- has the path / and no domain"
        } else if self.same_site == SameSite::None && !self.secure {
            "SameSite=None needs Secure"
        } else if self.partitioned && !self.secure {
            "Partitioned needs Secure"
        } else if !is_path(&self.path) {
            "the cookie path begins with / and has at most 1024 visible ASCII characters"
        } else if !domain_ok {
            "the cookie domain is not a host name"
        } else if !(1..=16).contains(&self.max_chunks) {
            "a session takes 1 to 16 cookies"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, problem))
    }

    /// The header values that make the browser keep `token`, one for each cookie name, removing
    /// what the request had under names that are not in use any more. [`check_fit`](Self::check_fit)
    /// has accepted the token.
    pub(crate) fn set(
        &self,
        token: &[u8],
        max_age: Option<Duration>,
        incoming: &Incoming,
    ) -> Vec<HeaderValue> {
        let value = URL_SAFE_NO_PAD.encode(token);
        let mut stale = incoming.names(self);
        let cookies: Vec<_> = self
            .split(&value)
            .into_iter()
            .map(|(name, part)| {
                stale.remove(&name);
                let mut cookie = self.build(name, part.to_owned());
                if let Some(age) = max_age {
                    cookie.set_max_age(whole_seconds(age.min(MAX_AGE)));
                }
                header(&cookie)
            })
            .collect();
        let removals = stale.into_iter().map(|name| self.removal(name));
        cookies.into_iter().chain(removals).collect()
    }

    /// The header values that make the browser forget the session.
    pub(crate) fn remove(&self, incoming: &Incoming) -> Vec<HeaderValue> {
        let mut names = incoming.names(self);
        if names.is_empty() {
            names.insert(self.name.as_str().to_owned());
        }
        names.into_iter().map(|name| self.removal(name)).collect()
    }

    /// Checks that a token of this many bytes fits.
    pub(crate) fn check_fit(&self, token_len: usize) -> Result<(), TooLong> {
        let encoded = base64::encoded_len(token_len, false).unwrap_or(usize::MAX);
        let name = self.name.as_str().len();
        let size = name.saturating_add(encoded);
        let limit = if self.max_chunks == 1 {
            MAX_COOKIE - name
        } else {
            self.chunk_room() * self.max_chunks
        };
        if size <= MAX_COOKIE || encoded <= limit {
            return Ok(());
        }
        Err(TooLong {
            size,
            limit: limit + name,
        })
    }

    /// How many bytes the cookies of a token of this many bytes take in the `Cookie` header of a
    /// request, with what separates them.
    pub(crate) fn size_in_requests(&self, token_len: usize) -> usize {
        let encoded = base64::encoded_len(token_len, false).unwrap_or(usize::MAX);
        let name = self.name.as_str();
        if name.len().saturating_add(encoded) <= MAX_COOKIE {
            return pair_size(name.len(), encoded);
        }
        let names = (0..encoded.div_ceil(self.chunk_room())).map(|index| chunk_name(name, index));
        names.fold(encoded, |size, name| {
            size.saturating_add(pair_size(name.len(), 0))
        })
    }

    /// How much of a value one of several cookies takes.
    fn chunk_room(&self) -> usize {
        MAX_COOKIE - chunk_name(self.name.as_str(), self.max_chunks - 1).len()
    }

    fn split<'a>(&self, value: &'a str) -> Vec<(String, &'a str)> {
        let name = self.name.as_str();
        if name.len() + value.len() <= MAX_COOKIE {
            return vec![(name.to_owned(), value)];
        }
        let room = self.chunk_room();
        let starts = (0..value.len()).step_by(room).enumerate();
        starts
            .map(|(index, start)| {
                let end = value.len().min(start + room);
                (chunk_name(name, index), &value[start..end])
            })
            .collect()
    }

    fn removal(&self, name: String) -> HeaderValue {
        let mut cookie = self.build(name, String::new());
        cookie.set_max_age(cookie::time::Duration::ZERO);
        cookie.set_expires(Expiration::from(OffsetDateTime::UNIX_EPOCH));
        header(&cookie)
    }

    fn build(&self, name: String, value: String) -> Cookie<'static> {
        let mut cookie = Cookie::new(name, value);
        cookie.set_path(self.path.clone());
        cookie.set_secure(self.secure);
        cookie.set_http_only(self.http_only);
        cookie.set_partitioned(self.partitioned);
        cookie.set_same_site(match self.same_site {
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::None => cookie::SameSite::None,
        });
        if let Some(domain) = &self.domain {
            cookie.set_domain(domain.clone());
        }
        cookie
    }
}

impl Default for CookieOptions {
    fn default() -> Self {
        Self::new("__Host-id").expect("the default name is a cookie name")
    }
}

/// A value that does not fit into the cookies it may take.
#[derive(Debug)]
pub(crate) struct TooLong {
    pub(crate) size: usize,
    pub(crate) limit: usize,
}

/// The cookies of a request, looked at when a session is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Incoming(Vec<HeaderValue>);

impl Incoming {
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        Self(headers.get_all(COOKIE).iter().cloned().collect())
    }

    /// Every value that the request may carry for the session, decoded: those of the cookie itself
    /// in their order, then the one in chunks.
    pub(crate) fn values(&self, options: &CookieOptions) -> Vec<Vec<u8>> {
        let name = options.name.as_str();
        let mut values = Vec::new();
        let mut chunks: Vec<Option<&[u8]>> = vec![None; options.chunk_count()];
        for (pair_name, value) in self.pairs() {
            if pair_name == name.as_bytes() {
                values.push(value.to_owned());
            } else if let Some(index) = chunk_index(name, pair_name)
                && let Some(chunk @ None) = chunks.get_mut(index)
            {
                *chunk = Some(value);
            }
        }
        let chunked: Vec<_> = chunks.into_iter().map_while(|chunk| chunk).collect();
        if !chunked.is_empty() {
            values.push(chunked.concat());
        }
        let decoded = values.iter().map(|value| URL_SAFE_NO_PAD.decode(value));
        decoded.filter_map(Result::ok).collect()
    }

    /// The names under which the request carries something of the session, chunks included.
    fn names(&self, options: &CookieOptions) -> BTreeSet<String> {
        let name = options.name.as_str();
        let is_own = |pair_name: &[u8]| {
            pair_name == name.as_bytes()
                || chunk_index(name, pair_name).is_some_and(|index| index < options.chunk_count())
        };
        self.pairs()
            .filter(|(pair_name, _)| is_own(pair_name))
            .map(|(pair_name, _)| String::from_utf8_lossy(pair_name).into_owned())
            .collect()
    }

    /// How many bytes of the header are the session's, with what separates the cookies.
    pub(crate) fn size(&self, options: &CookieOptions) -> usize {
        let names = self.names(options);
        self.pairs()
            .filter(|(name, _)| names.iter().any(|own| own.as_bytes() == *name))
            .map(|(name, value)| pair_size(name.len(), value.len()))
            .sum()
    }

    pub(crate) fn has(&self, options: &CookieOptions) -> bool {
        !self.names(options).is_empty()
    }

    /// The pairs of the headers as bytes (draft-ietf-httpbis-rfc6265bis, section 5.6: only space
    /// and tab may stand around a name). Names are compared as they are, never percent-decoded or
    /// stripped of more: a browser lets any site of a domain set what is not our name byte for
    /// byte. A pair without a name is not one of ours.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let parts = self
            .0
            .iter()
            .flat_map(|header| header.as_bytes().split(|&byte| byte == b';'));
        parts.filter_map(|part| {
            let equals = part.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (trim(&part[..equals]), trim(&part[equals + 1..]));
            (!name.is_empty()).then_some((name, value))
        })
    }
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

impl CookieOptions {
    /// Whether a cookie of one could be taken for a cookie of the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (self.name.as_str(), other.name.as_str());
        one == two
            || chunk_index(one, two.as_bytes()).is_some()
            || chunk_index(two, one.as_bytes()).is_some()
    }

    /// How many chunks a request may carry; none when chunks are off.
    fn chunk_count(&self) -> usize {
        if self.max_chunks == 1 {
            0
        } else {
            self.max_chunks
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Host,
    Secure,
}

/// Browsers compare the prefixes without regard to case.
fn prefix(name: &str) -> Option<(Prefix, &str)> {
    [("__Host-", Prefix::Host), ("__Secure-", Prefix::Secure)]
        .into_iter()
        .find_map(|(text, prefix)| {
            let (head, rest) = name.split_at_checked(text.len())?;
            head.eq_ignore_ascii_case(text).then_some((prefix, rest))
        })
}

fn is_path(path: &str) -> bool {
    let visible = |byte: u8| matches!(byte, b' '..=b'~') && byte != b';';
    path.starts_with('/') && path.len() <= MAX_ATTRIBUTE && path.bytes().all(visible)
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fits)
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}

/// Rounded up: some milliseconds have passed since the expiry was computed.
fn whole_seconds(age: Duration) -> cookie::time::Duration {
    let seconds = age.as_millis().div_ceil(1000);
    cookie::time::Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// `name=value` and the `; ` before the next one.
fn pair_size(name: usize, value: usize) -> usize {
    name + 1 + value + 2
}

fn chunk_name(name: &str, index: usize) -> String {
    format!("{name}.{index}")
}

fn chunk_index(name: &str, chunk: &[u8]) -> Option<usize> {
    let digits = chunk.strip_prefix(name.as_bytes())?.strip_prefix(b".")?;
    let index = str::from_utf8(digits).ok()?.parse().ok()?;
    // One spelling of a number is one of ours.
    (chunk_name(name, index).as_bytes() == chunk).then_some(index)
}

fn header(cookie: &Cookie<'_>) -> HeaderValue {
    cookie
        .to_string()
        .try_into()
        .expect("validated attributes and base64 are visible ASCII")
}
