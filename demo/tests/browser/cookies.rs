//! What a browser keeps and sends under the name of a session's cookie.
//!
//! The app and the attacker have sibling domains, `app.site.localhost` and `evil.site.localhost`,
//! both over plain HTTP; browsers accept `Secure` cookies from a host below `localhost`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, header},
    response::Html,
    routing::get,
};
use sessionkit::{
    CookieOptions, Key, Keyring, ManualClock, MemoryStore, Session, SessionConfig, SessionLayer,
    SessionManager, Timestamp,
};

use crate::{driver::Browser, listen, with_browser};

/// A store, keys and a clock, for one application in several configurations.
struct World {
    store: Arc<MemoryStore>,
    keyring: Keyring,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        Self {
            store: Arc::new(MemoryStore::new().with_clock(clock.clone())),
            keyring: Keyring::new([Key::generate().unwrap()]).unwrap(),
            clock,
        }
    }

    fn manager(&self, cookie: CookieOptions) -> SessionManager {
        let config = SessionConfig::new(Arc::clone(&self.store)).cookie(cookie);
        SessionManager::builder(self.keyring.clone())
            .clock(self.clock.clone())
            .session("session", config)
            .build()
            .unwrap()
    }
}

/// The application shows on every page whose session it has, and what the browser has sent. A port
/// is no part of what a cookie belongs to.
async fn start(manager: SessionManager) -> String {
    let page = async |session: Session, headers: HeaderMap| {
        let user = session.get::<String>("user").unwrap();
        let user = user.unwrap_or_else(|| "nobody".to_owned());
        let sent = headers.get_all(header::COOKIE).iter();
        let sent: Vec<_> = sent
            .map(|line| line.as_bytes().escape_ascii().to_string())
            .collect();
        Html(format!(
            "<p id=user>{user}</p><p id=sent>{}</p>",
            sent.join("; ")
        ))
    };
    let sign_in = async |session: Session, Path(user): Path<String>| {
        session.renew();
        session.insert("user", &user).unwrap();
        "signed in"
    };
    let sign_out = async |session: Session| session.destroy();
    let pages = Router::new()
        .route("/page", get(page))
        .route("/sign-in/{user}", get(sign_in))
        .route("/sign-out", get(sign_out));
    let router = Router::new()
        .merge(pages.clone())
        .nest("/app", pages)
        .layer(SessionLayer::new(manager));
    let port = listen(router).await.port();
    format!("http://app.site.localhost:{port}")
}

async fn user(browser: &Browser, url: &str) -> String {
    browser.go(url).await;
    browser.text("#user").await
}

/// The cookie of a session that somebody else has begun.
async fn cookie_of(manager: &SessionManager, user: &str) -> String {
    let sessions = manager.begin(&HeaderMap::new());
    let session = sessions.session().await.unwrap();
    session.insert("user", user).unwrap();
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.unwrap();
    let cookie: &HeaderValue = &response[header::SET_COOKIE];
    let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
    pair.split_once('=').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_cookie_that_a_sibling_domain_sets_beside_ours_is_not_taken_for_ours() {
    with_browser(|browser| async move {
        let manager = World::new().manager(CookieOptions::default());
        let token = cookie_of(&manager, "eve").await;
        let app = start(manager).await;
        let page = format!(
            "<script>
            for (const space of ['\\u2000', '\\u00a0', '\\u0085', '\\u1680', '\\u3000', '']) {{
                const place = '; Domain=site.localhost; Path=/';
                document.cookie = space + '__Host-id={token}' + place;
            }}
            </script>"
        );
        let evil = Router::new().route("/", get(async move || Html(page)));
        let evil = listen(evil).await.port();
        browser
            .go(&format!("http://evil.site.localhost:{evil}/"))
            .await;

        let page = format!("{app}/page");
        assert_eq!(user(&browser, &page).await, "nobody");
        let sent = browser.text("#sent").await;
        let planted = format!("\\xe2\\x80\\x80__Host-id={token}");
        assert!(sent.contains(&planted), "the browser has sent it: {sent}");
        assert_eq!(sent.matches("__Host-id=").count(), 5, "{sent}");

        browser.go(&format!("{app}/sign-in/ada")).await;
        assert_eq!(user(&browser, &page).await, "ada");
        let sent = browser.text("#sent").await;
        assert_eq!(sent.matches("__Host-id=").count(), 6, "{sent}");
        browser.go(&format!("{app}/sign-out")).await;
        assert_eq!(user(&browser, &page).await, "nobody");
    })
    .await;
}

#[tokio::test]
async fn a_change_of_path_makes_no_login_loop_and_leaves_no_cookie() {
    with_browser(|browser| async move {
        let world = World::new();
        let id = || CookieOptions::new("id").unwrap();
        let before = start(world.manager(id().path("/app"))).await;
        let after = start(world.manager(id().also_remove("/app", None))).await;
        let (root, below) = (format!("{after}/page"), format!("{after}/app/page"));

        browser.go(&format!("{before}/app/sign-in/old")).await;
        let seen = user(&browser, &format!("{before}/app/page")).await;
        assert_eq!(seen, "old");
        // The session ends on the server, and the browser keeps its cookie.
        world.clock.advance(Duration::from_secs(2 * 24 * 3600));
        browser.go(&format!("{after}/sign-in/new")).await;
        assert_eq!(browser.count_cookies("id").await, 1);
        for url in [&below, &root, &below] {
            assert_eq!(user(&browser, url).await, "new", "{url}");
            assert_eq!(browser.count_cookies("id").await, 1, "{url}");
        }

        // One that is alive is not sent to the sign-out, which removes it all the same.
        browser.go(&format!("{after}/sign-out")).await;
        browser.go(&format!("{before}/app/sign-in/old")).await;
        assert_eq!(user(&browser, &root).await, "nobody");
        browser.go(&format!("{after}/sign-out")).await;
        assert_eq!(user(&browser, &root).await, "nobody");
        assert_eq!(user(&browser, &below).await, "nobody");
        assert_eq!(browser.text("#sent").await, "");
    })
    .await;
}

#[tokio::test]
async fn the_cookie_of_a_session_that_has_expired_is_removed_at_the_next_page() {
    with_browser(|browser| async move {
        let world = World::new();
        let app = start(world.manager(CookieOptions::default())).await;
        let page = format!("{app}/page");
        browser.go(&format!("{app}/sign-in/ada")).await;
        assert_eq!(user(&browser, &page).await, "ada");
        assert_eq!(browser.count_cookies("__Host-id").await, 1);
        world.clock.advance(Duration::from_secs(2 * 24 * 3600));
        assert_eq!(user(&browser, &page).await, "nobody");
        assert_eq!(browser.count_cookies("__Host-id").await, 0);
    })
    .await;
}
