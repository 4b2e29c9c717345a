//! The pages for people, and the same as plain text.

use std::time::Duration;

use askama::Template;
use axum::{
    Router,
    extract::{self, Request},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Deserialize;
use sessionkit::{Custody, Persistence, Session, StoreKey, SubjectSession};

use crate::{
    account::{self, User},
    api,
    app::State,
    error::{Error, Fields, Params, Problem},
    format::Format,
    prefs::{Accent, Look, Prefs, Theme},
    user_agent,
};

const NAME: &str = "name";

const MAX_NAME: usize = 100;

const MINUTE: Duration = Duration::from_secs(60);

/// The queue of messages for the next page.
const NOTICES: &str = "notices";

/// Everything on a page comes from the app itself, and nothing on it is a script.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn router() -> Router<State> {
    Router::new()
        .route("/", get(home))
        .route("/set", get(set))
        .route("/name", post(rename))
        .route("/counter", post(count))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/prefs", post(prefs))
        .route("/sessions", get(sessions))
        .route("/sessions/end", post(end))
        .route("/sessions/end-others", post(end_others))
        .route(
            "/style.css",
            get(async || asset("text/css; charset=utf-8", STYLE)),
        )
        .route("/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

const STYLE: &str = include_str!("../assets/style.css");
const ICON: &str = include_str!("../assets/icon.svg");

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=300")];
    (headers, text)
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    look: Look,
    notices: Vec<String>,
    name: Option<String>,
    user: Option<User>,
    remembered: bool,
    count: u64,
    in_cookie: bool,
    keeps_subjects: bool,
}

async fn home(
    format: Format,
    extract::State(state): extract::State<State>,
    session: Session,
    prefs: Prefs,
) -> Result<Response, Error> {
    match format {
        Format::Html => home_page(&state, &session, &prefs),
        Format::Text => Ok(match session.get::<String>(NAME)? {
            Some(name) => format!("name: {name}"),
            None => "Please navigate to /set?name=yourname".to_owned(),
        }
        .into_response()),
    }
}

fn home_page(state: &State, session: &Session, prefs: &Prefs) -> Result<Response, Error> {
    render(&Home {
        look: prefs.look()?,
        notices: notices(session, prefs)?,
        name: session.get(NAME)?,
        user: User::of(session)?,
        remembered: session.persistence() != Persistence::Browser,
        count: session.get(api::COUNTER)?.unwrap_or(0),
        in_cookie: state.custody == Custody::Client,
        keeps_subjects: state.keeps_subjects,
    })
}

/// The messages of the page before, which are gone once shown.
fn notices(session: &Session, prefs: &Prefs) -> Result<Vec<String>, Error> {
    let mut notices: Vec<String> = session.flashes_from(NOTICES)?;
    notices.extend(prefs.0.flashes_from::<String>(NOTICES)?);
    Ok(notices)
}

#[derive(Debug, Deserialize)]
struct Name {
    name: Option<String>,
}

impl Name {
    fn check(self) -> Result<Option<String>, Error> {
        let name = self.name.unwrap_or_default();
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(Error::invalid("a name has at most 100 bytes on one line"));
        }
        Ok(Some(name).filter(|name| !name.trim().is_empty()))
    }
}

/// The example of old changes the session by an address, which any site can link to: what browsers
/// say comes from one is refused.
async fn set(
    format: Format,
    Params(name): Params<Name>,
    headers: HeaderMap,
    extract::State(state): extract::State<State>,
    session: Session,
    prefs: Prefs,
) -> Result<Response, Error> {
    let foreign = |site: &HeaderValue| site == "cross-site" || site == "same-site";
    if headers.get("sec-fetch-site").is_some_and(foreign) {
        return Err(Error::CrossSite);
    }
    let answer = match name.check()? {
        Some(name) => {
            session.insert(NAME, &name)?;
            format!("name has been set as: {name}")
        }
        None => "No name specified.".to_owned(),
    };
    match format {
        Format::Text => Ok(answer.into_response()),
        Format::Html => {
            // Shown on this very page, so that it is never stored.
            session.flash_to(NOTICES, &answer)?;
            home_page(&state, &session, &prefs)
        }
    }
}

async fn rename(session: Session, Fields(name): Fields<Name>) -> Result<Redirect, Error> {
    match name.check()? {
        Some(name) => {
            session.insert(NAME, &name)?;
            session.flash_to(NOTICES, &format!("Hello, {name}!"))?;
        }
        None => return Err(Error::invalid("No name specified.")),
    }
    Ok(Redirect::to("/"))
}

async fn count(session: Session) -> Result<Redirect, Error> {
    api::add_one(&session)?;
    session.flash_to(NOTICES, "Counted.")?;
    Ok(Redirect::to("/"))
}

#[derive(Debug, Deserialize)]
struct Login {
    user: String,
    /// There when the box is ticked.
    remember: Option<String>,
}

async fn login(
    headers: HeaderMap,
    session: Session,
    Fields(login): Fields<Login>,
) -> Result<Redirect, Error> {
    let user = User::new(&login.user)?;
    let remember = login.remember.is_some();
    account::sign_in(&session, &user, remember, user_agent::label(&headers))?;
    let name = user.as_str();
    let notice = if remember {
        format!("Signed in as {name}. This browser will remember you.")
    } else {
        format!("Signed in as {name}, until you close the browser.")
    };
    session.flash_to(NOTICES, &notice)?;
    Ok(Redirect::to("/"))
}

