use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sessionkit::{Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp, Token};
use sqlx::{
    Arguments, ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres, Row, SqlStr,
    error::DatabaseError,
    postgres::{PgArguments, PgConnectOptions, PgSslMode},
};
use tokio::time::Instant;

use crate::{
    StoreOptions, TableName, codec,
    failure::{Cause, Failure, Refusal},
    remote::{Dialect, Remote, Swept, remote_store, safe},
    schema::{Column, Table, columns, comment},
    statement::{Answer, Driver, Runner, Statement, parse_url, random, read_answer, row_values},
    url::Address,
};

/// Keeps sessions in a table of Postgres.
///
/// Each call is one statement, prepared where the connection leads to one server process and to no
/// other. A clone is the same store.
///
/// ```no_run
/// # async fn example() -> sessionkit::Result<()> {
/// use sessionkit_sqlx::{PostgresStore, StoreOptions};
///
/// let url = "postgres://app@db.example/app";
/// let store = PostgresStore::connect(url, StoreOptions::new()).await?;
/// store.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore(Arc<Remote<Postgres>>);

impl PostgresStore {
    /// Opens a store by the URL of a database, `postgres://user:password@host:port/database`,
    /// after one connection was made to see that it can be.
    ///
    /// Options in the URL are those of the driver
    /// ([`PgConnectOptions`](sqlx::postgres::PgConnectOptions)), `connect_timeout` in seconds,
    /// `schema`, `currentSchema` or `search_path` for the table's schema unless its name has one,
    /// `channel_binding`, where `require` demands a valid certificate, `connection_limit`, and
    /// `pgbouncer=true`; `target_session_attrs` and `gssencmode` may say what is the case anyway. Any
    /// other is refused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when the URL, an option
    /// or the account is not valid; [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable)
    /// when the server cannot be reached.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self> {
        let mut options = options.checked()?;
        let address = Address::parse(url, is_of_the_driver, &OWN)?;
        address.apply(&mut options)?;
        address.one_of(
            "gssencmode",
            &[("disable", ()), ("allow", ()), ("prefer", ())],
        )?;
        // A store is of no use where it cannot write.
        let writable = [("any", ()), ("read-write", ()), ("primary", ())];
        address.one_of("target_session_attrs", &writable)?;
        let pooled = [("true", true), ("false", false)];
        if let Some(pooling) = address.one_of("pgbouncer", &pooled)? {
            options.transaction_pooling |= pooling;
        }
        let mut connect = parse_url::<Postgres>(&address.url)?;
        if let Some(path) = address.schema(&mut options) {
            connect = connect.options([("search_path", path)]);
        }
        // What binds the password to the encrypted channel the driver does not know. Where it is
        // required, so is the certificate, which keeps others from the channel as well.
        let binding = [("disable", false), ("prefer", false), ("require", true)];
        let is_bound = address.one_of("channel_binding", &binding)?;
        if options.require_tls || is_bound == Some(true) {
            connect = connect.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(pem) = &options.root_certificates {
            connect = connect.ssl_root_cert_from_pem(pem.clone());
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
    pub fn with_pool(pool: PgPool, options: StoreOptions) -> Result<Self> {
        let options = options.checked_for_pool()?;
        let limit = pool.options().get_max_connections();
        let limit = options.max_connections.unwrap_or(limit);
        // Asked each time, because who has a password that changes gives the pool the new one.
        let connect = move || PgConnectOptions::clone(&pool.connect_options());
        Ok(Self::new(connect, limit, options))
    }

    fn new(
        connect: impl Fn() -> PgConnectOptions + Send + Sync + 'static,
        limit: u32,
        options: StoreOptions,
    ) -> Self {
        let patience = options.deadline / 3;
        let is_direct = Arc::new(AtomicBool::new(!options.transaction_pooling));
        let connect = move || {
            let options = connect()
                .disable_statement_logging()
                // Numbers with fractions there are none, and PgBouncer refuses what it does not know.
                .extra_float_digits(None);
            let is_direct = Arc::clone(&is_direct);
            Box::pin(PgLink::connect(options, patience, is_direct)) as _
        };
        let mut runner = Runner::new(connect, limit, options.deadline, options.connect_timeout);
        runner.patience = patience;
        Self(Arc::new(Remote::new(runner, options)))
    }

    /// The statements that [`migrate`](Self::migrate) executes, for review.
    #[must_use]
    pub fn schema(table: &TableName) -> String {
        schema(table).map(|sql| sql + ";\n").concat()
    }
}

remote_store!(PostgresStore);

/// The options of a URL that mean something to the store.
const OWN: [&str; 9] = [
    "connect_timeout",
    "connection_limit",
    "schema",
    "currentSchema",
    "search_path",
    "channel_binding",
    "pgbouncer",
    "target_session_attrs",
    "gssencmode",
];

fn is_of_the_driver(name: &str) -> bool {
    let names = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    names.contains(&name) || name.starts_with("options[") && name.ends_with(']')
}

/// The table and its indexes.
///
/// The rows of a page leave room for their next versions, so that a write that changes no indexed
/// column finds a place beside the old one and touches no index (a heap-only update).
fn schema(table: &TableName) -> [String; 4] {
    let (t, name) = (table.quoted('"'), table.table());
    [
        format!(
            "CREATE TABLE IF NOT EXISTS {t} (\n    \
             session_key bytea PRIMARY KEY CHECK (octet_length(session_key) = 32),\n    \
             revision bigint NOT NULL,\n    \
             created_at bigint NOT NULL,\n    \
             expires_at bigint NOT NULL,\n    \
             sweep_at bigint NOT NULL,\n    \
             subject bytea,\n    \
             label bytea NOT NULL,\n    \
             data bytea NOT NULL\n) WITH (fillfactor = 70)"
        ),
        format!("CREATE INDEX IF NOT EXISTS \"{name}_sweep_at\" ON {t} (sweep_at)"),
        format!(
            "CREATE INDEX IF NOT EXISTS \"{name}_subject\" ON {t} (subject, session_key) \
             WHERE subject IS NOT NULL"
        ),
        format!("COMMENT ON TABLE {t} IS '{}'", comment()),
    ]
}

/// A connection, and how statements are sent on it.
pub(crate) struct PgLink {
    connection: PgConnection,
    /// How long the server waits for a lock; with each statement, or for all of them where the
    /// connection is to one process of the server.
    patience: Duration,
    is_direct: bool,
}

impl PgLink {
    /// Connects, and finds out whether a pooler stands between.
    ///
    /// The driver names prepared statements by counting them, so that all clients use the same
    /// names. A pooler that gives a server process to one client after the other would have one
    /// client execute what another has prepared. So statements are prepared only where this very
    /// connection is known to have started the process: it has been told a number when it was
    /// started. A pooler starts its processes for itself; it refuses such an option, or ignores it.
    async fn connect(
        options: PgConnectOptions,
        patience: Duration,
        is_direct: Arc<AtomicBool>,
    ) -> sqlx::Result<Self> {
        if is_direct.load(Ordering::Relaxed) {
            let number = format!("{:016x}", random());
            let own = options.clone().options([
                ("sessionkit.connection", number.as_str()),
                ("lock_timeout", &patience.as_millis().to_string()),
            ]);
            match own.connect().await {
                Ok(mut connection) => {
                    let sql = "SELECT current_setting('sessionkit.connection', true)";
                    let row = sqlx::raw_sql(sql).fetch_one(&mut connection).await?;
                    let told: Option<String> = row.try_get(0)?;
                    let is_own = told.as_deref() == Some(&number);
                    if !is_own {
                        pooled(&is_direct);
                    }
                    return Ok(Self {
                        connection,
                        patience,
                        is_direct: is_own,
                    });
                }
                Err(sqlx::Error::Database(error)) if is_about_options(&*error) => {}
                Err(error) => return Err(error),
            }
        }
        let connection = options.connect().await?;
        pooled(&is_direct);
        Ok(Self {
            connection,
            patience,
            is_direct: false,
        })
    }
}

/// Remembers that a pooler stands between.
fn pooled(is_direct: &AtomicBool) {
    if is_direct.swap(false, Ordering::Relaxed) {
        tracing::info!(
            "the connections to the session database are a pooler's: nothing is prepared on them; \
             with `transaction_pooling` this is not found out each time"
        );
    }
}

/// Whether a server or a pooler may refuse the connection because of an option.
fn is_about_options(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    // The account, the database, the number of connections, a server that starts or ends.
    !["28", "3D", "53", "57"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// The value of a parameter.
pub(crate) enum Value {
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    /// Reads the same whatever `standard_conforming_strings` is.
    fn literal(&self, sql: &mut String) {
        use std::fmt::Write as _;

        const WRITES: &str = "a string takes everything";
        match self {
            Self::Number(number) => write!(sql, "'{number}'::bigint").expect(WRITES),
            Self::Bytes(None) => sql.push_str("NULL::bytea"),
            Self::Bytes(Some(bytes)) => {
                sql.push_str("E'\\\\x");
                for byte in bytes {
                    write!(sql, "{byte:02x}").expect(WRITES);
                }
                sql.push_str("'::bytea");
            }
        }
    }
}

/// A statement with its values in the place of its parameters.
fn with_literals(sql: &str, values: &[Value]) -> String {
    if values.is_empty() {
        return sql.to_owned();
    }
    let mut parts = sql.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let number: usize = number.parse().expect("a parameter has a number");
        values[number - 1].literal(&mut text);
        text.push_str(rest);
    }
    text
}

impl Driver for Postgres {
    type Link = PgLink;
    type Values = Vec<Value>;

    const LOCAL: bool = false;

    async fn run(link: &mut PgLink, statement: Statement<Self>) -> sqlx::Result<Answer<Self>> {
        if link.is_direct {
            return prepared(&mut link.connection, statement).await;
        }
        // One message, which is one transaction, and which leaves nothing behind on the server.
        let sql = format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL bytea_output = hex; {}",
            link.patience.as_millis(),
            with_literals(statement.sql.as_str(), &statement.values)
        );
        read_answer!(link.connection, sqlx::raw_sql(safe(sql)), 3)
    }

    async fn ping(link: &mut PgLink) -> sqlx::Result<()> {
        link.connection.ping().await
    }

    async fn close(link: PgLink) -> sqlx::Result<()> {
        link.connection.close().await
    }

    fn push_number(values: &mut Vec<Value>, number: i64) {
        values.push(Value::Number(number));
    }

    fn push_bytes(values: &mut Vec<Value>, bytes: Option<&[u8]>) {
        values.push(Value::Bytes(bytes.map(Into::into)));
    }

    /// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn refusal(error: &dyn DatabaseError) -> Failure {
        let code = error.code().unwrap_or_default();
        let refusal = match &*code {
            "40001" | "40P01" | "55P03" => Refusal::Contention,
            // The server is ending, or the table was altered since the statement was prepared.
            "57P01" | "57P02" | "57P03" | "57P05" | "0A000" => Refusal::Disconnected,
            // An unknown statement, a known one where there should be none, one with other
            // parameters: nobody but this connection prepares statements in its process.
            "26000" | "42P05" | "08P01" => Refusal::Pooled,
            "25006" => Refusal::ReadOnly,
            "23505" => Refusal::Duplicate,
            "53100" | "53200" => Refusal::Full,
            "XX001" | "XX002" => Refusal::Damaged,
            "42P01" | "42703" | "42501" | "42804" | "42883" | "3D000" | "3F000" => Refusal::Setup,
            code if code.starts_with("28") => Refusal::Setup,
            _ => Refusal::Other,
        };
        let cause = match refusal {
            // It quotes names at most; the key is in the detail, which is left out.
            Refusal::Setup | Refusal::Pooled | Refusal::Other => {
                format!("SQLSTATE {code}: {}", error.message())
            }
            _ => format!("SQLSTATE {code}"),
        };
        Failure::Refused(refusal, Cause(cause))
    }

    row_values!();
}

async fn prepared(
    connection: &mut PgConnection,
    statement: Statement<Postgres>,
) -> sqlx::Result<Answer<Postgres>> {
    let mut arguments = PgArguments::default();
    for value in statement.values {
        match value {
            Value::Number(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
        }
        .expect("numbers and bytes can be encoded");
    }
    let query = sqlx::query_with(statement.sql, arguments);
    read_answer!(connection, query, 1)
}

impl Dialect for Postgres {
    type Ending = SqlStr;

    const QUOTE: char = '"';
    const PING: &str = "SELECT (current_setting('transaction_read_only') = 'on')::int::int8";
    const TIMES_IN_CREATE: usize = 1;

    fn create(t: &str) -> String {
        format!(
            "INSERT INTO {t} AS stored (session_key, revision, created_at, sweep_at, expires_at, \
             subject, label, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (session_key) DO UPDATE SET revision = excluded.revision, \
             created_at = excluded.created_at, sweep_at = excluded.sweep_at, \
             expires_at = excluded.expires_at, subject = excluded.subject, \
             label = excluded.label, data = excluded.data WHERE stored.expires_at <= ?"
        )
    }

    fn created(answer: &Answer<Self>) -> bool {
        answer.affected() > 0
    }

    fn parameters(sql: String) -> String {
        let mut parts = sql.split('?');
        let first = parts.next().unwrap_or_default().to_owned();
        parts
            .zip(1..)
            .fold(first, |sql, (part, number)| format!("{sql}${number}{part}"))
    }

    fn migration(table: &TableName, _: &Table) -> Vec<String> {
        // `IF NOT EXISTS` alone fails when two do it at the same moment. One statement is one
        // transaction: the lock ends with it.
        let statements = schema(table).map(|sql| sql + "; ").concat();
        let lock = lock_id("migrate", table);
        vec![format!(
            "DO $$ BEGIN PERFORM pg_advisory_xact_lock({lock}); {statements} END $$"
        )]
    }

    fn wanted() -> Vec<Column> {
        columns(["bytea", "bigint", "bytea", "bytea", "bytea"])
    }

    async fn table(remote: &Remote<Self>, end: Instant) -> Result<Table> {
        const COLUMNS: &str = "SELECT convert_to(attname, 'UTF8'), \
            convert_to(format_type(atttypid, atttypmod), 'UTF8'), \
            (NOT attnotnull)::int::int8, atthasdef::int::int8 \
            FROM pg_attribute WHERE attrelid = to_regclass(convert_from($1, 'UTF8')) \
            AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        const INDEXES: &str = "SELECT convert_to(a.attname, 'UTF8'), i.indisprimary::int::int8 \
            FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY \
            AS k (attnum, position) JOIN pg_attribute AS a \
            ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
            WHERE i.indrelid = to_regclass(convert_from($1, 'UTF8')) AND i.indisvalid \
            AND (i.indisprimary OR k.position = 1) ORDER BY k.position";
        const COMMENT: &str = "SELECT convert_to(obj_description(\
            to_regclass(convert_from($1, 'UTF8')), 'pg_class'), 'UTF8')";
        let ask = async |sql| {
            let sql = SqlStr::from_static(sql);
            let statement = || Statement::new(&sql).bytes(remote.quoted.as_bytes());
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
        let t = &remote.quoted;
        let held = if alone {
            format!(
                "pg_try_advisory_xact_lock({})",
                lock_id("sweep", &remote.table)
            )
        } else {
            "true".to_owned()
        };
        // Rows that somebody is writing are left for the next time. What was written meanwhile is
        // seen: the conditions are checked again on the version that was locked. An array, because
        // the planner expects a limit that it does not know to be a tenth of the table, and would
        // join the two by reading all of it.
        let sql = safe(format!(
            "WITH lock AS MATERIALIZED (SELECT {held} AS held), \
             due AS MATERIALIZED (SELECT session_key FROM {t} WHERE sweep_at <= $1 \
             AND (SELECT held FROM lock) ORDER BY sweep_at LIMIT $2 FOR UPDATE SKIP LOCKED), \
             removed AS (DELETE FROM {t} WHERE session_key = ANY (ARRAY(SELECT session_key \
             FROM due)) AND expires_at <= $1 RETURNING 1), \
             put_off AS (UPDATE {t} SET sweep_at = expires_at WHERE session_key = ANY \
             (ARRAY(SELECT session_key FROM due)) AND expires_at > $1 RETURNING 1) \
             SELECT (SELECT held FROM lock)::int::int8, (SELECT count(*) FROM removed), \
             (SELECT count(*) FROM put_off)"
        ));
        let statement = || Statement::new(&sql).time(remote.now()).number(limit);
        let answer = remote.write(end, statement).await?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        let count = |index| codec::number::<Self>(row, index).map(i64::cast_unsigned);
        let swept = Swept {
            removed: count(1)?,
            put_off: count(2)?,
        };
        Ok((count(0)? != 0).then_some(swept))
    }

    fn ending(t: &str, condition: &str) -> SqlStr {
        safe(Self::parameters(format!(
            "DELETE FROM {t} WHERE {condition} RETURNING (expires_at > ?)::int::int8"
        )))
    }

    async fn end(
        remote: &Remote<Self>,
        end: Instant,
        ending: &SqlStr,
        bind: impl Fn(Statement<Self>) -> Statement<Self> + Send + Sync,
    ) -> Result<bool> {
        let statement = || bind(Statement::new(ending)).time(remote.now());
        let answer = remote.write(end, statement).await?;
        let is_live = |row| codec::number::<Self>(row, 0).map(|live| live != 0);
        answer.rows.first().map_or(Ok(false), is_live)
    }

    async fn execute(link: &mut PgLink, sql: &'static str) -> sqlx::Result<()> {
        link.connection.execute(sql).await.map(drop)
    }

    async fn revoke_all(
        remote: &Remote<Self>,
        end: Instant,
        subject: &[u8],
        except: &[u8],
    ) -> Result<u64> {
        let sql = safe(format!(
            "WITH revoked AS (DELETE FROM {} WHERE subject = $1 AND session_key <> $2 \
             RETURNING expires_at) SELECT count(*) FROM revoked WHERE expires_at > $3",
            remote.quoted
        ));
        let statement = || {
            Statement::new(&sql)
                .bytes(subject)
                .bytes(except)
                .time(remote.now())
        };
        let answer = remote.write(end, statement).await?;
        let count = |row| codec::number::<Self>(row, 0).map(i64::cast_unsigned);
        answer.rows.first().map_or(Ok(0), count)
    }
}

/// The number of an advisory lock: the first bytes of a hash (FNV-1a) of what is locked.
fn lock_id(purpose: &str, table: &TableName) -> i64 {
    let text = format!("sessionkit {purpose} {table}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}
