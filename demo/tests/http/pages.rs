use http::Method;

use crate::server::{open, watched};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// The values of the hidden fields that name sessions.
fn handles(page: &str) -> Vec<&str> {
    let parts = page.split("name=\"session\" value=\"").skip(1);
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

#[tokio::test]
async fn what_a_visitor_says_is_never_markup() {
    let client = open("memory:").await;
    let evil = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22'%26";
    for page in [
        client.page(&format!("/set?name={evil}")).await,
        client.page("/").await,
        client.submit("/login", &format!("user={evil}")).await,
        client.page("/").await,
        client.page("/sessions").await,
    ] {
        assert!(!page.text.contains("<script"), "{}", page.text);
        assert!(!page.text.contains("alert(1)</"), "{}", page.text);
    }
}

#[tokio::test]
async fn every_answer_forbids_scripts_frames_and_guessing() {
    let client = open("memory:").await;
    for path in [
        "/",
        "/set?name=Ada",
        "/sessions",
        "/style.css",
        "/nothing",
        "/api/keys",
    ] {
        let answer = client.page(path).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';"),
            "{path}: {policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
    }
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere() {
    let client = open("memory:").await;
    let page = client.page("/").await.text;
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src=\"//"));
    for path in ["/style.css", "/icon.svg"] {
        assert!(page.contains(path));
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("cache-control").starts_with("max-age="));
    }
}

#[tokio::test]
async fn a_user_sees_and_ends_their_sessions() {
    let laptop = open("memory:").await;
    let phone = laptop.stranger();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let headers = [("user-agent", FIREFOX), form];
    laptop
        .send(Method::POST, "/login", &headers, "user=ada")
        .await;
    let headers = [("user-agent", "curl/8.5.0"), form];
    phone
        .send(Method::POST, "/login", &headers, "user=ada")
        .await;

    let page = laptop.page("/sessions").await.text;
    assert!(
        page.contains("Firefox on Linux</b> <span class=\"badge\">this browser"),
        "{page}"
    );
    assert!(page.contains("<b>curl</b>"), "{page}");
    let [handle] = handles(&page)[..] else {
        panic!("one other session: {page}");
    };
    let text = laptop.get("/sessions").await.text;
    assert!(
        text.starts_with("Firefox on Linux (this one): began less than a minute ago, ends in ")
    );
    assert_eq!(text.lines().count(), 2);

    let answer = laptop
        .submit("/sessions/end", &format!("session={handle}"))
        .await;
    assert_eq!(answer.header("location"), "/sessions");
    assert_eq!(phone.get("/api/whoami").await.text, "anonymous");
    assert_eq!(laptop.get("/api/whoami").await.text, "user: ada");
    assert!(
        laptop
            .page("/sessions")
            .await
            .text
            .contains("That session has ended.")
    );
    laptop
        .submit("/sessions/end", &format!("session={handle}"))
        .await;
    assert!(
        laptop
            .page("/sessions")
            .await
            .text
            .contains("That session had ended already.")
    );
}

#[tokio::test]
async fn a_user_ends_all_other_sessions_and_keeps_this_one() {
    let laptop = open("memory:").await;
    let others = [laptop.stranger(), laptop.stranger()];
    let bob = laptop.stranger();
    for client in others.iter().chain([&laptop]) {
        client.submit("/login", "user=ada&remember=1").await;
    }
    bob.submit("/login", "user=bob").await;
    laptop.submit("/sessions/end-others", "").await;
    let page = laptop.page("/sessions").await.text;
    assert!(page.contains("The 2 other sessions have ended."), "{page}");
    for client in others {
        assert_eq!(client.get("/api/whoami").await.text, "anonymous");
    }
    assert_eq!(laptop.get("/api/whoami").await.text, "user: ada");
    assert_eq!(bob.get("/api/whoami").await.text, "user: bob");
}

#[tokio::test]
async fn nobody_ends_the_session_of_somebody_else() {
    let ada = open("memory:").await;
    let (ada_too, bob) = (ada.stranger(), ada.stranger());
    for (client, user) in [(&ada, "ada"), (&ada_too, "ada"), (&bob, "bob")] {
        client.submit("/login", &format!("user={user}")).await;
    }
    let page = ada.page("/sessions").await.text;
    let [handle] = handles(&page)[..] else {
        panic!("one other session: {page}");
    };
    for thief in [&bob, &ada.stranger()] {
        thief
            .submit("/sessions/end", &format!("session={handle}"))
            .await;
        assert_eq!(ada_too.get("/api/whoami").await.text, "user: ada");
    }
    let thief = ada.stranger();
    thief.put_cookie("id", handle);
    assert_eq!(thief.get("/api/whoami").await.text, "anonymous");
}

#[tokio::test]
async fn the_list_of_a_store_without_an_index_says_why_it_is_empty() {
    let client = open("cookie:").await;
    client.submit("/login", "user=ada").await;
    let page = client.page("/sessions").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("live in the browsers"));
}

#[tokio::test]
async fn the_list_of_a_store_that_is_down_is_no_empty_list() {
    let setup = watched().await;
    setup.client.submit("/login", "user=ada").await;
    setup.store.set_down(true);
    let answer = setup.client.page("/sessions").await;
    assert_eq!((answer.status.as_u16(), &*answer.text), (503, ""));
}
