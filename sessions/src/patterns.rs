//! How many bits it takes to describe a text or some bytes, to somebody who expects words,
//! repetition, counters and walks over a keyboard.
//!
//! Several experts predict each symbol from those before it. Their predictions are averaged, with
//! weights that follow from how well each has predicted so far (a Bayesian mixture with a fixed
//! share: Herbster and Warmuth, "Tracking the Best Expert", 1998). At every point the
//! probabilities of all symbols that may come next add up to at most one, so that the
//! probabilities of all texts do.

/// What the symbols of a text are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alphabet {
    /// Any byte.
    Bytes,
    /// The digits of both alphabets of base64 (RFC 4648), without padding.
    Base64,
    /// Hexadecimal digits in lower case.
    Hexadecimal,
}

impl Alphabet {
    /// The probability of a symbol when all are equally likely.
    fn uniform(self, symbol: u8) -> f64 {
        let (contains, size) = match self {
            Self::Bytes => (true, 256.0),
            Self::Base64 => (
                symbol.is_ascii_alphanumeric() || b"+/-_".contains(&symbol),
                66.0,
            ),
            Self::Hexadecimal => (matches!(symbol, b'0'..=b'9' | b'a'..=b'f'), 16.0),
        };
        if contains { 1.0 / size } else { 0.0 }
    }
}

/// The bits that describe `symbols`: the negative binary logarithm of their probability.
pub(crate) fn bits(symbols: &[u8], alphabet: Alphabet) -> f64 {
    let mut mixture = Mixture::new(alphabet);
    symbols
        .iter()
        .enumerate()
        .map(|(position, &symbol)| -mixture.learn(&symbols[..position], symbol).log2())
        .sum()
}

const EXPERTS: usize = 11;

/// How far the experts are trusted before anything is known. The second one alone has to be enough
/// to refuse 32 printable bytes: see the test.
const TRUST: [f64; EXPERTS] = [
    0.05, 0.25, 0.1, 0.15, 0.1, 0.1, 0.05, 0.1, 0.025, 0.025, 0.05,
];

/// The part of all trust that is dealt out anew after each symbol, so that a text may change its
/// nature.
const SHARE: f64 = 1.0 / 64.0;

struct Mixture {
    alphabet: Alphabet,
    trust: [f64; EXPERTS],
    counts: Counts,
}

impl Mixture {
    fn new(alphabet: Alphabet) -> Self {
        Self {
            alphabet,
            trust: TRUST,
            counts: Counts::new(),
        }
    }

    /// The probability that `next` had after `past`; the mixture has seen `past` symbol by symbol.
    fn learn(&mut self, past: &[u8], next: u8) -> f64 {
        let predictions = self.predictions(past, next);
        let mixed: f64 = self.mix(&predictions);
        for ((trust, prediction), prior) in self.trust.iter_mut().zip(predictions).zip(TRUST) {
            *trust = (1.0 - SHARE) * *trust * prediction / mixed + SHARE * prior;
        }
        self.counts.learn(past.last().copied(), next);
        mixed
    }

    fn mix(&self, predictions: &[f64; EXPERTS]) -> f64 {
        let pairs = self.trust.iter().zip(predictions);
        pairs.map(|(trust, prediction)| trust * prediction).sum()
    }

    fn predictions(&self, past: &[u8], next: u8) -> [f64; EXPERTS] {
        let uniform = self.alphabet.uniform(next);
        let expect = |(expected, confidence): (Option<u8>, f64)| match expected {
            None => uniform,
            Some(expected) => {
                let hit = if expected == next { confidence } else { 0.0 };
                hit + (1.0 - confidence) * uniform
            }
        };
        [
            uniform,
            printable(next),
            self.counts.class(past, next),
            self.counts.word(past, next, Spelling::Plain),
            self.counts.word(past, next, Spelling::Digits),
            self.counts.word(past, next, Spelling::Syllables),
            self.counts.symbol(past.len(), next),
            expect(repetition(past)),
            expect((step(past, 1), 0.75)),
            expect((step(past, 2), 0.75)),
            walk(past, next, uniform),
        ]
    }
}

fn printable(next: u8) -> f64 {
    if (b' '..=b'~').contains(&next) {
        1.0 / 95.0
    } else {
        0.0
    }
}