/// The session is over, and so the message travels in the other one.
async fn logout(session: Session, prefs: Prefs) -> Result<Redirect, Error> {
    if User::of(&session)?.is_some() {
        prefs.0.flash_to(NOTICES, "Signed out.")?;
    }
    session.destroy();
    Ok(Redirect::to("/"))
}

async fn prefs(prefs: Prefs, Fields(look): Fields<Look>) -> Result<Redirect, Error> {
    prefs.set_look(look)?;
    prefs.0.flash_to(NOTICES, "Your colours are saved.")?;
    Ok(Redirect::to("/"))
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionList {
    look: Look,
    notices: Vec<String>,
    user: Option<User>,
    keeps_subjects: bool,
    rows: Vec<Row>,
}

struct Row {
    handle: String,
    label: String,
    present: bool,
    age: String,
    rest: String,
}

async fn sessions(
    format: Format,
    extract::State(state): extract::State<State>,
    session: Session,
    prefs: Prefs,
) -> Result<Response, Error> {
    let user = User::of(&session)?;
    let rows = match &user {
        Some(user) if state.keeps_subjects => rows(&state, user, &session).await?,
        _ => Vec::new(),
    };
    match format {
        Format::Html => render(&SessionList {
            look: prefs.look()?,
            notices: notices(&session, &prefs)?,
            user,
            keeps_subjects: state.keeps_subjects,
            rows,
        }),
        Format::Text => Ok(rows
            .iter()
            .map(Row::line)
            .collect::<String>()
            .into_response()),
    }
}

async fn rows(state: &State, user: &User, session: &Session) -> Result<Vec<Row>, Error> {
    let now = state.clock.now();
    let present = session.store_key();
    let mut sessions = state.manager.subject_sessions(&user.subject()?).await?;
    sessions.sort_by_key(|session| (Some(session.key) != present, session.created_at));
    let row = |session: &SubjectSession| Row {
        handle: session.key.to_hex(),
        label: session.label.as_str().to_owned(),
        present: Some(session.key) == present,
        age: in_words(now.saturating_duration_since(session.created_at)),
        // A minute begun counts: a session for two weeks is not shown with 13 days.
        rest: in_words(session.expires_at.saturating_duration_since(now) + MINUTE),
    };
    Ok(sessions.iter().map(row).collect())
}

impl Row {
    fn line(&self) -> String {
        let mark = if self.present { " (this one)" } else { "" };
        let Self {
            label, age, rest, ..
        } = self;
        format!("{label}{mark}: began {age} ago, ends in {rest} without a visit\n")
    }
}

fn in_words(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (number, unit) = match minutes {
        0 => return "less than a minute".to_owned(),
        1..60 => (minutes, "minute"),
        60..1440 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

#[derive(Debug, Deserialize)]
struct Handle {
    session: String,
}

async fn end(
    extract::State(state): extract::State<State>,
    session: Session,
    prefs: Prefs,
    Fields(handle): Fields<Handle>,
) -> Result<Redirect, Error> {
    let key = StoreKey::from_hex(&handle.session)
        .ok_or_else(|| Error::invalid("there is no such session"))?;
    if session.store_key() == Some(key) {
        return logout(session, prefs).await;
    }
    let Some(user) = User::of(&session)? else {
        return Ok(Redirect::to("/sessions"));
    };
    // The store looks whose session it is.
    let ended = state.manager.revoke(&user.subject()?, &key).await?;
    let notice = if ended {
        "That session has ended."
    } else {
        "That session had ended already."
    };
    session.flash_to(NOTICES, notice)?;
    Ok(Redirect::to("/sessions"))
}

async fn end_others(session: Session) -> Result<Redirect, Error> {
    if User::of(&session)?.is_some() {
        let notice = match session.revoke_others().await? {
            0 => "There were no others.".to_owned(),
            1 => "The other session has ended.".to_owned(),
            ended => format!("The {ended} other sessions have ended."),
        };
        session.flash_to(NOTICES, &notice)?;
    }
    Ok(Redirect::to("/sessions"))
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    look: Look,
    status: &'a str,
    text: &'a str,
}

/// Shows a page in place of a line of text, to those who read pages. What the session has to say to
/// the browser stays in the head of the response.
pub(crate) async fn show_problems(format: Format, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(Problem(text)) = response.extensions_mut().remove() else {
        return response;
    };
    if format == Format::Text {
        return response;
    }
    let page = ProblemPage {
        look: Look::default(),
        status: response.status().canonical_reason().unwrap_or("Sorry"),
        text: &text,
    };
    let Ok(page) = page.render() else {
        return response;
    };
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    head.headers.insert(CONTENT_TYPE, html);
    Response::from_parts(head, page.into())
}

/// The headers that every response has.
pub(crate) async fn harden(mut response: Response) -> Response {
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("accept"));
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`, which would take the origin out of the requests of our own forms.
        (REFERRER_POLICY, "same-origin"),
        (opener, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn render(page: &impl Template) -> Result<Response, Error> {
    // The templates call nothing that can fail.
    let page = page.render().expect("a template of plain values renders");
    Ok(Html(page).into_response())
}
