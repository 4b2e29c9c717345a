//! The fault proxy in front of a server that answers every byte with the same byte.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sessionkit::ErrorKind;
use sessionkit_conformance::{
    Fault,
    proxy::{Direction, Proxy, Traffic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Counts the bytes that reach it.
struct Echo {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    /// Tells of each connection that has ended.
    ended: mpsc::UnboundedReceiver<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (end, ended) = mpsc::unbounded_channel();
        let echo = Self {
            address: listener.local_addr().expect("a bound socket"),
            received: Arc::default(),
            ended,
        };
        let received = echo.received.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (received, end) = (received.clone(), end.clone());
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        received.fetch_add(count as u64, Ordering::SeqCst);
                        if stream.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                    let _ = end.send(());
                });
            }
        });
        echo
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }
}

async fn proxied() -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.address).await.expect("a free port");
    (echo, proxy)
}

/// Sends and reads back as many bytes.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// What arrives until the other end closes or resets the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well; the bytes before it are kept.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address())
        .await
        .expect("a listening proxy")
}

#[tokio::test]
async fn forwards_everything_by_default() {
    let (echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    let request: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut answer = vec![0; request.len()];
    let (sent, received) = tokio::join!(write.write_all(&request), read.read_exact(&mut answer));
    sent.unwrap();
    received.unwrap();
    assert!(answer == request);
    assert_eq!(echo.received(), 200_000);
    assert_eq!((proxy.accepted(), proxy.cut()), (1, 0));
}

#[tokio::test]
async fn passes_the_end_of_one_direction_on() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, b"last words");
}

#[tokio::test]
async fn delays_both_directions_without_limiting_the_throughput() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    let latency = Duration::from_millis(50);
    let traffic = Traffic::Delay {
        latency,
        jitter: Duration::from_millis(10),
    };
    proxy.set(traffic).await.unwrap();
    let start = Instant::now();
    let request = vec![7; 4 << 20];
    let (mut read, mut write) = stream.split();
    let mut answer = vec![0; request.len()];
    let (sent, received) = tokio::join!(write.write_all(&request), read.read_exact(&mut answer));
    sent.unwrap();
    received.unwrap();
    let took = start.elapsed();
    assert!(took >= 2 * latency, "{took:?}");
    assert!(answer == request);
}

#[tokio::test]
async fn forwards_one_byte_at_a_time() {
    let (_echo, proxy) = proxied().await;
    let traffic = Traffic::Trickle {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
    };
    proxy.set(traffic).await.unwrap();
    let mut stream = connect(&proxy).await;
    stream.write_all(&[1; 500]).await.unwrap();
    let (mut reads, mut bytes) = (0, 0);
    let mut buffer = [0; 500];
    while bytes < 500 {
        bytes += stream.read(&mut buffer).await.unwrap();
        reads += 1;
    }
    assert!(reads > 20, "500 bytes came in {reads} pieces");
}

#[tokio::test]
async fn cuts_answers_after_the_exact_number_of_bytes() {
    let (echo, proxy) = proxied().await;
    for bytes in [0, 1, 9] {
        let traffic = Traffic::CutAfter {
            direction: Direction::ToClient,
            bytes,
        };
        proxy.set(traffic).await.unwrap();
        let mut stream = connect(&proxy).await;
        stream.write_all(b"0123456789").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"0123456789"[..bytes as usize]);
    }
    assert_eq!(echo.received(), 30, "the requests have arrived");
    assert_eq!(proxy.cut(), 3);
}

#[tokio::test]
async fn cuts_requests_after_the_exact_number_of_bytes() {
    let (mut echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, b"before").await.unwrap(), b"before");
    let traffic = Traffic::CutAfter {
        direction: Direction::ToServer,
        bytes: 4,
    };
    proxy.set(traffic).await.unwrap();
    stream.write_all(b"012").await.unwrap();
    stream.write_all(b"3456").await.unwrap();
    rest(&mut stream).await;
    echo.ended.recv().await.unwrap();
    assert_eq!(echo.received(), 6 + 4);
}

