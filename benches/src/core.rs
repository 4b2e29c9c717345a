use std::{convert::Infallible, hint::black_box, time::Instant};

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, KeyInit as _, Payload},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::{Cookie, CookieJar};
use hmac::{Hmac, Mac};
use http::{HeaderMap, Request, Response};
use sessionkit::{
    CookieOptions, Entropy, Key, Keyring, MemoryStore, OsEntropy, SessionConfig, SessionLayer,
    SessionManager, Sessions,
};
use sessionkit_cookie::CookieStore;
use sha2::Sha256;
use tower::{Service, ServiceBuilder, service_fn};

use crate::{
    measure::{Comparison, time},
    payload::{Visitor, visitor},
};

const COUNT: usize = 5_000;

pub async fn run(rounds: usize) {
    signed_value(rounds).await;
    sealed_value(rounds).await;
    layer(rounds).await;
}

pub fn manager(store: impl sessionkit::SessionStore) -> SessionManager {
    let keyring = Keyring::new([Key::generate().expect("random bytes")]).expect("one key");
    let cookie = CookieOptions::new("__Host-id").expect("a cookie name");
    SessionManager::builder(keyring)
        .session("session", SessionConfig::new(store).cookie(cookie))
        .build()
        .expect("the configuration works")
}

fn keyring() -> Keyring {
    Keyring::new([Key::generate().expect("random bytes")]).expect("one key")
}

/// Writes the visitor into a cookie-held session, and reads it from the cookie.
async fn round_trip(manager: &SessionManager, visitor: &Visitor) -> Visitor {
    let sessions = manager.begin(&HeaderMap::new());
    let session = sessions.session().await.expect("it is new");
    session.insert("visitor", visitor).expect("it is a value");
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await.expect("it fits");
    let cookie = response["set-cookie"].to_str().expect("it is ASCII");
    let pair = cookie.split(';').next().expect("there is a first part");
    let mut request = HeaderMap::new();
    request.insert("cookie", pair.parse().expect("it is a header value"));
    let sessions = manager.begin(&request);
    let session = sessions.session().await.expect("it is ours");
    session
        .get("visitor")
        .expect("it is a visitor")
        .expect("it is there")
}

async fn round_trips(manager: SessionManager, visitor: Visitor) -> f64 {
    let start = Instant::now();
    for _ in 0..COUNT {
        black_box(round_trip(&manager, &visitor).await);
    }
    start.elapsed().as_nanos() as f64 / COUNT as f64
}

async fn signed_value(rounds: usize) {
    let mac = Hmac::<Sha256>::new_from_slice(&[9; 32]).expect("any length will do");
    let key = cookie::Key::generate();
    let ours = manager(CookieStore::signed_only(keyring()));
    Comparison::new("cookie value, signed, written and read")
        .add("MessagePack + HMAC-SHA-256 + base64", move || {
            let (mac, visitor) = (mac.clone(), visitor());
            async move {
                time(COUNT, || {
                    let mut bytes = rmp_serde::to_vec_named(&visitor).expect("it is a value");
                    let tag = mac.clone().chain_update(&bytes).finalize().into_bytes();
                    bytes.extend_from_slice(&tag);
                    let value = URL_SAFE_NO_PAD.encode(&bytes);
                    let bytes = URL_SAFE_NO_PAD
                        .decode(black_box(value))
                        .expect("it is base64");
                    let (body, tag) = bytes.split_at(bytes.len() - 32);
                    mac.clone()
                        .chain_update(body)
                        .verify_slice(tag)
                        .expect("it is ours");
                    black_box(rmp_serde::from_slice::<Visitor>(body).expect("it is a visitor"));
                })
            }
        })
        .add("sessionkit, whole request and response", move || {
            let (ours, visitor) = (ours.clone(), visitor());
            round_trips(ours, visitor)
        })
        .add("cookie signed jar + JSON", move || {
            let (key, visitor) = (key.clone(), visitor());
            async move {
                time(COUNT, || {
                    let json = serde_json::to_string(&visitor).expect("it is a value");
                    let mut jar = CookieJar::new();
                    jar.signed_mut(&key).add(Cookie::new("id", json));
                    let value = jar.get("id").expect("it was added").encoded().to_string();
                    let mut jar = CookieJar::new();
                    jar.add_original(Cookie::parse_encoded(black_box(value)).expect("it is ours"));
                    let cookie = jar.signed(&key).get("id").expect("it is ours");
                    black_box(serde_json::from_str::<Visitor>(cookie.value()).expect("a visitor"));
                })
            }
        })
        .print(rounds)
        .await;
}

