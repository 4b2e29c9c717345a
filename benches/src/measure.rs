use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::future::{BoxFuture, FutureExt};

/// Runs the same operation in several ways, in turn, and prints how they compare.
pub struct Comparison {
    title: String,
    contenders: Vec<Contender>,
}

type Run<'a> = Box<dyn FnMut() -> BoxFuture<'a, f64> + 'a>;

struct Contender {
    name: String,
    run: Run<'static>,
    nanos: Vec<f64>,
}

impl Comparison {
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            contenders: Vec::new(),
        }
    }

    /// Adds a way of doing it: `run` gives the nanoseconds of one operation. The first one added is
    /// what the others are compared with.
    pub fn add<F>(mut self, name: &str, mut run: impl FnMut() -> F + 'static) -> Self
    where
        F: Future<Output = f64> + Send + 'static,
    {
        self.contenders.push(Contender {
            name: name.to_owned(),
            run: Box::new(move || run().boxed()),
            nanos: Vec::new(),
        });
        self
    }

    pub async fn print(self, rounds: usize) {
        self.measured(rounds).await.report();
    }

    pub async fn measured(mut self, rounds: usize) -> Self {
        for round in 0..rounds {
            for turn in 0..self.contenders.len() {
                // Nobody always follows the same other one.
                let turn = if round % 2 == 0 {
                    turn
                } else {
                    self.contenders.len() - 1 - turn
                };
                let contender = &mut self.contenders[turn];
                let nanos = (contender.run)().await;
                contender.nanos.push(nanos);
            }
        }
        self
    }

    /// Adds what was measured for the same contenders elsewhere.
    pub fn and(mut self, other: Self) -> Self {
        for (contender, more) in self.contenders.iter_mut().zip(other.contenders) {
            contender.nanos.extend(more.nanos);
        }
        self
    }

    /// `ratio` is the speed of each contender in units of the first one's: the median over the rounds,
    /// in each of which all ran within a short time. A machine that is shared gets faster and slower.
    pub fn report(self) {
        let rounds = self.contenders[0].nanos.len();
        println!("\n{} ({rounds} rounds, medians)", self.title);
        println!("{:<44} {:>12} {:>8} {:>16}", "", "ns", "ratio", "spread");
        let limits = &self.contenders[0].nanos;
        for Contender { name, nanos, .. } in &self.contenders {
            let middle = median(nanos);
            let (low, high) = range(nanos);
            let ratios: Vec<_> = limits
                .iter()
                .zip(nanos)
                .map(|(limit, ns)| limit / ns)
                .collect();
            let ratio = median(&ratios);
            println!("{name:<44} {middle:>12.0} {ratio:>8.2} {low:>8.0}..{high:<8.0}");
        }
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    (low, high)
}

/// Nanoseconds of one call of `operation`, over `count` calls.
pub fn time(count: usize, mut operation: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        operation();
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Wall-clock nanoseconds for each of `count` operations done by `tasks` tasks together; `operation`
/// is given the number of the operation.
pub async fn time_tasks<F, Fut>(tasks: usize, count: usize, operation: F) -> f64
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let operation = Arc::new(operation);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (operation, next) = (Arc::clone(&operation), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    operation(number).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no operation panics");
    }
    start.elapsed().as_nanos() as f64 / count as f64
}
