//! A TCP proxy that breaks connections on demand.
//!
//! A harness puts it between a store and its server, on the loopback interface and on a port of its
//! own, and passes [`Proxy::fault`] on to the kit.
//!
//! ```
//! use sessionkit_conformance::proxy::{Proxy, Traffic};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start(server.local_addr()?).await?;
//! let url = format!("redis://{}", proxy.address());
//! proxy.once(Traffic::CutBeforeReply).await?;
//! // The next request reaches the server, and its answer is lost.
//! # let _ = url;
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sessionkit::ErrorKind;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink},
    net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{Fault, Random};

/// Read from one side and not yet written to the other, in chunks. Enough for the largest record,
/// so that a latency is no limit of the throughput.
const QUEUE: usize = 1024;

/// How long a cut connection waits for its ends to close, so that what was forwarded arrives.
const LINGER: Duration = Duration::from_secs(1);

/// What a [`Proxy`] does with the bytes that pass through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traffic {
    /// Forwards them.
    #[default]
    Normal,
    /// Forwards them after the latency and a random part of the jitter, in both directions.
    Delay {
        /// The least delay.
        latency: Duration,
        /// The most that is added to it.
        jitter: Duration,
    },
    /// The same, and one byte at a time.
    Trickle {
        /// The least delay.
        latency: Duration,
        /// The most that is added to it.
        jitter: Duration,
    },
    /// Forwards this many bytes of each connection in one direction, counted from now, then closes
    /// it.
    CutAfter {
        /// The direction in which bytes count; the other one passes until then.
        direction: Direction,
        /// The bytes that arrive.
        bytes: u64,
    },
    /// Forwards requests, and closes the connection when the server begins to answer: the request
    /// has taken effect and the client cannot know.
    CutBeforeReply,
    /// Takes connections and bytes, and forwards nothing. The connections end when something else
    /// is set, because what they have swallowed is gone.
    BlackHole,
    /// Closes every connection and refuses new ones, as a server does that is not running.
    Refuse,
}

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Answers.
    ToClient,
}

/// A TCP proxy in front of one server. It stops, and closes every connection, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    rule: watch::Sender<Rule>,
    accepted: AtomicUsize,
    /// The connections before this one are swallowed.
    swallowed: AtomicUsize,
    cut: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    traffic: Traffic,
    /// Ends with the first connection that is cut.
    once: bool,
    /// Tells two settings of the same traffic apart.
    number: u64,
}

#[derive(Debug)]
enum Command {
    Set(Traffic, bool, oneshot::Sender<io::Result<()>>),
    Close(oneshot::Sender<io::Result<()>>),
}

impl Proxy {
    /// Listens on a free port of the loopback interface and forwards to `upstream`.
    ///
    /// # Errors
    /// When the address of `upstream` cannot be resolved, or no port can be had.
    pub async fn start(upstream: impl ToSocketAddrs) -> io::Result<Self> {
        let upstream = lookup_host(upstream)
            .await?
            .next()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        // Bound but not listening: keeps the port while connections are refused.
        let reserved = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = reserved.local_addr()?;
        let listener = bind(address)?.listen(1024)?;
        let shared = Arc::new(Shared {
            upstream,
            rule: watch::Sender::default(),
            accepted: AtomicUsize::new(0),
            swallowed: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
        });
        let (commands, receiver) = mpsc::channel(1);
        let acceptor = Acceptor {
            reserved,
            listener: Some(listener),
            connections: JoinSet::new(),
            shared: Arc::clone(&shared),
        };
        tokio::spawn(acceptor.run(receiver));
        Ok(Self {
            address,
            commands,
            shared,
        })
    }

    /// Sets what happens to the traffic from now on, on the connections that are open and on new
    /// ones. It is in force when this returns.
    ///
    /// # Errors
    /// When the port cannot be listened on again after [`Traffic::Refuse`].
    pub async fn set(&self, traffic: Traffic) -> io::Result<()> {
        self.command(|done| Command::Set(traffic, false, done))
            .await
    }

