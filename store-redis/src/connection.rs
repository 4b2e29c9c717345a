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
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream, lookup_host},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{
    failure::{Failure, refusal},
    race::first_ok,
    url::Address,
};

/// How many commands may wait for the task that writes them; more wait in their own tasks.
const QUEUE: usize = 1024;

/// Between two attempts to connect to the addresses of one name (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// How long a connection may be idle before the system asks the other end, and how often it asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long `WAIT` may hold up the commands behind it.
const WAIT_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection, and what is known about its state.
pub(crate) struct Connection {
    inner: MultiplexedConnection,
    health: Arc<Health>,
    /// Whether `health` counts what was written: not so on the connections of an application's pool.
    counts_bytes: bool,
    task: Option<AbortHandle>,
}

/// What the connection's own task tells those who use it.
#[derive(Debug, Default)]
struct Health {
    closed: AtomicBool,
    /// Bytes.
    written: AtomicU64,
    /// Commands.
    sent: AtomicU64,
    /// Commands whose callers wait no more.
    ended: AtomicU64,
    /// Answers that somebody has waited for.
    answered: AtomicU64,
}

/// How a command is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// With the permission to look at a slot that is still on its way to the node.
    pub(crate) asking: bool,
    /// How many replicas have to confirm it.
    pub(crate) replicas: usize,
}

/// How many commands a connection has been given so far, and what became of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Whether somebody waits for an answer.
    pub(crate) awaited: bool,
}

/// A caller who waits, until it is dropped.
struct Waiting<'a>(&'a Health);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Connection {
    /// A connection out of an application's pool, whose task nobody can ask.
    pub(crate) fn foreign(inner: MultiplexedConnection) -> Self {
        Self {
            inner,
            health: Arc::default(),
            counts_bytes: false,
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

    pub(crate) fn progress(&self) -> Progress {
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let (ended, sent) = (count(&self.health.ended), count(&self.health.sent));
        Progress {
            sent,
            answered: count(&self.health.answered),
            awaited: sent > ended,
        }
    }

    pub(crate) async fn send(
        &self,
        cmd: &Cmd,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mut connection = self.inner.clone();
        match mode {
            Mode {
                asking: false,
                replicas: 0,
            } => {
                self.settle(connection.send_packed_command(cmd), deadline)
                    .await
            }
            // In a box, because it would make every call larger.
            mode => Box::pin(self.send_with_others(cmd, mode, deadline)).await,
        }
    }

    /// Asks for the role of the server.
    pub(crate) async fn role(&self, deadline: Instant) -> Result<Value, Failure> {
        self.send(&redis::cmd("ROLE"), Mode::default(), deadline)
            .await
    }

    /// Sends a command in one piece with those that `mode` puts around it.
    async fn send_with_others(
        &self,
        cmd: &Cmd,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let mut connection = self.inner.clone();
        let mut pipeline = Pipeline::new();
        if mode.asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(cmd.clone());
        if mode.replicas > 0 {
            let left = deadline.saturating_duration_since(Instant::now()) / 2;
            let wait = left.min(WAIT_TIMEOUT).as_millis().max(1);
            pipeline
                .cmd("WAIT")
                .arg(mode.replicas)
                .arg(wait.to_string());
        }
        let count = pipeline.len();
        let position = usize::from(mode.asking);
        let mut confirmed = None;
        let answer = async {
            let mut answers = connection.send_packed_commands(&pipeline, 0, count).await?;
            if mode.replicas > 0 {
                confirmed = answers.pop();
            }
            Ok(answers.into_iter().nth(position).unwrap_or_default())
        };
        let answer = self.settle(answer, deadline).await?;
        match confirmed.map(Value::extract_error) {
            Some(Ok(Value::Int(count))) if usize::try_from(count).unwrap_or(0) < mode.replicas => {
                Err(Failure::Unconfirmed)
            }
            Some(Err(error)) => Err(refusal(error).map_or(Failure::Unconfirmed, Failure::Refused)),
            _ => Ok(answer),
        }
    }

    async fn settle(
        &self,
        answer: impl Future<Output = Result<Value, RedisError>>,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        self.health.sent.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.health);
        let before = self.health.written.load(Ordering::Acquire);
        let answer = timeout_at(deadline, answer)
            .await
            // Whether the connection is to blame is for those to say who watch it.
            .map_err(|_| Failure::Late)?;
        match answer.and_then(Value::extract_error) {
            Ok(answer) => {
                self.health.answered.fetch_add(1, Ordering::AcqRel);
                Ok(answer)
            }
            Err(error) => match refusal(error) {
                Ok(refusal) => {
                    self.health.answered.fetch_add(1, Ordering::AcqRel);
                    Err(Failure::Refused(refusal))
                }
                Err(error) => {
                    self.close();
                    // Without a byte since then, this command is not among those that were written:
                    // the task of a broken connection writes nothing any more.
                    let idle = self.health.written.load(Ordering::Acquire) == before;
                    Err(match self.counts_bytes && idle {
                        true => Failure::Unsent(error.into()),
                        false => Failure::Lost(error.into()),
                    })
                }
            },
        }
    }
}

/// Nobody waits for an answer any more, not even of a server that hangs.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) login: RedisConnectionInfo,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) client_name: Option<String>,
    /// For an attempt to connect, the login included.
    pub(crate) timeout: Duration,
    /// How long sent bytes may wait for the system of the other end to confirm them.
    pub(crate) confirm_timeout: Duration,
}

