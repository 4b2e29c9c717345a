//! A session store for the embedded database redb, from the tutorial in the README.

mod store;

use std::{env, sync::Arc, time::Duration};

use redb::Database;
use sessionkit::{
    Clock, CookieName, Label, OsEntropy, Record, Revision, SessionStore, SystemClock, Token,
};
use store::RedbStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = env::temp_dir().join(format!("sessions-{}.redb", std::process::id()));
    let database = Arc::new(Database::create(&path)?);
    let store = RedbStore {
        database,
        table: "sessions".into(),
        clock: Arc::new(SystemClock),
    };
    let now = SystemClock.now();
    let record = Record {
        data: "hello from redb".into(),
        revision: Revision::random(&OsEntropy)?,
        created_at: now,
        expires_at: now + Duration::from_secs(3600),
        subject: None,
        label: Label::default(),
    };
    let token = Token::random(&OsEntropy, &CookieName::new("__Host-id")?)?;
    let token = store.create(token, &record).await?;
    let found = store.load(&token).await?.ok_or("the session is gone")?;
    println!("{}", String::from_utf8_lossy(&found.data));
    store.delete(&token, None).await?;
    std::fs::remove_file(path)?;
    Ok(())
}