/// What followed the last time that the last symbols came in this order, and how likely it comes
/// again.
fn repetition(past: &[u8]) -> (Option<u8>, f64) {
    const WINDOW: usize = 256;
    const CONFIDENCE: [f64; 6] = [0.0, 0.3, 0.6, 0.85, 0.93, 0.97];
    let common = |end: usize| {
        let (before, now) = (past[..end].iter().rev(), past.iter().rev());
        let equal = before.zip(now).take(CONFIDENCE.len() - 1);
        equal.take_while(|(a, b)| a == b).count()
    };
    (past.len().saturating_sub(WINDOW).max(1)..past.len())
        .map(|end| (common(end), end))
        .max()
        .map_or((None, 0.0), |(common, end)| {
            (Some(past[end]), CONFIDENCE[common])
        })
}

/// What comes next when every `stride`th symbol goes on by the same distance.
fn step(past: &[u8], stride: usize) -> Option<u8> {
    let last = *past.get(past.len().checked_sub(stride)?)?;
    let before = *past.get(past.len().checked_sub(2 * stride)?)?;
    Some(last.wrapping_add(last.wrapping_sub(before)))
}

const KEYBOARD: [&[u8]; 4] = [
    b"1234567890-=",
    b"qwertyuiop[]",
    b"asdfghjkl;'",
    b"zxcvbnm,./",
];

/// From a key to itself and to those that touch it, in rows and columns.
const MOVES: [(isize, isize); 7] = [(0, 0), (0, 1), (0, -1), (1, 0), (1, -1), (-1, 0), (-1, 1)];

/// The probability of `next` for somebody who moves over the keyboard and likes to go straight on.
fn walk(past: &[u8], next: u8, uniform: f64) -> f64 {
    let Some(from) = past.last().copied().and_then(key) else {
        return uniform;
    };
    let distance =
        |(row, column): (isize, isize), from: (isize, isize)| (row - from.0, column - from.1);
    let before = past
        .len()
        .checked_sub(2)
        .and_then(|before| key(past[before]));
    let last = before.map(|before| distance(from, before));
    let moved = key(next).map(|to| distance(to, from));
    let mut probability = 0.2 * uniform;
    if let Some(moved) = moved {
        let again = if last == Some(moved) { 0.5 } else { 0.0 };
        let near = if MOVES.contains(&moved) {
            0.3 / 7.0
        } else {
            0.0
        };
        let same_case = past.last().is_none_or(|last| {
            !last.is_ascii_alphabetic() || last.is_ascii_uppercase() == next.is_ascii_uppercase()
        });
        let case = match (next.is_ascii_alphabetic(), same_case) {
            (false, _) => 1.0,
            (true, true) if past.last().is_some_and(u8::is_ascii_alphabetic) => 0.9,
            (true, true) => 0.5,
            (true, false) => 0.1,
        };
        probability += (again + near) * case;
    }
    probability
}

fn key(symbol: u8) -> Option<(isize, isize)> {
    let symbol = symbol.to_ascii_lowercase();
    KEYBOARD.iter().zip(0..).find_map(|(keys, row)| {
        let column = keys.iter().zip(0..).find(|&(&key, _)| key == symbol)?.1;
        Some((row, column))
    })
}

/// What was counted so far.
struct Counts {
    symbols: [f64; 256],
    /// By the class before it; the last row is for the first symbol.
    classes: [[f64; CLASSES]; CLASSES + 1],
    /// Small letters and capitals: after none of them, after a small one, after a capital.
    cases: [[f64; 2]; 3],
}

const CLASSES: usize = 9;

impl Counts {
    fn new() -> Self {
        Self {
            symbols: [1.0 / 16.0; 256],
            classes: [[0.25; CLASSES]; CLASSES + 1],
            cases: [[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]],
        }
    }

    fn learn(&mut self, last: Option<u8>, next: u8) {
        self.symbols[usize::from(next)] += 1.0;
        self.classes[last.map_or(CLASSES, |last| class(last).0)][class(next).0] += 1.0;
        if next.is_ascii_alphabetic() {
            self.cases[case(last)][usize::from(next.is_ascii_uppercase())] += 1.0;
        }
    }

