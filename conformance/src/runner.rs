use std::{
    any::Any,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use sessionkit::{Capabilities, Error, ErrorKind, Result};
use tokio::runtime;

use crate::{
    Case, Context, Failure, Group, Harness, Outcome, Verdict,
    context::random_namespace,
    recorder::{Call, Meter},
};

/// Makes the harness of one case.
pub type MakeHarness = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Harness>>> + Send + Sync>;

/// How cases are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Determines the random choices of the cases.
    pub seed: u64,
    /// When a case is given up: after this long without the end of any call. However slow the
    /// machine is, a case that goes on is not stuck.
    pub watchdog: Duration,
}

impl Default for Options {
    /// Seed 1, and 60 seconds without progress.
    fn default() -> Self {
        Self {
            seed: 1,
            watchdog: Duration::from_secs(60),
        }
    }
}

/// What came of one case on one store.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// The case.
    pub case: &'static Case,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub duration: Duration,
    /// How many checks it made.
    pub checks: usize,
    /// Names the sequence of calls that the case made; equal for two runs with one seed. `None`
    /// where concurrent tasks or random choices of the store decide.
    pub operations: Option<u64>,
}

/// Runs a case on a thread and a runtime of its own.
#[must_use]
pub fn run_case(case: &'static Case, make: &MakeHarness, options: &Options) -> CaseReport {
    let start = Instant::now();
    let (send, receive) = mpsc::channel();
    let (make, seed, limit) = (Arc::clone(make), options.seed, options.watchdog);
    let meter = Arc::new(Meter::tracing(case.sequential));
    let inside = Arc::clone(&meter);
    let spawned = thread::Builder::new()
        .name(case.name.into())
        .spawn(move || {
            let run = || run_here(case, &make, seed, (limit, inside));
            let ran = catch_unwind(AssertUnwindSafe(run));
            let ran = ran.unwrap_or_else(|panic| Ran::from(panicked(&*panic)));
            // Nobody listens any more when the watchdog was faster.
            let _ = send.send(ran);
        });
    // A thread that is stuck in a blocking call does not see the watchdog inside its runtime.
    let ran = match spawned {
        Ok(_) => {
            let limit_outside = limit + Duration::from_secs(5);
            let mut watch = Watch::new(limit_outside, meter.progress(), Instant::now());
            loop {
                match receive.recv_timeout(watch.pause()) {
                    Ok(ran) => break ran,
                    Err(_) if watch.is_stuck(meter.progress(), Instant::now()) => {
                        break Ran::from(stuck(limit, &meter));
                    }
                    Err(_) => {}
                }
            }
        }
        Err(error) => Ran::from(Verdict::Error(format!("no thread can be started: {error}"))),
    };
    CaseReport {
        case,
        verdict: ran.verdict,
        duration: start.elapsed(),
        checks: ran.checks,
        operations: ran.operations,
    }
}

/// What a store declares, or why it cannot be opened.
///
/// # Errors
/// Those of the harness.
pub fn probe(make: &MakeHarness) -> Result<Capabilities> {
    let failed = |error| {
        let error: Box<dyn std::error::Error + Send + Sync> = error;
        Error::new(ErrorKind::Unavailable, "the store cannot be looked at").with_source(error)
    };
    let make = Arc::clone(make);
    let looked = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok::<_, std::io::Error>(runtime.block_on(async {
            let harness = make().await?;
            let namespace = random_namespace()?;
            let capabilities = harness.open(&namespace).await?.capabilities();
            harness.destroy(&namespace).await?;
            Ok(capabilities)
        }))
    });
    match looked.join() {
        Ok(looked) => looked.map_err(|error| failed(error.into()))?,
        Err(_) => Err(failed("a panic".into())),
    }
}

/// Tells a case that is stuck from one that is slow.
struct Watch {
    limit: Duration,
    begun: Instant,
    seen: usize,
    since: Instant,
}

impl Watch {
    /// No case makes calls for so many times the limit, unless it runs in a circle.
    const CIRCLES: u32 = 30;

