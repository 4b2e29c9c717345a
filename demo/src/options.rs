use std::{env, net::SocketAddr, path::PathBuf};

use clap::Parser;
use sessionkit::{Error, ErrorKind, Result};

/// A web app that keeps its visitors' sessions with sessionkit.
#[derive(Clone, Debug, Parser)]
#[command(name = "sessionkit-demo", version)]
pub struct Options {
    /// The address to listen on; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub listen: SocketAddr,

    /// Where sessions are kept: `memory:`, `cookie:`, `fs:///path`, or what else sessionkit-any
    /// opens.
    #[arg(long, value_name = "URL", default_value = "memory:")]
    pub store: String,

    /// A proxy in front of the app speaks HTTPS with the browsers: cookies get all their
    /// protection, and are not accepted over plain HTTP any more.
    #[arg(long)]
    pub https: bool,

    /// Serve plain HTTP to other machines too. Everybody on the way can take over any session.
    #[arg(long, conflicts_with = "https")]
    pub insecure_plain_http_for_everybody: bool,

    /// Where the key lives that signs the cookies. It is made at the first start. By default a
    /// directory of the user's, `$XDG_STATE_HOME/sessionkit-demo`. Not used when the environment
    /// variable SESSIONKIT_KEYS holds keys, the newest first.
    #[arg(long, value_name = "DIRECTORY")]
    pub state: Option<PathBuf>,
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

    /// The directory for what has to survive a restart.
    pub(crate) fn state_dir(&self) -> Result<PathBuf> {
        let base = || {
            let state_home = absolute("XDG_STATE_HOME");
            state_home.or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        };
        let explicit = self.state.clone();
        explicit
            .or_else(|| base().map(|base| base.join("sessionkit-demo")))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "there is no home directory to keep the key in: name a directory with --state, \
                     or put a key into SESSIONKIT_KEYS",
                )
            })
    }
}

/// An environment variable that holds an absolute path, as the XDG base directory specification
/// wants it.
fn absolute(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable)?);
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
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
