//! Several cookies of one session's name in one request.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header::COOKIE};
use sessionkit::{
    CookieOptions, ErrorKind, Keyring, ManualClock, OnUnreadable, Origin, Session, SessionConfig,
    SessionManager,
};
use sessionkit_cookie::CookieStore;

use crate::support::{Browser, DAY, Fault, HOUR, START, SpyStore, World, key, set_cookies};

/// A request with these values of the default cookie, in this order.
fn request<'a>(values: impl IntoIterator<Item = &'a str>) -> HeaderMap {
    let pairs = values.into_iter().map(|value| format!("__Host-id={value}"));
    let line = pairs.collect::<Vec<_>>().join("; ");
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, line.parse().expect("values are visible ASCII"));
    headers
}

fn value(browser: &Browser) -> &str {
    &browser.jar["__Host-id"]
}

async fn origin(manager: &SessionManager, headers: &HeaderMap) -> Origin {
    let session = manager.begin(headers).session().await.unwrap();
    session.origin()
}

/// Signs out with a request, and gives the cookies that the response sets.
async fn sign_out(manager: &SessionManager, headers: &HeaderMap) -> Vec<String> {
    let sessions = manager.begin(headers);
    sessions.session().await.unwrap().destroy();
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.unwrap();
    set_cookies(&response)
}

/// A cookie jar that knows paths and domains, for one host (RFC 6265, sections 5.3 and 5.4).
#[derive(Clone, Default)]
struct Jar(Vec<Kept>);

#[derive(Clone, Debug, PartialEq)]
struct Kept {
    name: String,
    value: String,
    path: String,
    domain: Option<String>,
}

impl Jar {
    fn receive(&mut self, headers: &HeaderMap) {
        for cookie in set_cookies(headers) {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let find = |wanted: &str| {
                let mut attributes = attributes.split("; ");
                attributes.find_map(|attribute| attribute.strip_prefix(wanted))
            };
            let new = Kept {
                name: name.to_owned(),
                value: value.to_owned(),
                path: find("Path=").unwrap().to_owned(),
                domain: find("Domain=").map(str::to_owned),
            };
            let place = |kept: &Kept| (kept.name.clone(), kept.path.clone(), kept.domain.clone());
            let old = self.0.iter().position(|old| place(old) == place(&new));
            match (old, find("Max-Age=") == Some("0")) {
                (Some(old), true) => drop(self.0.remove(old)),
                (None, true) => {}
                // It keeps its age.
                (Some(old), false) => self.0[old] = new,
                (None, false) => self.0.push(new),
            }
        }
    }

    fn request(&self, path: &str) -> HeaderMap {
        let mut sent: Vec<_> = self
            .0
            .iter()
            .filter(|kept| path.starts_with(&kept.path))
            .collect();
        sent.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        let mut headers = HeaderMap::new();
        for kept in sent {
            let pair = format!("{}={}", kept.name, kept.value);
            headers.append(COOKIE, pair.parse().unwrap());
        }
        headers
    }

    /// A request for a path whose handler uses the session.
    async fn visit<R>(
        &mut self,
        manager: &SessionManager,
        path: &str,
        handler: impl FnOnce(&Session) -> R,
    ) -> R {
        let sessions = manager.begin(&self.request(path));
        let session = sessions.session().await.expect("the session loads");
        let answer = handler(&session);
        let mut headers = HeaderMap::new();
        let finished = sessions.finish(&mut headers).await;
        self.receive(&headers);
        finished.expect("the session is saved");
        answer
    }
}

fn user(session: &Session) -> Option<String> {
    session.get("user").unwrap()
}

