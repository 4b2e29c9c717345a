use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, VARY},
};

/// What a response that depends on a session tells caches (RFC 9111).
///
/// Unless it is [`Unchanged`](Self::Unchanged), such a response gets `Vary: Cookie`, also when the
/// session was only looked at, or the request had none. A `Cache-Control` that the application has
/// set stays, except on a response that sets a session's cookie: a shared cache that kept it would
/// hand one user's session to others (section 7.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheControl {
    /// `Cache-Control: no-store`: no cache keeps the response.
    #[default]
    NoStore,
    /// `Cache-Control: private, no-cache`: the browser may keep it, and asks before using it.
    Private,
    /// The headers are left to the application.
    Unchanged,
}

impl CacheControl {
    pub(crate) fn apply(self, headers: &mut HeaderMap, sets_cookie: bool) {
        let directive = match self {
            Self::NoStore => HeaderValue::from_static("no-store"),
            Self::Private => HeaderValue::from_static("private, no-cache"),
            Self::Unchanged => return,
        };
        if !varies_by_cookie(headers) {
            headers.append(VARY, HeaderValue::from_static("cookie"));
        }
        if !headers.contains_key(CACHE_CONTROL) || sets_cookie && !is_private(headers) {
            headers.insert(CACHE_CONTROL, directive);
        }
    }
}

fn varies_by_cookie(headers: &HeaderMap) -> bool {
    tokens(headers, &VARY).any(|field| field == "*" || field.eq_ignore_ascii_case("cookie"))
}

fn is_private(headers: &HeaderMap) -> bool {
    tokens(headers, &CACHE_CONTROL).any(|directive| {
        directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("private")
    })
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}
