use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use sessionkit::{Capabilities, Durability, Error, ErrorKind, Result, SessionStore, Sweep};
use sessionkit_conformance::Harness;
use tempfile::TempDir;
use tower_sessions_core::{CachingSessionStore, ExpiredDeletion};
use tower_sessions_moka_store::MokaStore;
use tower_sessions_sqlx_store::{SqliteStore, sqlx::SqlitePool};

use crate::adapter::{Adapter, Published, failed, published};

const MAX_DATA: usize = 1 << 20;

published!(tower_sessions: tower_sessions::MemoryStore);
published!(
    tower_sessions_core: MokaStore, SqliteStore, CachingSessionStore<MokaStore, SqliteStore>
);

/// What all of these are: their time is that of the operating system.
fn server() -> Capabilities {
    Capabilities::server(MAX_DATA)
}

/// Stores in the memory of the process: the handles of one namespace share one.
#[derive(Debug)]
struct InProcess<S>(Mutex<HashMap<String, S>>);

impl<S: Published> InProcess<S> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn open(&self, namespace: &str, make: impl FnOnce() -> S) -> S {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.entry(namespace.into()).or_insert_with(make).clone()
    }

    fn destroy(&self, namespace: &str) {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.remove(namespace);
    }
}

/// `tower_sessions::MemoryStore`.
#[derive(Debug)]
pub struct Memory(InProcess<tower_sessions::MemoryStore>);

impl Memory {
    /// A harness without stores.
    #[expect(clippy::new_without_default, reason = "nobody asks for a default")]
    pub fn new() -> Self {
        Self(InProcess::new())
    }
}

#[async_trait]
impl Harness for Memory {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = self.0.open(namespace, tower_sessions::MemoryStore::default);
        // Nothing removes what has expired.
        let capabilities = server().sweep(Sweep::Unsupported);
        Ok(Arc::new(Adapter::new(store, capabilities)))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.0.destroy(namespace);
        Ok(())
    }
}

/// `tower_sessions_moka_store::MokaStore`.
#[derive(Debug)]
pub struct Moka(InProcess<MokaStore>);

impl Moka {
    /// A harness without stores.
    #[expect(clippy::new_without_default, reason = "nobody asks for a default")]
    pub fn new() -> Self {
        Self(InProcess::new())
    }
}

#[async_trait]
impl Harness for Moka {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = self.0.open(namespace, || MokaStore::new(Some(100_000)));
        let capabilities = server().sweep(Sweep::Native);
        Ok(Arc::new(Adapter::new(store, capabilities)))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        self.0.destroy(namespace);
        Ok(())
    }
}

/// `tower_sessions_sqlx_store::SqliteStore` on a file, a pool for each handle and a table for each
/// namespace.
#[derive(Debug)]
pub struct Sqlite(TempDir);

impl Sqlite {
    /// A harness with a new database.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[expect(clippy::new_without_default, reason = "nobody asks for a default")]
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

#[async_trait]
impl Harness for Sqlite {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = sqlite(self.0.path(), namespace).await?;
        Ok(Arc::new(Adapter::new(store, sqlite_capabilities())))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        drop_table(self.0.path(), namespace).await
    }
}

/// `tower_sessions::CachingSessionStore`: the SQLite store behind a cache in each process.
#[derive(Debug)]
pub struct Caching(TempDir);

impl Caching {
    /// A harness with a new database.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[expect(clippy::new_without_default, reason = "nobody asks for a default")]
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

#[async_trait]
impl Harness for Caching {
    async fn open(&self, namespace: &str) -> Result<Arc<dyn SessionStore>> {
        let store = sqlite(self.0.path(), namespace).await?;
        let store = CachingSessionStore::new(MokaStore::new(Some(2_000)), store);
        Ok(Arc::new(Adapter::new(store, sqlite_capabilities())))
    }

    async fn destroy(&self, namespace: &str) -> Result<()> {
        drop_table(self.0.path(), namespace).await
    }
}

fn sqlite_capabilities() -> Capabilities {
    server().durability(Durability::System).sweep(Sweep::Native)
}

async fn pool(directory: &Path) -> Result<SqlitePool> {
    let url = format!("sqlite://{}/sessions.db?mode=rwc", directory.display());
    SqlitePool::connect(&url).await.map_err(failed)
}

/// The store as its documentation has it, with the task that removes what has expired.
async fn sqlite(directory: &Path, namespace: &str) -> Result<SqliteStore> {
    let invalid = |message| Error::new(ErrorKind::InvalidConfig, message);
    let store = SqliteStore::new(pool(directory).await?)
        .with_table_name(namespace)
        .map_err(invalid)?;
    store.migrate().await.map_err(failed)?;
    tokio::spawn(
        store
            .clone()
            .continuously_delete_expired(Duration::from_secs(60)),
    );
    Ok(store)
}

async fn drop_table(directory: &Path, namespace: &str) -> Result<()> {
    let drop = format!("drop table if exists \"{namespace}\"");
    tower_sessions_sqlx_store::sqlx::query(&drop)
        .execute(&pool(directory).await?)
        .await
        .map_err(failed)?;
    Ok(())
}
