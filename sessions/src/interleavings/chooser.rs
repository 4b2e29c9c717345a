//! Chooses the next step of an exploration.

/// Chooses among alternatives.
pub(super) trait Chooser {
    fn choose(&mut self, alternatives: usize) -> usize;
}

/// Every path through the choices, in depth-first order: the first alternative wherever nothing else
/// was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    choices: Vec<(usize, usize)>,
    next: usize,
}

impl Path {
    pub(super) fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some((choice, alternatives)) = self.choices.pop() {
            if choice + 1 < alternatives {
                self.choices.push((choice + 1, alternatives));
                return true;
            }
        }
        false
    }

    /// From the start once more.
    pub(super) fn again(&self) -> Self {
        Self {
            choices: self.choices.clone(),
            next: 0,
        }
    }
}

impl Chooser for Path {
    fn choose(&mut self, alternatives: usize) -> usize {
        if self.next == self.choices.len() {
            self.choices.push((0, alternatives));
        }
        let (choice, before) = self.choices[self.next];
        assert_eq!(before, alternatives, "the requests are not deterministic");
        self.next += 1;
        choice
    }
}

/// Random choices, the same ones for a seed.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Chooser for Dice {
    fn choose(&mut self, alternatives: usize) -> usize {
        // A linear congruential generator (Knuth, MMIX).
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % alternatives
    }
}
