use http::{HeaderMap, header::USER_AGENT};
use sessionkit::Label;

/// Most browsers claim to be several others: the first name that is found counts.
const BROWSERS: [(&str, &str); 9] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
];

const SYSTEMS: [(&str, &str); 7] = [
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
];

/// A few words by which a user recognizes a browser of theirs. Only words of ours: what the client
/// says never gets into the list.
pub(crate) fn label(headers: &HeaderMap) -> Label {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let find = |names: &[(&str, &'static str)]| {
        let agent = agent.unwrap_or_default();
        let found = names.iter().find(|(mark, _)| agent.contains(mark));
        found.map(|&(_, name)| name)
    };
    let text = match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => "Unknown browser".to_owned(),
    };
    Label::new(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(agent: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, agent.parse().unwrap());
        label(&headers).as_str().to_owned()
    }

    #[test]
    fn browsers_are_recognized() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(named(firefox), "Firefox on Linux");
        let safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1";
        assert_eq!(named(safari), "Safari on iPhone");
        let edge = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like \
                    Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0";
        assert_eq!(named(edge), "Edge on Windows");
        assert_eq!(named("curl/8.5.0"), "curl");
    }

    #[test]
    fn nothing_of_what_a_client_says_is_kept() {
        assert_eq!(named("<script>alert(1)</script>"), "Unknown browser");
    }
}
