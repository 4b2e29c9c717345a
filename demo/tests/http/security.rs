//! The requirements of the project's security table that can be seen from outside.

use std::time::Duration;

use http::Method;
use sessionkit::Keyring;

use crate::{
    client::{Answer, Client},
    server::{keyring, open, watched},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A cookie value that is signed as ours are, for a session that never was.
fn unknown(keyring: &Keyring, number: u32) -> String {
    let mut token = [0; 32];
    token[..4].copy_from_slice(&number.to_le_bytes());
    base64(&keyring.sign("session token 2", "id", &token))
}

async fn with_cookies(client: &Client, cookies: &[&str]) -> Answer {
    let headers: Vec<_> = cookies.iter().map(|cookies| ("cookie", *cookies)).collect();
    let client = client.stranger();
    client.send(Method::GET, "/api/whoami", &headers, "").await
}

/// R08, and that the forged value of this test is a proper one.
#[tokio::test]
async fn a_token_that_the_server_has_not_made_is_never_adopted() {
    let setup = watched().await;
    let planted = unknown(&setup.keyring, 1);
    setup.client.put_cookie("id", &planted);
    setup.client.get("/set?name=Ada").await;
    assert!(
        setup.store.calls() >= 2,
        "the planted token was looked up, and a new one stored"
    );
    assert_ne!(setup.client.cookie("id").unwrap(), planted);
    assert_eq!(setup.client.get("/").await.text, "name: Ada");
    let attacker = setup.client.stranger();
    attacker.put_cookie("id", &planted);
    assert_eq!(
        attacker.get("/").await.text,
        "Please navigate to /set?name=yourname"
    );
}

/// R09
#[tokio::test]
async fn looking_at_unknown_sessions_stores_nothing() {
    let setup = watched().await;
    for number in 0..1000 {
        let cookie = format!("id={}", unknown(&setup.keyring, number));
        let answer = with_cookies(&setup.client, &[&cookie]).await;
        assert_eq!(answer.text, "anonymous");
        // It was signed here, so it is that of a session that has ended.
        let cookies = answer.cookies();
        let removed = cookies.iter().all(|cookie| cookie.starts_with("id=;"));
        assert!(removed && cookies.len() == 1, "{cookies:?}");
    }
    assert_eq!(setup.store.calls(), 1000);
    assert!(setup.memory.is_empty());
}

/// R10
#[tokio::test]
async fn visits_and_sign_outs_without_a_session_never_reach_the_store() {
    let setup = watched().await;
    for _ in 0..300 {
        for answer in [
            setup.client.page("/").await,
            setup.client.submit("/logout", "").await,
            setup.client.post("/api/logout", "").await,
            setup.client.page("/sessions").await,
        ] {
            assert!(answer.cookies().is_empty());
        }
    }
    assert_eq!(setup.store.calls(), 0);
}

/// R03, R52
#[tokio::test]
async fn forged_and_malformed_cookies_never_reach_the_store() {
    let setup = watched().await;
    let foreign = format!("id={}", unknown(&keyring(), 1));
    let long = format!("id={}", "A".repeat(32 << 10));
    let many = "a=b; ".repeat(8000);
    for cookies in [
        &*foreign, "id=", "id", "id=%00", "id=a.b", "id=AAAA", &long, &many,
    ] {
        let answer = with_cookies(&setup.client, &[cookies]).await;
        assert_eq!(answer.text, "anonymous");
        assert!(answer.cookies().is_empty());
    }
    assert_eq!(setup.store.calls(), 0);
}

/// R04
#[tokio::test]
async fn only_the_exact_cookie_opens_the_session() {
    let client = open("memory:").await;
    client.post("/api/login?user=ada", "").await;
    let value = client.cookie("id").unwrap();
    let mut variants = vec![
        value.to_lowercase(),
        value.to_uppercase(),
        format!("{value}="),
        format!("{value}A"),
        format!("{value}%20"),
        value[..value.len() - 1].to_owned(),
    ];
    for position in [0, value.len() / 2, value.len() - 1] {
        let other = if &value[position..=position] == "A" {
            "B"
        } else {
            "A"
        };
        variants.push(format!(
            "{}{other}{}",
            &value[..position],
            &value[position + 1..]
        ));
    }
    for variant in variants.iter().filter(|variant| **variant != value) {
        let answer = with_cookies(&client, &[&format!("id={variant}")]).await;
        assert_eq!(answer.text, "anonymous", "{variant}");
    }
}

/// R11
#[tokio::test]
async fn signing_in_changes_the_token_and_the_old_one_is_dead() {
    for path in ["/api/login?user=ada", "/login"] {
        let client = open("memory:").await;
        client.get("/set?name=Ada").await;
        let before = client.copy();
        if path == "/login" {
            client.submit(path, "user=ada").await;
        } else {
            client.post(path, "").await;
        }
        assert_ne!(client.cookie("id"), before.cookie("id"), "{path}");
        assert_eq!(client.get("/").await.text, "name: Ada", "{path}");
        assert_eq!(before.get("/api/whoami").await.text, "anonymous", "{path}");
        assert!(before.get("/").await.text.starts_with("Please"), "{path}");
    }
}

/// R13; the store in the cookie keeps a list of what has ended.
#[tokio::test]
async fn a_copied_cookie_is_dead_after_the_user_has_signed_out() {
    for store in crate::server::STORES {
        for path in ["/api/logout", "/logout"] {
            let client = open(store).await;
            client.post("/api/login?user=ada&remember=1", "").await;
            let stolen = client.copy();
            client.post(path, "").await;
            assert_eq!(
                stolen.get("/api/whoami").await.text,
                "anonymous",
                "{store} {path}"
            );
        }
    }
}

/// R15
#[tokio::test]
async fn a_sign_out_that_the_store_cannot_do_is_no_success() {
    let setup = watched().await;
    setup.client.post("/api/login?user=ada", "").await;
    setup.store.set_down(true);
    for answer in [
        setup.client.post("/api/logout", "").await,
        setup.client.submit("/logout", "").await,
    ] {
        assert_eq!((answer.status.as_u16(), &*answer.text), (503, ""));
    }
    setup.store.set_down(false);
    assert_eq!(setup.client.post("/api/logout", "").await.status, 200);
}

/// R16
#[tokio::test]
async fn a_session_is_found_by_its_cookie_and_nothing_else() {
    let client = open("memory:").await;
    client.post("/api/login?user=ada", "").await;
    let value = client.cookie("id").unwrap();
    let stranger = client.stranger();
    for path in [
        format!("/api/whoami?id={value}"),
        format!("/api/whoami;id={value}"),
    ] {
        let answer = stranger.get(&path).await;
        assert_ne!(answer.text, "user: ada", "{path}");
    }
    for name in ["id", "x-id", "authorization", "x-session-id"] {
        let answer = stranger
            .send(Method::GET, "/api/whoami", &[(name, &value)], "")
            .await;
        assert_eq!(answer.text, "anonymous", "{name}");
    }
    let answer = stranger.submit("/counter", &format!("id={value}")).await;
    assert_ne!(answer.cookies(), Vec::<&str>::new(), "a session of its own");
    assert_eq!(client.get("/api/counter").await.text, "count: 0");
}

/// R17, R19, R22: what the browser makes of the cookie's lifetime does not matter.
#[tokio::test]
async fn a_session_that_is_not_used_ends_on_the_server() {
    let setup = watched().await;
    setup.client.post("/api/login?user=ada", "").await;
    setup.clock.advance(23 * HOUR);
    assert_eq!(setup.client.get("/api/whoami").await.text, "user: ada");
    setup.clock.advance(23 * HOUR);
    assert_eq!(setup.client.get("/api/whoami").await.text, "user: ada");
    setup.clock.advance(25 * HOUR);
    assert_eq!(setup.client.get("/api/whoami").await.text, "anonymous");
}

/// R18
#[tokio::test]
async fn a_session_that_is_always_used_ends_after_its_absolute_lifetime() {
    let setup = watched().await;
    setup
        .client
        .post("/api/login?user=ada&remember=1", "")
        .await;
    for _ in 0..29 {
        setup.clock.advance(24 * HOUR);
        assert_eq!(setup.client.get("/api/whoami").await.text, "user: ada");
    }
    setup.clock.advance(24 * HOUR);
    assert_eq!(setup.client.get("/api/whoami").await.text, "anonymous");
}

/// R28, R29
#[tokio::test]
async fn cookie_names_are_taken_as_they_are() {
    let client = open("memory:").await;
    client.post("/api/login?user=ada", "").await;
    let value = client.cookie("id").unwrap();
    assert_eq!(
        with_cookies(&client, &[&format!("id={value}")]).await.text,
        "user: ada"
    );
    for name in [
        "%69d",
        "ID",
        "Id",
        "=id",
        "__Host-id",
        "$id",
        "id[]",
        "\"id\"",
        "id.0",
    ] {
        let answer = with_cookies(&client, &[&format!("{name}={value}")]).await;
        assert_eq!(answer.text, "anonymous", "{name}");
    }
}

/// R30
#[tokio::test]
async fn a_tossed_cookie_of_our_name_does_not_hide_the_right_one() {
    let client = open("memory:").await;
    client.post("/api/login?user=ada", "").await;
    let right = format!("id={}", client.cookie("id").unwrap());
    for tossed in ["id=evil", "id=", "id=AAAA"] {
        for cookies in [
            &[&*format!("{tossed}; {right}")][..],
            &[&*format!("{right}; {tossed}")],
            &[tossed, &*right],
            &[&*right, tossed],
        ] {
            let answer = with_cookies(&client, cookies).await;
            assert_eq!(answer.text, "user: ada", "{tossed}");
        }
    }
}

/// R32
#[tokio::test]
async fn answers_that_depend_on_a_session_are_kept_by_no_cache() {
    let client = open("memory:").await;
    for round in ["without a session", "with a session"] {
        for path in [
            "/",
            "/api/whoami",
            "/api/counter",
            "/api/keys",
            "/sessions",
            "/set",
        ] {
            let answer = client.get(path).await;
            assert_eq!(answer.header("cache-control"), "no-store", "{path} {round}");
            let vary = answer.joined("vary");
            assert!(
                vary.split(", ").any(|field| field == "cookie"),
                "{path} {round}: {vary}"
            );
        }
        client.get("/set?name=Ada").await;
    }
}

/// R42, R65
#[tokio::test]
async fn all_forged_cookies_get_one_answer_and_all_ended_ones_another() {
    let setup = watched().await;
    setup.client.post("/api/login?user=ada", "").await;
    let ended = setup.client.cookie("id").unwrap();
    setup.client.post("/api/logout", "").await;
    let foreign = unknown(&keyring(), 1);
    let unknown = unknown(&setup.keyring, 1);
    let forged = [&*foreign, "garbage", "", "%%%"];
    for (values, cookies) in [(&forged[..], 0), (&[&*ended, &unknown], 1)] {
        for path in ["/", "/api/whoami", "/sessions"] {
            let mut answers = Vec::new();
            for value in values {
                let client = setup.client.stranger();
                client.put_cookie("id", value);
                let mut answer = client.page(path).await;
                answer.headers.remove("date");
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.cookies().len(), cookies, "{path}");
                answers.push(answer);
            }
            for answer in &answers {
                assert_eq!(answer.headers, answers[0].headers, "{path}");
                assert_eq!(answer.text, answers[0].text, "{path}");
            }
        }
    }
}

