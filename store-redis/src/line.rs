//! One connection, shared by all requests: their commands go out back to back, and the answers come
//! in the same order.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, Value,
    aio::MultiplexedConnection,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    address::Address,
    fault::{Fault, refusal},
};

/// How many commands may wait for the task that writes them; more wait in their own tasks.
const QUEUE: usize = 1024;

/// A connection, and what is known about its state.
pub(crate) struct Line {
    connection: MultiplexedConnection,
    health: Arc<Health>,
    /// Whether `health` counts what was written: not so on the connections of a foreign pool.
    counted: bool,
    task: Option<AbortHandle>,
}

/// What the connection's own task tells those who use it.
#[derive(Debug, Default)]
struct Health {
    closed: AtomicBool,
    written: AtomicU64,
}

impl Line {
    /// A connection out of a pool, whose task nobody can ask.
    pub(crate) fn foreign(connection: MultiplexedConnection) -> Self {
        Self {
            connection,
            health: Arc::default(),
            counted: false,
            task: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.health.closed.load(Ordering::Acquire)
    }

    /// Lets nobody start to use it. Those who wait for an answer still get it.
    pub(crate) fn close(&self) {
        self.health.closed.store(true, Ordering::Release);
    }

    pub(crate) async fn send(&self, cmd: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        let mut connection = self.connection.clone();
        self.settle(connection.send_packed_command(cmd), deadline)
            .await
    }

    /// Sends a command that only this node and only this once accepts.
    pub(crate) async fn send_asking(&self, cmd: &Cmd, deadline: Instant) -> Result<Value, Fault> {
        let mut connection = self.connection.clone();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ASKING").add_command(cmd.clone());
        let answers = async {
            let mut answers = connection.send_packed_commands(&pipeline, 0, 2).await?;
            Ok(answers.pop().unwrap_or_default())
        };
        self.settle(answers, deadline).await
    }

    async fn settle(
        &self,
        answer: impl Future<Output = Result<Value, RedisError>>,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        let before = self.health.written.load(Ordering::Acquire);
        let answer = match timeout_at(deadline, answer).await {
            Ok(answer) => answer.and_then(Value::extract_error),
            Err(_) => {
                // The server hangs or the network is cut: the next request tries a new connection.
                self.close();
                return Err(Fault::Late);
            }
        };
        answer.map_err(|error| match refusal(error) {
            Ok(refusal) => Fault::Refused(refusal),
            Err(error) => {
                self.close();
                // Without a byte since then, this command is not among those that were written: the
                // task of a broken connection writes nothing any more.
                let idle = self.health.written.load(Ordering::Acquire) == before;
                if self.counted && idle {
                    Fault::Unsent(error.into())
                } else {
                    Fault::Lost(error.into())
                }
            }
        })
    }
}

/// Nobody waits for an answer any more, not even of a server that hangs.
impl Drop for Line {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) login: RedisConnectionInfo,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) timeout: Duration,
}

/// What to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(Address),
    Unix(PathBuf),
}

impl Dialer {
    pub(crate) async fn dial(&self, target: &Target) -> Result<Line, Fault> {
        timeout(self.timeout, self.connect(target))
            .await
            .unwrap_or_else(|_| Err(Fault::Unsent("the connection was not made in time".into())))
    }

    async fn connect(&self, target: &Target) -> Result<Line, Fault> {
        let io = |error: io::Error| Fault::Unsent(error.into());
        match target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(io)?;
                self.log_in(stream).await
            }
            Target::Tcp(Address { host, port }) => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(io)?;
                stream.set_nodelay(true).map_err(io)?;
                let Some(tls) = &self.tls else {
                    return self.log_in(stream).await;
                };
                let name = ServerName::try_from(host.clone()).map_err(|error| {
                    Fault::Misconfigured("the host has no name for TLS", error.into())
                })?;
                let stream = tls.connect(name, stream).await.map_err(|error| {
                    match error
                        .get_ref()
                        .is_some_and(|inner| inner.is::<rustls::Error>())
                    {
                        true => {
                            Fault::Misconfigured("TLS with the Redis server fails", error.into())
                        }
                        false => Fault::Unsent(error.into()),
                    }
                })?;
                self.log_in(stream).await
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> Result<Line, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let health = Arc::new(Health::default());
        let wire = Wire {
            stream,
            health: Arc::clone(&health),
            yielded: false,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.login, wire, config)
                .await
                .map_err(login_fault)?;
        let closes = Closes(Arc::clone(&health));
        let task = tokio::spawn(async move {
            let _closes = closes;
            driver.await;
        });
        Ok(Line {
            connection,
            health,
            counted: true,
            task: Some(task.abort_handle()),
        })
    }
}

fn login_fault(error: RedisError) -> Fault {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        // The text of the server names the user.
        return Fault::Misconfigured(
            "the Redis server refuses the user or the password",
            "authentication failed".into(),
        );
    }
    if error.kind() == redis::ErrorKind::RESP3NotSupported {
        return Fault::Misconfigured("the Redis server does not speak RESP3", error.into());
    }
    match refusal(error) {
        Ok(refusal) => Fault::Refused(refusal),
        Err(error) => Fault::Unsent(error.into()),
    }
}

/// Marks the connection when its task ends, also when the runtime drops it.
struct Closes(Arc<Health>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

/// Counts what is written, and lets commands gather before they are: the first one wakes the
/// connection's task, which would send it alone while the tasks of others wait for their turn. After
/// they have had it, what they send goes out in one piece. This saves a call of the system for most
/// commands, and doubles what a connection carries.
struct Wire<S> {
    stream: S,
    health: Arc<Health>,
    /// Whether the others have had their turn since the last flush.
    yielded: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = written {
            self.health.written.fetch_add(len as u64, Ordering::AcqRel);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.yielded = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
