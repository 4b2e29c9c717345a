use std::{sync::Arc, time::Duration};

use sessionkit::{Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp, Token};
use sqlx::{
    ConnectOptions, Executor, MySql, MySqlConnection, MySqlPool, SqlStr,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlSslMode},
};

use tokio::time::Instant;

use crate::{
    StoreOptions, TableName, codec,
    failure::{Cause, Effect, Failure, Refusal},
    remote::{BATCH, Dialect, Remote, Swept, remote_store, safe},
    schema::{Column, Table, columns, comment},
    statement::{Answer, Driver, Runner, Statement, backend_values, parse_url, run_statement},
    url::Address,
};

/// Keeps sessions in an InnoDB table of MySQL or MariaDB.
///
/// Each call is one prepared statement. A clone is the same store.
///
/// ```no_run
/// # async fn example() -> sessionkit::Result<()> {
/// use sessionkit_sqlx::{MysqlStore, StoreOptions};
///
/// let url = "mysql://app@db.example/app";
/// let store = MysqlStore::connect(url, StoreOptions::new()).await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MysqlStore(Arc<Remote<MySql>>);

impl MysqlStore {
    /// Opens a store by the URL of a database, `mysql://user:password@host:port/database`, after
    /// one connection was made to see that it can be.
    ///
    /// Options in the URL are those of the driver
    /// ([`MySqlConnectOptions`](sqlx::mysql::MySqlConnectOptions)), `connect_timeout` in seconds,
    /// `ssl_cert_reqs` and `sslaccept` with the words of those who make them up, and
    /// `connection_limit`. Any other is refused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when the URL, an option
    /// or the account is not valid; [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable)
    /// when the server cannot be reached.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self> {
        let mut options = options.checked()?;
        let mariadb = url.strip_prefix("mariadb:");
        let url = mariadb.map_or_else(|| url.to_owned(), |rest| format!("mysql:{rest}"));
        let address = Address::parse(&url, |name| DRIVER.contains(&name), &OWN)?;
        address.apply(&mut options)?;
        let mut connect = parse_url::<MySql>(&address.url)?;
        if let Some(verified) = verifies(&address)? {
            connect = match (verified, connect.get_ssl_mode()) {
                (true, _) => connect.ssl_mode(MySqlSslMode::VerifyIdentity),
                (false, MySqlSslMode::Disabled | MySqlSslMode::Preferred) => {
                    connect.ssl_mode(MySqlSslMode::Required)
                }
                // The URL asks for more elsewhere.
                (false, _) => connect,
            };
        }
        if options.require_tls {
            connect = connect.ssl_mode(MySqlSslMode::VerifyIdentity);
        }
        if let Some(pem) = &options.root_certificates {
            connect = connect.ssl_ca_from_pem(pem.clone());
        }
        let limit = options.max_connections.unwrap_or(16);
        let store = Self::new(move || connect.clone(), limit, options);
        store.0.runner.hello().await?;
        Ok(store)
    }

    /// Opens a store with the options of the caller's pool, of whose connections it uses none: it
    /// opens some of its own, as many as the pool may have unless
    /// [`StoreOptions::max_connections`] says otherwise. What the pool does with a connection that
    /// it has opened, or that is taken from it, is not done with these.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when an option is not
    /// valid.
    pub fn with_pool(pool: MySqlPool, options: StoreOptions) -> Result<Self> {
        let options = options.checked_for_pool()?;
        let limit = pool.options().get_max_connections();
        let limit = options.max_connections.unwrap_or(limit);
        // Asked each time, because who has a password that changes gives the pool the new one.
        let connect = move || MySqlConnectOptions::clone(&pool.connect_options());
        Ok(Self::new(connect, limit, options))
    }

    fn new(
        options: impl Fn() -> MySqlConnectOptions + Send + Sync + 'static,
        limit: u32,
        store: StoreOptions,
    ) -> Self {
        let patience = lock_wait(store.deadline);
        let connect = move || {
            let options = options().disable_statement_logging();
            Box::pin(connect(options, patience)) as _
        };
        let mut runner = Runner::new(connect, limit, store.deadline, store.connect_timeout);
        runner.patience = patience;
        Self(Arc::new(Remote::new(runner, store)))
    }

    /// The statement that [`migrate`](Self::migrate) executes, for review.
    #[must_use]
    pub fn schema(table: &TableName) -> String {
        schema(table) + ";\n"
    }
}

remote_store!(MysqlStore);

/// The options of a URL that the driver knows.
const DRIVER: [&str; 14] = [
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "charset",
    "collation",
    "socket",
    "timezone",
    "time-zone",
    "statement-cache-capacity",
];

/// Those that mean something to the store.
const OWN: [&str; 4] = [
    "connect_timeout",
    "connection_limit",
    "ssl_cert_reqs",
    "sslaccept",
];

