use std::sync::Arc;

use sessionkit::{MemoryStore, SystemClock};
use sessionkit_demo::{App, open_store};

use crate::{
    client::Client,
    server::{STORES, keyring, open, start},
};

/// A `Set-Cookie` header without the value.
fn attributes(cookie: &str) -> String {
    let (pair, attributes) = cookie.split_once(';').unwrap();
    let (name, value) = pair.split_once('=').unwrap();
    assert!(!value.is_empty());
    format!("{name};{attributes}")
}

async fn open_https(url: &str) -> Client {
    let keyring = keyring();
    let store = open_store(url, &keyring, &(Arc::new(SystemClock) as _))
        .await
        .unwrap();
    Client::new(start(App::new(store, keyring).with_https(true)).await)
}

#[tokio::test]
async fn over_https_cookies_have_all_protection() {
    for store in STORES {
        let client = open_https(store).await;
        let answer = client.get("/set?name=Ada").await;
        let expected = "__Host-id; HttpOnly; SameSite=Lax; Secure; Path=/";
        assert_eq!(answer.cookies().len(), 1, "{store}");
        assert_eq!(attributes(answer.cookies()[0]), expected, "{store}");
        assert_eq!(client.get("/").await.text, "name: Ada", "{store}");

        let answer = client.post("/api/login?user=ada&remember=1", "").await;
        let expected = format!("{expected}; Max-Age=1209600");
        assert_eq!(attributes(answer.cookies()[0]), expected, "{store}");

        let answer = client.submit("/prefs", "theme=dark&accent=plum").await;
        let expected = "__Host-prefs; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=15552000";
        assert_eq!(answer.cookies().len(), 1, "{store}");
        assert_eq!(attributes(answer.cookies()[0]), expected, "{store}");
    }
}

#[tokio::test]
async fn over_plain_http_cookies_have_what_browsers_accept_there() {
    for store in STORES {
        let client = open(store).await;
        let answer = client.get("/set?name=Ada").await;
        assert_eq!(
            attributes(answer.cookies()[0]),
            "id; HttpOnly; SameSite=Lax; Path=/",
            "{store}"
        );
    }
}

#[tokio::test]
async fn the_cookie_is_removed_with_the_attributes_it_was_set_with() {
    for (client, set) in [
        (open("memory:").await, "id; HttpOnly; SameSite=Lax; Path=/"),
        (
            open_https("memory:").await,
            "__Host-id; HttpOnly; SameSite=Lax; Secure; Path=/",
        ),
    ] {
        client.get("/set?name=Ada").await;
        let answer = client.post("/api/logout", "").await;
        let expected = set.replacen(';', "=;", 1);
        let expected = format!("{expected}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(answer.cookies(), [expected]);
    }
}

#[tokio::test]
async fn a_request_that_changes_nothing_sets_no_cookie() {
    for store in STORES {
        let client = open(store).await;
        client.get("/set?name=Ada").await;
        client.submit("/prefs", "theme=dark&accent=plum").await;
        client.page("/").await;
        for path in [
            "/api/whoami",
            "/api/counter",
            "/api/keys",
            "/api/flash",
            "/sessions",
        ] {
            assert!(
                client.get(path).await.cookies().is_empty(),
                "{store} {path}"
            );
        }
        assert!(client.page("/").await.cookies().is_empty(), "{store}");
    }
}

#[tokio::test]
async fn the_two_sessions_of_a_request_do_not_take_each_others_cookies() {
    let keyring = keyring();
    let app = App::new(Arc::new(MemoryStore::new()), keyring);
    let client = Client::new(start(app).await);
    client.get("/set?name=Ada").await;
    client.submit("/prefs", "theme=dark&accent=plum").await;
    let (id, prefs) = (
        client.cookie("id").unwrap(),
        client.cookie("prefs").unwrap(),
    );
    let swapped = client.stranger();
    swapped.put_cookie("id", &prefs);
    swapped.put_cookie("prefs", &id);
    let page = swapped.page("/").await.text;
    assert!(page.contains("data-theme=\"auto\""));
    assert!(page.contains("Hello, stranger."));
}
