//! A store under work while its server is broken, and the count of what went wrong.
//!
//! A [`Crew`] of workers uses sessions through one handle, creates, updates and renews them,
//! drops calls, ends sessions in every way there is, and knows what each has to look like. Whoever holds it breaks the server, asks
//! how long it takes until every worker has an answer again, and reads the [`Counts`] at the end.
//! [`break_server`] does that with a server in a container.
//!
//! ```no_run
//! use std::{sync::Arc, time::Duration};
//!
//! use sessionkit::{Result, SessionStore};
//! use sessionkit_conformance::{containers::Container, soak};
//!
//! /// A store on a server of its own, started by `Server::Redis.setup()` with
//! /// `--appendonly yes --appendfsync always`.
//! async fn loses_nothing(server: &Container, store: Arc<dyn SessionStore>) -> Result<bool> {
//!     let report = soak::break_server(server, store, Duration::from_secs(120), 1).await?;
//!     print!("{report}");
//!     Ok(report.counts.is_clean())
//! }
//! ```

mod counts;
mod worker;

use std::{fmt, sync::Arc, time::Duration};

use sessionkit::{Result, SessionStore};
use tokio::time::{Instant, sleep};

pub use self::{
    counts::{Counts, Recoveries},
    worker::Crew,
};
use crate::{Random, containers::Container};

/// Between two faults, in which the workers have everything they need.
pub const PEACE: Duration = Duration::from_millis(1500);

/// What a soak has seen: [`Display`](fmt::Display) writes it as a table.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What the workers saw.
    pub counts: Counts,
    /// How long the workers waited, for each kind of fault.
    pub recoveries: Recoveries,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.recoveries, self.counts)
    }
}

impl Report {
    /// What was seen while somebody else broke the store.
    #[must_use]
    pub fn new(counts: Counts, recoveries: Recoveries) -> Self {
        Self { counts, recoveries }
    }
}

/// Works on a store for `duration` while its server is killed, paused and cut off the network, one
/// after the other, as `seed` decides.
///
/// The store has to be one that the server's death does not make forget: with the durability
/// [`Disk`](sessionkit::Durability::Disk).
///
/// # Errors
/// When the container cannot be broken or does not come back.
///
/// # Panics
/// When a worker gets no answer within a minute after the server is back.
pub async fn break_server(
    container: &Container,
    store: Arc<dyn SessionStore>,
    duration: Duration,
    seed: u64,
) -> Result<Report> {
    let crew = Crew::begin(store, seed);
    let random = Random::new(seed);
    let mut recoveries = Recoveries::default();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep(PEACE).await;
        let fault = ["kill", "pause", "network cut"][random.below(3)];
        let length = Duration::from_millis(200 + random.below(2500) as u64);
        match fault {
            "kill" => {
                container.kill().await?;
                container.restart().await?;
            }
            "pause" => {
                let paused = container.pause().await?;
                sleep(length).await;
                drop(paused);
            }
            _ => {
                let cut = container.cut().await?;
                sleep(length).await;
                drop(cut);
            }
        }
        recoveries.add(fault, crew.recovered().await);
    }
    Ok(Report::new(crew.end().await, recoveries))
}