/// Whether the certificate of the server has to be valid for the host, where the URL demands an
/// encrypted connection in the words of Python's drivers or of Prisma.
fn verifies(address: &Address) -> Result<Option<bool>> {
    let words = [
        ("required", true),
        ("cert_required", true),
        ("optional", false),
        ("cert_optional", false),
        ("none", false),
        ("cert_none", false),
    ];
    let python = address.one_of("ssl_cert_reqs", &words)?;
    let words = [("strict", true), ("accept_invalid_certs", false)];
    Ok(address.one_of("sslaccept", &words)?.or(python))
}

/// The table with its indexes, in one statement, because MySQL commits after each of these.
///
/// Bytes everywhere: a text is compared without regard to case and trailing spaces.
fn schema(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n    \
         session_key BINARY(32) NOT NULL PRIMARY KEY,\n    \
         revision BIGINT NOT NULL,\n    \
         created_at BIGINT NOT NULL,\n    \
         expires_at BIGINT NOT NULL,\n    \
         sweep_at BIGINT NOT NULL,\n    \
         subject VARBINARY(255),\n    \
         label VARBINARY(255) NOT NULL,\n    \
         data MEDIUMBLOB NOT NULL,\n    \
         INDEX sweep_at (sweep_at),\n    \
         INDEX subject (subject, session_key)\n) ENGINE = InnoDB COMMENT = '{}'",
        table.quoted('`'),
        comment()
    )
}

async fn connect(
    options: MySqlConnectOptions,
    patience: Duration,
) -> sqlx::Result<MySqlConnection> {
    let mut connection = options.connect().await?;
    let seconds = patience.as_secs();
    // Of a row, and of the table while somebody alters it.
    let sql = safe(format!(
        "SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {seconds}"
    ));
    connection.execute(sql).await?;
    Ok(connection)
}

/// InnoDB's wait for a lock, in its whole seconds and within the deadline where that is longer.
fn lock_wait(deadline: Duration) -> Duration {
    Duration::from_secs((deadline / 3).as_secs().max(1))
}

impl Driver for MySql {
    const LOCAL: bool = false;

    async fn run(
        connection: &mut MySqlConnection,
        statement: Statement<Self>,
    ) -> sqlx::Result<Answer<Self>> {
        run_statement!(connection, statement)
    }

    /// By the error's number: those of MySQL and, from 1900, MariaDB's own.
    fn refusal(error: &dyn DatabaseError) -> Failure {
        let number = error
            .try_downcast_ref::<MySqlDatabaseError>()
            .map_or(0, MySqlDatabaseError::number);
        let refusal = match number {
            // A wait for a lock that took too long, a deadlock, a changed row (MariaDB), a table
            // that was altered since the statement was prepared.
            1205 | 1213 | 1020 | 1412 => Refusal::Contention,
            // Killed, shutting down, idle for too long, unknown or outdated statement.
            1053 | 1927 | 4031 | 1243 | 1615 => Refusal::Disconnected,
            1290 | 1792 | 1836 => Refusal::ReadOnly,
            1062 | 1586 => Refusal::Duplicate,
            1021 | 1114 | 1037 | 1041 => Refusal::Full,
            1034 | 1194 | 1712 => Refusal::Damaged,
            1044 | 1045 | 1046 | 1049 | 1054 | 1142 | 1143 | 1146 | 1227 | 1698 => Refusal::Setup,
            // The statement was done, and the commit failed in a way that leaves it open.
            1180 => return Failure::Lost(Cause("MySQL 1180".to_owned())),
            _ => Refusal::Other,
        };
        let cause = match refusal {
            // A duplicate is quoted with its key.
            Refusal::Setup => format!("MySQL {number}: {}", error.message()),
            _ => format!("MySQL {number}"),
        };
        Failure::Refused(refusal, Cause(cause))
    }

    backend_values!();
}

impl Dialect for MySql {
    type Ending = Ending;

    /// Aurora's readers say it with the second one.
    const PING: &str = "SELECT CAST(@@global.read_only OR @@global.innodb_read_only AS SIGNED)";
    const QUOTE: char = '`';
    const TIMES_IN_CREATE: usize = 8;

    /// Whether a row that is there was replaced cannot be told by the number of affected rows,
    /// which is 1 for a new row and also for one that was left as it is. So the statement leaves
    /// a sign where an insert would leave the generated number: 2 for a row that is live.
    ///
    /// The expiry comes last, because the assignments before it ask for the old one.
    fn create(t: &str) -> String {
        let replaced =
            |column: &str| format!("{column} = IF(expires_at <= ?, VALUES({column}), {column})");
        let others = [
            "created_at",
            "sweep_at",
            "subject",
            "label",
            "data",
            "expires_at",
        ];
        format!(
            "INSERT INTO {t} (session_key, revision, created_at, sweep_at, expires_at, subject, \
             label, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE \
             session_key = IF(LAST_INSERT_ID(IF(expires_at <= ?, 1, 2)) = 1, \
             VALUES(session_key), session_key), {}, {}",
            replaced("revision"),
            others.map(replaced).join(", ")
        )
    }