    fn new(limit: Duration, progress: usize, now: Instant) -> Self {
        Self {
            limit,
            begun: now,
            seen: progress,
            since: now,
        }
    }

    /// How long to wait before looking again.
    fn pause(&self) -> Duration {
        self.limit / 20
    }

    /// Whether nothing has ended for as long as the limit.
    fn is_stuck(&mut self, progress: usize, now: Instant) -> bool {
        if progress != self.seen {
            (self.seen, self.since) = (progress, now);
        }
        now.duration_since(self.since) >= self.limit
            || now.duration_since(self.begun) >= self.limit * Self::CIRCLES
    }
}

/// Waits for a future while there is progress.
async fn watched<F: Future + Unpin>(
    meter: &Meter,
    limit: Duration,
    mut future: F,
) -> Option<F::Output> {
    let mut watch = Watch::new(limit, meter.progress(), Instant::now());
    loop {
        match tokio::time::timeout(watch.pause(), &mut future).await {
            Ok(output) => return Some(output),
            Err(_) if watch.is_stuck(meter.progress(), Instant::now()) => return None,
            Err(_) => {}
        }
    }
}

struct Ran {
    verdict: Verdict,
    checks: usize,
    operations: Option<u64>,
}

impl From<Verdict> for Ran {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            checks: 0,
            operations: None,
        }
    }
}

/// The limit of the watchdog, and what it looks at.
type Watched = (Duration, Arc<Meter>);

fn run_here(case: &'static Case, make: &MakeHarness, seed: u64, (limit, meter): Watched) -> Ran {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Ran::from(Verdict::Error(format!("no runtime: {error}"))),
    };
    let make = make();
    // On a worker, because the main thread of a runtime is not one of its workers.
    let ran = runtime.block_on(async move {
        tokio::spawn(async move {
            let harness = match make.await {
                Ok(harness) => harness,
                Err(error) => {
                    return Ran::from(Verdict::Error(format!("the harness cannot start: {error}")));
                }
            };
            match Context::new(harness, case.name, seed, meter).await {
                Ok(context) => run_in(case, Arc::new(context), limit).await,
                Err(failure) => Ran::from(failure.into_verdict()),
            }
        })
        .await
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    ran.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => Ran::from(panicked(&*panic)),
        Err(error) => Ran::from(Verdict::Error(error.to_string())),
    })
}

/// Runs a case on the runtime of the caller, which watches it.
pub(crate) async fn run_once(case: &'static Case, harness: Arc<dyn Harness>, seed: u64) -> Verdict {
    match Context::new(harness, case.name, seed, Arc::default()).await {
        Ok(context) => {
            run_in(case, Arc::new(context), Duration::from_secs(20))
                .await
                .verdict
        }
        Err(failure) => failure.into_verdict(),
    }
}

async fn run_in(case: &'static Case, context: Arc<Context>, limit: Duration) -> Ran {
    let outcome = match applies(case, &context).await {
        Ok(()) => run_caught(case, &context, limit).await,
        Err(failure) => Err(failure),
    };
    context.meter().progressed();
    let cleaned = watched(context.meter(), limit, pin!(context.clean_up())).await;
    let hangs = || Err(Failure::error("destroying the namespaces hangs"));
    let clean = cleaned.unwrap_or_else(hangs);
    let verdict = match (outcome, clean) {
        (Ok(()), Ok(())) => Verdict::Pass,
        (Ok(()), Err(failure)) | (Err(failure), _) => failure.into_verdict(),
    };
    Ran {
        verdict,
        checks: context.checks(),
        operations: case.sequential.then(|| {
            let mut hash = DefaultHasher::new();
            context.meter().trace().hash(&mut hash);
            hash.finish()
        }),
    }
}

