//! The statements, each over many rows.

use sessionkit::Timestamp;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::{
    TableName,
    batch::MAX_CALLS,
    schema::{Column, columns, comment},
};

/// A statement is prepared for these numbers of rows; those that a batch leaves unused are null.
const SIZES: [usize; 7] = [1, 2, 4, 8, 16, 32, MAX_CALLS];

/// One statement in the sizes that it is prepared in.
#[derive(Clone, Debug)]
pub(super) struct Sized([SqlStr; SIZES.len()]);

impl Sized {
    fn new(build: impl Fn(usize) -> String) -> Self {
        Self(SIZES.map(|size| safe(told(&build(size)))))
    }

    /// The smallest that takes this many rows.
    pub(super) fn at_least(&self, rows: usize) -> &SqlStr {
        let index = SIZES.iter().position(|&size| rows <= size);
        &self.0[index.expect("no batch has more than MAX_CALLS calls")]
    }
}

/// In each but `load` and `find` the first parameter is a time; lists of rows follow it.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    pub(super) create: Sized,
    pub(super) load: Sized,
    /// Of a record that lives beyond the time, and whose expiry is not to come before its sweep:
    /// nothing is written to an index.
    pub(super) update: Sized,
    pub(super) update_locked: SqlStr,
    /// As `update`.
    pub(super) touch: Sized,
    pub(super) touch_locked: SqlStr,
    /// Of a record that can be read.
    pub(super) delete_at: Sized,
    pub(super) delete: Sized,
    pub(super) find: SqlStr,
    pub(super) ping: SqlStr,
    pub(super) sweep: SqlStr,
    pub(super) postpone: SqlStr,
    pub(super) list: SqlStr,
    pub(super) revoke: SqlStr,
    pub(super) revoke_all: SqlStr,
    columns: SqlStr,
    indexes: SqlStr,
    comment: SqlStr,
    pub(super) bystanders: SqlStr,
    pub(super) schema: [SqlStr; 3],
}

