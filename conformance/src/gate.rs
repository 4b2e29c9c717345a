use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Holds threads back until all of them are there, and lets two go in the same instant.
pub(crate) struct Gate {
    all: Barrier,
    count: usize,
    arrived: AtomicUsize,
}

impl Gate {
    /// How long a thread waits for the one that it starts with: long for a thread to wake up.
    const PATIENCE: Duration = Duration::from_micros(200);

    pub(crate) fn new(count: usize) -> Self {
        Self {
            all: Barrier::new(count),
            count,
            arrived: AtomicUsize::new(0),
        }
    }

    pub(crate) fn pass(&self) {
        self.all.wait();
        let number = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let pair = number.next_multiple_of(2).min(self.count);
        let start = Instant::now();
        while self.arrived.load(Ordering::SeqCst) < pair && start.elapsed() < Self::PATIENCE {
            std::hint::spin_loop();
        }
    }
}
