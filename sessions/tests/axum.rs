//! The tower layer and the axum extractors.

use std::{convert::Infallible, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Path,
    http::{HeaderMap, Request, Response, StatusCode, header},
    middleware,
    routing::get,
};
use bytes::Bytes;
use sessionkit::{
    Capabilities, Error, ErrorKind, Failure, Key, Keyring, MemoryStore, Record, Result, Revision,
    Session, SessionConfig, SessionLayer, SessionManager, SessionManagerBuilder, SessionRejection,
    SessionStore, Sessions, Subject, SubjectIndex, Timestamp, Token,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, cors::CorsLayer,
    timeout::TimeoutLayer, trace::TraceLayer,
};

/// Has the sessions of another store until it breaks.
#[derive(Debug, Default)]
struct Breakable {
    inner: MemoryStore,
    broken: std::sync::atomic::AtomicBool,
    ends_before_update: std::sync::atomic::AtomicBool,
    fails_on_delete: std::sync::atomic::AtomicBool,
}

impl Breakable {
    fn break_down(&self) {
        self.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// As if another request signed out at the worst moment.
    fn end_before_the_next_update(&self) {
        self.ends_before_update
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn fail_the_next_delete(&self) {
        self.fails_on_delete
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(ErrorKind::Unavailable.into());
        }
        Ok(())
    }
}

#[async_trait]
impl SessionStore for Breakable {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, token: Token, record: &Record) -> Result<Token> {
        self.check()?;
        self.inner.create(token, record).await
    }

    async fn load(&self, token: &Token) -> Result<Option<Record>> {
        self.check()?;
        self.inner.load(token).await
    }

    async fn update(&self, token: &Token, expected: Revision, record: &Record) -> Result<Token> {
        self.check()?;
        if self
            .ends_before_update
            .swap(false, std::sync::atomic::Ordering::SeqCst)
        {
            self.inner.delete(token, None).await?;
        }
        self.inner.update(token, expected, record).await
    }

    async fn touch(&self, token: &Token, expires_at: Timestamp) -> Result<Token> {
        self.check()?;
        self.inner.touch(token, expires_at).await
    }

    async fn delete(&self, token: &Token, expected: Option<Revision>) -> Result<bool> {
        self.check()?;
        if self
            .fails_on_delete
            .swap(false, std::sync::atomic::Ordering::SeqCst)
        {
            return Err(ErrorKind::Unavailable.into());
        }
        self.inner.delete(token, expected).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.check()?;
        self.inner.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.check()?;
        self.inner.ping().await
    }

    fn subjects(&self) -> Option<&dyn SubjectIndex> {
        self.inner.subjects()
    }
}

struct App {
    store: Arc<Breakable>,
    router: Router,
}

fn app(f: impl FnOnce(SessionManagerBuilder) -> SessionManagerBuilder) -> App {
    let store = Arc::new(Breakable::default());
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let builder =
        SessionManager::builder(keyring).session("session", SessionConfig::new(Arc::clone(&store)));
    let manager = f(builder).build().expect("the configuration works");
    let router = Router::new()
        .route("/plain", get(async || "plain"))
        .route("/count", get(count))
        .route("/look", get(look))
        .route("/read", get(read))
        .route("/recover", get(recover))
        .layer(SessionLayer::new(manager));
    App { store, router }
}

async fn count(session: Session) -> Result<String, SessionRejection> {
    let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1);
    Ok(count.expect("the count is a number").to_string())
}

/// A handler that changes nothing, so that nothing is saved after it.
async fn look(session: Session) -> Result<String> {
    let count = session.get::<u32>("count")?;
    Ok(count.unwrap_or_default().to_string())
}

/// A handler that leaves every error to the library.
async fn read(session: Session) -> Result<String> {
    session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
    let text = session.get::<String>("count")?;
    Ok(text.unwrap_or_default())
}