impl Statements {
    pub(super) fn new(table: &TableName) -> Self {
        let t = table.quoted('"');
        // At once: what was extended since the row was noted for the sweep may be noted later, and
        // what was shortened must not be.
        // SQLite writes an index entry for each column that is set, changed or not.
        let sweep_at = |expiry: &str| format!("sweep_at = min(stored.sweep_at, {expiry}),");
        let now = "(SELECT at FROM told)";
        let update = |n, also: &str, only: &str| {
            format!(
                "UPDATE {t} AS stored SET revision = new.column3, created_at = new.column4, {also} \
                 expires_at = new.column5, subject = new.column6, label = new.column7, \
                 data = new.column8 FROM (VALUES {}) AS new \
                 WHERE stored.session_key = new.column1 AND stored.revision = new.column2 \
                 AND stored.expires_at > {now} {only} RETURNING session_key",
                rows(n, 8)
            )
        };
        let touch = |n, also: &str, only: &str| {
            format!(
                "UPDATE {t} AS stored SET {also} expires_at = new.column2 \
                 FROM (VALUES {}) AS new WHERE stored.session_key = new.column1 \
                 AND stored.expires_at > {now} {only} RETURNING session_key",
                rows(n, 2)
            )
        };
        Self {
            create: Sized::new(|n| {
                format!(
                    "INSERT INTO {t} AS stored \
                     (session_key, revision, created_at, expires_at, sweep_at, subject, label, data) \
                     SELECT column1, column2, column3, column4, column4, column5, column6, column7 \
                     FROM (VALUES {}) WHERE column1 IS NOT NULL \
                     ON CONFLICT (session_key) DO UPDATE SET revision = excluded.revision, \
                     created_at = excluded.created_at, expires_at = excluded.expires_at, \
                     sweep_at = excluded.sweep_at, subject = excluded.subject, \
                     label = excluded.label, data = excluded.data \
                     WHERE stored.expires_at <= {now} RETURNING session_key",
                    rows(n, 7)
                )
            }),
            load: Sized(SIZES.map(|n| {
                safe(format!(
                    "SELECT session_key, revision, created_at, expires_at, subject, label, data \
                     FROM {t} WHERE session_key IN ({})",
                    list(n)
                ))
            })),
            update: Sized::new(|n| update(n, "", "AND stored.sweep_at <= new.column5")),
            update_locked: safe(told(&update(1, &sweep_at("new.column5"), ""))),
            touch: Sized::new(|n| touch(n, "", "AND stored.sweep_at <= new.column2")),
            touch_locked: safe(told(&touch(1, &sweep_at("new.column2"), ""))),
            delete_at: Sized::new(|n| {
                format!(
                    "DELETE FROM {t} WHERE (session_key, revision) IN (VALUES {}) \
                     AND expires_at > {now} AND created_at BETWEEN {} AND {} \
                     RETURNING session_key",
                    rows(n, 2),
                    Timestamp::MIN.as_millis(),
                    Timestamp::MAX.as_millis()
                )
            }),
            delete: Sized::new(|n| {
                format!(
                    "DELETE FROM {t} WHERE session_key IN ({}) \
                     RETURNING session_key, expires_at > {now}",
                    list(n)
                )
            }),
            find: safe(format!(
                "SELECT revision, expires_at, created_at FROM {t} WHERE session_key = ?1"
            )),
            // Takes the lock for writing, and writes nothing: no key is empty.
            ping: safe(format!("DELETE FROM {t} WHERE session_key = x''")),
            sweep: safe(format!(
                "DELETE FROM {t} WHERE expires_at <= ?1 AND rowid IN ({})",
                due(&t)
            )),
            postpone: safe(format!(
                "UPDATE {t} SET sweep_at = expires_at WHERE expires_at > ?1 AND rowid IN ({})",
                due(&t)
            )),
            list: safe(format!(
                "SELECT session_key, created_at, expires_at, label FROM {t} \
                 WHERE expires_at > ?1 AND subject = ?2 AND session_key > ?3 \
                 ORDER BY session_key LIMIT ?4"
            )),
            revoke: safe(format!(
                "DELETE FROM {t} WHERE session_key = ?2 AND subject = ?3 \
                 RETURNING expires_at > ?1"
            )),
            revoke_all: safe(format!(
                "DELETE FROM {t} WHERE subject = ?2 AND session_key IS NOT ?3 \
                 RETURNING expires_at > ?1"
            )),
            columns: SqlStr::from_static(
                "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk \
                 FROM pragma_table_info(?1) ORDER BY cid",
            ),
            indexes: SqlStr::from_static(
                "SELECT i.name FROM pragma_index_list(?1) AS l \
                 JOIN pragma_index_info(l.name) AS i WHERE i.seqno = 0",
            ),
            // The database keeps the statement that made a table, with the comment in it.
            comment: SqlStr::from_static(
                "SELECT sql FROM sqlite_schema \
                 WHERE type = 'table' AND lower(name) = CAST(?1 AS TEXT)",
            ),
            bystanders: SqlStr::from_static(
                "SELECT 'column ' || name FROM pragma_table_info(?1) WHERE name NOT IN \
                 ('session_key', 'revision', 'created_at', 'expires_at', 'sweep_at', 'subject', \
                 'label', 'data') \
                 UNION ALL SELECT type || ' ' || name FROM sqlite_schema \
                 WHERE lower(tbl_name) = CAST(?1 AS TEXT) AND type <> 'table' AND sql IS NOT NULL \
                 AND name NOT IN (CAST(?1 AS TEXT) || '_sweep_at', CAST(?1 AS TEXT) || '_subject') \
                 UNION ALL SELECT 'reference in ' || s.name FROM sqlite_schema AS s \
                 JOIN pragma_foreign_key_list(s.name) AS f WHERE s.type = 'table' \
                 AND lower(f.\"table\") = CAST(?1 AS TEXT)",
            ),
            schema: schema(table).map(safe),
        }
    }
}

impl Statements {
    /// What to ask about a table of a name: its columns, the first columns of its indexes, and the
    /// statement that made it.
    pub(super) fn catalogue(&self) -> [&SqlStr; 3] {
        [&self.columns, &self.indexes, &self.comment]
    }
}

pub(super) fn wanted() -> Vec<Column> {
    columns(["BLOB", "INTEGER", "BLOB", "BLOB", "BLOB"])
}

/// The table and its indexes, each statement without effect when its object is there.
///
/// The rows are filed by a number of SQLite's, and the keys in an index beside them. A table that
/// is filed by its keys (`WITHOUT ROWID`) keeps at most a quarter of a page of each row in place: it
/// took up to four times as long for a write.
pub(super) fn schema(table: &TableName) -> [String; 3] {
    let name = table.table();
    [
        create_table(name),
        format!("CREATE INDEX IF NOT EXISTS \"{name}_sweep_at\" ON \"{name}\" (sweep_at)"),
        format!(
            "CREATE INDEX IF NOT EXISTS \"{name}_subject\" ON \"{name}\" (subject, session_key) \
             WHERE subject IS NOT NULL"
        ),
    ]
}

