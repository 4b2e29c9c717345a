//! Whether the time that a wrong value takes tells how wrong it is: Welch's t-test over two classes
//! of values, in the way of dudect (Reparaz, Balasch and Verbauwhede, "Dude, is my code constant
//! time?", 2017).
//!
//! Each measurement is of one call, with a value of a class that a random bit chose. Both classes
//! are made of many values at many addresses, so that neither has better ones. Long measurements,
//! which an interrupt or another process has lengthened, are cropped at several percentiles of
//! both classes together, and the largest t of them all counts.

use std::{
    env,
    future::Future,
    hint::black_box,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, header::COOKIE, header::SET_COOKIE};
use sessionkit::{Entropy, Key, Keyring, MemoryStore, Origin, OsEntropy, SessionManager};
use sha2::Sha256;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Where a difference is taken for proven. With no difference, a t beyond it comes once in 100,000.
const THRESHOLD: f64 = 4.5;

/// The parts of the measurements, the shortest ones, that are looked at.
const KEPT: [f64; 6] = [0.3, 0.5, 0.7, 0.9, 0.99, 1.0];

/// How many values a class has: every wrong value of one byte.
const VALUES: u8 = 255;

/// What a pair of classes is expected to show.
#[derive(PartialEq)]
enum Expected {
    Same,
    Different,
    /// Not a secret.
    Either,
}

struct Outcome {
    count: [u64; 2],
    mean: [f64; 2],
    t: f64,
    kept: f64,
}

fn main() -> Result<ExitCode> {
    let count: usize = match env::args().nth(1) {
        None => 500_000,
        Some(count) => count.parse()?,
    };
    println!("{count} measurements each, |t| below {THRESHOLD} shows no difference");
    println!("| classes | kept | samples | mean, ns | t | verdict |");
    println!("|---|---|---|---|---|---|");
    let mut failed = false;
    for (name, expected, outcome) in outcomes(count)? {
        let is_different = outcome.t.abs() >= THRESHOLD;
        let verdict = match (&expected, is_different) {
            (Expected::Same, false) => "no difference",
            (Expected::Same, true) => "FAILED: a difference",
            (Expected::Different, true) => "a difference, as it must be",
            (Expected::Different, false) => "FAILED: the test sees nothing",
            (Expected::Either, true) => "a difference, which is allowed",
            (Expected::Either, false) => "no difference, though it is allowed",
        };
        failed |= expected != Expected::Either && is_different != (expected == Expected::Different);
        println!(
            "| {name} | {}% | {}, {} | {:.1}, {:.1} | {:.2} | {verdict} |",
            outcome.kept * 100.0,
            outcome.count[0],
            outcome.count[1],
            outcome.mean[0],
            outcome.mean[1],
            outcome.t,
        );
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn outcomes(count: usize) -> Result<Vec<(&'static str, Expected, Outcome)>> {
    let keyring = Keyring::new([Key::generate()?])?;
    let signed = keyring.sign("purpose", "context", &[7; 32]);
    let sealed = keyring.seal(&OsEntropy, "purpose", "context", &[7; 200])?;
    let (signature, tag) = (signed.len() - 32, sealed.len() - 16);
    let verify = |value: &Vec<u8>| keyring.verify("purpose", "context", value).is_none();
    let open = |value: &Vec<u8>| keyring.open("purpose", "context", value).is_none();
    let ends = |value: &[u8], first: usize| wrong(value, [first, value.len() - 1]);

    let key = [9; 32];
    let mac = |message: &[u8]| -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        mac.chain_update(message).finalize().into_bytes().into()
    };
    let early = [&[7; 64][..], &mac(&[7; 64])].concat();
    let compare_until_different = |value: &Vec<u8>| {
        let (message, sent) = value.split_at(64);
        mac(message)
            .iter()
            .zip(sent)
            .any(|(a, b)| black_box(a) != black_box(b))
    };

    let sessions = Lookups::new()?;
    let rejected = |headers: &HeaderMap| sessions.origin(headers) == Origin::Ended;
    Ok(vec![
        (
            "control: a comparison that stops at the first wrong byte: the first, the last",
            Expected::Different,
            measure(
                count,
                ends(&early, 64)?,
                Vec::clone,
                compare_until_different,
            )?,
        ),
        (
            "control: the same class twice",
            Expected::Same,
            measure(count, wrong(&signed, [signature; 2])?, Vec::clone, verify)?,
        ),
        (
            "R41: signature wrong in its first, its last byte",
            Expected::Same,
            measure(count, ends(&signed, signature)?, Vec::clone, verify)?,
        ),
        (
            "R41: sealed value wrong in the first, the last byte of its tag",
            Expected::Same,
            measure(count, ends(&sealed, tag)?, Vec::clone, open)?,
        ),
        (
            "R44: token of a session, its secret wrong in the first, the last byte",
            Expected::Same,
            measure(count, sessions.cookies([16, 31])?, deep_copy, rejected)?,
        ),
        (
            "R44: token of no session, its id that of one but for the first, the last byte",
            Expected::Same,
            measure(count, sessions.cookies([0, 15])?, deep_copy, rejected)?,
        ),
        (
            "token of a session with a wrong secret, token of no session",
            Expected::Either,
            measure(count, sessions.cookies([16, 0])?, deep_copy, rejected)?,
        ),
    ])
}

/// Two classes of values, made in random order, so that neither has better addresses.
fn classes<V>(make: impl Fn(usize, u8) -> Result<V>) -> Result<[Vec<V>; 2]> {
    let mut order = Vec::new();
    for class in [0, 1] {
        for number in 1..=VALUES {
            let mut place = [0; 8];
            OsEntropy.fill(&mut place)?;
            order.push((place, class, number));
        }
    }
    order.sort_unstable();
    let mut classes = [Vec::new(), Vec::new()];
    for (_, class, number) in order {
        classes[class].push(make(class, number)?);
    }
    Ok(classes)
}

/// Copies of `value` that differ from it in one byte: for each class another one.
fn wrong(value: &[u8], positions: [usize; 2]) -> Result<[Vec<Vec<u8>>; 2]> {
    classes(|class, number| Ok(changed(value, positions[class], number)))
}

fn changed(value: &[u8], position: usize, number: u8) -> Vec<u8> {
    let mut changed = value.to_vec();
    changed[position] ^= number;
    changed
}

/// A manager over a store with one session.
struct Lookups {
    keyring: Keyring,
    manager: SessionManager,
    token: [u8; 32],
}

impl Lookups {
    fn new() -> Result<Self> {
        let keyring = Keyring::new([Key::generate()?])?;
        let manager = SessionManager::new(Arc::new(MemoryStore::new()), keyring.clone())?;
        let mut response = HeaderMap::new();
        let sessions = manager.begin(&HeaderMap::new());
        now(sessions.session())?.insert("user", "alice")?;
        now(sessions.finish(&mut response))?;
        let cookie = response[SET_COOKIE].to_str()?;
        let value = cookie
            .split(['=', ';'])
            .nth(1)
            .ok_or("a cookie has a value")?;
        let signed = URL_SAFE_NO_PAD.decode(value)?;
        let token = signed[5..37].try_into()?;
        let lookups = Self {
            keyring,
            manager,
            token,
        };
        let origin = lookups.origin(&lookups.cookie(&token)?);
        assert!(origin == Origin::Stored, "the token is the session's");
        Ok(lookups)
    }

    /// Requests with the token of the session, but for one byte, signed as a client cannot do it: a
    /// lookup comes after the signature.
    fn cookies(&self, positions: [usize; 2]) -> Result<[Vec<HeaderMap>; 2]> {
        classes(|class, number| self.cookie(&changed(&self.token, positions[class], number)))
    }

    fn cookie(&self, token: &[u8]) -> Result<HeaderMap> {
        let signed = self.keyring.sign("session token 2", "__Host-id", token);
        let cookie = format!("__Host-id={}", URL_SAFE_NO_PAD.encode(signed));
        Ok(HeaderMap::from_iter([(
            COOKIE,
            HeaderValue::try_from(cookie)?,
        )]))
    }

    fn origin(&self, headers: &HeaderMap) -> Origin {
        let sessions = self.manager.begin(headers);
        let session = now(sessions.session()).expect("the memory store does not fail");
        session.origin()
    }
}

/// A clone of headers shares their bytes with them; this does not.
fn deep_copy(headers: &HeaderMap) -> HeaderMap {
    let copied = headers.iter().map(|(name, value)| {
        let value = HeaderValue::from_bytes(value.as_bytes());
        (name.clone(), value.expect("it is a value already"))
    });
    copied.collect()
}

/// The result of what never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the memory store does not wait"),
    }
}