    /// The same until a first connection has been cut by it; the traffic is normal then, for a
    /// client that tries again.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn once(&self, traffic: Traffic) -> io::Result<()> {
        self.command(|done| Command::Set(traffic, true, done)).await
    }

    /// Closes the connections that are open. New ones are welcome.
    ///
    /// # Errors
    /// When the runtime that the proxy was started on has ended.
    pub async fn close_connections(&self) -> io::Result<()> {
        self.command(Command::Close).await
    }

    /// Forwards nothing of the connections that are open any more, in neither direction, and leaves
    /// them open, as a firewall does that has forgotten them. New ones are welcome.
    pub fn swallow_connections(&self) {
        let accepted = self.shared.accepted.load(Ordering::SeqCst);
        self.shared.swallowed.store(accepted, Ordering::SeqCst);
    }

    /// Makes one of the kit's faults, or ends it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it is not one of the network;
    /// [`ErrorKind::Unavailable`] when the port cannot be listened on again.
    pub async fn fault(&self, fault: Fault) -> sessionkit::Result<()> {
        let done = match fault {
            Fault::None => self.set(Traffic::Normal).await,
            Fault::Down => self.set(Traffic::Refuse).await,
            Fault::Hang => self.set(Traffic::BlackHole).await,
            Fault::LoseReplies => self.set(Traffic::CutBeforeReply).await,
            Fault::LoseReply => self.once(Traffic::CutBeforeReply).await,
            Fault::CloseConnections => self.close_connections().await,
            Fault::Slow => {
                self.set(Traffic::Trickle {
                    latency: Duration::from_millis(20),
                    jitter: Duration::from_millis(20),
                })
                .await
            }
            _ => return Err(ErrorKind::Unsupported.into()),
        };
        done.map_err(|error| {
            sessionkit::Error::new(ErrorKind::Unavailable, "the proxy has no port")
                .with_source(error)
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections [`Traffic::CutAfter`] and [`Traffic::CutBeforeReply`] have ended so far.
    #[must_use]
    pub fn cut(&self) -> usize {
        self.shared.cut.load(Ordering::SeqCst)
    }

    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Command,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::other("the runtime of the proxy has ended");
        self.commands
            .send(command(done))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

struct Acceptor {
    reserved: TcpSocket,
    listener: Option<TcpListener>,
    connections: JoinSet<()>,
    shared: Arc<Shared>,
}

impl Acceptor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Set(traffic, once, done)) => {
                        let result = self.set(traffic, once).await;
                        // Nobody waits when the caller's future was dropped.
                        let _ = done.send(result);
                    }
                    Some(Command::Close(done)) => {
                        self.connections.shutdown().await;
                        let _ = done.send(Ok(()));
                    }
                    None => return,
                },
                Some(client) = accept(self.listener.as_ref()) => {
                    let number = self.shared.accepted.fetch_add(1, Ordering::SeqCst);
                    let shared = Arc::clone(&self.shared);
                    self.connections.spawn(connection(client, number, shared));
                }
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn set(&mut self, traffic: Traffic, once: bool) -> io::Result<()> {
        let before = self.shared.rule.borrow().traffic;
        if traffic == Traffic::Refuse {
            self.listener = None;
        }
        if traffic == Traffic::Refuse || before == Traffic::BlackHole {
            self.connections.shutdown().await;
        }
        self.shared.rule.send_modify(|rule| {
            *rule = Rule {
                traffic,
                once,
                number: rule.number + 1,
            };
        });
        if traffic != Traffic::Refuse && self.listener.is_none() {
            let address = self.reserved.local_addr()?;
            self.listener = Some(bind(address)?.listen(1024)?);
        }
        Ok(())
    }
}

/// The next client; never, without a listener.
async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// The connection has to end now, in both directions.
struct Cut;

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Self
    }
}

