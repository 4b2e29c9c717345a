//! Where the servers are, as a URL says it.

use std::path::PathBuf;

use sessionkit::{Error, ErrorKind, Result};

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]:port` and, as a server writes it, `v6:port`.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (
                    host,
                    (!port.is_empty()).then(|| port.strip_prefix(':')).flatten(),
                )
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(default_port), |port| port.parse().ok())?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
        (!host.is_empty() && host.bytes().all(allowed)).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// How the servers stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    One(Address),
    Unix(PathBuf),
    Cluster(Vec<Address>),
    Sentinel {
        sentinels: Vec<Address>,
        service: String,
    },
}

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) layout: Layout,
    pub(crate) tls: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Location {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("a Redis URL has a scheme"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (username, password, rest) = split_login(rest)?;
        let location = |layout, tls, database| Self {
            layout,
            tls,
            username,
            password,
            database,
        };
        let tls = matches!(
            scheme,
            "rediss" | "valkeys" | "rediss-cluster" | "rediss-sentinel"
        );
        if scheme != "redis+unix" && !query.is_empty() {
            return Err(invalid(
                "a Redis URL takes no parameters, save db for a socket",
            ));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "redis" | "rediss" | "valkey" | "valkeys" => {
                let [address] = <[_; 1]>::try_from(addresses(hosts, PORT)?)
                    .map_err(|_| invalid("a Redis URL with several hosts starts with redis-cluster or redis-sentinel"))?;
                Ok(location(Layout::One(address), tls, database(path)?))
            }
            "redis+unix" => {
                let db = match query {
                    "" => "",
                    query => query
                        .strip_prefix("db=")
                        .ok_or_else(|| invalid("the only parameter of a socket is db"))?,
                };
                if !rest.starts_with('/') {
                    return Err(invalid("the path of a socket is absolute"));
                }
                Ok(location(
                    Layout::Unix(decoded(rest)?.into()),
                    false,
                    database(db)?,
                ))
            }
            "redis-cluster" | "rediss-cluster" => {
                if !matches!(path, "" | "0") {
                    return Err(invalid("a Redis Cluster has only the database 0"));
                }
                Ok(location(Layout::Cluster(addresses(hosts, PORT)?), tls, 0))
            }
            "redis-sentinel" | "rediss-sentinel" => {
                let (service, db) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(invalid(
                        "the path of a Sentinel URL is the name of the service",
                    ));
                }
                let layout = Layout::Sentinel {
                    sentinels: addresses(hosts, SENTINEL_PORT)?,
                    service: decoded(service)?,
                };
                Ok(location(layout, tls, database(db)?))
            }
            _ => Err(invalid(
                "the scheme of the URL is not one of a Redis server",
            )),
        }
    }
}

/// Nothing of the URL is repeated: it may hold a password in an unexpected place.
fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

type Login = (Option<String>, Option<String>);

fn split_login(rest: &str) -> Result<(Option<String>, Option<String>, &str)> {
    let Some((login, rest)) = rest.rsplit_once('@') else {
        return Ok((None, None, rest));
    };
    let (username, password): Login = match login.split_once(':') {
        Some((username, password)) => (Some(decoded(username)?), Some(decoded(password)?)),
        None => (Some(decoded(login)?), None),
    };
    Ok((
        username.filter(|username| !username.is_empty()),
        password,
        rest,
    ))
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>> {
    hosts
        .split(',')
        .map(|host| {
            Address::parse(host, port)
                .ok_or_else(|| invalid("the URL has a host or a port that cannot be"))
        })
        .collect()
}

fn database(text: &str) -> Result<i64> {
    match text {
        "" => Ok(0),
        text => text
            .parse()
            .ok()
            .filter(|number| (0..=i64::from(i32::MAX)).contains(number))
            .ok_or_else(|| invalid("the number of the database cannot be")),
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decoded(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let byte = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                byte.and_then(|byte| u8::try_from(byte).ok())
                    .ok_or_else(|| invalid("the URL has a bad percent-encoding"))?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| invalid("the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    fn layout(url: &str) -> Layout {
        Location::parse(url).unwrap().layout
    }

    #[test]
    fn every_scheme_is_understood() {
        assert_eq!(layout("redis://db"), Layout::One(address("db", 6379)));
        assert_eq!(
            layout("valkey://[::1]:7000/3"),
            Layout::One(address("::1", 7000))
        );
        assert_eq!(
            layout("redis+unix:///run/my%20redis.sock?db=2"),
            Layout::Unix("/run/my redis.sock".into())
        );
        assert_eq!(
            layout("redis-cluster://a:1,b"),
            Layout::Cluster(vec![address("a", 1), address("b", 6379)])
        );
        assert_eq!(
            layout("redis-sentinel://a,b:5/main/4"),
            Layout::Sentinel {
                sentinels: vec![address("a", 26379), address("b", 5)],
                service: "main".into()
            }
        );
        assert!(Location::parse("rediss://db").unwrap().tls);
        assert!(!Location::parse("redis://db").unwrap().tls);
    }

    #[test]
    fn the_login_may_hold_any_character() {
        let location = Location::parse("redis://us%40er:p%3A%2f%25@host/7").unwrap();
        assert_eq!(location.username.as_deref(), Some("us@er"));
        assert_eq!(location.password.as_deref(), Some("p:/%"));
        assert_eq!(location.database, 7);
        assert_eq!(Location::parse("redis://:pw@host").unwrap().username, None);
    }

    #[test]
    fn what_cannot_be_is_refused_without_repeating_it() {
        for url in [
            "db:6379",
            "http://secret",
            "redis://",
            "redis://secret:99999",
            "redis://secret/x",
            "redis://secret/-1",
            "redis://a,secret",
            "redis://secret?ssl=true",
            "redis://sec ret",
            "redis+unix://secret",
            "redis+unix:///secret?x=1",
            "redis-cluster://secret/1",
            "redis-sentinel://secret",
            "redis://%zz:secret@host",
            "redis://%ff:secret@host",
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(!format!("{error:?}").contains("secret"), "{url}");
        }
    }
}
