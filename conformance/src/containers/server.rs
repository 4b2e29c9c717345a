use std::env;

use sessionkit::Result;

use super::{Setup, engine, run};

/// A kind of database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// PostgreSQL, with a database and a superuser.
    Postgres,
    /// MySQL, with a database.
    Mysql,
    /// MariaDB, with a database.
    Mariadb,
}

/// The password and the database of the servers in containers, which nobody else can reach.
pub(super) const PASSWORD: &str = "sessionkit";
const DATABASE: &str = "sessionkit";

/// A server bars a host that has broken off a hundred handshakes. All tests come from one host, and
/// some of them break connections on purpose.
const FORGIVING: &str = "--max-connect-errors=1000000000";

impl Server {
    /// The URL of a server that all tests of this run share. They keep apart by random names.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable) when there is none; the
    /// message says what to do.
    pub async fn shared(self) -> Result<String> {
        if let Ok(url) = env::var(self.variable("URL")) {
            run::say_once(&format!("{}: {} is set", self.name(), self.variable("URL")));
            return Ok(url);
        }
        self.setup().shared(self.name()).await
    }

    /// What a server of one's own would be started with.
    #[must_use]
    pub fn setup(self) -> Setup {
        let setup = Setup::new(self);
        match self {
            Self::Redis | Self::Valkey => setup,
            Self::Postgres => setup
                .env("POSTGRES_PASSWORD", PASSWORD)
                .env("POSTGRES_DB", DATABASE)
                .args(["-c", "max_connections=500"]),
            Self::Mysql => setup
                .env("MYSQL_ROOT_PASSWORD", PASSWORD)
                .env("MYSQL_DATABASE", DATABASE)
                .args(["--max-connections=500", "--disable-log-bin"])
                .arg(FORGIVING),
            Self::Mariadb => setup
                .env("MARIADB_ROOT_PASSWORD", PASSWORD)
                .env("MARIADB_DATABASE", DATABASE)
                .arg("--max-connections=500")
                .arg(FORGIVING),
        }
    }

    /// What makes a server fast that nobody is going to kill.
    pub(super) fn careless_args(self) -> &'static [&'static str] {
        match self {
            Self::Redis | Self::Valkey => &["--save", ""],
            Self::Postgres => &["-c", "fsync=off", "-c", "synchronous_commit=off"],
            Self::Mysql | Self::Mariadb => {
                &["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"]
            }
        }
    }

    pub(super) fn url(self, port: u16) -> String {
        match self {
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Valkey => format!("valkey://127.0.0.1:{port}"),
            Self::Postgres => format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/{DATABASE}"),
            Self::Mysql | Self::Mariadb => {
                format!("mysql://root:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")
            }
        }
    }

    pub(super) fn port(self) -> u16 {
        match self {
            Self::Redis | Self::Valkey => 6379,
            Self::Postgres => 5432,
            Self::Mysql | Self::Mariadb => 3306,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }

    /// The program that the image starts.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
            Self::Postgres => "postgres",
            Self::Mysql => "mysqld",
            Self::Mariadb => "mariadbd",
        }
    }

    /// The image to use: the named one, the one built here, or the official one.
    pub(super) async fn image(self) -> Result<(String, String)> {
        engine::check(self).await?;
        let (version, official) = match self {
            Self::Redis => ("8", "redis"),
            Self::Valkey => ("8", "valkey/valkey"),
            Self::Postgres => ("17", "postgres"),
            Self::Mysql => ("9", "mysql"),
            Self::Mariadb => ("11", "mariadb"),
        };
        let image = match env::var(self.variable("IMAGE")) {
            Ok(image) => image,
            Err(_) => {
                let local = format!("localhost/sessionkit-test/{}:{version}", self.name());
                match engine::has_image(&local).await {
                    true => local,
                    false => format!("{official}:{version}"),
                }
            }
        };
        run::say_once(&format!("{}: containers of {image}", self.name()));
        // The colon of a port is before the last slash.
        Ok(match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
            _ => (image, "latest".to_owned()),
        })
    }

    pub(super) fn variable(self, what: &str) -> String {
        format!("SESSIONKIT_TEST_{}_{what}", self.name().to_uppercase())
    }
}