/// Runs the case in a task, which keeps a panic in.
async fn run_caught(case: &'static Case, context: &Arc<Context>, limit: Duration) -> Outcome {
    let inside = Arc::clone(context);
    let mut task = tokio::spawn(async move { (case.run)(&inside).await });
    let meter = context.meter();
    match watched(meter, limit, &mut task).await {
        Some(Ok(outcome)) => outcome
            .map_err(|failure| failure.named(|kind| meter.failed_with(kind).map(Call::name)))
            .and_then(|()| proved_something(case, context)),
        Some(Err(error)) => Err(Failure::from_verdict(match error.try_into_panic() {
            Ok(panic) => panicked(&*panic),
            Err(error) => Verdict::Error(error.to_string()),
        })),
        None => {
            let verdict = stuck(limit, meter);
            task.abort();
            Err(Failure::from_verdict(verdict))
        }
    }
}

async fn applies(case: &Case, context: &Context) -> Outcome {
    let subjects = context.open().await?.subjects().is_some();
    match case.inapplicable(context.capabilities(), subjects) {
        Some(reason) => Err(Failure::skip(reason)),
        None => Ok(()),
    }
}

/// A case that checked nothing, or a race that nobody ran, is no pass.
fn proved_something(case: &Case, context: &Context) -> Outcome {
    if context.checks() == 0 {
        return Err(Failure::error("the case checked nothing"));
    }
    if let Some(reason) = context.untold() {
        return Err(Failure::skip(reason));
    }
    let races = case.group == Group::Conc || case.group == Group::Flow && !case.sequential;
    if races && context.contention() == 0 {
        return Err(Failure::inconclusive(format!(
            "no two of the {} calls ran at the same time",
            context.meter().calls()
        )));
    }
    Ok(())
}

fn stuck(limit: Duration, meter: &Meter) -> Verdict {
    Verdict::Fail {
        expected: format!(
            "a call ends within {} s, and the case with them",
            limit.as_secs()
        ),
        actual: format!("{} after {} calls", meter.unfinished(), meter.calls()),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Verdict {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something that is no text");
    Verdict::Fail {
        expected: "no panic".into(),
        actual: format!("a panic: {text}"),
    }
}

/// What was expected, what came, why it matters, and how to run the case alone.
pub(crate) struct Explained<'a> {
    pub(crate) case: &'a Case,
    pub(crate) verdict: &'a Verdict,
    pub(crate) seed: u64,
    pub(crate) again: &'a str,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = self.case;
        writeln!(
            f,
            "{} {}: {}",
            case.id(),
            self.verdict.word(),
            case.sentence()
        )?;
        match self.verdict {
            Verdict::Fail { expected, actual } => {
                writeln!(f, "  expected: {expected}")?;
                writeln!(f, "  actual:   {actual}")?;
            }
            other => writeln!(f, "  reason:   {}", other.reason())?,
        }
        writeln!(f, "  contract: {}", case.contract)?;
        writeln!(f, "  why:      {}", case.why)?;
        writeln!(f, "  seed:     {}", self.seed)?;
        write!(f, "  again:    {}", self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_case_that_goes_on_is_not_stuck_however_slow_it_is() {
        let start = Instant::now();
        let mut watch = Watch::new(LIMIT, 0, start);
        for calls in 1..30 {
            let late = start + LIMIT * 9 / 10 * u32::try_from(calls).expect("there are few");
            assert!(!watch.is_stuck(calls, late), "after {calls} calls");
        }
    }

    #[test]
    fn a_case_in_which_nothing_ends_is_stuck_after_the_limit() {
        let start = Instant::now();
        let mut watch = Watch::new(LIMIT, 0, start);
        let last = start + LIMIT * 5;
        assert!(!watch.is_stuck(7, last));
        assert!(!watch.is_stuck(7, last + LIMIT - Duration::from_millis(1)));
        assert!(watch.is_stuck(7, last + LIMIT));
    }

    #[test]
    fn a_case_that_runs_in_a_circle_is_stuck_in_the_end() {
        let start = Instant::now();
        let mut watch = Watch::new(LIMIT, 0, start);
        let stuck = (1..).find(|calls| {
            let now = start + Duration::from_secs(1) * u32::try_from(*calls).expect("not for ever");
            watch.is_stuck(*calls, now)
        });
        assert_eq!(stuck, Some(30 * 60));
    }
}
