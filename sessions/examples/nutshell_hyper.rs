//! The nutshell without a framework, by the two calls that every adapter is made of:
//! `cargo run -p sessionkit --example nutshell_hyper`, then <http://127.0.0.1:3000/>.

use std::convert::Infallible;

use http::{Request, Response, StatusCode, Uri};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sessionkit::{
    CookieOptions, Key, Keyring, MemoryStore, Result, SessionConfig, SessionManager, Sessions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cookie = CookieOptions::default().insecure_allow_plain_http();
    let config = SessionConfig::new(MemoryStore::new()).cookie(cookie);
    let manager = SessionManager::builder(Keyring::new([Key::generate()?])?)
        .session("session", config)
        .build()?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let manager = manager.clone();
        let service = service_fn(move |request| respond(manager.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn respond(
    manager: SessionManager,
    request: Request<Incoming>,
) -> Result<Response<String>, Infallible> {
    let sessions = manager.begin_for(request.method(), request.headers());
    let text = nutshell(&sessions, request.uri()).await;
    let mut response = Response::new(text.as_ref().cloned().unwrap_or_default());
    // The cookies of what was saved go out also with an answer that is an error.
    let finished = match text {
        Ok(_) => sessions.finish(response.headers_mut()).await,
        Err(_) => sessions.finish_failed(response.headers_mut()).await,
    };
    if finished.is_err() || text.is_err() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.body_mut().clear();
    }
    Ok(response)
}

async fn nutshell(sessions: &Sessions, uri: &Uri) -> Result<String> {
    let session = sessions.session().await?;
    if uri.path() != "/set" {
        let name = session.get::<String>("name")?;
        let hint = || "Please navigate to /set?name=yourname".to_owned();
        return Ok(name.map_or_else(hint, |name| format!("name: {name}")));
    }
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let Some((_, name)) = query.find(|(key, _)| key == "name") else {
        return Ok("No name specified.".to_owned());
    };
    session.insert("name", &name)?;
    Ok(format!("name has been set as: {name}"))
}
