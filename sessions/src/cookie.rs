use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::COOKIE};

use crate::{CookieName, Error, ErrorKind, Result};

/// The most that browsers keep of a cookie's name and value together, in bytes (RFC 6265,
/// section 6.1).
const MAX_COOKIE: usize = 4096;

/// The longest attribute value that browsers read (draft-ietf-httpbis-rfc6265bis, section 5.6).
const MAX_ATTRIBUTE: usize = 1024;

/// The longest lifetime that browsers grant (draft-ietf-httpbis-rfc6265bis, section 5.5).
pub(crate) const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The most cookies that one session may take.
const MAX_CHUNKS: usize = 16;

/// How many places a cookie may be removed from beside its own.
const MAX_OLD_PLACES: usize = 4;

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
    place: Place,
    same_site: SameSite,
    secure: bool,
    http_only: bool,
    partitioned: bool,
    max_chunks: usize,
    old_places: Vec<Place>,
}

/// Where a browser keeps a cookie: of one name it keeps one in each place, and sends all that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: String,
    domain: Option<String>,
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
            place: Place {
                path: "/".to_owned(),
                domain: None,
            },
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
            partitioned: false,
            max_chunks: 1,
            old_places: Vec::new(),
        })
    }

    /// Sets `Path`: the cookie is sent to this path and those below. `/` by default; another one
    /// needs a name without the prefix `__Host-`. When the path of a running application changes,
    /// name the old one with [`also_remove`](Self::also_remove).
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.place.path = path.into();
        self
    }

    /// Sets `Domain`: the cookie is sent to this host and all below. Not set by default: it is sent
    /// to the host that set it. Needs a name without the prefix `__Host-`. When the domain of a
    /// running application changes, name the old one with [`also_remove`](Self::also_remove).
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.place.domain = Some(domain.into());
        self
    }

    /// Names a `Path` and `Domain` that the cookie had before; none by default, four at most.
    ///
    /// A browser keeps the cookie from before beside the new one and sends both, the one with the
    /// longer path first (RFC 6265, section 5.4). A request that brings a cookie of the session
    /// twice gets the cookie of the session that it was given once more, and the one in the old
    /// place is removed, at the cost of one write. It is removed, too, by every response that sets
    /// or removes the cookie of a request that brought one, and by every sign-out. The call can go
    /// when all old cookies have expired.
    ///
    /// ```
    /// use sessionkit::CookieOptions;
    ///
    /// // It had the path `/app`, and before that the domain `example.com`.
    /// let cookie = CookieOptions::new("id")?
    ///     .also_remove("/app", None)
    ///     .also_remove("/", Some("example.com"));
    /// assert!(cookie.validate().is_ok());
    /// assert!(cookie.path("/app").validate().is_err());
    /// # Ok::<(), sessionkit::Error>(())
    /// ```
    #[must_use]
    pub fn also_remove(mut self, path: impl Into<String>, domain: Option<&str>) -> Self {
        self.old_places.push(Place {
            path: path.into(),
            domain: domain.map(str::to_owned),
        });
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
    /// [`cookie_budget`](crate::SessionManagerBuilder::cookie_budget). When fewer are allowed than
    /// before, what is left over of the others is removed from the browser.
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
        while let Some((_, bare)) = Prefix::of(self.name.as_str())
            && let Ok(bare) = CookieName::new(bare)
        {
            self.name = bare;
        }
        self
    }

    /// Drops `HttpOnly`, so that any script on the page can take the session. Needs a name without
    /// the prefixes `__Http-` and `__Host-Http-`.
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
        let prefix = Prefix::of(self.name.as_str()).map(|(prefix, _)| prefix);
        let demands = |demand: fn(Prefix) -> bool| prefix.is_some_and(demand);
        let places = || self.old_places.iter().chain([&self.place]);
        let problem = if prefix.is_some() && !self.secure {
            "the prefix of the cookie name needs Secure"
        } else if demands(Prefix::needs_http_only) && !self.http_only {
            "the prefix of the cookie name needs HttpOnly"
        } else if demands(Prefix::binds_to_host) && !places().all(Place::is_whole_host) {
            "a cookie with the prefix __Host- has, and had, the path / and no domain"
        } else if self.same_site == SameSite::None && !self.secure {
            "SameSite=None needs Secure"
        } else if self.partitioned && !self.secure {
            "Partitioned needs Secure"
        } else if !places().all(|place| is_path(&place.path)) {
            "a cookie path begins with /, has at most 1024 visible ASCII characters and no blank at the end"
        } else if !places().all(|place| place.domain.as_deref().is_none_or(is_domain)) {
            "a cookie domain is not a host name"
        } else if self.old_places.iter().any(|old| old.is(&self.place)) {
            "a cookie cannot be removed from the place where it is set"
        } else if self.old_places.len() > MAX_OLD_PLACES {
            "a cookie is removed from four other places at most"
        } else if !(1..=MAX_CHUNKS).contains(&self.max_chunks) {
            "a session takes 1 to 16 cookies"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidConfig, problem))
    }

    /// The header values that make the browser keep `token`, one for each cookie name, removing
    /// what the request had under names that are not in use any more, and in old places.
    /// [`check_fit`](Self::check_fit) has accepted the token.
    ///
    /// Removals come first: a client that takes two places for one then keeps the session.
    pub(crate) fn set(
        &self,
        token: &[u8],
        max_age: Option<Duration>,
        incoming: &Incoming,
    ) -> Vec<HeaderValue> {
        let value = URL_SAFE_NO_PAD.encode(token);
        let cookies = self.split(&value);
        let mut headers = Vec::new();
        for name in incoming.names(self) {
            if !cookies.iter().any(|(used, _)| *used == name) {
                headers.push(self.removal(&name, &self.place));
            }
            self.remove_from_old_places(&name, &mut headers);
        }
        headers.extend(cookies.into_iter().map(|(name, part)| {
            self.header(&name, part, &self.place, max_age.map(Lifetime::Lasting))
        }));
        headers
    }

    /// The header values that make the browser forget the session.
    pub(crate) fn remove(&self, incoming: &Incoming) -> Vec<HeaderValue> {
        let mut names = incoming.names(self);
        // A cookie in an old place need not be sent with this request.
        names.insert(self.name.as_str().to_owned());
        self.remove_names(names)
    }

    /// The header values that make the browser forget the chunks that were left over when the
    /// configuration allowed fewer; where the others are of no use without them, those too.
    pub(crate) fn remove_left_over(
        &self,
        incoming: &Incoming,
        are_others_used: bool,
    ) -> Vec<HeaderValue> {
        let chunks = incoming.chunks(self);
        let is_left_over = |index: usize| index >= self.chunk_count();
        if !chunks.iter().copied().any(is_left_over) {
            return Vec::new();
        }
        let removed = chunks.into_iter();
        let removed = removed.filter(|&index| !are_others_used || is_left_over(index));
        self.remove_names(removed.map(|index| chunk_name(self.name.as_str(), index)))
    }

    pub(crate) fn has_old_places(&self) -> bool {
        !self.old_places.is_empty()
    }

    /// Whether the request has a cookie of the session twice, one of which can be removed.
    pub(crate) fn has_removable_twin(&self, incoming: &Incoming) -> bool {
        self.has_old_places() && incoming.has_twins(self)
    }

    fn remove_names(&self, names: impl IntoIterator<Item = String>) -> Vec<HeaderValue> {
        let mut headers = Vec::new();
        for name in names {
            self.remove_from_old_places(&name, &mut headers);
            headers.push(self.removal(&name, &self.place));
        }
        headers
    }

    fn remove_from_old_places(&self, name: &str, headers: &mut Vec<HeaderValue>) {
        headers.extend(self.old_places.iter().map(|old| self.removal(name, old)));
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

    fn removal(&self, name: &str, place: &Place) -> HeaderValue {
        self.header(name, "", place, Some(Lifetime::Over))
    }

    /// A `Set-Cookie` header (RFC 6265, section 4.1).
    fn header(
        &self,
        name: &str,
        value: &str,
        place: &Place,
        lifetime: Option<Lifetime>,
    ) -> HeaderValue {
        let mut header = String::with_capacity(name.len() + value.len() + 128);
        header.extend([name, "=", value]);
        if self.http_only {
            header.push_str("; HttpOnly");
        }
        header.extend(["; SameSite=", self.same_site.as_str()]);
        if self.partitioned {
            header.push_str("; Partitioned");
        }
        if self.secure {
            header.push_str("; Secure");
        }
        header.extend(["; Path=", &place.path]);
        if let Some(domain) = &place.domain {
            header.extend(["; Domain=", domain]);
        }
        match lifetime {
            None => {}
            Some(Lifetime::Lasting(age)) => {
                let seconds = whole_seconds(age.min(MAX_AGE));
                write!(header, "; Max-Age={seconds}").expect("a string takes every text");
            }
            // For browsers that do not know `Max-Age`, the date of RFC 6265, section 3.1.
            Some(Lifetime::Over) => {
                header.push_str("; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
            }
        }
        header
            .try_into()
            .expect("validated attributes and base64 are visible ASCII")
    }
}

/// How long a browser keeps a cookie that does not end with it.
#[derive(Clone, Copy)]
enum Lifetime {
    Lasting(Duration),
    Over,
}

impl SameSite {
    fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

impl Place {
    /// What a browser demands of a cookie with the prefix `__Host-`.
    fn is_whole_host(&self) -> bool {
        self.path == "/" && self.domain.is_none()
    }

    /// Whether a browser takes both for one place.
    fn is(&self, other: &Self) -> bool {
        let lower = |place: &Self| place.domain.as_ref().map(|text| text.to_ascii_lowercase());
        self.path == other.path && lower(self) == lower(other)
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

    /// Every value that the request may carry for the session, decoded and each of them once: those
    /// of the cookie itself in their order, then the one in chunks.
    pub(crate) fn values(&self, options: &CookieOptions) -> Vec<Vec<u8>> {
        let name = options.name.as_str();
        let mut values = Vec::new();
        let mut chunks: Vec<Option<&[u8]>> = vec![None; options.chunk_count()];
        for (pair_name, value) in self.pairs() {
            if pair_name == name.as_bytes() {
                values.push(value);
            } else if let Some(index) = chunk_index(name, pair_name)
                && let Some(chunk @ None) = chunks.get_mut(index)
            {
                *chunk = Some(value);
            }
        }
        if values.len() > 1 {
            let mut seen = HashSet::new();
            values.retain(|value| seen.insert(*value));
        }
        let chunks: Vec<_> = chunks.into_iter().map_while(|chunk| chunk).collect();
        let chunked = (!chunks.is_empty()).then(|| chunks.concat());
        let values = values.into_iter().chain(chunked.as_deref());
        let decoded = values.map(|value| URL_SAFE_NO_PAD.decode(value));
        decoded.filter_map(Result::ok).collect()
    }

    /// Whether the request carries something that the session could be in.
    pub(crate) fn has(&self, options: &CookieOptions) -> bool {
        let in_use = |own: Own| {
            own.index()
                .is_none_or(|index| index < options.chunk_count())
        };
        self.own(options).any(in_use)
    }

    /// The names under which the request carries something of the session, also chunks that the
    /// configuration does not allow any more.
    fn names(&self, options: &CookieOptions) -> BTreeSet<String> {
        let name = options.name.as_str();
        let names = self.own(options).map(|own| match own {
            Own::Whole => name.to_owned(),
            Own::Chunk(index) => chunk_name(name, index),
        });
        names.collect()
    }

    /// How many bytes of the header are the session's, with what separates the cookies.
    pub(crate) fn size(&self, options: &CookieOptions) -> usize {
        let names = self.names(options);
        self.pairs()
            .filter(|(name, _)| names.iter().any(|own| own.as_bytes() == *name))
            .map(|(name, value)| pair_size(name.len(), value.len()))
            .sum()
    }

    fn chunks(&self, options: &CookieOptions) -> BTreeSet<usize> {
        self.own(options).filter_map(Own::index).collect()
    }

    /// Whether the request carries a cookie of the session twice.
    fn has_twins(&self, options: &CookieOptions) -> bool {
        let mut seen = [false; MAX_CHUNKS + 1];
        self.own(options).any(|own| {
            let position = own.index().map_or(0, |index| index + 1);
            std::mem::replace(&mut seen[position], true)
        })
    }

    /// What of the request bears a name of the session's.
    fn own<'a>(&'a self, options: &'a CookieOptions) -> impl Iterator<Item = Own> + 'a {
        let name = options.name.as_str();
        self.pairs().filter_map(move |(pair_name, _)| {
            if pair_name == name.as_bytes() {
                return Some(Own::Whole);
            }
            let index = chunk_index(name, pair_name)?;
            (index < MAX_CHUNKS).then_some(Own::Chunk(index))
        })
    }

    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // HTTP/2 may send each pair in a header of its own (RFC 9113, section 8.2.3).
        self.0.iter().flat_map(|header| pairs(header.as_bytes()))
    }
}

/// A cookie of the session: the one that bears its name, or a chunk.
#[derive(Clone, Copy)]
enum Own {
    Whole,
    Chunk(usize),
}

impl Own {
    fn index(self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Chunk(index) => Some(index),
        }
    }
}

/// The pairs of a `Cookie` header as bytes (draft-ietf-httpbis-rfc6265bis, section 5.6: only space
/// and tab may stand around a name). Names are compared as they are, never percent-decoded or
/// stripped of more: a browser lets any site of a domain set what is not our name byte for byte. A
/// pair without a name is not one of ours.
fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|&byte| byte == b';').filter_map(|part| {
        let equals = part.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (trim(&part[..equals]), trim(&part[equals + 1..]));
        (!name.is_empty()).then_some((name, value))
    })
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

