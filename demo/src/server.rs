use std::{error, future::Future, io, sync::Arc, time::Duration};

use axum::{Router, serve::ListenerExt};
use sessionkit::{Clock, SessionStore, Sweep, SystemClock};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time,
};

use crate::{App, Command, Options, error::log, keys, store};

/// How long requests that are under way may take after the signal to stop.
pub const GRACE: Duration = Duration::from_secs(5);

const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

const SWEEP_BATCH: usize = 1000;

/// Runs the app until Ctrl-C or SIGTERM, unless the options name a command, which is done instead.
/// Prints one line once it accepts connections.
///
/// # Errors
/// When a key to check would be refused. When the options do not fit together, the store or the key cannot be opened, or the address is
/// taken.
pub async fn run(options: Options) -> Result<(), Box<dyn error::Error>> {
    match &options.command {
        None => {}
        Some(Command::Key) => return Ok(keys::make()?),
        Some(Command::CheckKey { input }) => {
            print!("{}", keys::check(input)?);
            return Ok(());
        }
    }
    options.check()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keyring = keys::keyring(&options)?;
    let url = options.store_url()?;
    let store = store::open(&url, &keyring, &clock).await?;
    let app = App::new(Arc::clone(&store), keyring)
        .with_clock(clock)
        .with_https(options.https)
        .router()?;
    // Before the line that says that we are there, so that whoever reads it may stop us.
    let stop = stop_signal()?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", options.listen),
        )
    })?;
    println!(
        "listening on http://{}, sessions in {}",
        listener.local_addr()?,
        store::redacted(&url),
    );
    let sweeper = tokio::spawn(sweep(store));
    let served = serve(listener, app, stop, GRACE).await;
    sweeper.abort();
    Ok(served?)
}

/// Serves until `stop` is ready; requests that are under way then have `grace` to end.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let listener = listener.tap_io(|stream| {
        // Answers are small: nothing is gained by waiting for more of them.
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        stop.await;
        let _ = stopping.send(());
    });
    let patience = async {
        // Also when the sender is gone, which happens only once everything was served.
        let _ = stopped.await;
        time::sleep(grace).await;
    };
    tokio::select! {
        served = serving => served,
        () = patience => Ok(()),
    }
}

/// Ready on the first Ctrl-C or SIGTERM from now on.
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Removes expired sessions from time to time, where the store leaves that to the application.
async fn sweep(store: Arc<dyn SessionStore>) {
    if store.capabilities().sweep != Sweep::Explicit {
        return;
    }
    let mut interval = time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        loop {
            match store.sweep(SWEEP_BATCH).await {
                Ok(removed) if removed >= SWEEP_BATCH as u64 => {}
                Ok(_) => break,
                Err(error) => {
                    log(&error);
                    break;
                }
            }
        }
    }
}
