//! Whether a server answers, in its own protocol: a published port takes connections before the
//! server does.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A TLS record with a greeting that breaks off: whoever speaks TLS answers with an alert.
const BROKEN_HELLO: &[u8] = b"\x16\x03\x01\0\x05\x01\0\0\x01\0";

const PAUSE: Duration = Duration::from_millis(50);

/// Waits until the server of a URL takes requests, at most for `limit`.
pub(super) async fn wait(url: &str, limit: Duration) -> bool {
    timeout(limit, async {
        while !is_ready(url).await {
            sleep(PAUSE).await;
        }
    })
    .await
    .is_ok()
}

pub(super) async fn is_ready(url: &str) -> bool {
    timeout(ANSWER_TIMEOUT, answers(url))
        .await
        .is_ok_and(|answer| answer.unwrap_or(false))
}

async fn answers(url: &str) -> Option<bool> {
    let (scheme, rest) = url.split_once("://")?;
    let address = rest.rsplit('@').next()?.split(['/', ',']).next()?;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut answer = [0; 64];
    Some(match scheme {
        "postgres" => {
            stream.write_all(&postgres_greeting()).await.ok()?;
            stream.read_exact(&mut answer[..1]).await.ok()?;
            // A request for the password, and not the error of a server that is starting.
            answer[0] == b'R'
        }
        "mysql" => {
            // Length and number of the packet, then the version of the protocol.
            stream.read_exact(&mut answer[..5]).await.ok()?;
            answer[4] == 10
        }
        "rediss" | "valkeys" => {
            stream.write_all(BROKEN_HELLO).await.ok()?;
            stream.read(&mut answer).await.ok()? > 0
        }
        _ => {
            stream.write_all(b"PING\r\n").await.ok()?;
            let len = stream.read(&mut answer).await.ok()?;
            answer[..len].starts_with(b"+PONG") || answer[..len].starts_with(b"-NOAUTH")
        }
    })
}

/// The message that opens a connection, version 3.0 of the protocol.
fn postgres_greeting() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let len = u32::try_from(body.len() + 4).expect("the message is short");
    [&len.to_be_bytes()[..], body].concat()
}