async fn connection(mut client: TcpStream, number: usize, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        return;
    };
    // Without it, single bytes would be sent together.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump = |direction, seed| Pump::new(&shared, number, direction, Random::new(seed));
        let seed = 2 * number as u64;
        tokio::try_join!(
            pump(Direction::ToServer, seed).run(from_client, to_server),
            pump(Direction::ToClient, seed + 1).run(from_server, to_client),
        )
    };
    if ended.is_err() {
        // Closing a socket with unread bytes resets it, and the other end would lose what it has
        // not read yet. So both ends are told first and then listened to until they hang up.
        let _ = tokio::join!(client.shutdown(), server.shutdown());
        let (mut nowhere, mut no_place) = (sink(), sink());
        let drained = async {
            tokio::join!(
                copy(&mut client, &mut nowhere),
                copy(&mut server, &mut no_place)
            )
        };
        let _ = timeout(LINGER, drained).await;
    }
}

/// One direction of one connection.
struct Pump<'a> {
    shared: &'a Shared,
    /// Of the connection.
    number: usize,
    direction: Direction,
    random: Random,
    /// The rule that `passed` counts for.
    rule: u64,
    passed: u64,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, number: usize, direction: Direction, random: Random) -> Self {
        Self {
            shared,
            number,
            direction,
            random,
            rule: 0,
            passed: 0,
        }
    }

    /// Forwards until the sender closes its side, or the connection is cut.
    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> Result<(), Cut> {
        let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
        let shared = self.shared;
        let random = std::mem::replace(&mut self.random, Random::new(0));
        let read = async move {
            let mut due = Instant::now();
            let mut buffer = vec![0; 16 << 10];
            loop {
                let count = from.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<(), Cut>(());
                }
                // A chunk never overtakes the one before.
                due = due.max(Instant::now() + shared.delay(&random));
                let sent = queue.send((due, buffer[..count].to_vec())).await;
                sent.map_err(|_| Cut)?;
            }
        };
        let write = async {
            while let Some((due, bytes)) = queued.recv().await {
                sleep_until(due).await;
                self.forward(&bytes, &mut to).await?;
            }
            Ok(to.shutdown().await?)
        };
        tokio::try_join!(read, write).map(drop)
    }

    async fn forward(
        &mut self,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Cut> {
        if self.number < self.shared.swallowed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let rule = *self.shared.rule.borrow();
        if rule.number != self.rule {
            (self.rule, self.passed) = (rule.number, 0);
        }
        match rule.traffic {
            Traffic::BlackHole => Ok(()),
            Traffic::Trickle { .. } => {
                for byte in bytes {
                    to.write_all(std::slice::from_ref(byte)).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Traffic::CutBeforeReply if self.direction == Direction::ToClient => {
                Err(self.shared.cut(rule))
            }
            Traffic::CutAfter {
                direction,
                bytes: limit,
            } if direction == self.direction => {
                let left = usize::try_from(limit - self.passed).unwrap_or(usize::MAX);
                let bytes = &bytes[..bytes.len().min(left)];
                to.write_all(bytes).await?;
                self.passed += bytes.len() as u64;
                if self.passed == limit {
                    return Err(self.shared.cut(rule));
                }
                Ok(())
            }
            _ => Ok(to.write_all(bytes).await?),
        }
    }
}

impl Shared {
    fn delay(&self, random: &Random) -> Duration {
        match self.rule.borrow().traffic {
            Traffic::Delay { latency, jitter } | Traffic::Trickle { latency, jitter } => {
                let micros = usize::try_from(jitter.as_micros()).unwrap_or(usize::MAX - 1);
                latency + Duration::from_micros(random.below(micros + 1) as u64)
            }
            _ => Duration::ZERO,
        }
    }

    fn cut(&self, rule: Rule) -> Cut {
        self.cut.fetch_add(1, Ordering::SeqCst);
        if rule.once {
            self.rule.send_if_modified(|current| {
                let in_force = current.number == rule.number;
                if in_force {
                    *current = Rule {
                        number: rule.number + 1,
                        ..Rule::default()
                    };
                }
                in_force
            });
        }
        Cut
    }
}