    fn created(answer: &Answer<Self>) -> bool {
        answer.done.last_insert_id() != 2
    }

    fn parameters(sql: String) -> String {
        sql
    }

    fn migration(table: &TableName, found: &Table) -> Vec<String> {
        let comment = format!(
            "ALTER TABLE {} COMMENT = '{}'",
            table.quoted(Self::QUOTE),
            comment()
        );
        let mut statements = vec![schema(table)];
        if found.is_older() {
            statements.push(comment);
        }
        statements
    }

    fn wanted() -> Vec<Column> {
        columns([
            "binary(32)",
            "bigint",
            "varbinary(255)",
            "varbinary(255)",
            "mediumblob",
        ])
    }

    async fn table(remote: &Remote<Self>, end: Instant) -> Result<Table> {
        // An integer's display width, which MariaDB names and MySQL does not, means nothing.
        const COLUMNS: &str = "SELECT CAST(column_name AS BINARY), \
            CAST(IF(data_type = 'bigint' AND column_type NOT LIKE '%unsigned%', 'bigint', \
            column_type) AS BINARY), CAST(is_nullable = 'YES' AS SIGNED), \
            CAST(column_default IS NOT NULL AS SIGNED) FROM information_schema.columns \
            WHERE table_schema = COALESCE(?, DATABASE()) \
            AND table_name = ? ORDER BY ordinal_position";
        const INDEXES: &str = "SELECT CAST(column_name AS BINARY), \
            CAST(index_name = 'PRIMARY' AS SIGNED) FROM information_schema.statistics \
            WHERE table_schema = COALESCE(?, DATABASE()) \
            AND table_name = ? AND column_name IS NOT NULL \
            AND (index_name = 'PRIMARY' OR seq_in_index = 1) ORDER BY seq_in_index";
        const COMMENT: &str = "SELECT CAST(table_comment AS BINARY) \
            FROM information_schema.tables WHERE table_schema = COALESCE(?, DATABASE()) \
            AND table_name = ?";
        let ask = async |sql| {
            let sql = SqlStr::from_static(sql);
            let statement = || {
                Statement::new(&sql)
                    .bytes(remote.table.schema().map(str::as_bytes))
                    .bytes(remote.table.table().as_bytes())
            };
            remote.read(end, statement).await
        };
        let mut table = Table::default();
        for row in &ask(COLUMNS).await?.rows {
            table.columns.push(Column {
                name: codec::text::<Self>(row, 0)?,
                kind: codec::text::<Self>(row, 1)?,
                nullable: codec::number::<Self>(row, 2)? != 0,
                has_default: codec::number::<Self>(row, 3)? != 0,
            });
        }
        for row in &ask(INDEXES).await?.rows {
            let name = codec::text::<Self>(row, 0)?;
            if codec::number::<Self>(row, 1)? != 0 {
                table.primary_key.push(name);
            } else {
                table.indexed.push(name);
            }
        }
        let comment = ask(COMMENT).await?;
        table.comment = codec::comment::<Self>(comment.rows.first());
        Ok(table)
    }

    async fn sweep(
        remote: &Remote<Self>,
        end: Instant,
        limit: i64,
        alone: bool,
    ) -> Result<Option<Swept>> {
        let sweep = Sweep {
            sql: SweepStatements::new(remote),
            alone,
            now: remote.now(),
            limit,
        };
        remote
            .runner
            .session(end, Effect::Write, move |connection| {
                let sweep = sweep.clone();
                Box::pin(async move { sweep.run(connection).await })
            })
            .await
            .map_err(|failure| failure.into_error(Effect::Write))
    }

    fn ending(t: &str, condition: &str) -> Ending {
        let sql = |expiry| safe(format!("DELETE FROM {t} WHERE {condition}{expiry}"));
        Ending {
            live: sql(" AND expires_at > ?"),
            expired: sql(" AND expires_at <= ?"),
            any: sql(""),
        }
    }

    async fn end(
        remote: &Remote<Self>,
        end: Instant,
        ending: &Ending,
        bind: impl Fn(Statement<Self>) -> Statement<Self> + Send + Sync,
    ) -> Result<bool> {
        let live = || bind(Statement::new(&ending.live)).time(remote.now());
        if remote.write(end, live).await?.affected() > 0 {
            return Ok(true);
        }
        let expired = || bind(Statement::new(&ending.expired)).time(remote.now());
        if remote.write(end, expired).await?.affected() > 0 {
            return Ok(false);
        }
        // One that is there all the same was prolonged in between, or has come.
        let any = || bind(Statement::new(&ending.any));
        Ok(remote.write(end, any).await?.affected() > 0)
    }