    fn symbol(&self, seen: usize, next: u8) -> f64 {
        self.symbols[usize::from(next)] / (16.0 + seen as f64)
    }

    /// The probability of a symbol of the same class as `next`, divided by the size of the class.
    fn class(&self, past: &[u8], next: u8) -> f64 {
        let row = &self.classes[past.last().map_or(CLASSES, |&last| class(last).0)];
        let (class, size) = class(next);
        row[class] / row.iter().sum::<f64>() / size
    }

    /// The probability of `next` in a text of words.
    fn word(&self, past: &[u8], next: u8, spelling: Spelling) -> f64 {
        let last = past.last().map(|&last| spelling.letter(last));
        let within = last.filter(u8::is_ascii_alphabetic);
        let [small, capital] = self.cases[case(last)];
        let [small, capital] = [small, capital].map(|count| count / (small + capital));
        let of_small = |letter| small * spelling.share(within, letter);
        // A capital after a small letter begins another word.
        let before_capital = within.filter(u8::is_ascii_uppercase);
        let of_capital = |letter| capital * spelling.share(before_capital, letter);
        let (letter, other) = match within {
            Some(_) => (0.88, 0.12),
            None => (0.7, 0.3),
        };
        let by_letter = |letter| if spelling.has_digit(letter) { 0.5 } else { 1.0 };
        match next {
            b'a'..=b'z' => letter * by_letter(next) * of_small(next),
            b'A'..=b'Z' => letter * by_letter(next) * of_capital(next),
            b'0'..=b'9' => {
                let meant = Some(spelling.letter(next)).filter(u8::is_ascii_alphabetic);
                let by_digit = meant.map_or(0.0, |meant| of_small(meant) + of_capital(meant));
                letter * 0.5 * by_digit + other * 0.4 / 10.0
            }
            b' ' | b'_' | b'-' | b'+' | b'/' => other * 0.1,
            _ => other * 0.1 / 189.0,
        }
    }
}

/// How words are written.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    Plain,
    /// With digits for letters that look like them.
    Digits,
    /// In another language, of which no more is known than that vowels and consonants alternate.
    Syllables,
}

impl Spelling {
    /// The letter that a symbol stands for, or else the symbol.
    fn letter(self, symbol: u8) -> u8 {
        match symbol {
            b'0' if self == Self::Digits => b'o',
            b'1' if self == Self::Digits => b'i',
            b'3' if self == Self::Digits => b'e',
            b'4' if self == Self::Digits => b'a',
            b'5' if self == Self::Digits => b's',
            b'7' if self == Self::Digits => b't',
            other => other,
        }
    }

    /// Whether a digit may stand for a letter.
    fn has_digit(self, letter: u8) -> bool {
        self == Self::Digits && b"oieast".contains(&letter.to_ascii_lowercase())
    }

    /// The part of all words, or of all letters after `last`, that goes on with `letter`.
    fn share(self, last: Option<u8>, letter: u8) -> f64 {
        let is_vowel = |letter: u8| b"aeiouy".contains(&letter.to_ascii_lowercase());
        if self == Self::Syllables {
            let vowel = match last.map(is_vowel) {
                None => 0.35,
                Some(true) => 0.15,
                Some(false) => 0.6,
            };
            return if is_vowel(letter) {
                vowel / 6.0
            } else {
                (1.0 - vowel) / 20.0
            };
        }
        let row = last.map_or(FIRST, |last| PAIRS[index(last)]);
        let all: f64 = row.iter().map(|&weight| weight_of(weight)).sum();
        weight_of(row[index(letter)]) / all
    }
}

/// The number of a class of symbols, and how many symbols it has.
fn class(symbol: u8) -> (usize, f64) {
    match symbol {
        b'0'..=b'9' => (0, 10.0),
        b'A'..=b'Z' => (1, 26.0),
        b'a'..=b'z' => (2, 26.0),
        b' '..=b'~' => (3, 33.0),
        0..=0x1f | 0x7f => (4, 33.0),
        0x80..=0x9f => (5, 32.0),
        0xa0..=0xbf => (6, 32.0),
        0xc0..=0xdf => (7, 32.0),
        0xe0..=0xff => (8, 32.0),
    }
}