/// What the beginning of a name makes a browser demand.
#[derive(Clone, Copy)]
enum Prefix {
    Host,
    HostHttp,
    Http,
    Secure,
}

impl Prefix {
    /// The prefix of a name, and what follows it (draft-ietf-httpbis-rfc6265bis, section 4.1.3, and
    /// draft-ietf-httpbis-layered-cookies for those with `Http`). Browsers compare without regard
    /// to case.
    fn of(name: &str) -> Option<(Self, &str)> {
        // The longest comes first.
        let prefixes = [
            ("__Host-Http-", Self::HostHttp),
            ("__Host-", Self::Host),
            ("__Http-", Self::Http),
            ("__Secure-", Self::Secure),
        ];
        prefixes.into_iter().find_map(|(text, prefix)| {
            let (head, rest) = name.split_at_checked(text.len())?;
            head.eq_ignore_ascii_case(text).then_some((prefix, rest))
        })
    }

    fn binds_to_host(self) -> bool {
        matches!(self, Self::Host | Self::HostHttp)
    }

    fn needs_http_only(self) -> bool {
        matches!(self, Self::Http | Self::HostHttp)
    }
}

/// Browsers drop a blank at the end (draft-ietf-httpbis-rfc6265bis, section 5.6), which would give the
/// cookie another path.
fn is_path(path: &str) -> bool {
    let visible = |byte: u8| matches!(byte, b' '..=b'~') && byte != b';';
    let fits = path.len() <= MAX_ATTRIBUTE && path.bytes().all(visible);
    path.starts_with('/') && !path.ends_with(' ') && fits
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fits)
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}

