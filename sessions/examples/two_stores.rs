//! Two sessions in one request: the cart on the server, the language in a cookie of its own.
//! `cargo run -p sessionkit --example two_stores --features axum`, then <http://127.0.0.1:3000/>.

use axum::{Router, extract::Path, routing::get};
use sessionkit::{
    CookieOptions, Key, Keyring, MemoryStore, SessionConfig, SessionLayer, SessionManager, Sessions,
};
use sessionkit_cookie::CookieStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keyring = Keyring::new([Key::generate()?])?;
    let cookie = |name| CookieOptions::new(name).map(CookieOptions::insecure_allow_plain_http);
    let cart = SessionConfig::new(MemoryStore::new()).cookie(cookie("cart")?);
    let language = SessionConfig::new(CookieStore::new(keyring.clone())).cookie(cookie("lang")?);
    let manager = SessionManager::builder(keyring)
        .session("cart", cart)
        .session("language", language)
        .build()?;

    let app = Router::new()
        .route("/", get(home))
        .route("/add/{item}", get(add))
        .route("/speak/{language}", get(speak))
        .layer(SessionLayer::new(manager));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn home(sessions: Sessions) -> sessionkit::Result<String> {
    let cart = sessions.get("cart").await?;
    let language = sessions.get("language").await?;
    let items: Vec<String> = cart.get("items")?.unwrap_or_default();
    let language: Option<String> = language.get("language")?;
    Ok(format!("{language:?} {items:?}: try /add/tea, /speak/fr"))
}

async fn add(sessions: Sessions, Path(item): Path<String>) -> sessionkit::Result<String> {
    let cart = sessions.get("cart").await?;
    let add =
        move |items: Option<Vec<String>>| [items.unwrap_or_default(), vec![item.clone()]].concat();
    let items = cart.update("items", add)?;
    Ok(format!("{} in the cart", items.len()))
}

async fn speak(sessions: Sessions, Path(to): Path<String>) -> sessionkit::Result<&'static str> {
    let language = sessions.get("language").await?;
    language.insert("language", &to)?;
    Ok("noted")
}
