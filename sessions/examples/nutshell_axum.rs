//! The nutshell with axum: `cargo run -p sessionkit --example nutshell_axum --features axum`, then
//! <http://127.0.0.1:3000/>.

use axum::{Router, extract::Query, routing::get};
use serde::Deserialize;
use sessionkit::{
    CookieOptions, Key, Keyring, MemoryStore, Session, SessionConfig, SessionLayer, SessionManager,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real application takes its keys from `Keyring::from_env` or `Keyring::from_file`, and
    // leaves `insecure_allow_plain_http` out.
    let keyring = Keyring::new([Key::generate()?])?;
    let cookie = CookieOptions::default().insecure_allow_plain_http();
    let config = SessionConfig::new(MemoryStore::new()).cookie(cookie);
    let manager = SessionManager::builder(keyring)
        .session("session", config)
        .build()?;

    let app = Router::new()
        .route("/", get(home))
        .route("/set", get(set))
        .layer(SessionLayer::new(manager));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn home(session: Session) -> sessionkit::Result<String> {
    let name: Option<String> = session.get("name")?;
    Ok(match name {
        Some(name) => format!("name: {name}"),
        None => "Please navigate to /set?name=yourname".to_owned(),
    })
}

#[derive(Deserialize)]
struct Set {
    name: Option<String>,
}

async fn set(session: Session, Query(set): Query<Set>) -> sessionkit::Result<String> {
    let Some(name) = set.name else {
        return Ok("No name specified.".to_owned());
    };
    session.insert("name", &name)?;
    Ok(format!("name has been set as: {name}"))
}