/// R47
#[tokio::test]
async fn a_cookie_of_another_app_is_no_session_here() {
    let (here, there) = (open("memory:").await, open("memory:").await);
    here.post("/api/login?user=ada", "").await;
    there.put_cookie("id", &here.cookie("id").unwrap());
    assert_eq!(there.get("/api/whoami").await.text, "anonymous");
}

/// R50
#[tokio::test]
async fn a_store_that_is_down_is_an_error_and_never_an_empty_session() {
    let setup = watched().await;
    setup.client.post("/api/login?user=ada", "").await;
    let cookie = setup.client.cookie("id");
    setup.store.set_down(true);
    for answer in [
        setup.client.page("/").await,
        setup.client.get("/").await,
        setup.client.get("/api/whoami").await,
        setup.client.post("/api/counter", "").await,
        setup.client.put("/api/keys/a", "x").await,
        setup.client.submit("/name", "name=Eve").await,
    ] {
        assert_eq!((answer.status.as_u16(), &*answer.text), (503, ""));
        assert!(answer.cookies().is_empty(), "{answer:?}");
    }
    // Those who have no session do not need the store before they write.
    assert_eq!(setup.client.stranger().page("/").await.status, 200);
    let answer = setup.client.stranger().get("/set?name=Eve").await;
    assert_eq!((answer.status.as_u16(), &*answer.text), (503, ""));
    assert!(answer.cookies().is_empty());
    setup.store.set_down(false);
    assert_eq!(setup.client.cookie("id"), cookie);
    assert_eq!(setup.client.get("/api/whoami").await.text, "user: ada");
    assert_eq!(setup.client.get("/api/counter").await.text, "count: 0");
}