/// A handler that changes its session, reads the messages and fails.
async fn fail(session: Session, Path(way): Path<String>) -> StatusCode {
    session.insert("half", &1).expect("a number is a value");
    let messages = session.flashes::<String>();
    assert_eq!(messages.expect("messages are texts").len(), 1);
    match way.as_str() {
        "saved" => drop(session.save().await.expect("it is saved")),
        "renewed" => session.renew(),
        "signed-in" => {
            let alice = Subject::new("alice").expect("a name is a subject");
            session.sign_in(alice).expect("the store has an index");
        }
        "ended" => {
            session.destroy();
            session
                .flash("you have been signed out")
                .expect("a text is a value");
        }
        "panicking" => panic!("a test of panics"),
        "not-found" => return StatusCode::NOT_FOUND,
        _ => {}
    }
    StatusCode::BAD_GATEWAY
}

/// A handler that does without its session when there is none to be had.
async fn recover(sessions: Sessions) -> String {
    match sessions.session().await {
        Ok(_) => "session".to_owned(),
        Err(error) => format!("no session: {error}"),
    }
}

impl App {
    async fn get(&self, path: &str, cookie: Option<&str>) -> Response<Body> {
        let mut request = Request::get(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Body::empty()).expect("the request is valid");
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("axum does not fail")
    }

    async fn cookie(&self) -> String {
        cookie_of(&self.get("/count", None).await)
    }
}

fn cookie_of(response: &Response<Body>) -> String {
    let cookie = response.headers()[header::SET_COOKIE]
        .to_str()
        .expect("cookies are ASCII");
    cookie
        .split(';')
        .next()
        .expect("there is a first part")
        .to_owned()
}

async fn body(response: Response<Body>) -> Bytes {
    to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("the body is in memory")
}

#[tokio::test]
async fn a_handler_is_given_its_session() {
    let app = app(|builder| builder);
    let cookie = app.cookie().await;
    for expected in ["2", "3"] {
        let response = app.get("/count", Some(&cookie)).await;
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::VARY], "cookie");
        assert_eq!(body(response).await, expected);
    }
}

#[tokio::test]
async fn a_layer_twice_around_a_handler_is_one() {
    let keyring = Keyring::new([Key::generate().unwrap()]).unwrap();
    let manager = SessionManager::new(MemoryStore::new(), keyring).unwrap();
    let nested = Router::new()
        .route("/", get(count))
        .layer(SessionLayer::new(manager.clone()));
    let router = Router::new()
        .nest("/count", nested)
        .layer(middleware::from_fn(
            async |session: Session, request: Request<Body>, next: middleware::Next| {
                session.insert("outer", &1).expect("a number is a value");
                next.run(request).await
            },
        ))
        .layer(SessionLayer::new(manager));
    let request = Request::get("/count").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let cookies = response.headers().get_all(header::SET_COOKIE);
    assert_eq!(cookies.iter().count(), 1);
}

