use std::{future, net::SocketAddr, sync::Arc};

use sessionkit::{
    Clock, Key, Keyring, ManualClock, MemoryStore, SessionStore, SystemClock, Timestamp,
};
use sessionkit_demo::{App, GRACE, open_store, serve};
use tokio::net::TcpListener;

use crate::{client::Client, watched::Watched};

/// The stores that every test of a plain flow runs with.
pub(crate) const STORES: [&str; 3] = ["memory:", "cookie:", "sqlite::memory:"];

pub(crate) fn keyring() -> Keyring {
    Keyring::new([Key::generate().unwrap()]).unwrap()
}

/// Serves an app until the test ends.
pub(crate) async fn start(app: App) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = app.router().unwrap();
    tokio::spawn(serve(listener, router, future::pending(), GRACE));
    address
}

/// A browser of an app with this store.
pub(crate) async fn open(url: &str) -> Client {
    let (keyring, clock) = (keyring(), Arc::new(SystemClock) as Arc<dyn Clock>);
    let store = open_store(url, &keyring, &clock).await.unwrap();
    Client::new(start(App::new(store, keyring)).await)
}

/// An app over a store in memory that the test looks into, and a clock that it moves.
pub(crate) struct Setup {
    pub(crate) client: Client,
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) store: Arc<Watched>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keyring: Keyring,
}

pub(crate) async fn watched() -> Setup {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    let memory = Arc::new(MemoryStore::new().with_clock(clock.clone()));
    let store = Arc::new(Watched::new(Arc::clone(&memory) as Arc<dyn SessionStore>));
    let keyring = keyring();
    let app = App::new(store.clone(), keyring.clone()).with_clock(clock.clone());
    Setup {
        client: Client::new(start(app).await),
        memory,
        store,
        clock,
        keyring,
    }
}
