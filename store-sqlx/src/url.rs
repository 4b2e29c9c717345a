//! URLs as providers of databases hand them out.
//!
//! The driver knows some of the options and passes over the others, so that a misspelt one goes
//! unnoticed. Here every option is the driver's, or means something to the store, or is refused.

use std::time::Duration;

use sessionkit::{Error, ErrorKind, Result};

use crate::StoreOptions;

/// A URL taken apart. Nothing of it gets into an error: any part may hold a password.
pub(crate) struct Address {
    /// The URL with the options that are the driver's.
    pub(crate) url: String,
    own: Vec<(String, String)>,
}

impl Address {
    /// The options in `driver` are left to the driver, those in `own` are taken out.
    pub(crate) fn parse(url: &str, driver: impl Fn(&str) -> bool, own: &[&str]) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut left = form_urlencoded::Serializer::new(String::new());
        let mut taken = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if driver(&name) {
                left.append_pair(&name, &value);
            } else if own.contains(&&*name) {
                taken.push((name.into_owned(), value.into_owned()));
            } else {
                return Err(invalid(
                    "the URL of the session database has an option that is not known",
                ));
            }
        }
        let left = left.finish();
        let mark = if left.is_empty() { "" } else { "?" };
        // Who names the host in the query leaves it out before, which the standard does not allow.
        let authority = base.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let base = if authority.ends_with('@') {
            base.replacen(authority, &format!("{authority}localhost"), 1)
        } else {
            base.to_owned()
        };
        Ok(Self {
            url: format!("{base}{mark}{left}"),
            own: taken,
        })
    }

    /// The value of an option that was taken out.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.own.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Which of some words the value of an option is.
    pub(crate) fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let found = words
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(value));
        match found {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(not_valid(name)),
        }
    }

    /// What is the same for every server: how many connections, and how long making one may take.
    pub(crate) fn apply(&self, options: &mut StoreOptions) -> Result<()> {
        if let Some(limit) = self.get("connection_limit") {
            let limit = limit.parse().ok().filter(|limit| *limit > 0);
            let limit = limit.ok_or_else(|| not_valid("connection_limit"))?;
            options.max_connections.get_or_insert(limit);
        }
        if let Some(seconds) = self.get("connect_timeout") {
            let seconds: u64 = seconds.parse().map_err(|_| not_valid("connect_timeout"))?;
            // Zero is for ever, which is ended by the deadline.
            options.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        Ok(())
    }

    /// The names of schemas that the driver has to be told, because they are more than the schema of
    /// the store's table.
    #[cfg(feature = "postgres")]
    pub(crate) fn schema(&self, options: &mut StoreOptions) -> Option<&str> {
        let names = ["schema", "currentSchema", "search_path"];
        let path = names.into_iter().find_map(|name| self.get(name))?;
        match crate::TableName::new(&format!("{path}.{}", options.table.table())) {
            Ok(table) if options.table.schema().is_none() => {
                options.table = table;
                None
            }
            Ok(_) => None,
            Err(_) => Some(path),
        }
    }
}

fn not_valid(name: &str) -> Error {
    invalid(format!(
        "the option {name} of the session database's URL has no valid value"
    ))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
