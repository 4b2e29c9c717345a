use http::Method;

use crate::server::{STORES, open};

#[tokio::test]
async fn a_user_signs_in_and_out() {
    for store in STORES {
        let client = open(store).await;
        assert_eq!(client.get("/api/whoami").await.text, "anonymous", "{store}");
        let answer = client.post("/api/login?user=ada", "").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.text),
            (200, "user: ada"),
            "{store}"
        );
        assert_eq!(client.get("/api/whoami").await.text, "user: ada", "{store}");
        let answer = client.post("/api/logout", "").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.text),
            (200, "anonymous"),
            "{store}"
        );
        assert_eq!(client.cookie("id"), None, "{store}");
        assert_eq!(client.get("/api/whoami").await.text, "anonymous", "{store}");
    }
}

#[tokio::test]
async fn remember_me_stays_with_the_session() {
    for store in STORES {
        let client = open(store).await;
        let answer = client.post("/api/login?user=ada", "").await;
        assert!(!answer.cookies()[0].contains("Max-Age"), "{store}");
        let answer = client.post("/api/login?user=ada&remember=1", "").await;
        assert!(
            answer.cookies()[0].contains("; Max-Age=1209600"),
            "{store}: {answer:?}"
        );
        let answer = client.post("/api/counter", "").await;
        // A store in the cookie sends a new cookie for each change.
        assert!(
            answer
                .cookies()
                .iter()
                .all(|cookie| cookie.contains("; Max-Age=")),
            "{store}"
        );
        let answer = client.post("/api/login?user=ada&remember=0", "").await;
        assert!(!answer.cookies()[0].contains("Max-Age"), "{store}");
    }
}

#[tokio::test]
async fn a_login_without_a_proper_user_is_a_bad_request() {
    let client = open("memory:").await;
    let long = format!("?user={}", "u".repeat(65));
    for query in [
        "",
        "?user=",
        "?user=%20",
        "?user=a%0Db",
        "?user=a&remember=maybe",
        &long,
    ] {
        let answer = client.post(&format!("/api/login{query}"), "").await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.cookies().is_empty(), "{query}");
    }
}

#[tokio::test]
async fn another_user_finds_nothing_of_the_one_before() {
    for store in STORES {
        let client = open(store).await;
        client.put("/api/keys/colour", "green").await;
        client.post("/api/login?user=ada", "").await;
        assert_eq!(
            client.get("/api/keys").await.text,
            "colour=green\n",
            "{store}"
        );
        client.post("/api/login?user=ada", "").await;
        assert_eq!(
            client.get("/api/keys").await.text,
            "colour=green\n",
            "{store}"
        );
        client.post("/api/login?user=bob", "").await;
        assert_eq!(client.get("/api/keys").await.text, "", "{store}");
    }
}

#[tokio::test]
async fn the_counter_counts() {
    for store in STORES {
        let client = open(store).await;
        assert_eq!(client.get("/api/counter").await.text, "count: 0", "{store}");
        for count in 1..=3 {
            let answer = client.post("/api/counter", "").await;
            assert_eq!(answer.text, format!("count: {count}"), "{store}");
        }
        assert_eq!(client.get("/api/counter").await.text, "count: 3", "{store}");
    }
}

#[tokio::test]
async fn keys_are_listed_in_order() {
    for store in STORES {
        let client = open(store).await;
        assert_eq!(client.get("/api/keys").await.text, "", "{store}");
        for (key, value) in [
            ("b", "2"),
            ("a", "x=y"),
            ("ü", "Ü"),
            ("b", "3"),
            ("empty", ""),
        ] {
            let path = format!("/api/keys/{}", key.replace('ü', "%C3%BC"));
            assert_eq!(client.put(&path, value).await.status, 200, "{store} {key}");
        }
        assert_eq!(
            client.get("/api/keys").await.text,
            "a=x=y\nb=3\nempty=\nü=Ü\n",
            "{store}"
        );
    }
}

#[tokio::test]
async fn keys_of_scripts_are_not_those_of_the_app() {
    let client = open("memory:").await;
    for key in ["user", "name", "count"] {
        assert_eq!(
            client.put(&format!("/api/keys/{key}"), "root").await.status,
            200
        );
    }
    assert_eq!(client.get("/api/whoami").await.text, "anonymous");
    assert_eq!(client.get("/api/counter").await.text, "count: 0");
    assert_eq!(
        client.get("/").await.text,
        "Please navigate to /set?name=yourname"
    );
}

