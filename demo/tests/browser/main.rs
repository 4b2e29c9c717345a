//! The app in a real browser.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod cookies;
mod driver;

use std::{future, net::SocketAddr, sync::Arc};

use axum::{Router, response::Html, routing::get};
use sessionkit::{Key, Keyring, SystemClock};
use sessionkit_demo::{App, GRACE, open_store, serve};
use tokio::net::TcpListener;

use driver::Browser;

async fn start(url: &str) -> String {
    let keyring = Keyring::new([Key::generate().unwrap()]).unwrap();
    let store = open_store(url, &keyring, &(Arc::new(SystemClock) as _))
        .await
        .unwrap();
    let address = listen(App::new(store, keyring).router().unwrap()).await;
    format!("http://{address}")
}

async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, future::pending(), GRACE));
    address
}

/// Runs a test with a browser that is closed after it, also if it fails.
async fn with_browser<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<Browser>) -> F,
) {
    let browser = Arc::new(Browser::start().await);
    let ended = tokio::spawn(test(Arc::clone(&browser))).await;
    browser.quit().await;
    ended.unwrap();
}

/// The notice of a change is there, and gone when the page is loaded again.
async fn expect_once(browser: &Browser, notice: &str) {
    assert_eq!(browser.texts(".notice").await, [notice]);
    browser.reload().await;
    assert!(browser.texts(".notice").await.is_empty(), "{notice}");
}

async fn visit(browser: &Browser, app: &str, store: &str) {
    browser.go(&format!("{app}/")).await;
    assert_eq!(browser.text("h1").await, "Hello, stranger.");
    assert_eq!(browser.cookie("id").await, None);
    browser.screenshot(&format!("{store}-first")).await;

    browser.go(&format!("{app}/set?name=Ada+%3Cb%3E")).await;
    assert_eq!(
        browser.texts(".notice").await,
        ["name has been set as: Ada <b>"]
    );
    browser.go(&format!("{app}/")).await;
    assert_eq!(browser.text("h1").await, "name: Ada <b>");
    assert!(browser.texts(".notice").await.is_empty());

    browser.write("#name", "Grace").await;
    browser.follow("form[action='/name'] button").await;
    expect_once(browser, "Hello, Grace!").await;
    assert_eq!(browser.text("h1").await, "name: Grace");

    for count in ["1", "2"] {
        browser.follow("form[action='/counter'] button").await;
        assert_eq!(browser.text("#count").await, count);
    }
    expect_once(browser, "Counted.").await;
    assert_eq!(browser.text("#count").await, "2");
}

async fn sign_in(browser: &Browser) {
    let before = browser.cookie("id").await.unwrap();
    assert_eq!(before.get("expiry"), None, "it ends with the browser");
    browser.write("#login", "ada").await;
    browser.click("input[name='remember']").await;
    browser.follow("form[action='/login'] button").await;
    expect_once(browser, "Signed in as ada. This browser will remember you.").await;
    assert_eq!(browser.text("#user").await, "ada");
    assert_eq!(browser.text("h1").await, "name: Grace");

    let cookie = browser.cookie("id").await.unwrap();
    assert_ne!(cookie["value"], before["value"]);
    assert!(cookie["expiry"].is_u64(), "it outlives the browser");
    assert_eq!(cookie["httpOnly"], true);
    assert_eq!(cookie["sameSite"], "Lax");
    assert_eq!(browser.script("return document.cookie").await, "");
}

async fn change_the_look(browser: &Browser) {
    let light = browser.style("body", "background-color").await;
    browser.click("input[name='theme'][value='dark']").await;
    browser.click("input[name='accent'][value='plum']").await;
    browser.follow("form[action='/prefs'] button").await;
    expect_once(browser, "Your colours are saved.").await;
    assert_eq!(browser.attribute("html", "data-theme").await, "dark");
    assert_ne!(browser.style("body", "background-color").await, light);
}

async fn sign_out(browser: &Browser) {
    browser.follow("#sign-out").await;
    expect_once(browser, "Signed out.").await;
    assert_eq!(browser.text("nav").await, "Not signed in");
    assert_eq!(browser.text("h1").await, "Hello, stranger.");
    assert_eq!(browser.text("#count").await, "0");
    assert_eq!(browser.cookie("id").await, None);
    assert_eq!(browser.attribute("html", "data-theme").await, "dark");
}

#[tokio::test]
async fn a_visitor_finds_everything_with_sessions_in_memory() {
    with_browser(|browser| async move {
        let app = start("memory:").await;
        browser.resize(1280, 1000).await;
        visit(&browser, &app, "memory").await;
        sign_in(&browser).await;
        browser.screenshot("memory-signed-in").await;
        change_the_look(&browser).await;
        browser.screenshot("memory-dark").await;

        browser.follow("nav a").await;
        assert_eq!(browser.text("h1").await, "Your sessions");
        assert_eq!(browser.texts(".sessions li b").await, ["Chrome on Linux"]);
        assert_eq!(browser.text(".badge").await, "this browser");
        browser.screenshot("memory-sessions").await;
        browser.resize(400, 900).await;
        browser.go(&app).await;
        let overflow = "return document.documentElement.scrollWidth > window.innerWidth";
        assert_eq!(browser.script(overflow).await, false, "it fits on a phone");
        browser.screenshot("memory-phone").await;

        sign_out(&browser).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_visitor_finds_everything_with_sessions_in_the_cookie() {
    with_browser(|browser| async move {
        let app = start("cookie:").await;
        visit(&browser, &app, "cookie").await;
        sign_in(&browser).await;
        change_the_look(&browser).await;
        sign_out(&browser).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    })
    .await;
}

/// The site of the attacker is `localhost`, the app's is `127.0.0.1`.
#[tokio::test]
async fn a_form_and_a_link_of_another_site_change_nothing() {
    with_browser(|browser| async move {
        let app = start("memory:").await;
        browser.go(&format!("{app}/set?name=Ada")).await;
        let page = format!(
            "<form method=post action='{app}/counter'><button>Win</button></form>
             <a href='{app}/set?name=Eve'>Look</a>"
        );
        let evil = Router::new().route("/", get(async move || Html(page)));
        let evil = format!("http://localhost:{}/", listen(evil).await.port());

        for trap in ["button", "a"] {
            browser.go(&evil).await;
            browser.follow(trap).await;
            assert_eq!(browser.text("h1").await, "Forbidden", "{trap}");
        }
        browser.go(&app).await;
        assert_eq!(browser.text("h1").await, "name: Ada");
        assert_eq!(browser.text("#count").await, "0");
    })
    .await;
}
