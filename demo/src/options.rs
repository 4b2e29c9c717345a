use std::{
    env,
    ffi::OsString,
    fs::DirBuilder,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sessionkit::{Error, ErrorKind, Result};

/// A web app that keeps its visitors' sessions with sessionkit.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "sessionkit-demo",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// Something else to do than to serve the app.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The address to listen on; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,

    /// Where sessions are kept: `sqlite:path`, `fs:///path`, `memory:`, `cookie:`, or what else
    /// sessionkit-any opens. By default a SQLite file in the directory of `--state`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,

    /// A proxy in front of the app speaks HTTPS with the browsers: cookies get all their
    /// protection, and are not accepted over plain HTTP any more.
    #[arg(long)]
    pub https: bool,

    /// Serve plain HTTP to other machines too. Everybody on the way can take over any session.
    #[arg(long, conflicts_with = "https")]
    pub insecure_plain_http_for_everybody: bool,

    /// Where the app keeps what outlives it: the key that signs the cookies, made at the first
    /// start, and the sessions unless `--store` says otherwise. By default
    /// `$XDG_STATE_HOME/sessionkit-demo`. Keys in the environment variable SESSIONKIT_KEYS, the
    /// newest first, are used in place of that one.
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
}

/// What the program does beside serving the app.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print a new key for SESSIONKIT_KEYS, or for the file `keys` in the state directory.
    Key,
    /// Check the keys in SESSIONKIT_KEYS, or in the standard input when that is not set or `-` is
    /// given. Prints their ids, and never the keys. Fails when one of them would be refused.
    CheckKey {
        /// `-` for the standard input. A key has no place here: everybody sees arguments.
        #[arg(value_name = "-", num_args = 0.., allow_hyphen_values = true, hide_possible_values = true)]
        input: Vec<OsString>,
    },
}

impl Options {
    /// Refuses to send sessions over a network in the clear.
    pub(crate) fn check(&self) -> Result<()> {
        let safe = self.https || self.listen.ip().is_loopback();
        if safe || self.insecure_plain_http_for_everybody {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "{} is reachable from other machines, and plain HTTP would give them the sessions: \
                 put a TLS proxy in front and add --https",
                self.listen
            ),
        ))
    }

    /// The URL of the store.
    pub(crate) fn store_url(&self) -> Result<String> {
        const NOT_IN_URL: AsciiSet = CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');
        if let Some(url) = &self.store {
            return Ok(url.clone());
        }
        let path = self.state_dir()?.join("sessions.db");
        let path = path.to_str().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                "the path of the state directory is no text",
            )
        })?;
        let path = utf8_percent_encode(path, &NOT_IN_URL);
        Ok(format!("sqlite:{path}"))
    }

    /// The directory for what has to survive a restart, which is there after the call.
    pub(crate) fn state_dir(&self) -> Result<PathBuf> {
        let base = || {
            let state_home = absolute("XDG_STATE_HOME");
            state_home.or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        };
        let explicit = self.state.clone();
        let dir = explicit
            .or_else(|| base().map(|base| base.join("sessionkit-demo")))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "there is no home directory to keep anything in: name a directory with --state",
                )
            })?;
        make_private(&dir)?;
        Ok(dir)
    }
}

/// Makes a directory that nobody else can enter, if there is none.
fn make_private(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        let problem = format!("the state directory {} cannot be made", dir.display());
        Error::new(ErrorKind::InvalidConfig, problem).with_source(error)
    })
}

/// An environment variable that holds an absolute path, as the XDG base directory specification
/// wants it.
fn absolute(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable)?);
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from([&["sessionkit-demo"], arguments].concat())
    }

    #[test]
    fn the_defaults_are_safe() {
        let options = options(&[]);
        assert_eq!(options.listen.to_string(), "127.0.0.1:3000");
        assert!(options.check().is_ok());
    }

    #[test]
    fn sessions_are_kept_in_a_private_directory_by_default() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a b");
        let url = options(&["--state", state.to_str().unwrap()]).store_url();
        let expected = format!("sqlite:{}/a%20b/sessions.db", dir.path().display());
        assert_eq!(url.unwrap(), expected);
        let mode = state.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for address in [
            "0.0.0.0:80",
            "192.168.1.2:3000",
            "[::]:80",
            "[2001:db8::1]:80",
        ] {
            let error = options(&["--listen", address]).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{address}");
        }
        assert!(options(&["--listen", "[::1]:3000"]).check().is_ok());
    }

    #[test]
    fn other_machines_need_https_or_the_ugly_flag() {
        let with = |flag| options(&["--listen", "0.0.0.0:80", flag]).check();
        assert!(with("--https").is_ok());
        assert!(with("--insecure-plain-http-for-everybody").is_ok());
    }
}