#[tokio::test]
async fn keys_and_values_that_are_no_lines_are_bad_requests() {
    let client = open("memory:").await;
    let long = "k".repeat(65);
    for key in ["a%3Db", "a%0Ab", "%FF", &long] {
        assert_eq!(
            client.put(&format!("/api/keys/{key}"), "x").await.status,
            400,
            "{key}"
        );
    }
    for value in ["a\nb", "a\r"] {
        assert_eq!(
            client.put("/api/keys/a", value).await.status,
            400,
            "{value:?}"
        );
    }
    assert_eq!(client.put("/api/slow/a?ms=60001", "x").await.status, 400);
    assert_eq!(client.put("/api/slow/a?ms=-1", "x").await.status, 400);
    assert_eq!(client.put("/api/slow/a", "x").await.status, 400);
    assert_eq!(client.get("/api/keys").await.text, "");
}

#[tokio::test]
async fn a_slow_request_sets_its_key() {
    for store in STORES {
        let client = open(store).await;
        assert_eq!(
            client.put("/api/slow/a?ms=1", "x").await.status,
            200,
            "{store}"
        );
        assert_eq!(client.get("/api/keys").await.text, "a=x\n", "{store}");
    }
}

#[tokio::test]
async fn flash_messages_last_until_they_are_read() {
    for store in STORES {
        let client = open(store).await;
        assert_eq!(client.get("/api/flash").await.text, "", "{store}");
        for message in ["one", "two"] {
            assert_eq!(
                client.post("/api/flash", message).await.status,
                200,
                "{store}"
            );
        }
        assert_eq!(
            client.post("/api/flash?queue=other", "three").await.status,
            200,
            "{store}"
        );
        assert_eq!(client.get("/api/flash").await.text, "one\ntwo\n", "{store}");
        assert_eq!(client.get("/api/flash").await.text, "", "{store}");
        assert_eq!(
            client.get("/api/flash?queue=other").await.text,
            "three\n",
            "{store}"
        );
        assert_eq!(
            client.get("/api/flash?queue=other").await.text,
            "",
            "{store}"
        );
    }
}

#[tokio::test]
async fn a_change_needs_the_header_that_forms_cannot_send() {
    let client = open("memory:").await;
    for (method, path) in [
        (Method::POST, "/api/login?user=ada"),
        (Method::POST, "/api/logout"),
        (Method::POST, "/api/counter"),
        (Method::PUT, "/api/keys/a"),
        (Method::POST, "/api/flash"),
        (Method::PUT, "/api/slow/a?ms=0"),
    ] {
        let answer = client.send(method, path, &[], "x").await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.cookies().is_empty(), "{path}");
    }
    // A preflight request of another site is not answered with permission.
    let headers = [
        ("origin", "https://evil.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-requested-with"),
    ];
    let answer = client
        .send(Method::OPTIONS, "/api/keys/a", &headers, "")
        .await;
    assert!(!answer.status.is_success());
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    let client = open("memory:").await;
    let answer = client.put("/api/keys/a", &"x".repeat(64 << 10)).await;
    assert_eq!(answer.status, 200);
    let answer = client.put("/api/keys/a", &"x".repeat((64 << 10) + 1)).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn what_does_not_fit_into_a_cookie_is_refused_and_named() {
    let client = open("cookie:").await;
    client.put("/api/keys/small", "x").await;
    let answer = client.put("/api/keys/large", &"x".repeat(4000)).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text.contains("large"), "{answer:?}");
    assert!(answer.cookies().is_empty());
    assert_eq!(client.get("/api/keys").await.text, "small=x\n");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let client = open("memory:").await;
    assert_eq!(client.get("/api/nothing").await.status, 404);
    assert_eq!(client.get("/nothing").await.status, 404);
    let answer = client
        .send(
            Method::DELETE,
            "/api/keys",
            &[("x-requested-with", "x")],
            "",
        )
        .await;
    assert_eq!(answer.status, 405);
    assert_eq!(client.get("/api/login").await.status, 405);
}