async fn sealed_value(rounds: usize) {
    let aead = Aes256Gcm::new(&[9; 32].into());
    let key = cookie::Key::generate();
    let ours = manager(CookieStore::new(keyring()));
    Comparison::new("cookie value, sealed, written and read")
        .add("MessagePack + AES-256-GCM + base64", move || {
            let (aead, visitor) = (aead.clone(), visitor());
            async move {
                time(COUNT, || {
                    let bytes = rmp_serde::to_vec_named(&visitor).expect("it is a value");
                    let mut nonce = [0; 12];
                    OsEntropy.fill(&mut nonce).expect("random bytes");
                    let payload = Payload {
                        msg: &bytes,
                        aad: b"__Host-id",
                    };
                    let mut sealed = nonce.to_vec();
                    sealed.extend(aead.encrypt(&nonce.into(), payload).expect("it is short"));
                    let value = URL_SAFE_NO_PAD.encode(&sealed);
                    let bytes = URL_SAFE_NO_PAD
                        .decode(black_box(value))
                        .expect("it is base64");
                    let (nonce, sealed) = bytes.split_at(12);
                    let nonce: [u8; 12] = nonce.try_into().expect("12 bytes");
                    let payload = Payload {
                        msg: sealed,
                        aad: b"__Host-id",
                    };
                    let bytes = aead.decrypt(&nonce.into(), payload).expect("it is ours");
                    black_box(rmp_serde::from_slice::<Visitor>(&bytes).expect("it is a visitor"));
                })
            }
        })
        .add("sessionkit, whole request and response", move || {
            let (ours, visitor) = (ours.clone(), visitor());
            round_trips(ours, visitor)
        })
        .add("cookie private jar + JSON", move || {
            let (key, visitor) = (key.clone(), visitor());
            async move {
                time(COUNT, || {
                    let json = serde_json::to_string(&visitor).expect("it is a value");
                    let mut jar = CookieJar::new();
                    jar.private_mut(&key).add(Cookie::new("id", json));
                    let value = jar.get("id").expect("it was added").encoded().to_string();
                    let mut jar = CookieJar::new();
                    jar.add_original(Cookie::parse_encoded(black_box(value)).expect("it is ours"));
                    let cookie = jar.private(&key).get("id").expect("it is ours");
                    black_box(serde_json::from_str::<Visitor>(cookie.value()).expect("a visitor"));
                })
            }
        })
        .print(rounds)
        .await;
}

#[derive(Clone, Copy)]
enum Visit {
    Nothing,
    Read,
    Increment,
}

async fn respond(request: Request<()>, visit: Visit) -> Result<Response<bytes::Bytes>, Infallible> {
    if let Some(sessions) = request.extensions().get::<Sessions>() {
        match visit {
            Visit::Nothing => {}
            Visit::Read => {
                let session = sessions.session().await.expect("memory does not fail");
                black_box(session.get::<u64>("count").expect("it is a number"));
            }
            Visit::Increment => {
                let session = sessions.session().await.expect("memory does not fail");
                let count = |count: Option<u64>| count.unwrap_or(0) + 1;
                session.update("count", count).expect("it is a number");
            }
        }
    }
    Ok(Response::new(bytes::Bytes::new()))
}

/// What the layer adds to a service that does nothing.
async fn layer(rounds: usize) {
    let manager = manager(MemoryStore::new());
    let first = manager.begin(&HeaderMap::new());
    let session = first.session().await.expect("it is new");
    session.insert("count", &1_u64).expect("it is a value");
    let mut response = HeaderMap::new();
    first
        .finish(&mut response)
        .await
        .expect("memory does not fail");
    let cookie = response["set-cookie"].to_str().expect("it is ASCII");
    let cookie = cookie
        .split(';')
        .next()
        .expect("there is a first part")
        .to_owned();

    let bare = || async {
        let mut service = service_fn(|request| respond(request, Visit::Nothing));
        let start = Instant::now();
        for _ in 0..COUNT {
            black_box(service.call(Request::new(())).await).expect("it does not fail");
        }
        start.elapsed().as_nanos() as f64 / COUNT as f64
    };
    let layered = |cookie: Option<String>, visit: Visit| {
        let manager = manager.clone();
        move || {
            let (manager, cookie) = (manager.clone(), cookie.clone());
            async move {
                let service = service_fn(move |request| respond(request, visit));
                let mut service = ServiceBuilder::new()
                    .layer(SessionLayer::new(manager))
                    .service(service);
                let header: Option<http::HeaderValue> =
                    cookie.map(|cookie| cookie.parse().expect("it is a header value"));
                let start = Instant::now();
                for _ in 0..COUNT {
                    let mut request = Request::new(());
                    if let Some(header) = &header {
                        request.headers_mut().insert("cookie", header.clone());
                    }
                    black_box(service.call(request).await).expect("it does not fail");
                }
                start.elapsed().as_nanos() as f64 / COUNT as f64
            }
        }
    };
    Comparison::new("a tower service in the same process")
        .add("without the layer", bare)
        .add(
            "no cookie, session untouched",
            layered(None, Visit::Nothing),
        )
        .add(
            "cookie, session untouched",
            layered(Some(cookie.clone()), Visit::Nothing),
        )
        .add(
            "cookie, value read",
            layered(Some(cookie.clone()), Visit::Read),
        )
        .add(
            "cookie, value incremented",
            layered(Some(cookie), Visit::Increment),
        )
        .print(rounds)
        .await;
}
