use http::Method;

use crate::{
    client::{Answer, Client},
    server::{STORES, open},
};

async fn count_from(client: &Client, headers: &[(&str, &str)]) -> Answer {
    client.send(Method::POST, "/counter", headers, "").await
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let client = open("memory:").await;
    client.get("/set?name=Ada").await;
    for headers in [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("origin", "https://evil.example")],
        [("origin", "null")],
    ] {
        let answer = count_from(&client, &headers).await;
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(answer.cookies().is_empty(), "{headers:?}");
    }
    assert_eq!(client.get("/api/counter").await.text, "count: 0");
}

#[tokio::test]
async fn forms_of_our_own_and_clients_without_a_browser_are_served() {
    let client = open("memory:").await;
    for headers in [&[("sec-fetch-site", "same-origin")][..], &[]] {
        let answer = count_from(&client, headers).await;
        assert_eq!(answer.status, 303, "{headers:?}");
        assert_eq!(answer.header("location"), "/", "{headers:?}");
    }
    assert_eq!(client.get("/api/counter").await.text, "count: 2");
}

#[tokio::test]
async fn a_link_of_another_site_sets_no_name() {
    let client = open("memory:").await;
    let headers = [("accept", "text/html"), ("sec-fetch-site", "cross-site")];
    let answer = client
        .send(Method::GET, "/set?name=Eve", &headers, "")
        .await;
    assert_eq!(answer.status, 403);
    let headers = [("accept", "text/html"), ("sec-fetch-site", "none")];
    let answer = client
        .send(Method::GET, "/set?name=Ada", &headers, "")
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(client.get("/").await.text, "name: Ada");
}

#[tokio::test]
async fn each_change_is_confirmed_once() {
    for store in STORES {
        let client = open(store).await;
        for (path, fields, notice) in [
            ("/name", "name=Ada", "Hello, Ada!"),
            ("/counter", "", "Counted."),
            ("/login", "user=ada&remember=1", "Signed in as ada."),
            (
                "/prefs",
                "theme=dark&accent=plum",
                "Your colours are saved.",
            ),
            ("/logout", "", "Signed out."),
        ] {
            assert_eq!(
                client.submit(path, fields).await.status,
                303,
                "{store} {path}"
            );
            let page = client.page("/").await.text;
            assert_eq!(page.matches(notice).count(), 1, "{store} {path}: {page}");
            assert!(
                !client.page("/").await.text.contains(notice),
                "{store} {path}"
            );
        }
    }
}

#[tokio::test]
async fn the_address_of_old_confirms_on_its_own_page() {
    for store in STORES {
        let client = open(store).await;
        let page = client.page("/set?name=Ada").await.text;
        assert_eq!(
            page.matches("name has been set as: Ada").count(),
            1,
            "{store}"
        );
        let page = client.page("/").await.text;
        assert!(page.contains("name: Ada"), "{store}");
        assert!(!page.contains("name has been set"), "{store}");
        let page = client.page("/set").await.text;
        assert!(page.contains("No name specified."), "{store}");
    }
}

#[tokio::test]
async fn a_form_that_is_not_understood_is_a_page_that_says_so() {
    let client = open("memory:").await;
    for (path, fields) in [
        ("/name", "name="),
        ("/login", "remember=1"),
        ("/login", "user=%20"),
        ("/prefs", "theme=neon&accent=blue"),
        ("/sessions/end", "session=1234"),
    ] {
        let answer = client.submit(path, fields).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(
            answer.header("content-type"),
            "text/html; charset=utf-8",
            "{path}"
        );
        assert!(
            answer.text.contains("<h1>Bad Request</h1>"),
            "{path}: {}",
            answer.text
        );
        assert!(answer.cookies().is_empty(), "{path}");
    }
    let large = format!("name={}", "x".repeat(64 << 10));
    assert_eq!(client.submit("/name", &large).await.status, 413);
}

#[tokio::test]
async fn the_look_is_remembered_beside_the_main_session_and_after_it() {
    for store in STORES {
        let client = open(store).await;
        client.submit("/login", "user=ada").await;
        client.submit("/prefs", "theme=dark&accent=plum").await;
        let page = client.page("/").await.text;
        assert!(
            page.contains("data-theme=\"dark\" data-accent=\"plum\""),
            "{store}"
        );
        client.submit("/logout", "").await;
        let page = client.page("/").await.text;
        assert!(
            page.contains("data-theme=\"dark\" data-accent=\"plum\""),
            "{store}"
        );
        assert!(page.contains("Not signed in"), "{store}");
    }
}
