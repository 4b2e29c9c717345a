use crate::server::{STORES, open};

#[tokio::test]
async fn the_first_visit_hints_at_the_address_that_sets_a_name() {
    for store in STORES {
        let client = open(store).await;
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200, "{store}");
        assert_eq!(
            answer.text, "Please navigate to /set?name=yourname",
            "{store}"
        );
        assert!(answer.cookies().is_empty(), "{store}");
    }
}

#[tokio::test]
async fn a_name_that_was_set_is_there_on_the_next_visit() {
    for store in STORES {
        let client = open(store).await;
        let answer = client.get("/set?name=Ada").await;
        assert_eq!(answer.status, 200, "{store}");
        assert_eq!(answer.text, "name has been set as: Ada", "{store}");
        assert_eq!(answer.cookies().len(), 1, "{store}");
        assert_eq!(client.get("/").await.text, "name: Ada", "{store}");
        client.get("/set?name=Gr%C3%A4fin+Lovelace").await;
        assert_eq!(
            client.get("/").await.text,
            "name: Gräfin Lovelace",
            "{store}"
        );
        assert_eq!(
            client.stranger().get("/").await.text,
            "Please navigate to /set?name=yourname"
        );
    }
}

#[tokio::test]
async fn without_a_name_nothing_is_set() {
    for store in STORES {
        let client = open(store).await;
        for path in ["/set", "/set?name=", "/set?other=x"] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, 200, "{store} {path}");
            assert_eq!(answer.text, "No name specified.", "{store} {path}");
            assert!(answer.cookies().is_empty(), "{store} {path}");
        }
    }
}

#[tokio::test]
async fn a_name_that_is_no_line_or_too_long_is_a_bad_request() {
    let client = open("memory:").await;
    let long = format!("/set?name={}", "x".repeat(101));
    for path in [
        "/set?name=a%0Ab",
        "/set?name=%FF",
        "/set?name=a&name=b",
        &long,
    ] {
        let answer = client.get(path).await;
        let is_bad = answer.status == 400 || answer.text == "name has been set as: \u{fffd}";
        assert!(is_bad, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn who_does_not_ask_for_a_page_gets_text() {
    let client = open("memory:").await;
    for accept in ["*/*", "text/plain", "text/plain, text/html;q=0.5"] {
        let answer = client
            .send(http::Method::GET, "/", &[("accept", accept)], "")
            .await;
        assert_eq!(
            answer.header("content-type"),
            "text/plain; charset=utf-8",
            "{accept}"
        );
    }
    let answer = client.page("/").await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.joined("vary").contains("accept"));
}