/// What makes of a table of an older version one of this one, in one transaction.
pub(super) fn rebuild(table: &TableName) -> [SqlStr; 6] {
    let name = table.table();
    let new = format!("{name}_rebuilt");
    let columns = "session_key, revision, created_at, expires_at, sweep_at, subject, label, data";
    let [_, sweep_at, subject] = schema(table);
    [
        create_table(&new),
        format!("INSERT INTO \"{new}\" ({columns}) SELECT {columns} FROM \"{name}\""),
        format!("DROP TABLE \"{name}\""),
        format!("ALTER TABLE \"{new}\" RENAME TO \"{name}\""),
        sweep_at,
        subject,
    ]
    .map(safe)
}

fn create_table(name: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS \"{name}\" ( -- {}\n    \
         session_key BLOB NOT NULL PRIMARY KEY CHECK (length(session_key) = 32),\n    \
         revision INTEGER NOT NULL,\n    \
         created_at INTEGER NOT NULL,\n    \
         expires_at INTEGER NOT NULL,\n    \
         sweep_at INTEGER NOT NULL,\n    \
         subject BLOB,\n    \
         label BLOB NOT NULL,\n    \
         data BLOB NOT NULL\n) STRICT",
        comment()
    )
}

pub(super) fn drop_table(table: &TableName) -> SqlStr {
    safe(format!("DROP TABLE IF EXISTS \"{}\"", table.table()))
}

pub(super) fn safe(sql: String) -> SqlStr {
    // Made of literals, numbers and a TableName, which can hold nothing else than a name; shared,
    // so that a clone does not copy it.
    AssertSqlSafe(std::sync::Arc::<str>::from(sql)).into_sql_str()
}

/// The first rows that are due to be swept, as far as ?2 goes.
fn due(table: &str) -> String {
    format!("SELECT rowid FROM {table} WHERE sweep_at <= ?1 ORDER BY sweep_at LIMIT ?2")
}

/// A statement over rows, with the time as its first parameter.
///
/// Its parameters have no numbers: those are names, and for each value the driver asks SQLite for
/// the parameter's name, which looks for it in a list of all names.
fn told(sql: &str) -> String {
    format!("WITH told(at) AS (VALUES (?)) {sql}")
}

/// `(?, ?), (?, ?)` and so on.
fn rows(rows: usize, width: usize) -> String {
    vec![format!("({})", list(width)); rows].join(", ")
}

/// `?, ?, ?` and so on.
fn list(length: usize) -> String {
    vec!["?"; length].join(", ")
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row, SqliteConnection, raw_sql};

    use super::*;

    /// How the database carries out a statement, a step a line.
    async fn plan(connection: &mut SqliteConnection, sql: &SqlStr) -> Vec<String> {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", sql.as_str()));
        let rows = sqlx::query(explain).fetch_all(connection).await.unwrap();
        rows.iter().map(|row| row.get(3)).collect()
    }

    #[tokio::test]
    async fn every_statement_uses_an_index() {
        let statements = Statements::new(&TableName::default());
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for sql in &statements.schema {
            raw_sql(sql.clone()).execute(&mut connection).await.unwrap();
        }
        let sized = [
            &statements.create,
            &statements.load,
            &statements.update,
            &statements.touch,
            &statements.delete_at,
            &statements.delete,
        ];
        let single = [
            &statements.find,
            &statements.ping,
            &statements.update_locked,
            &statements.touch_locked,
            &statements.sweep,
            &statements.postpone,
            &statements.list,
            &statements.revoke,
            &statements.revoke_all,
        ];
        let sized = sized
            .iter()
            .flat_map(|sized| [&sized.0[0], &sized.0[SIZES.len() - 1]]);
        for sql in sized.chain(single) {
            let steps = plan(&mut connection, sql).await;
            println!("{:.120}\n    {}\n", sql.as_str(), steps.join("\n    "));
            let scans =
                |step: &&String| step.contains("SCAN sessions") || step.contains("SCAN stored");
            assert_eq!(steps.iter().find(scans), None, "{}", sql.as_str());
        }
    }
}