/// Measures `count` calls, with values of both classes in random order.
///
/// A value is copied before it is measured, to where the one before was: what it finds in the caches
/// does not depend on which it is.
fn measure<V>(
    count: usize,
    classes: [Vec<V>; 2],
    copy: impl Fn(&V) -> V,
    call: impl Fn(&V) -> bool,
) -> Result<Outcome> {
    assert!(
        classes.iter().flatten().all(&call),
        "every value is refused"
    );
    let mut choices = vec![0; 2 * (count + count / 10)];
    OsEntropy.fill(&mut choices)?;
    let (choices, _) = choices.as_chunks::<2>();
    let mut times: Vec<(u64, usize)> = choices
        .iter()
        .map(|[class, number]| {
            let class = usize::from(class & 1);
            let value = copy(&classes[class][usize::from(number % VALUES)]);
            let start = Instant::now();
            black_box(call(black_box(&value)));
            (start.elapsed().as_nanos() as u64, class)
        })
        // The first ones find cold caches.
        .skip(count / 10)
        .collect();
    times.sort_unstable();
    let outcomes = KEPT.iter().filter_map(|&kept| welch(&times, kept));
    let largest = outcomes.max_by(|a, b| a.t.abs().total_cmp(&b.t.abs()));
    largest.ok_or_else(|| "nothing was measured".into())
}

/// Welch's t of the shortest measurements; none where a class has hardly any of them, which are not
/// the same part of it then.
fn welch(sorted: &[(u64, usize)], kept: f64) -> Option<Outcome> {
    let limit = sorted[((sorted.len() - 1) as f64 * kept) as usize].0;
    let (mut count, mut sum, mut squares) = ([0_u64; 2], [0.0; 2], [0.0; 2]);
    for &(time, class) in sorted.iter().take_while(|(time, _)| *time <= limit) {
        count[class] += 1;
        sum[class] += time as f64;
    }
    if count.into_iter().min() < Some(1000) {
        return None;
    }
    let mean = [0, 1].map(|class| sum[class] / count[class] as f64);
    for &(time, class) in sorted.iter().take_while(|(time, _)| *time <= limit) {
        squares[class] += (time as f64 - mean[class]).powi(2);
    }
    let error = |class: usize| squares[class] / (count[class] - 1) as f64 / count[class] as f64;
    Some(Outcome {
        count,
        mean,
        t: (mean[0] - mean[1]) / (error(0) + error(1)).sqrt(),
        kept,
    })
}
