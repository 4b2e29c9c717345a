//! The Lua scripts: what has to be compared and changed in one step.

use std::{fmt::Display, sync::LazyLock};

use redis::Cmd;

/// What the scripts answer; see `scripts/record.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Missing,
    Done,
    Conflict,
    Corrupt,
    Exists,
    /// Not done: the index of the subject has to be told first.
    IndexFirst,
    /// Done: the index of the subject should be told again.
    Tell,
}

impl Answer {
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::Missing,
            1 => Self::Done,
            2 => Self::Conflict,
            3 => Self::Corrupt,
            4 => Self::Exists,
            5 => Self::IndexFirst,
            6 => Self::Tell,
            _ => return None,
        })
    }
}

/// A script, which the server knows by its hash once it has seen it.
pub(crate) struct Script {
    hash: String,
    source: String,
}

/// `EVALSHA`, the hash, and the number of keys.
const EVALSHA_LEN: usize = 7 + 40 + 1;

impl Script {
    fn new(parts: &[&str]) -> Self {
        let source = parts.concat();
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { hash, source }
    }

    /// The call of the script by its hash. The first key decides where it runs.
    pub(crate) fn call(&'static self, keys: &[&[u8]], args: &[&[u8]]) -> Call {
        let len: usize = keys.iter().chain(args).map(|arg| arg.len()).sum();
        let mut cmd = Cmd::with_capacity(3 + keys.len() + args.len(), EVALSHA_LEN + len);
        cmd.arg("EVALSHA")
            .arg(&self.hash)
            .arg(keys.len())
            .arg(keys)
            .arg(args);
        Call {
            cmd,
            key: keys[0].to_vec(),
            script: Some(self),
        }
    }
}

/// A command, and the key that decides which node of a cluster gets it.
pub(crate) struct Call {
    pub(crate) cmd: Cmd,
    pub(crate) key: Vec<u8>,
    script: Option<&'static Script>,
}

impl Call {
    pub(crate) fn new(name: &str, key: &[u8]) -> Self {
        let mut cmd = Cmd::with_capacity(2, name.len() + key.len());
        cmd.arg(name).arg(key);
        Self {
            cmd,
            key: key.to_vec(),
            script: None,
        }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// The same call with the whole script, for a server that does not know the hash (any more).
    pub(crate) fn with_source(&self) -> Option<Cmd> {
        let script = self.script?;
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&script.source);
        for arg in self.cmd.args_iter().skip(2) {
            if let redis::Arg::Simple(arg) = arg {
                cmd.arg(arg);
            }
        }
        Some(cmd)
    }
}

/// An argument in decimal digits.
pub(crate) fn decimal(number: impl Display) -> Vec<u8> {
    number.to_string().into_bytes()
}

const INDEX: &str = include_str!("scripts/index.lua");
const RECORD: &str = include_str!("scripts/record.lua");

macro_rules! scripts {
    ($($name:ident = $($part:expr),+;)+) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(&[$($part),+]));)+
    };
}

scripts! {
    CREATE = INDEX, RECORD, include_str!("scripts/create.lua");
    DELETE = RECORD, include_str!("scripts/delete.lua");
    ENTRIES = INDEX, include_str!("scripts/entries.lua");
    KEEP = INDEX, RECORD, include_str!("scripts/keep.lua");
    PRUNE = INDEX, RECORD, include_str!("scripts/prune.lua");
    REVOKE = RECORD, include_str!("scripts/revoke.lua");
    STORED = INDEX, RECORD, include_str!("scripts/stored.lua");
    TOUCH = INDEX, RECORD, include_str!("scripts/touch.lua");
    UPDATE = include_str!("scripts/update.lua");
    UPDATE_INDEXED = INDEX, RECORD, include_str!("scripts/update_indexed.lua");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_the_source_has_the_same_keys_and_arguments() {
        let call = UPDATE.call(&[b"key"], &[b"\xff", b""]);
        let whole = call.with_source().unwrap();
        let args = |cmd: &Cmd| {
            cmd.args_iter()
                .filter_map(|arg| match arg {
                    redis::Arg::Simple(arg) => Some(arg.to_vec()),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(args(&call.cmd)[2..], args(&whole)[2..]);
        assert_eq!(args(&whole)[0], b"EVAL");
        assert_eq!(args(&whole)[2..], [&b"1"[..], b"key", b"\xff", b""]);
    }
}