#[tokio::test]
async fn a_handler_whose_changes_were_dropped_does_not_answer_for_them() {
    let app = app(|builder| builder);
    let cookie = app.cookie().await;
    // Another request ends the session while the handler works on it.
    app.store.end_before_the_next_update();
    let response = app.get("/count", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert!(response.headers().get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn a_handler_without_a_session_is_left_alone() {
    let app = app(|builder| builder);
    let cookie = app.cookie().await;
    app.store.break_down();
    let response = app.get("/plain", Some(&cookie)).await;
    assert!(response.headers().get(header::VARY).is_none());
    assert_eq!(body(response).await, "plain");
}

#[tokio::test]
async fn a_store_that_fails_on_load_is_an_empty_503_that_clears_nothing() {
    let app = app(|builder| builder);
    let cookie = app.cookie().await;
    app.store.break_down();
    for path in ["/look", "/count"] {
        let response = app.get(path, Some(&cookie)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert!(response.headers().get(header::SET_COOKIE).is_none());
        assert!(body(response).await.is_empty());
    }
}

#[tokio::test]
async fn a_save_that_fails_replaces_the_response() {
    let app = app(|builder| builder);
    app.store.break_down();
    // Without a cookie nothing is loaded: the creation is the first to fail.
    let response = app.get("/count", None).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().get(header::SET_COOKIE).is_none());
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn the_application_may_choose_the_response_to_a_failure() {
    let app = app(|builder| {
        builder.on_failure(|failure| {
            let text = match failure {
                Failure::Load(error) => format!("cannot load: {error}"),
                Failure::Save(errors) => format!("cannot save: {errors}"),
                _ => return None,
            };
            let mut response = Response::new(Bytes::from(text));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            Some(response)
        })
    });
    let cookie = app.cookie().await;
    app.store.break_down();
    let load = app.get("/count", Some(&cookie)).await;
    assert_eq!(load.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(
        body(load).await,
        "cannot load: the session store is not available"
    );
    let save = app.get("/count", None).await;
    let expected = "cannot save: sessions could not be saved: \"session\": \
                    the session store is not available";
    assert_eq!(body(save).await, expected);
}

#[tokio::test]
async fn the_application_may_keep_its_response_to_a_failed_save() {
    let app = app(|builder| builder.on_failure(|_| None));
    let cookie = app.cookie().await;
    app.store.break_down();
    let response = app.get("/count", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().get(header::SET_COOKIE).is_none());
    // There is no response to keep yet when a session cannot be loaded.
    let response = app.get("/count", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_handler_may_do_without_a_session_that_fails() {
    let app = app(|builder| builder);
    let cookie = app.cookie().await;
    app.store.break_down();
    let response = app.get("/recover", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        body(response).await,
        "no session: the session store is not available"
    );
}

#[tokio::test]
async fn a_missing_layer_is_said_in_the_response() {
    let router: Router = Router::new().route("/", get(async |_: Session| "unreachable"));
    let request = Request::get("/")
        .body(Body::empty())
        .expect("the request is valid");
    let response = router.oneshot(request).await.expect("axum does not fail");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body(response).await.ends_with(b"there is no SessionLayer"));
}

#[tokio::test]
async fn an_error_of_the_inner_service_passes_through() {
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let manager = SessionManager::new(MemoryStore::new(), keyring).expect("it works");
    let failing = service_fn(async |_: Request<()>| {
        Err::<Response<Body>, Error>(ErrorKind::Unsupported.into())
    });
    let service = ServiceBuilder::new()
        .layer(SessionLayer::new(manager))
        .service(failing);
    let error = service
        .oneshot(Request::new(()))
        .await
        .expect_err("the service fails");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn plain_tower_services_find_the_sessions_in_the_request() {
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let manager = SessionManager::new(MemoryStore::new(), keyring).expect("it works");
    let service = service_fn(async |request: Request<()>| {
        let sessions = request
            .extensions()
            .get::<Sessions>()
            .expect("the layer is there");
        let session = sessions.session().await.expect("memory does not fail");
        session.insert("key", &1).expect("a number is a value");
        Ok::<_, Infallible>(Response::new(Bytes::new()))
    });
    let service = ServiceBuilder::new()
        .layer(SessionLayer::new(manager))
        .service(service);
    let response = service
        .oneshot(Request::new(()))
        .await
        .expect("it does not fail");
    assert!(response.headers().contains_key(header::SET_COOKIE));
}

#[tokio::test]
async fn a_streamed_body_can_change_a_session_but_not_begin_one() {
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let manager = SessionManager::new(MemoryStore::new(), keyring).expect("it works");
    let handed_out = Arc::new(std::sync::Mutex::new(None));
    let keep = Arc::clone(&handed_out);
    let handler = get(async move |session: Session| {
        *keep.lock().expect("no test panics with the lock") = Some(session);
    });
    let router: Router = Router::new()
        .route("/", handler)
        .route("/count", get(count))
        .layer(SessionLayer::new(manager));
    let app = App {
        store: Arc::default(),
        router,
    };
    let session = || {
        handed_out
            .lock()
            .expect("no test panics with the lock")
            .take()
            .expect("it was called")
    };

    app.get("/", None).await;
    let new = session();
    new.insert("late", &1).expect("a number is a value");
    assert_eq!(
        new.save().await.expect_err("it has no cookie").kind(),
        ErrorKind::Unsupported
    );

    let cookie = app.cookie().await;
    app.get("/", Some(&cookie)).await;
    let known = session();
    known.insert("late", &1).expect("a number is a value");
    assert_eq!(
        known.save().await.expect("it is saved"),
        sessionkit::Saved::Stored
    );
}

#[tokio::test]
async fn an_error_of_the_library_answers_for_itself() {
    let app = app(|builder| builder);
    let response = app.get("/read", None).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    // As any response of 5xx it stores nothing.
    assert!(!response.headers().contains_key(header::SET_COOKIE));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert!(body(response).await.is_empty());
}

#[tokio::test]
async fn the_application_chooses_what_is_answered_to_an_error_of_its_handler() {
    let app = app(|builder| {
        builder.on_failure(|failure| match failure {
            Failure::Handler(error) => {
                let text = format!("{:?}: {error}", error.kind());
                Some(Response::new(Bytes::from(text)))
            }
            _ => None,
        })
    });
    let response = app.get("/read", None).await;
    let text = body(response).await;
    assert!(text.starts_with(b"InvalidValue: "), "{text:?}");
}

/// The layers of tower-http around the sessions and inside of them, over a body that was boxed.
#[tokio::test]
async fn the_layers_of_tower_http_fit_on_both_sides() {
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let store = Arc::new(Breakable::default());
    let manager = SessionManager::new(Arc::clone(&store), keyring).expect("it works");
    let minute = std::time::Duration::from_secs(60);
    let status = StatusCode::REQUEST_TIMEOUT;
    let service = service_fn(async |request: Request<Body>| {
        let sessions = request.extensions().get::<Sessions>().expect("the layer");
        let session = sessions.session().await.expect("nothing to load");
        session.insert("key", &1).expect("a number is a value");
        let text = "a text that is long enough to be worth compressing. ".repeat(64);
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    });
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(status, minute))
        .layer(CorsLayer::permissive())
        .layer(SessionLayer::new(manager))
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(CompressionLayer::new())
        .layer(TraceLayer::new_for_http())
        .layer(CatchPanicLayer::new())
        .layer(TimeoutLayer::with_status_code(status, minute))
        .service(service);
    let request = || {
        let request = Request::get("/").header(header::ACCEPT_ENCODING, "gzip");
        request.body(Body::empty()).expect("the request is valid")
    };
    let response = service.clone().oneshot(request()).await.expect("it works");
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(response.headers().contains_key(header::SET_COOKIE));
    let compressed = to_bytes(Body::new(response.into_body()), 1 << 20)
        .await
        .expect("the body is in memory");
    assert!(compressed.starts_with(&[0x1f, 0x8b]), "{compressed:?}");

    store.break_down();
    let response = service.oneshot(request()).await.expect("it works");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let empty = to_bytes(Body::new(response.into_body()), 1 << 20)
        .await
        .expect("the body is in memory");
    assert!(empty.is_empty(), "{empty:?}");
}

/// An app, the cookie of a session with a count and a message, and a way to look into it.
async fn with_a_message() -> (App, String, SessionManager) {
    let store = Arc::new(Breakable::default());
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let manager = SessionManager::new(Arc::clone(&store), keyring).expect("it works");
    let router = Router::new()
        .route("/count", get(count))
        .route("/fail/{way}", get(fail))
        .layer(SessionLayer::new(manager.clone()));
    let app = App { store, router };
    let cookie = app.cookie().await;
    let sessions = manager.begin(&cookies(&cookie));
    let session = sessions.session().await.expect("memory does not fail");
    session.flash("hello").expect("a text is a value");
    let mut headers = HeaderMap::new();
    sessions
        .finish(&mut headers)
        .await
        .expect("memory does not fail");
    (app, cookie, manager)
}

fn cookies(cookie: &str) -> HeaderMap {
    let value = cookie.parse().expect("cookies are ASCII");
    [(header::COOKIE, value)].into_iter().collect()
}

async fn session(manager: &SessionManager, cookie: &str) -> Session {
    let sessions = manager.begin(&cookies(cookie));
    sessions.session().await.expect("memory does not fail")
}

#[tokio::test]
async fn a_response_that_says_the_server_failed_stores_nothing_of_its_handler() {
    for way in ["half-way", "signed-in", "renewed"] {
        let (app, cookie, manager) = with_a_message().await;
        let response = app.get(&format!("/fail/{way}"), Some(&cookie)).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert!(response.headers().get(header::SET_COOKIE).is_none());
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let after = session(&manager, &cookie).await;
        assert_eq!(after.keys(), ["count"], "{way}");
        assert_eq!(after.subject(), None);
        // The page that would have shown it was not seen.
        assert_eq!(after.flashes::<String>().expect("texts"), ["hello"]);
    }
}

#[tokio::test]
async fn a_panic_stores_nothing_either() {
    let (app, cookie, manager) = with_a_message().await;
    let router = app.router.clone();
    let request = Request::get("/fail/panicking").header(header::COOKIE, &cookie);
    let request = request.body(Body::empty()).expect("it is valid");
    let panicked = tokio::spawn(router.oneshot(request)).await;
    assert!(panicked.is_err_and(|error| error.is_panic()));
    let after = session(&manager, &cookie).await;
    assert_eq!(after.keys(), ["count"]);
    assert_eq!(after.flashes::<String>().expect("texts"), ["hello"]);
}

#[tokio::test]
async fn what_a_failing_handler_has_saved_itself_is_stored() {
    let (app, cookie, manager) = with_a_message().await;
    app.get("/fail/saved", Some(&cookie)).await;
    assert_eq!(session(&manager, &cookie).await.keys(), ["count", "half"]);
}

#[tokio::test]
async fn a_session_that_a_failing_handler_has_ended_is_ended() {
    let (app, cookie, manager) = with_a_message().await;
    let response = app.get("/fail/ended", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let removal = response.headers()[header::SET_COOKIE].to_str();
    assert!(removal.expect("cookies are ASCII").contains("Max-Age=0"));
    assert!(session(&manager, &cookie).await.is_new());
    assert!(app.store.inner.is_empty(), "no other session was begun");
    // Where it cannot be ended, the response says that.
    let (app, cookie, _) = with_a_message().await;
    app.store.fail_the_next_delete();
    let response = app.get("/fail/ended", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn a_response_that_says_the_client_failed_stores_what_its_handler_did() {
    let (app, cookie, manager) = with_a_message().await;
    let response = app.get("/fail/not-found", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let after = session(&manager, &cookie).await;
    assert_eq!(after.keys(), ["count", "half"]);
    assert!(after.flashes::<String>().expect("texts").is_empty());
}

#[tokio::test]
async fn the_layer_tells_a_head_request_from_others() {
    let (app, cookie, manager) = with_a_message().await;
    let request = Request::head("/fail/not-found").header(header::COOKIE, &cookie);
    let request = request.body(Body::empty()).expect("it is valid");
    let response = app.router.clone().oneshot(request).await;
    assert_eq!(
        response.expect("axum does not fail").status(),
        StatusCode::NOT_FOUND
    );
    let after = session(&manager, &cookie).await;
    assert_eq!(after.flashes::<String>().expect("texts"), ["hello"]);
}
