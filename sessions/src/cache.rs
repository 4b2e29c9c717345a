use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, EXPIRES, VARY},
};

/// What a response that depends on a session tells caches (RFC 9111).
///
/// Such a response gets `Vary: Cookie`, also when the session was only looked at, or the request had
/// none. A `Cache-Control` of the application stays if it keeps the response from shared caches:
/// with `private` or `no-store`, and without `public`, `s-maxage` or `must-understand` (which makes
/// a cache ignore `no-store`). Any other one is replaced, since a shared cache would hand one user's
/// page, or session, to others (section 7.3), and `Expires` goes with it. Headers for some caches
/// alone go as well, unless they keep the response out: `CDN-Cache-Control` and every other name that ends so
/// (RFC 9213), `Surrogate-Control`, `Edge-Control` and `X-Accel-Expires`.
///
/// A response that is the same for everybody, although a session was asked for, says so with
/// [`Session::insecure_response_for_everybody`](crate::Session::insecure_response_for_everybody).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheControl {
    /// `Cache-Control: no-store`: no cache keeps the response.
    #[default]
    NoStore,
    /// `Cache-Control: private, no-cache`: the browser may keep it, and asks before using it.
    Private,
    /// The headers are left to the application, whatever they say.
    Unchanged,
}

impl CacheControl {
    /// Completes the head of a response that depends on a session.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        let directive = match self {
            Self::NoStore => HeaderValue::from_static("no-store"),
            Self::Private => HeaderValue::from_static("private, no-cache"),
            Self::Unchanged => return,
        };
        if !varies_by_cookie(headers) {
            headers.append(VARY, HeaderValue::from_static("cookie"));
        }
        if !keeps_out(headers, &CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, directive);
            headers.remove(EXPIRES);
        }
        let others: Vec<_> = headers
            .keys()
            .filter(|name| is_for_some_caches(name) && !keeps_out(headers, name))
            .cloned()
            .collect();
        for name in others {
            headers.remove(name);
        }
    }
}

fn varies_by_cookie(headers: &HeaderMap) -> bool {
    tokens(headers, &VARY).any(|field| field == "*" || field.eq_ignore_ascii_case("cookie"))
}

/// Whether the directives under a name keep the response from shared caches. A quoted argument is
/// not read: `private="set-cookie"` is about one field, and commas may be within.
fn keeps_out(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut kept_out = false;
    for directive in tokens(headers, name) {
        let (name, _) = directive.split_once('=').unwrap_or((directive, ""));
        let is = |other: &str| name.trim_end().eq_ignore_ascii_case(other);
        if directive.contains('"') || is("public") || is("s-maxage") || is("must-understand") {
            return false;
        }
        kept_out |= is("private") || is("no-store");
    }
    kept_out
}

fn is_for_some_caches(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.ends_with("-cache-control")
        || ["surrogate-control", "edge-control", "x-accel-expires"].contains(&name)
}

/// The members of a list. A value that is not visible ASCII has one that is nothing known.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.map(|value| value.to_str().unwrap_or("\""));
    texts.flat_map(|text| text.split(',').map(str::trim))
}
