//! One type for the whole session of an application, in place of keys all over it:
//! `cargo run -p sessionkit --example typed_session`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sessionkit::{Key, Keyring, MemoryStore, Result, Session, SessionManager};

/// The cart of a visitor: how many of each article. A field with a default may come later: sessions
/// from before still read.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Cart {
    items: BTreeMap<u64, u32>,
    #[serde(default)]
    voucher: Option<String>,
}

/// What handlers use: the name of the key and the type of its value stand here and nowhere else.
struct Visitor(Session);

impl Visitor {
    const CART: &str = "cart";

    /// Run again on the fresh cart if another request has changed it: no item is lost.
    fn add(&self, article: u64) -> Result<Cart> {
        self.0.update(Self::CART, move |cart: Option<Cart>| {
            let mut cart = cart.unwrap_or_default();
            *cart.items.entry(article).or_default() += 1;
            cart
        })
    }

    fn cart(&self) -> Result<Cart> {
        Ok(self.0.get(Self::CART)?.unwrap_or_default())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keyring = Keyring::new([Key::generate()?])?;
    let manager = SessionManager::new(MemoryStore::new(), keyring)?;
    let sessions = manager.begin(&http::HeaderMap::new());

    let visitor = Visitor(sessions.session().await?);
    visitor.add(4711)?;
    visitor.add(4711)?;
    println!("{:?}", visitor.cart()?);

    let mut response = http::HeaderMap::new();
    sessions.finish(&mut response).await?;
    println!("new cookie: {}", response.contains_key("set-cookie"));
    Ok(())
}