    async fn execute(link: &mut MySqlConnection, sql: &'static str) -> sqlx::Result<()> {
        Executor::execute(link, sql).await.map(drop)
    }

    /// What has expired goes first, so that what is left can be counted. In this order also who
    /// signs in meanwhile, or is prolonged by a clock that is behind, is ended and counted.
    async fn revoke_all(
        remote: &Remote<Self>,
        end: Instant,
        subject: &[u8],
        except: &[u8],
    ) -> Result<u64> {
        let Ending { expired, any, .. } =
            Self::ending(&remote.quoted, "subject = ? AND session_key <> ?");
        let bind = |sql| Statement::new(sql).bytes(subject).bytes(except);
        remote
            .write(end, || bind(&expired).time(remote.now()))
            .await?;
        Ok(remote.write(end, || bind(&any)).await?.affected())
    }
}

/// The statements that remove rows and say whether they were live: MySQL does not return what it
/// deletes.
pub(crate) struct Ending {
    live: SqlStr,
    expired: SqlStr,
    any: SqlStr,
}

/// A sweep of one batch: three statements, so that those that write name the rows that they lock
/// and lock no gaps between them.
#[derive(Clone)]
struct Sweep {
    sql: SweepStatements,
    alone: bool,
    now: Timestamp,
    limit: i64,
}

#[derive(Clone)]
struct SweepStatements {
    lock: SqlStr,
    unlock: SqlStr,
    due: SqlStr,
    remove: SqlStr,
    put_off: SqlStr,
}

impl SweepStatements {
    fn new(remote: &Remote<MySql>) -> Self {
        let t = &remote.quoted;
        // The name of a lock is known to the whole server and has 64 characters at most. It is the
        // same whether the table's database is named or is the connection's, which may have none.
        let database = match remote.table.schema() {
            Some(schema) => format!("'{schema}'"),
            None => "DATABASE()".to_owned(),
        };
        let name = format!(
            "SHA2(CONCAT('sessionkit sweep ', {database}, ' {}'), 224)",
            remote.table.table()
        );
        let keys = vec!["?"; BATCH].join(", ");
        Self {
            lock: safe(format!("SELECT GET_LOCK({name}, 0)")),
            unlock: safe(format!("SELECT RELEASE_LOCK({name})")),
            due: safe(format!(
                "SELECT session_key FROM {t} WHERE sweep_at <= ? ORDER BY sweep_at LIMIT ?"
            )),
            remove: safe(format!(
                "DELETE FROM {t} WHERE expires_at <= ? AND session_key IN ({keys})"
            )),
            put_off: safe(format!(
                "UPDATE {t} SET sweep_at = expires_at WHERE expires_at > ? AND session_key IN ({keys})"
            )),
        }
    }
}

impl Sweep {
    async fn run(&self, connection: &mut MySqlConnection) -> sqlx::Result<Option<Swept>> {
        if !self.alone {
            return self.batch(connection).await.map(Some);
        }
        let answer = MySql::run(connection, Statement::new(&self.sql.lock)).await?;
        // Null is an error of the server, and no other process.
        let row = answer.rows.first().ok_or(sqlx::Error::RowNotFound)?;
        if MySql::number(row, 0)? != 1 {
            return Ok(None);
        }
        // A connection that fails in between is closed, and the lock goes with it.
        let swept = self.batch(connection).await;
        MySql::run(connection, Statement::new(&self.sql.unlock)).await?;
        swept.map(Some)
    }

    async fn batch(&self, connection: &mut MySqlConnection) -> sqlx::Result<Swept> {
        let due = Statement::new(&self.sql.due)
            .time(self.now)
            .number(self.limit);
        let due = MySql::run(connection, due).await?;
        if due.rows.is_empty() {
            return Ok(Swept {
                removed: 0,
                put_off: 0,
            });
        }
        let keys: Vec<_> = (0..BATCH)
            .map(|index| due.rows.get(index).map(|row| MySql::bytes(row, 0)))
            .map(|bytes| bytes.transpose().map(Option::flatten))
            .collect::<sqlx::Result<_>>()?;
        let with_keys = |sql| {
            let statement = Statement::new(sql).time(self.now);
            keys.iter()
                .fold(statement, |s, key| s.bytes(key.as_deref()))
        };
        let removed = MySql::run(connection, with_keys(&self.sql.remove)).await?;
        let put_off = MySql::run(connection, with_keys(&self.sql.put_off)).await?;
        Ok(Swept {
            removed: removed.affected(),
            put_off: put_off.affected(),
        })
    }
}
