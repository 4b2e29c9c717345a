//! Database servers for tests: those that the environment names, or containers.
//!
//! A test asks for a server, and the first of these decides:
//!
//! 1. `SESSIONKIT_TEST_REDIS_URL` (`…_VALKEY_URL`, `…_POSTGRES_URL`, `…_MYSQL_URL`,
//!    `…_MARIADB_URL`): that server is used.
//! 2. A container engine answers: a container of the image that `SESSIONKIT_TEST_REDIS_IMAGE` (and
//!    so on) names, or of the one that `scripts/images` has built, or of the official one.
//! 3. Neither: an error in one line, which says what to do. A test never passes without a server.
//!
//! [`Server::shared`] starts one container for all tests of a run of `cargo test` or `cargo
//! nextest`. [`Setup::start`] starts one for a single test, which may then be broken: killed,
//! paused, or cut off the network. Both publish their ports on the loopback interface only, and the
//! port stays the same over a restart. When the run ends, however it ends, a small process of its
//! own removes what is left.
//!
//! ```no_run
//! use sessionkit_conformance::containers::Server;
//!
//! # async fn example() -> Result<(), sessionkit::Error> {
//! let url = Server::Redis.shared().await?;
//! let own = Server::Redis.setup().arg("--appendonly").arg("yes").start().await?;
//! let paused = own.pause().await?;
//! // the server hangs
//! drop(paused);
//! own.kill().await?;
//! own.restart().await?;
//! # Ok(())
//! # }
//! ```

mod cluster;
mod container;
mod engine;
mod probe;
mod run;
mod server;

pub use cluster::{RedisCluster, RedisSentinel};
pub use container::{Container, Guard, Setup};
pub use server::Server;
