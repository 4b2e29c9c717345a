use std::sync::Arc;

use sessionkit::{Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp, Token};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    error::DatabaseError,
    postgres::{PgPoolOptions, PgSslMode},
};

use crate::{
    StoreOptions, TableName,
    call::{
        Answer, Backend, Caller, Statement, backend_values, parse_url, run_statement, try_connect,
    },
    failure::{Cause, Failure, Refusal},
    record,
    remote::{Dialect, Remote, Swept, remote_store, safe},
    schema::{Column, Table, columns, comment},
};

/// Keeps sessions in a table of Postgres.
///
/// Each call is one prepared statement. A clone is the same store.
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
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when the URL, an option
    /// or the account is not valid; [`ErrorKind::Unavailable`](sessionkit::ErrorKind::Unavailable)
    /// when the server cannot be reached.
    pub async fn connect(url: &str, options: StoreOptions) -> Result<Self> {
        let options = options.checked()?;
        let mut connect = parse_url::<Postgres>(url)?.disable_statement_logging();
        if options.transaction_pooling {
            // PgBouncer refuses parameters at the start that it does not know.
            connect = connect.extra_float_digits(None).statement_cache_capacity(0);
        }
        if options.require_tls {
            connect = connect.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(pem) = &options.root_certificates {
            connect = connect.ssl_root_cert_from_pem(pem.clone());
        }
        try_connect::<Postgres>(&connect, options.deadline).await?;
        let pool = PgPoolOptions::new().max_connections(options.max_connections.unwrap_or(16));
        let caller = Caller::connect(pool, connect, options.deadline);
        Ok(Self::new(caller, options))
    }

    /// Opens a store over the caller's pool.
    ///
    /// A pool without `test_before_acquire` is faster and lets the first call after a lost
    /// connection fail.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](sessionkit::ErrorKind::InvalidConfig) when an option is not
    /// valid.
    pub fn with_pool(pool: PgPool, options: StoreOptions) -> Result<Self> {
        let options = options.checked_for_pool()?;
        Ok(Self::new(Caller::new(pool, options.deadline), options))
    }

    fn new(caller: Caller<Postgres>, options: StoreOptions) -> Self {
        let once = options.transaction_pooling;
        Self(Arc::new(Remote::new(caller, options, once)))
    }

    /// The statements that [`migrate`](Self::migrate) executes, for review.
    #[must_use]
    pub fn schema(table: &TableName) -> String {
        schema(table).map(|sql| sql + ";\n").concat()
    }
}

remote_store!(PostgresStore);

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

impl Backend for Postgres {
    const LOCAL: bool = false;

    async fn run(
        connection: &mut PgConnection,
        statement: Statement<Self>,
    ) -> sqlx::Result<Answer<Self>> {
        if !statement.once {
            return execute(connection, statement).await;
        }
        // The statement is parsed in one round trip and executed in the next: within a transaction
        // a pooler leaves both to the same connection.
        let mut transaction = connection.begin().await?;
        let answer = execute(&mut transaction, statement).await?;
        match transaction.commit().await {
            Ok(()) => Ok(answer),
            Err(error) => Err(crate::call::after_completion(error)),
        }
    }

    /// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn refusal(error: &dyn DatabaseError) -> Failure {
        let code = error.code().unwrap_or_default();
        let refusal = match &*code {
            "40001" | "40P01" | "55P03" => Refusal::Contention,
            // The server is ending; or it has another idea of what is prepared, because the table
            // was altered or a pooler has swapped the connection.
            "57P01" | "57P02" | "57P03" | "57P05" | "0A000" | "26000" | "42P05" => {
                Refusal::Disconnected
            }
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
            Refusal::Setup | Refusal::Other => format!("SQLSTATE {code}: {}", error.message()),
            _ => format!("SQLSTATE {code}"),
        };
        Failure::Refused(refusal, Cause(cause))
    }

    backend_values!();
}

async fn execute(
    connection: &mut PgConnection,
    statement: Statement<Postgres>,
) -> sqlx::Result<Answer<Postgres>> {
    run_statement!(connection, statement)
}

impl Dialect for Postgres {
    const QUOTE: char = '"';
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

    async fn table(remote: &Remote<Self>) -> Result<Table> {
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
            let sql = sqlx::SqlStr::from_static(sql);
            let statement = || remote.statement(&sql).bytes(remote.quoted.as_bytes());
            remote.caller.read(statement).await
        };
        let mut table = Table::default();
        for row in &ask(COLUMNS).await?.rows {
            table.columns.push(Column {
                name: record::text::<Self>(row, 0)?,
                kind: record::text::<Self>(row, 1)?,
                nullable: record::number::<Self>(row, 2)? != 0,
                has_default: record::number::<Self>(row, 3)? != 0,
            });
        }
        for row in &ask(INDEXES).await?.rows {
            let name = record::text::<Self>(row, 0)?;
            if record::number::<Self>(row, 1)? != 0 {
                table.primary_key.push(name);
            } else {
                table.indexed.push(name);
            }
        }
        let comment = ask(COMMENT).await?;
        table.comment = record::comment::<Self>(comment.rows.first());
        Ok(table)
    }

    async fn sweep(remote: &Remote<Self>, limit: i64, alone: bool) -> Result<Option<Swept>> {
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
        let statement = || remote.statement(&sql).time(remote.now()).number(limit);
        let answer = remote.caller.write(statement).await?;
        let Some(row) = answer.rows.first() else {
            return Ok(None);
        };
        let count = |index| record::number::<Self>(row, index).map(i64::cast_unsigned);
        let swept = Swept {
            removed: count(1)?,
            put_off: count(2)?,
        };
        Ok((count(0)? != 0).then_some(swept))
    }

    async fn revoke(remote: &Remote<Self>, subject: &[u8], key: &StoreKey) -> Result<bool> {
        let sql = safe(format!(
            "DELETE FROM {} WHERE session_key = $1 AND subject = $2 \
             RETURNING (expires_at > $3)::int::int8",
            remote.quoted
        ));
        let statement = || {
            remote
                .statement(&sql)
                .key(key)
                .bytes(subject)
                .time(remote.now())
        };
        let answer = remote.caller.write(statement).await?;
        let is_live = |row| record::number::<Self>(row, 0).map(|live| live != 0);
        answer.rows.first().map_or(Ok(false), is_live)
    }

    async fn revoke_all(remote: &Remote<Self>, subject: &[u8], except: &[u8]) -> Result<u64> {
        let sql = safe(format!(
            "WITH revoked AS (DELETE FROM {} WHERE subject = $1 AND session_key <> $2 \
             RETURNING expires_at) SELECT count(*) FROM revoked WHERE expires_at > $3",
            remote.quoted
        ));
        let statement = || {
            remote
                .statement(&sql)
                .bytes(subject)
                .bytes(except)
                .time(remote.now())
        };
        let answer = remote.caller.write(statement).await?;
        let count = |row| record::number::<Self>(row, 0).map(i64::cast_unsigned);
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