#[tokio::test]
async fn cuts_before_the_reply_to_a_request_that_has_arrived() {
    let (echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"warm").await.unwrap();
    proxy.set(Traffic::CutBeforeReply).await.unwrap();
    for round in 1..3 {
        stream.write_all(b"request").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(echo.received(), 4 + 7 * round);
        stream = connect(&proxy).await;
    }
    proxy.set(Traffic::Normal).await.unwrap();
    assert_eq!(ask(&mut stream, b"again").await.unwrap(), b"again");
}

#[tokio::test]
async fn a_single_cut_leaves_the_next_attempt_alone() {
    let (echo, proxy) = proxied().await;
    proxy.once(Traffic::CutBeforeReply).await.unwrap();
    let mut stream = connect(&proxy).await;
    stream.write_all(b"first").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, b"second").await.unwrap(), b"second");
    assert_eq!((echo.received(), proxy.cut()), (11, 1));
}

#[tokio::test]
async fn one_lost_reply_is_one() {
    let (echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"warm").await.unwrap();
    for round in 1..3 {
        proxy.fault(Fault::LoseReply).await.unwrap();
        stream.write_all(b"first").await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, b"second").await.unwrap(), b"second");
        assert_eq!(echo.received(), 4 + 11 * round);
        assert_eq!(proxy.cut(), round as usize);
    }
}

#[tokio::test]
async fn a_black_hole_swallows_and_its_connections_end_with_it() {
    let (echo, proxy) = proxied().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, b"warm").await.unwrap();
    proxy.set(Traffic::BlackHole).await.unwrap();
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        let answer = timeout(Duration::from_millis(50), ask(stream, b"lost")).await;
        assert!(answer.is_err(), "something was answered");
    }
    assert_eq!(echo.received(), 4);
    proxy.set(Traffic::Normal).await.unwrap();
    assert_eq!(rest(&mut old).await, b"");
    assert_eq!(rest(&mut new).await, b"");
    let mut fresh = connect(&proxy).await;
    assert_eq!(ask(&mut fresh, b"back").await.unwrap(), b"back");
}

#[tokio::test]
async fn refuses_and_listens_on_the_same_port_again() {
    let (_echo, proxy) = proxied().await;
    let mut old = connect(&proxy).await;
    ask(&mut old, b"warm").await.unwrap();
    for _ in 0..3 {
        proxy.set(Traffic::Refuse).await.unwrap();
        assert_eq!(rest(&mut old).await, b"");
        let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.set(Traffic::Normal).await.unwrap();
        old = connect(&proxy).await;
        assert_eq!(ask(&mut old, b"back").await.unwrap(), b"back");
    }
}

#[tokio::test]
async fn closes_idle_connections_once() {
    let (_echo, proxy) = proxied().await;
    let mut idle = connect(&proxy).await;
    ask(&mut idle, b"warm").await.unwrap();
    proxy.close_connections().await.unwrap();
    assert_eq!(rest(&mut idle).await, b"");
    let mut next = connect(&proxy).await;
    assert_eq!(ask(&mut next, b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_server_that_is_gone_closes_the_connection() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let proxy = Proxy::start(address).await.unwrap();
    assert_eq!(rest(&mut connect(&proxy).await).await, b"");
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections_and_its_port() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"warm").await.unwrap();
    let address = proxy.address();
    drop(proxy);
    assert_eq!(rest(&mut stream).await, b"");
    TcpStream::connect(address).await.unwrap_err();
}

#[tokio::test]
async fn makes_the_faults_of_a_network_and_no_others() {
    let (_echo, proxy) = proxied().await;
    for fault in [
        Fault::Down,
        Fault::Hang,
        Fault::LoseReplies,
        Fault::LoseReply,
        Fault::CloseConnections,
        Fault::Slow,
        Fault::None,
    ] {
        proxy.fault(fault).await.unwrap();
    }
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, b"well").await.unwrap(), b"well");
    let refused = proxy.fault(Fault::Full).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
}
