use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header::ACCEPT, request::Parts};

/// What the client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Html,
    /// Also for those who do not say, such as curl: browsers all ask for HTML by name.
    Text,
}

impl Format {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if quality(headers, "text", "html") > quality(headers, "text", "plain") {
            Self::Html
        } else {
            Self::Text
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The weight of a media type, in thousandths: that of the most specific range that covers it (RFC
/// 9110, section 12.5.1).
fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> u16 {
    let values = headers.get_all(ACCEPT).into_iter();
    let ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let matching = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let exact = |range: &str, own: &str| range.eq_ignore_ascii_case(own);
        let specificity = match (range_kind, range_subtype) {
            ("*", "*") => 1,
            (range, "*") if exact(range, kind) => 2,
            (range, sub) if exact(range, kind) && exact(sub, subtype) => 3,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        Some((specificity, weight.map_or(1000, thousandths)))
    });
    matching.max().map_or(0, |(_, weight)| weight)
}

fn thousandths(weight: &str) -> u16 {
    let weight: f32 = weight.parse().unwrap_or(0.0);
    // The cast saturates, and takes what is no number for 0.
    (weight.clamp(0.0, 1.0) * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Format::of(&headers)
    }

    #[test]
    fn browsers_get_html() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(format(browser), Format::Html);
        assert_eq!(format("TEXT/HTML"), Format::Html);
        assert_eq!(format("text/plain;q=0.5, text/html;q=0.6"), Format::Html);
    }

    #[test]
    fn all_others_get_text() {
        assert_eq!(Format::of(&HeaderMap::new()), Format::Text);
        for accept in [
            "*/*",
            "text/plain",
            "text/plain, text/html;q=0.9",
            "text/*",
            "",
            ";;,/",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept:?}");
        }
        assert_eq!(format("text/html;q=0, */*"), Format::Text);
    }
}