#[tokio::test]
async fn a_sign_out_ends_every_session_that_the_request_brought() {
    let world = World::new();
    let (one, two, three) = (
        world.signed_in().await,
        world.signed_in().await,
        world.signed_in().await,
    );
    let values = [value(&one), value(&two), value(&three)];
    let cookies = sign_out(&world.manager, &request(values)).await;
    assert_eq!(cookies.len(), 1);
    assert!(cookies[0].starts_with("__Host-id=; "), "{cookies:?}");
    for value in values {
        let origin = origin(&world.manager, &request([value])).await;
        assert_eq!(origin, Origin::Ended);
    }
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_sign_out_ends_no_session_for_a_secret_that_is_worth_nothing() {
    let world = World::new();
    let mut victim = world.signed_in().await;
    let planted = victim.clone();
    victim.visit(|session| session.renew()).await;
    world.clock.advance(HOUR);
    let own = world.signed_in().await;
    sign_out(&world.manager, &request([value(&own), value(&planted)])).await;
    assert_eq!(victim.visit(Session::origin).await, Origin::Stored);
    assert_eq!(own.clone().visit(Session::origin).await, Origin::Ended);
}

#[tokio::test]
async fn a_sign_out_that_cannot_end_every_session_fails_and_leaves_the_cookie() {
    let world = World::new();
    let (one, two) = (world.signed_in().await, world.signed_in().await);
    let headers = request([value(&one), value(&two)]);
    let sessions = world.manager.begin(&headers);
    sessions.session().await.unwrap().destroy();
    world
        .store
        .next("delete", Fault::Fail(ErrorKind::Unavailable));
    let mut response = HeaderMap::new();
    let errors = sessions.finish(&mut response).await.unwrap_err();
    let (_, error) = errors.iter().next().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(set_cookies(&response).is_empty());
    sign_out(&world.manager, &headers).await;
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_twin_that_is_changed_during_a_sign_out_is_ended_all_the_same() {
    let world = World::new();
    let (one, two) = (world.signed_in().await, world.signed_in().await);
    let headers = request([value(&one), value(&two)]);
    let sessions = world.manager.begin(&headers);
    sessions.session().await.unwrap().destroy();
    let mut beside = two.clone();
    let change = async move {
        let insert = |session: &Session| session.insert("more", &1);
        beside.visit(insert).await.unwrap();
    };
    world.store.next("delete", Fault::After(Box::pin(change)));
    sessions.finish(&mut HeaderMap::new()).await.unwrap();
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_sign_out_ends_what_cannot_be_read_too() {
    let config = |config: SessionConfig| config.on_unreadable(OnUnreadable::BeginAnew);
    let world = World::configured(config);
    let (one, two) = (world.signed_in().await, world.signed_in().await);
    let live = world.signed_in().await;
    // Under other settings than those that wrote it, data cannot be read.
    let readable = SessionConfig::new(Arc::clone(&world.store)).insecure_readable_at_rest();
    let other = SessionManager::builder(world.keyring.clone())
        .clock(world.clock.clone())
        .session("session", config(readable))
        .build()
        .unwrap();
    sign_out(&other, &request([value(&one), value(&two)])).await;
    assert_eq!(world.store.inner.len(), 1);
    let mut readable = live.clone();
    readable.manager = other.clone();
    readable.jar.clear();
    let insert = |session: &Session| session.insert("key", &1);
    readable.visit(insert).await.unwrap();
    sign_out(&other, &request([value(&live), value(&readable)])).await;
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn of_two_cookies_of_sessions_that_live_the_first_counts() {
    let world = World::new();
    let (mut one, mut two) = (world.signed_in().await, world.signed_in().await);
    for (browser, name) in [(&mut one, "one"), (&mut two, "two")] {
        let insert = |session: &Session| session.insert("user", name);
        browser.visit(insert).await.unwrap();
    }
    for (first, second, name) in [(&one, &two, "one"), (&two, &one, "two")] {
        let headers = request([value(first), value(second)]);
        let session = world.manager.begin(&headers).session().await.unwrap();
        assert_eq!(user(&session).as_deref(), Some(name));
    }
}

#[tokio::test]
async fn a_request_that_does_not_sign_out_leaves_the_other_sessions_alone() {
    let world = World::new();
    let (one, two) = (world.signed_in().await, world.signed_in().await);
    let sessions = world.manager.begin(&request([value(&one), value(&two)]));
    world.store.forget_calls();
    let session = sessions.session().await.unwrap();
    session.renew();
    sessions.finish(&mut HeaderMap::new()).await.unwrap();
    assert_eq!(world.store.calls(), ["load", "update"]);
    let headers = request([value(&two)]);
    assert_eq!(origin(&world.manager, &headers).await, Origin::Stored);
}

fn options() -> CookieOptions {
    CookieOptions::new("id").unwrap()
}

/// The same application with another cookie.
fn with_cookie(world: &World, cookie: CookieOptions) -> SessionManager {
    SessionManager::builder(world.keyring.clone())
        .clock(world.clock.clone())
        .session(
            "session",
            SessionConfig::new(Arc::clone(&world.store)).cookie(cookie),
        )
        .build()
        .unwrap()
}

/// Signs in, changes the configuration, signs out and in again; `old` is where the cookie was.
async fn expect_no_login_loop(before: CookieOptions, after: CookieOptions, old: &str) {
    let world = World::configured(|config| config.cookie(before));
    let mut jar = Jar::default();
    let sign_in = |name: &'static str| {
        move |session: &Session| {
            session.renew();
            session.insert("user", name).unwrap();
        }
    };
    jar.visit(&world.manager, old, sign_in("old")).await;
    // It ends without the browser being told.
    world.clock.advance(2 * DAY);
    let changed = with_cookie(&world, after.clone());
    jar.visit(&changed, "/login", sign_in("new")).await;
    for path in ["/", old, "/", old] {
        let seen = jar.visit(&changed, path, user).await;
        assert_eq!(seen.as_deref(), Some("new"), "{path}");
    }
    assert_eq!(jar.0.len(), 1, "the old cookie is gone: {:?}", jar.0);

    // The one in the old place is alive, and the first one to be sent.
    let mut jar = Jar::default();
    jar.visit(&world.manager, old, sign_in("old")).await;
    jar.visit(&changed, "/login", sign_in("new")).await;
    let seen = jar.visit(&changed, old, user).await;
    for path in [old, "/", old] {
        assert_eq!(jar.visit(&changed, path, user).await, seen, "{path}");
    }
    assert_eq!(jar.0.len(), 1, "{:?}", jar.0);
    jar.visit(&changed, "/", Session::destroy).await;
    assert_eq!(jar.0, []);

    // A sign-out removes also what was not sent to it.
    for signs_in in [true, false] {
        let mut jar = Jar::default();
        jar.visit(&world.manager, old, sign_in("old")).await;
        if signs_in {
            jar.visit(&changed, "/", sign_in("new")).await;
        }
        jar.visit(&changed, "/", Session::destroy).await;
        assert_eq!(jar.0, []);
    }
}

#[tokio::test]
async fn a_change_of_path_makes_no_login_loop() {
    let before = options().path("/app");
    let after = options().also_remove("/app", None);
    expect_no_login_loop(before, after, "/app/page").await;
}

#[tokio::test]
async fn a_change_of_domain_makes_no_login_loop() {
    let domain = || options().domain("example.com");
    let after = domain().also_remove("/", None);
    expect_no_login_loop(options(), after, "/page").await;
    let after = options().also_remove("/", Some("example.com"));
    expect_no_login_loop(domain(), after, "/page").await;
}

#[tokio::test]
async fn a_cookie_in_an_old_place_is_removed_with_its_path_and_domain() {
    let after = options()
        .also_remove("/app", None)
        .also_remove("/", Some("example.com"));
    let world = World::configured(|config| config.cookie(after));
    let mut browser = world.signed_in().await;
    assert_eq!(
        browser.set_cookies().len(),
        1,
        "a request without a cookie brought none that is old"
    );
    browser.visit(|session| session.destroy()).await;
    let gone = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    let expected = [
        format!("id=; HttpOnly; SameSite=Lax; Secure; Path=/app; {gone}"),
        format!("id=; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; {gone}"),
        format!("id=; HttpOnly; SameSite=Lax; Secure; Path=/; {gone}"),
    ];
    assert_eq!(browser.set_cookies(), expected);
}

#[tokio::test]
async fn of_two_cookies_the_one_of_the_session_is_sent_once_more_unless_it_was_renewed_meanwhile() {
    let world = World::configured(|config| config.cookie(options().also_remove("/app", None)));
    let browser = world.signed_in().await;
    let own = browser.jar["id"].clone();
    let line = format!("id=old; id={own}");
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, line.parse().unwrap());

    let sessions = world.manager.begin(&headers);
    sessions.session().await.unwrap();
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.unwrap();
    let cookies = set_cookies(&response);
    assert!(cookies[0].starts_with("id=; ") && cookies[0].contains("Path=/app; Max-Age=0"));
    assert!(cookies[1].starts_with(&format!("id={own}; ")));
    assert_eq!(cookies.len(), 2);
    assert_eq!(response["cache-control"], "no-store");

    let sessions = world.manager.begin(&headers);
    sessions.session().await.unwrap();
    browser.clone().visit(|session| session.renew()).await;
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.unwrap();
    assert!(set_cookies(&response).is_empty());
}

#[test]
fn an_old_place_that_no_browser_has_or_that_is_in_use_is_refused() {
    let host = CookieOptions::default;
    let base = || options().domain("example.com");
    let many = (0..5).fold(base(), |options, number| {
        options.also_remove(format!("/{number}"), None)
    });
    for refused in [
        host().also_remove("/app", None),
        host().also_remove("/", Some("example.com")),
        base().also_remove("/", Some("example.com")),
        base().also_remove("/", Some("EXAMPLE.com")),
        options().also_remove("/", None),
        base().also_remove("app", None),
        base().also_remove("/a;b", None),
        base().also_remove("/", Some("")),
        base().also_remove("/", Some("a b")),
        many,
    ] {
        let error = refused.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused:?}");
    }
    assert!(base().also_remove("/", None).validate().is_ok());
}

/// Sessions in cookies, with a list of those that have ended.
struct Listed {
    list: Arc<SpyStore>,
    keyring: Keyring,
    browser: Browser,
}

fn listed() -> Listed {
    let world = World::new();
    let clock = Arc::new(ManualClock::new(START));
    let (keyring, list) = (Keyring::new([key()]).unwrap(), world.store.clone());
    let store = CookieStore::new(keyring.clone())
        .with_clock(clock.clone())
        .with_revocations(list.clone(), DAY)
        .unwrap();
    let mut browser = world.browser();
    browser.manager = SessionManager::builder(keyring.clone())
        .clock(clock)
        .session("session", SessionConfig::new(store))
        .build()
        .unwrap();
    Listed {
        list,
        keyring,
        browser,
    }
}

impl Listed {
    /// The cookie of a session, which has ended or not.
    async fn cookie(&self, lives: bool) -> String {
        let mut browser = self.browser.clone();
        let insert = |session: &Session| session.insert("user", "alice");
        browser.visit(insert).await.unwrap();
        let cookie = value(&browser).to_owned();
        if !lives {
            browser.visit(Session::destroy).await;
        }
        self.list.forget_calls();
        cookie
    }
}

#[tokio::test]
async fn the_list_is_asked_for_each_cookie_once_and_for_three_at_most() {
    let client = listed();
    let manager = &client.browser.manager;
    let live = client.cookie(true).await;
    let mut dead = Vec::new();
    for _ in 0..20 {
        dead.push(client.cookie(false).await);
    }
    let copies = request((0..504).map(|_| &*dead[0]).chain([&*live]));
    assert_eq!(origin(manager, &copies).await, Origin::Stored);
    assert_eq!(client.list.calls(), ["load", "load"]);

    let different = request(dead.iter().map(String::as_str));
    assert_eq!(origin(manager, &different).await, Origin::Ended);
    assert_eq!(client.list.calls(), ["load", "load", "load"]);

    // Values that we never made are not counted.
    let forged: Vec<_> = (0..500).map(|number| format!("{number:0>100}")).collect();
    let forged = forged.iter().map(String::as_str);
    let hidden = request(forged.chain([&*dead[0], &*dead[1], &*live]));
    assert_eq!(origin(manager, &hidden).await, Origin::Stored);
    assert_eq!(client.list.calls(), ["load", "load", "load"]);
}

#[tokio::test]
async fn a_sign_out_ends_every_session_of_the_cookies_of_a_client() {
    let client = listed();
    let manager = &client.browser.manager;
    let (one, two) = (client.cookie(true).await, client.cookie(true).await);
    sign_out(manager, &request([&*one, &*two])).await;
    for value in [one, two] {
        let origin = origin(manager, &request([&*value])).await;
        assert_eq!(origin, Origin::Ended);
    }
    drop(client.keyring);
}

#[tokio::test]
async fn each_pair_may_come_in_a_header_of_its_own() {
    let world = World::new();
    let browser = world.signed_in().await;
    let mut headers = HeaderMap::new();
    for line in [
        b"other=\xff\xfe".to_vec(),
        b"__Host-id=nonsense; \xa0".to_vec(),
        format!("\t__Host-id\t= {}\t", value(&browser)).into_bytes(),
        b"last=1".to_vec(),
    ] {
        headers.append(COOKIE, HeaderValue::from_bytes(&line).unwrap());
    }
    assert_eq!(origin(&world.manager, &headers).await, Origin::Stored);
    // One pair in two headers is none.
    let (head, tail) = value(&browser).split_at(10);
    let mut headers = HeaderMap::new();
    for line in [format!("__Host-id={head}"), tail.to_owned()] {
        headers.append(COOKIE, line.parse().unwrap());
    }
    assert_eq!(origin(&world.manager, &headers).await, Origin::Rejected);
}

#[tokio::test]
async fn a_token_outside_of_the_cookie_header_is_not_read() {
    let world = World::new();
    let browser = world.signed_in().await;
    let pair = format!("__Host-id={}", value(&browser));
    let names = [
        "authorization",
        "cookie2",
        "set-cookie",
        "x-cookie",
        "x-session-id",
        "__host-id",
        "referer",
    ];
    let mut headers = HeaderMap::new();
    for name in names {
        headers.append(name, pair.parse().unwrap());
        headers.append(name, value(&browser).parse().unwrap());
    }
    assert_eq!(origin(&world.manager, &headers).await, Origin::NoCookie);
    assert!(world.store.calls().is_empty());
}