/// What to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Tcp(Address),
    Unix(PathBuf),
}

impl Connector {
    pub(crate) async fn connect(&self, target: &Target) -> Result<Connection, Failure> {
        timeout(self.timeout, self.open(target))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::Unsent(
                    "the connection was not made in time".into(),
                ))
            })
    }

    async fn open(&self, target: &Target) -> Result<Connection, Failure> {
        match target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unsent)?;
                self.log_in(stream).await
            }
            Target::Tcp(address) => {
                let stream = self.open_tcp(address).await.map_err(unsent)?;
                let Some(tls) = &self.tls else {
                    return self.log_in(stream).await;
                };
                let name = ServerName::try_from(address.host.clone()).map_err(|error| {
                    Failure::Misconfigured("the host has no name for TLS", error.into())
                })?;
                let stream = tls.connect(name, stream).await.map_err(tls_fault)?;
                self.log_in(stream).await
            }
        }
    }

    /// Connects to one of the addresses of a name: the name of a service may stand for several, not all
    /// of which need to answer.
    async fn open_tcp(&self, Address { host, port }: &Address) -> io::Result<TcpStream> {
        let addresses = lookup_host((host.as_str(), *port)).await?;
        let attempts = addresses.map(TcpStream::connect);
        let nobody = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let stream = first_ok(attempts, NEXT_ADDRESS)
            .await
            .unwrap_or_else(|| Err(nobody()))?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.confirm_timeout))?;
        Ok(stream)
    }

    async fn log_in<S>(&self, stream: S) -> Result<Connection, Failure>
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
        let (inner, driver) = MultiplexedConnection::new_with_config(&self.login, wire, config)
            .await
            .map_err(login_fault)?;
        let closes = Closes(Arc::clone(&health));
        let task = tokio::spawn(async move {
            let _closes = closes;
            driver.await;
        });
        let connection = Connection {
            inner,
            health,
            counts_bytes: true,
            task: Some(task.abort_handle()),
        };
        if let Some(name) = &self.client_name {
            let mut cmd = redis::cmd("CLIENT");
            cmd.arg("SETNAME").arg(name);
            let deadline = Instant::now() + self.timeout;
            let named = connection.send(&cmd, Mode::default(), deadline).await;
            // A server that gives no names, as proxies do, serves all the same.
            if let Err(failure) = named
                && !matches!(failure, Failure::Refused(_))
            {
                return Err(failure);
            }
        }
        Ok(connection)
    }
}

fn unsent(error: io::Error) -> Failure {
    Failure::Unsent(error.into())
}

fn tls_fault(error: io::Error) -> Failure {
    match error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
    {
        true => Failure::Misconfigured("TLS with the Redis server fails", error.into()),
        false => unsent(error),
    }
}

fn login_fault(error: RedisError) -> Failure {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        // The text of the server names the user.
        return Failure::Misconfigured(
            "the Redis server refuses the user or the password",
            "authentication failed".into(),
        );
    }
    if error.kind() == redis::ErrorKind::RESP3NotSupported {
        return Failure::Misconfigured("the Redis server does not speak RESP3", error.into());
    }
    match refusal(error) {
        Ok(refusal) => Failure::Refused(refusal),
        Err(error) => Failure::Unsent(error.into()),
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
