use std::{sync::Arc, time::Duration};

use sessionkit::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::TableName;

/// How a store is opened. The same for every database; what only one of them knows is said so.
///
/// ```
/// use sessionkit_sqlx::{StoreOptions, TableName};
/// use std::time::Duration;
///
/// let options = StoreOptions::new()
///     .table(TableName::new("web_sessions")?)
///     .deadline(Duration::from_secs(2));
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub(crate) table: TableName,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) deadline: Duration,
    pub(crate) max_connections: Option<u32>,
    /// How long making a connection may take, when a URL says it.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) connect_timeout: Option<Duration>,
    #[cfg(feature = "sqlite")]
    pub(crate) sync_to_disk: bool,
    #[cfg(feature = "postgres")]
    pub(crate) transaction_pooling: bool,
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) require_tls: bool,
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) root_certificates: Option<Vec<u8>>,
}

impl StoreOptions {
    /// The defaults: the table `sessions`, the system's clock, a deadline of five seconds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: TableName::default(),
            clock: Arc::new(SystemClock),
            deadline: Duration::from_secs(5),
            max_connections: None,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            connect_timeout: None,
            #[cfg(feature = "sqlite")]
            sync_to_disk: false,
            #[cfg(feature = "postgres")]
            transaction_pooling: false,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            require_tls: false,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            root_certificates: None,
        }
    }

    /// Sets the table; `sessions` by default. Stores with different tables share nothing.
    #[must_use]
    pub fn table(mut self, table: TableName) -> Self {
        self.table = table;
        self
    }

    /// Sets the clock that sessions expire by; the system's by default. The database's clock is
    /// never asked.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how long a call may take altogether, retries included; five seconds by default, 100
    /// milliseconds at least. At most half of it is spent on waiting for a connection.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how many connections the store opens at most; 16 by default, or as many as the caller's
    /// pool may have where the store is opened over one, and for SQLite 4 that read besides the one
    /// that writes. Where the server allows fewer, the store makes do with those.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// SQLite: whether an acknowledged write survives a power failure (`synchronous=FULL`) or only
    /// the end of the process (`synchronous=NORMAL`, the default). Neither can damage the database.
    #[cfg(feature = "sqlite")]
    #[must_use]
    pub fn sync_to_disk(mut self, sync: bool) -> Self {
        self.sync_to_disk = sync;
        self
    }

    /// Postgres: whether a pooler stands between that gives a connection of the server to one client
    /// after the other, such as PgBouncer in transaction mode; off by default.
    ///
    /// A store prepares its statements on a connection only if that has started a process of the
    /// server for itself, which it finds out when it connects. Behind a pooler each statement is sent
    /// with its values in its text, which takes one round trip too and has the server plan it each
    /// time. So this is not needed; it spares the store to find out.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn transaction_pooling(mut self, pooling: bool) -> Self {
        self.transaction_pooling = pooling;
        self
    }

    /// Postgres, MySQL and MariaDB: connects only where the connection is encrypted and the server
    /// proves with its certificate that it is the host of the URL. Needs the feature `tls`, and
    /// overrules what the URL says about TLS.
    ///
    /// Off by default: a connection is then encrypted if the server offers it, without a look at its
    /// certificate, and otherwise not.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[must_use]
    pub fn require_tls(mut self) -> Self {
        self.require_tls = true;
        self
    }

    /// Postgres, MySQL and MariaDB: trusts these root certificates, in PEM, besides those of the
    /// operating system.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// For a store over the caller's pool, whose connections are as the caller makes them.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn checked_for_pool(self) -> Result<Self> {
        if self.require_tls || self.root_certificates.is_some() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "whether the connections of a pool are encrypted is decided where it is made",
            ));
        }
        self.checked()
    }

    pub(crate) fn checked(self) -> Result<Self> {
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        if (self.require_tls || self.root_certificates.is_some()) && cfg!(not(feature = "tls")) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "TLS is configured, and the feature `tls` of sessionkit-sqlx is not enabled",
            ));
        }
        if self.deadline < Duration::from_millis(100) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a deadline of less than 100 milliseconds cannot be met",
            ));
        }
        if self.max_connections == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a store without connections cannot work",
            ));
        }
        Ok(self)
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}