fn case(last: Option<u8>) -> usize {
    match last {
        Some(b'a'..=b'z') => 1,
        Some(b'A'..=b'Z') => 2,
        _ => 0,
    }
}

fn index(letter: u8) -> usize {
    usize::from(letter.to_ascii_lowercase() - b'a')
}

fn weight_of(digit: u8) -> f64 {
    f64::from(1 << (digit - b'0'))
}

/// How often words begin with each letter, as binary logarithms.
const FIRST: &[u8; 26] = b"86866756824776871779667050";

/// How often each letter follows another one within the words of English technical prose, as binary
/// logarithms that begin anew in each row. Other languages in Latin letters are close enough.
const PAIRS: [&[u8; 26]; 26] = [
    b"06760460705879060879564360",
    b"61109000760910800752800080",
    b"80508008606600911738720030",
    b"61169020810503700461631040",
    b"72786643500668254997154650",
    b"70108700900501900837800060",
    b"70109148700517730853700000",
    b"80009000700000600415100020",
    b"56755650003769741588050203",
    b"50109000301000620040810000",
    b"50009110700306000072200010",
    b"70179300902800740266722170",
    b"85119000700360780060600010",
    b"70898491604525720089650060",
    b"44674860435679660967867110",
    b"90049114700820870957700060",
    b"00000000000500000000900000",
    b"81559340705355730676632060",
    b"60609307803434762579712050",
    b"60307009700300720664504050",
    b"66758050600878260898000000",
    b"80009000700000400020000030",
    b"70009008900206800651002000",
    b"90708004700030090009400150",
    b"24205000500336980565404002",
    b"70009000602200420020000044",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy, OsEntropy};

    /// The proof that random keys are hardly ever refused rests on this alone.
    #[test]
    fn at_every_point_the_probabilities_of_all_that_may_come_next_add_up_to_at_most_one() {
        let mut random = [0; 48];
        OsEntropy.fill(&mut random).unwrap();
        let pasts: [&[u8]; 10] = [
            &random,
            b"",
            b"CHANGE_ME_TO_A_RANDOM_STRING_BEFORE",
            b"Pl34s3 D0 N0t Sh4r3, qwertzuiop[]",
            b"1qaz2wsx3edc4rfv5tgb-=",
            b"00112233445566778899aabbccddeeff",
            &[0; 40],
            &[1, 200, 77, 9, 1, 200, 77, 9, 1, 200],
            "пароль пароль пароль".as_bytes(),
            &[255, 254, 0, 127, 128, 0, 255],
        ];
        for alphabet in [Alphabet::Bytes, Alphabet::Base64, Alphabet::Hexadecimal] {
            for past in pasts {
                let mut mixture = Mixture::new(alphabet);
                for (position, &symbol) in past.iter().enumerate() {
                    assert_adds_up(&mixture, &past[..position]);
                    mixture.learn(&past[..position], symbol);
                }
                assert_adds_up(&mixture, past);
            }
        }
    }

    fn assert_adds_up(mixture: &Mixture, past: &[u8]) {
        let mut sums = [0.0; EXPERTS];
        let mut mixed = 0.0;
        for next in 0..=255 {
            let predictions = mixture.predictions(past, next);
            mixed += mixture.mix(&predictions);
            for (sum, prediction) in sums.iter_mut().zip(predictions) {
                assert!(prediction >= 0.0);
                *sum += prediction;
            }
        }
        assert!(mixed <= 1.0 + 1e-12, "{mixed} after {past:?}");
        for (expert, sum) in sums.into_iter().enumerate() {
            assert!(sum <= 1.0 + 1e-12, "{expert}: {sum} after {past:?}");
        }
        let trust: f64 = mixture.trust.iter().sum();
        assert!((trust - 1.0).abs() < 1e-12, "{trust}");
    }

    /// Whatever the other experts say.
    #[test]
    fn thirty_two_printable_bytes_are_described_by_less_than_214_bits() {
        let kept: f64 = (1.0 - SHARE + SHARE * TRUST[1]).log2();
        assert!(-(TRUST[1].log2() + 31.0 * kept) + 32.0 * 95_f64.log2() < 256.0 - 42.0);
    }
}
