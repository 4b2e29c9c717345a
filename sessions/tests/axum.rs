//! The tower layer and the axum extractors.

use std::{convert::Infallible, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
    middleware,
    routing::get,
};
use bytes::Bytes;
use sessionkit::{
    Capabilities, Error, ErrorKind, Failure, Key, Keyring, MemoryStore, Record, Result, Revision,
    Session, SessionConfig, SessionLayer, SessionManager, SessionManagerBuilder, SessionRejection,
    SessionStore, Sessions, SubjectIndex, Timestamp, Token,
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
        .route("/read", get(read))
        .route("/recover", get(recover))
        .layer(SessionLayer::new(manager));
    App { store, router }
}

async fn count(session: Session) -> Result<String, SessionRejection> {
    let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1);
    Ok(count.expect("the count is a number").to_string())
}

/// A handler that leaves every error to the library.
async fn read(session: Session) -> Result<String> {
    session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
    let text = session.get::<String>("count")?;
    Ok(text.unwrap_or_default())
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
    let response = app.get("/count", Some(&cookie)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert!(response.headers().get(header::SET_COOKIE).is_none());
    assert!(body(response).await.is_empty());
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
    assert!(response.headers().contains_key(header::SET_COOKIE));
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
    assert!(response.headers().contains_key(header::SET_COOKIE));
    let text = body(response).await;
    assert!(text.starts_with(b"InvalidValue: "), "{text:?}");
}

#[tokio::test]
async fn a_save_that_fails_counts_for_more_than_the_error_of_the_handler() {
    let app = app(|builder| builder);
    app.store.break_down();
    let response = app.get("/read", None).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
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