/// Rounded up: some milliseconds have passed since the expiry was computed.
fn whole_seconds(age: Duration) -> u128 {
    age.as_millis().div_ceil(1000)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What HTTP never lets through is not for us to make good: a folded line or a control
    /// character is part of the name or value that it stands beside.
    #[test]
    fn a_header_is_split_at_semicolons_and_stripped_of_space_and_tab_alone() {
        let split = |header| pairs(header).collect::<Vec<(&[u8], &[u8])>>();
        for (header, expected) in [
            (
                &b"a=1; b=2"[..],
                &[(&b"a"[..], &b"1"[..]), (b"b", b"2")][..],
            ),
            (b"\t a \t=\t 1 2 \t;", &[(b"a", b"1 2")]),
            (b"a=1=2==", &[(b"a", b"1=2==")]),
            (b"a=\"x; b=y\"", &[(b"a", b"\"x"), (b"b", b"y\"")]),
            (b"a=1, b=2", &[(b"a", b"1, b=2")]),
            (b"=a=1; ; a; = ;\t=1", &[]),
            (b"x=1;\r\n a=2", &[(b"x", b"1"), (b"\r\n a", b"2")]),
            (
                b"\x0ba=1;\x0ca=2;\0a=3",
                &[(b"\x0ba", b"1"), (b"\x0ca", b"2"), (b"\0a", b"3")],
            ),
            (
                b"\xe2\x80\x80a=1;\xa0a=2",
                &[(b"\xe2\x80\x80a", b"1"), (b"\xa0a", b"2")],
            ),
        ] {
            assert_eq!(split(header), expected, "{:?}", header.escape_ascii());
        }
    }

    #[test]
    fn a_long_age_is_cut_to_what_browsers_grant_and_a_short_one_is_rounded_up() {
        let options = CookieOptions::default();
        for (age, expected) in [
            (Duration::MAX, 34_560_000),
            (MAX_AGE + Duration::from_millis(1), 34_560_000),
            (Duration::from_millis(1_001), 2),
        ] {
            let lifetime = Some(Lifetime::Lasting(age));
            let header = options.header("id", "v", &options.place, lifetime);
            let text = header.to_str().unwrap();
            assert!(text.ends_with(&format!("; Max-Age={expected}")), "{text}");
        }
    }
}
