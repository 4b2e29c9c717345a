use std::fmt;

use sessionkit::{Error, ErrorKind, Result};

/// The name of a session table, with the schema (Postgres) or database (MySQL) it is in if that is
/// not the connection's own.
///
/// Each part is a lower-case letter or underscore, and then lower-case letters, digits and
/// underscores. What has this type needs no further checks: no statement that is built from it can
/// say anything else.
///
/// ```
/// use sessionkit_sqlx::TableName;
///
/// assert_eq!(TableName::new("web_sessions")?.to_string(), "web_sessions");
/// assert_eq!(TableName::new("shop.sessions")?.schema(), Some("shop"));
/// assert!(TableName::new("sessions; drop table users").is_err());
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: Option<Box<str>>,
    table: Box<str>,
}

impl TableName {
    /// The longest name of a table or schema, in bytes: with what is appended for the names of
    /// the indexes it stays within the 63 bytes of Postgres, which cuts longer names silently.
    pub const MAX_LEN: usize = 48;

    /// Checks a name `table` or `schema.table`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the name has another form or is too long.
    pub fn new(name: &str) -> Result<Self> {
        let (schema, table) = match name.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, name),
        };
        if !schema.is_none_or(is_identifier) || !is_identifier(table) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "{name:?} is not a table name of 1 to 48 lower-case letters, digits and underscores"
                ),
            ));
        }
        Ok(Self {
            schema: schema.map(Into::into),
            table: table.into(),
        })
    }

    /// The name of the table, without the schema.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The schema, if one was given.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name between quotation marks, so that no word is reserved.
    pub(crate) fn quoted(&self, mark: char) -> String {
        match &self.schema {
            Some(schema) => format!("{mark}{schema}{mark}.{mark}{}{mark}", self.table),
            None => format!("{mark}{}{mark}", self.table),
        }
    }
}

/// `sessions`.
impl Default for TableName {
    fn default() -> Self {
        Self {
            schema: None,
            table: "sessions".into(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && name.len() <= TableName::MAX_LEN
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_say_more_than_a_name_are_refused() {
        let long = "a".repeat(49);
        for name in [
            "", ".", "a.", ".a", "a.b.c", "a b", "a\"b", "a`b", "a'b", "a;b", "a-b", "1a", "A",
            "é", "a\0", "a\n", "a%", "a--", &long,
        ] {
            let error = TableName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name:?}");
        }
    }

    #[test]
    fn both_parts_are_quoted() {
        let name = TableName::new("shop.user").unwrap();
        assert_eq!(name.quoted('"'), "\"shop\".\"user\"");
        assert_eq!(TableName::default().quoted('`'), "`sessions`");
    }
}
