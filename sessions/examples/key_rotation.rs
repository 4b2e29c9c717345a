//! Changes the key that signs cookies, with nobody logged out:
//! `cargo run -p sessionkit --example key_rotation`.

use http::{
    HeaderMap,
    header::{COOKIE, SET_COOKIE},
};
use sessionkit::{Key, Keyring, MemoryStore, Origin, Result, SessionManager};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let old = Key::generate()?;
    let old_id = old.id();
    let keyring = Keyring::new([old])?;
    // The keyring stays with the application: the manager follows what happens to it.
    let manager = SessionManager::new(MemoryStore::new(), keyring.clone())?;
    let mut browser = HeaderMap::new();
    visit(&manager, &mut browser).await?;

    // Every instance of the application accepts the new key, before any of them writes with it.
    let new = Key::generate()?;
    let new_id = new.id();
    keyring.accept(new)?;
    println!("accepted, the keys are {:?}", keyring.ids());
    assert_eq!(visit(&manager, &mut browser).await?, Origin::Stored);

    // The new key writes from now on, the old one still reads.
    keyring.promote(new_id)?;
    println!("promoted, the keys are {:?}", keyring.ids());
    assert_eq!(visit(&manager, &mut browser).await?, Origin::Stored);

    // Once the longest session has had time to be written anew, the old key can go.
    keyring.remove(old_id)?;
    println!("removed {old_id}");
    assert_eq!(visit(&manager, &mut browser).await?, Origin::Stored);
    Ok(())
}

/// One request that counts visits; the browser keeps the cookie of the response.
async fn visit(
    manager: &SessionManager,
    browser: &mut HeaderMap,
) -> Result<Origin, Box<dyn std::error::Error>> {
    let sessions = manager.begin(browser);
    let session = sessions.session().await?;
    let visits = session.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
    let mut response = HeaderMap::new();
    sessions.finish(&mut response).await?;
    println!(
        "visit {visits}, new cookie: {}",
        response.contains_key(SET_COOKIE)
    );
    if let Some(cookie) = response.get(SET_COOKIE) {
        let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
        browser.insert(COOKIE, pair.parse()?);
    }
    Ok(session.origin())
}
