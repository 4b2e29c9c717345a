//! What the table has to look like, and how an existing one differs.

use sessionkit::{Error, ErrorKind, Result};

use crate::TableName;

/// The version of the table. To change it: raise it, and let each `migrate` bring a table of the
/// version before to it. A process that needs an older one then says so in its `check`.
pub(crate) const VERSION: u32 = 1;

/// What the table's comment begins with, before its version.
const COMMENT: &str = "sessionkit schema ";

/// The table's comment.
pub(crate) fn comment() -> String {
    format!("{COMMENT}{VERSION}")
}

/// One column, as the store needs it and as the database describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) nullable: bool,
    pub(crate) has_default: bool,
}

impl Column {
    pub(crate) fn new(name: &str, kind: &str, nullable: bool) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            nullable,
            has_default: false,
        }
    }
}

/// The columns in the types of one database; `kinds` are those of a key, a number, an optional
/// subject, a label and the data.
pub(crate) fn columns(kinds: [&str; 5]) -> Vec<Column> {
    let [key, number, subject, label, data] = kinds;
    vec![
        Column::new("session_key", key, false),
        Column::new("revision", number, false),
        Column::new("created_at", number, false),
        Column::new("expires_at", number, false),
        Column::new("sweep_at", number, false),
        Column::new("subject", subject, true),
        Column::new("label", label, false),
        Column::new("data", data, false),
    ]
}

/// What a database says about an existing table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    /// The columns of the primary key.
    pub(crate) primary_key: Vec<String>,
    /// The first column of each other index.
    pub(crate) indexed: Vec<String>,
    /// A text that the table's comment is in.
    pub(crate) comment: String,
}

impl Table {
    /// Compares with what the store needs.
    pub(crate) fn check(&self, name: &TableName, wanted: &[Column]) -> Result<()> {
        let differences = if self.exists() {
            self.differences(wanted)
        } else {
            vec!["it does not exist".to_owned()]
        };
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("the session table {name}: {}", differences.join("; ")),
        ))
    }

    pub(crate) fn exists(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Whether the table is not there, or is an older one, or lacks nothing but indexes: another
    /// one, which somebody else may have made for something else, is left alone.
    pub(crate) fn can_be_completed(&self, wanted: &[Column]) -> bool {
        !self.exists()
            || self.version() <= VERSION && self.differences_in_columns(wanted).is_empty()
    }

    /// Whether the table is there and was made before the present version.
    #[cfg(any(feature = "sqlite", feature = "mysql", test))]
    pub(crate) fn is_older(&self) -> bool {
        self.exists() && self.version() < VERSION
    }

    /// The version that the comment says; 0 for a table of the time before there were versions.
    fn version(&self) -> u32 {
        let digits = self
            .comment
            .split_once(COMMENT)
            .map_or("", |(_, rest)| rest);
        let end = digits.find(|c: char| !c.is_ascii_digit());
        let digits = &digits[..end.unwrap_or(digits.len())];
        digits.parse().unwrap_or_default()
    }

    fn differences(&self, wanted: &[Column]) -> Vec<String> {
        let version = self.version();
        if version > VERSION {
            return vec![format!(
                "its version is {version}, and this program knows none after {VERSION}"
            )];
        }
        let mut differences = self.differences_in_columns(wanted);
        if version < VERSION && differences.is_empty() {
            differences.push(format!(
                "its version is {version}, and this program needs {VERSION}, which migrate() makes \
                 of it"
            ));
        }
        for name in ["sweep_at", "subject"] {
            if !self.indexed.iter().any(|indexed| indexed == name) {
                differences.push(format!("no index begins with {name}"));
            }
        }
        differences
    }

    fn differences_in_columns(&self, wanted: &[Column]) -> Vec<String> {
        let mut differences: Vec<_> = wanted
            .iter()
            .filter_map(|column| self.difference(column))
            .collect();
        let is_wanted = |name: &str| wanted.iter().any(|column| column.name == name);
        for column in &self.columns {
            if !is_wanted(&column.name) && !column.nullable && !column.has_default {
                differences.push(format!(
                    "the column {}, which is not the store's, has neither null nor a default",
                    column.name
                ));
            }
        }
        if self.primary_key != ["session_key"] {
            differences.push(format!(
                "the primary key is ({}), not (session_key)",
                self.primary_key.join(", ")
            ));
        }
        differences
    }

    fn difference(&self, wanted: &Column) -> Option<String> {
        let name = &wanted.name;
        let Some(found) = self.columns.iter().find(|column| column.name == *name) else {
            return Some(format!("the column {name} is missing"));
        };
        if found.kind != wanted.kind {
            return Some(format!(
                "the column {name} is {}, not {}",
                found.kind, wanted.kind
            ));
        }
        match (found.nullable, wanted.nullable) {
            (true, false) => Some(format!("the column {name} takes null")),
            (false, true) => Some(format!("the column {name} does not take null")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Vec<Column> {
        columns(["k", "n", "s", "l", "d"])
    }

    fn table() -> Table {
        Table {
            columns: wanted(),
            primary_key: vec!["session_key".to_owned()],
            indexed: vec!["sweep_at".to_owned(), "subject".to_owned()],
            comment: comment(),
        }
    }

    fn said(table: &Table) -> String {
        let error = table.check(&TableName::default(), &wanted()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn a_table_as_wanted_passes() {
        let mut table = table();
        table.columns.push(Column::new("note", "text", true));
        assert!(table.check(&TableName::default(), &wanted()).is_ok());
    }

    #[test]
    fn each_difference_is_named() {
        let mut table = table();
        table.columns.remove(1);
        table.columns[1].kind = "text".to_owned();
        table.columns[2].nullable = true;
        table.columns[4].nullable = false;
        table.columns.push(Column::new("tenant", "n", false));
        table.primary_key = vec!["id".to_owned()];
        table.indexed.clear();
        assert_eq!(
            said(&table),
            "the session table sessions: the column revision is missing; the column created_at is \
             text, not n; the column expires_at takes null; the column subject does not take null; \
             the column tenant, which is not the store's, has neither null nor a default; the \
             primary key is (id), not (session_key); no index begins with sweep_at; no index \
             begins with subject"
        );
    }

    #[test]
    fn an_older_table_can_be_completed_and_a_newer_one_is_left_alone() {
        for (comment, version, is_older) in [
            ("", 0, true),
            ("notes", 0, true),
            ("sessionkit schema 0", 0, true),
            ("-- sessionkit schema 1\n", 1, false),
            ("sessionkit schema 2", 2, false),
            ("sessionkit schema 17, and more", 17, false),
        ] {
            let table = Table {
                comment: comment.to_owned(),
                ..table()
            };
            assert_eq!(table.version(), version, "{comment}");
            assert_eq!(table.is_older(), is_older, "{comment}");
            assert_eq!(table.can_be_completed(&wanted()), version <= VERSION);
            match version {
                0 => assert_eq!(
                    said(&table),
                    "the session table sessions: its version is 0, and this program needs 1, which \
                     migrate() makes of it"
                ),
                VERSION => assert!(table.check(&TableName::default(), &wanted()).is_ok()),
                _ => assert_eq!(
                    said(&table),
                    format!(
                        "the session table sessions: its version is {version}, and this program \
                         knows none after 1"
                    )
                ),
            }
        }
        let other = Table {
            columns: vec![Column::new("id", "n", false)],
            ..Table::default()
        };
        assert!(!other.can_be_completed(&wanted()));
    }

    #[test]
    fn a_missing_table_is_said_to_be_missing() {
        assert_eq!(
            said(&Table::default()),
            "the session table sessions: it does not exist"
        );
    }
}
