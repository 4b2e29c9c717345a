//! The plain-text interface for scripts.

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
    routing::{get, post, put},
};
use http::{HeaderMap, Method};
use serde::Deserialize;
use sessionkit::{Saved, Session};

use crate::{
    account::{self, User},
    error::{Error, Line, Params, Segment},
    user_agent,
};

pub(crate) const COUNTER: &str = "count";

/// Keeps the keys of scripts apart from those of the app: nobody signs in by setting `user`.
const PREFIX: &str = "key:";

const MAX_KEY: usize = 64;

const MAX_WAIT: Duration = Duration::from_secs(60);

pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/whoami", get(whoami))
        .route("/counter", get(counter).post(count))
        .route("/keys", get(keys))
        .route("/keys/{key}", put(put_key))
        .route("/slow/{key}", put(put_slowly))
        .route("/flash", get(flashes).post(flash))
        .route_layer(middleware::from_fn(marked))
}

/// Lets a change through only with a header that forms cannot send, and scripts of other sites only
/// when asked for by a preflight request, which nothing here answers.
async fn marked(request: Request, next: Next) -> Result<Response, Error> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe && !request.headers().contains_key("x-requested-with") {
        return Err(Error::Unmarked);
    }
    Ok(next.run(request).await)
}

#[derive(Debug, Deserialize)]
struct Login {
    user: Option<String>,
    remember: Option<String>,
}

async fn login(
    Params(login): Params<Login>,
    headers: HeaderMap,
    session: Session,
) -> Result<String, Error> {
    let user = User::new(&login.user.unwrap_or_default())?;
    let remember = match login.remember.as_deref() {
        Some("1") => true,
        None | Some("" | "0") => false,
        Some(_) => return Err(Error::invalid("remember is 1 or 0")),
    };
    account::sign_in(&session, &user, remember, user_agent::label(&headers))?;
    save(&session).await?;
    Ok(format!("user: {}", user.as_str()))
}

async fn logout(session: Session) -> &'static str {
    session.destroy();
    "anonymous"
}

async fn whoami(session: Session) -> Result<String, Error> {
    let user = User::of(&session)?;
    Ok(user.map_or_else(
        || "anonymous".to_owned(),
        |user| format!("user: {}", user.as_str()),
    ))
}

async fn counter(session: Session) -> Result<String, Error> {
    let count: u64 = session.get(COUNTER)?.unwrap_or(0);
    Ok(format!("count: {count}"))
}

async fn count(session: Session) -> Result<String, Error> {
    add_one(&session)?;
    // Others may have counted meanwhile: the number is known when it is stored.
    save(&session).await?;
    counter(session).await
}

pub(crate) fn add_one(session: &Session) -> sessionkit::Result<u64> {
    session.update(COUNTER, |count: Option<u64>| {
        count.unwrap_or(0).saturating_add(1)
    })
}

async fn keys(session: Session) -> Result<String, Error> {
    let keys = session.keys().into_iter();
    let lines = keys.filter_map(|key| {
        let name = key.strip_prefix(PREFIX)?;
        let value = session.get::<String>(&key).transpose()?;
        Some(value.map(|value| format!("{name}={value}\n")))
    });
    Ok(lines.collect::<sessionkit::Result<_>>()?)
}

async fn put_key(
    Segment(key): Segment,
    session: Session,
    Line(value): Line,
) -> Result<&'static str, Error> {
    set_key(&session, &key, &value).await
}

#[derive(Debug, Deserialize)]
struct Wait {
    ms: u64,
}

async fn put_slowly(
    Segment(key): Segment,
    Params(wait): Params<Wait>,
    session: Session,
    Line(value): Line,
) -> Result<&'static str, Error> {
    let wait = Duration::from_millis(wait.ms);
    if wait > MAX_WAIT {
        return Err(Error::invalid("ms is at most 60000"));
    }
    tokio::time::sleep(wait).await;
    set_key(&session, &key, &value).await
}

async fn set_key(session: &Session, key: &str, value: &str) -> Result<&'static str, Error> {
    let fits = (1..=MAX_KEY).contains(&key.len()) && !key.contains('=');
    if !fits || key.contains(char::is_control) {
        return Err(Error::invalid(
            "a key has 1 to 64 bytes, none of them = or a control character",
        ));
    }
    session.insert(&format!("{PREFIX}{key}"), value)?;
    save(session).await?;
    Ok("ok")
}

/// Saves now, so that nobody is told of a success that there is not.
async fn save(session: &Session) -> Result<(), Error> {
    match session.save().await? {
        Saved::Gone => Err(Error::Ended),
        Saved::Stored | Saved::Unchanged => Ok(()),
    }
}

#[derive(Debug, Deserialize)]
struct Queue {
    #[serde(default)]
    queue: String,
}

async fn flash(
    Params(Queue { queue }): Params<Queue>,
    session: Session,
    Line(message): Line,
) -> Result<&'static str, Error> {
    if queue.len() > MAX_KEY {
        return Err(Error::invalid("the name of a queue has at most 64 bytes"));
    }
    session.flash_to(&queue_name(&queue), &message)?;
    save(&session).await?;
    Ok("ok")
}

async fn flashes(
    Params(Queue { queue }): Params<Queue>,
    session: Session,
) -> Result<String, Error> {
    let messages = session.flashes_from::<String>(&queue_name(&queue))?;
    Ok(messages
        .iter()
        .map(|message| format!("{message}\n"))
        .collect())
}

/// The messages of scripts are not those of the pages.
fn queue_name(queue: &str) -> String {
    match queue {
        "" => String::new(),
        queue => format!("{PREFIX}{queue}"),
    }
}
