//! The secrets of a session, as its record knows them: hashes of the present one and of those that
//! it replaced. They stand in front of the data, where a request with an old secret can read them.

use std::time::Duration;

use aes_gcm::{Aes256Gcm, aead::KeyInit};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    Entropy, ErrorKind, Result, Timestamp, Token,
    keyring::{decrypt, encrypt_onto},
};

/// For how long a request that is late for a renewal is told from a stranger: after a routine
/// rotation its secret goes on working for this long once the new secret was presented, and after a
/// change of privilege it gets no cookie for this long.
pub(crate) const GRACE: Duration = Duration::from_secs(30);

/// By how much the clocks of two hosts may differ before one of them does harm: a host that runs
/// ahead forgets nothing that others still need, and takes no honest request for a reuse.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// How many secrets that lost their worth a header remembers: a change of privilege adds one or
/// two, and each is forgotten after [`GRACE`] and [`CLOCK_SKEW`].
const MAX_RETIRED: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    present: Verifier,
    /// When the present secret was drawn, in milliseconds; none for a session never renewed.
    drawn_at: Option<i64>,
    rotated: Option<Rotated>,
    retired: Vec<Retired>,
}

/// The secret that the last routine rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rotated {
    verifier: Verifier,
    /// When the new secret was presented for the first time, in milliseconds.
    presented_at: Option<i64>,
    /// The present secret, sealed under a key derived from the token it replaced; dropped when the
    /// grace is over.
    sealed: Option<Vec<u8>>,
}

/// A secret that a change of privilege made worthless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Retired {
    verifier: Verifier,
    at: i64,
}

/// What a secret is recognised by: half of a SHA-256 hash of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verifier([u8; 16]);

impl Verifier {
    fn of(token: &Token) -> Self {
        let mut hash = Sha256::new_with_prefix(b"sessionkit verifier 1\0");
        hash.update(token.expose());
        let mut verifier = [0; 16];
        verifier.copy_from_slice(&hash.finalize()[..16]);
        Self(verifier)
    }

    fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What the secret that a request came with is worth.
#[derive(Debug, PartialEq)]
pub(crate) enum Standing {
    /// It is the present one.
    Present,
    /// A routine rotation has replaced it, and it still works: this is the present token.
    Rotated(Token),
    /// A routine rotation has replaced it, and its grace is over.
    Reused,
    /// A change of privilege has replaced it a moment ago.
    Renewed,
    /// It is worth nothing any more, and by the clock of some host it may have been replaced only a
    /// moment ago.
    Replaced,
    /// It was never a secret of the session, or is none any more.
    Unknown,
}

impl Header {
    /// The header of a new session.
    pub(crate) fn new(token: &Token) -> Self {
        Self {
            present: Verifier::of(token),
            drawn_at: None,
            rotated: None,
            retired: Vec::new(),
        }
    }

    /// What `token` is worth at `now`; an error when a sealed secret cannot be opened.
    pub(crate) fn standing(&self, token: &Token, now: Timestamp) -> Result<Standing> {
        let verifier = Verifier::of(token);
        if self.present.matches(&verifier) {
            return Ok(Standing::Present);
        }
        if let Some(rotated) = &self.rotated
            && rotated.verifier.matches(&verifier)
        {
            return match &rotated.sealed {
                Some(sealed) if !rotated.is_over(now) => {
                    self.open(token, sealed).map(Standing::Rotated)
                }
                _ if rotated.is_long_over(now) => Ok(Standing::Reused),
                _ => Ok(Standing::Replaced),
            };
        }
        let mut retired = self.retired.iter();
        let retired = retired.find(|retired| retired.verifier.matches(&verifier));
        Ok(match retired {
            Some(retired) if is_recent(retired.at, now) => Standing::Renewed,
            Some(retired) if !is_forgotten(retired.at, now) => Standing::Replaced,
            _ => Standing::Unknown,
        })
    }

    /// When the present secret was drawn; the session began with it unless it was renewed.
    pub(crate) fn drawn_at(&self, created_at: Timestamp) -> Timestamp {
        self.drawn_at.map_or(created_at, Timestamp::from_millis)
    }

    /// Whether some host may still let the secret before this one work.
    pub(crate) fn is_in_grace(&self, now: Timestamp) -> bool {
        self.rotated
            .as_ref()
            .is_some_and(|rotated| !rotated.is_long_over(now))
    }

    /// Whether the new secret of a rotation was not presented yet, as far as the record knows.
    pub(crate) fn awaits_presentation(&self) -> bool {
        self.rotated
            .as_ref()
            .is_some_and(|rotated| rotated.presented_at.is_none())
    }

    /// The header for a write by a request that came with the present secret, or with an earlier
    /// one that still works.
    pub(crate) fn kept(&self, came_with_present: bool, now: Timestamp) -> Self {
        let mut header = self.clone();
        if let Some(rotated) = &mut header.rotated {
            if came_with_present && rotated.presented_at.is_none() {
                rotated.presented_at = Some(now.as_millis());
            }
            if rotated.is_long_over(now) {
                rotated.sealed = None;
            }
        }
        header
            .retired
            .retain(|retired| !is_forgotten(retired.at, now));
        header
    }

    /// The header after a change of privilege to the token `new`: every earlier secret is worthless.
    pub(crate) fn renewed(&self, new: &Token, now: Timestamp) -> Self {
        let before = self.kept(false, now);
        let replaced = [Some(before.present), before.rotated.map(|old| old.verifier)];
        let mut retired: Vec<_> = replaced
            .into_iter()
            .flatten()
            .map(|verifier| Retired {
                verifier,
                at: now.as_millis(),
            })
            .collect();
        retired.extend(before.retired);
        retired.truncate(MAX_RETIRED);
        Self {
            present: Verifier::of(new),
            drawn_at: Some(now.as_millis()),
            rotated: None,
            retired,
        }
    }

    /// The header after a routine rotation from the token `old`, which goes on working for a while,
    /// to `new`.
    pub(crate) fn rotated(
        &self,
        old: &Token,
        new: &Token,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self> {
        let before = self.kept(true, now);
        let present = Verifier::of(new);
        let mut sealed = Vec::new();
        encrypt_onto(
            &rotation_key(old),
            entropy,
            &present.0,
            new.secret(),
            &mut sealed,
        )?;
        Ok(Self {
            present,
            drawn_at: Some(now.as_millis()),
            rotated: Some(Rotated {
                verifier: Verifier::of(old),
                presented_at: None,
                sealed: Some(sealed),
            }),
            retired: before.retired,
        })
    }

    /// The present token, from what is sealed for the holder of `previous`.
    fn open(&self, previous: &Token, sealed: &[u8]) -> Result<Token> {
        let secret = decrypt(&rotation_key(previous), &self.present.0, sealed).map(Zeroizing::new);
        secret
            .and_then(|secret| secret.as_slice().try_into().ok())
            .map(|secret| previous.with_secret(&secret))
            .filter(|token| self.present.matches(&Verifier::of(token)))
            .ok_or_else(|| ErrorKind::Corrupt.into())
    }
}

impl Rotated {
    fn is_over(&self, now: Timestamp) -> bool {
        self.presented_at.is_some_and(|at| !is_recent(at, now))
    }

    /// Whether the grace is over by every clock.
    fn is_long_over(&self, now: Timestamp) -> bool {
        self.presented_at.is_some_and(|at| is_forgotten(at, now))
    }
}

/// Whether `at` is less than [`GRACE`] ago. It may be ahead of this host's clock, but not by more
/// than clocks differ.
fn is_recent(at: i64, now: Timestamp) -> bool {
    !has_passed(at, GRACE, now) && Timestamp::from_millis(at) <= now + CLOCK_SKEW
}

/// Whether `at` is more than [`GRACE`] ago by every clock.
fn is_forgotten(at: i64, now: Timestamp) -> bool {
    has_passed(at, GRACE + CLOCK_SKEW, now)
}

fn has_passed(at: i64, time: Duration, now: Timestamp) -> bool {
    now >= Timestamp::from_millis(at) + time
}

/// HKDF-Expand (RFC 5869, section 3.3: a token is uniformly random and needs no extraction).
fn rotation_key(token: &Token) -> Aes256Gcm {
    Aes256Gcm::new((&*derive_key(token, b"sessionkit rotation 1")).into())
}

/// A key for one purpose that only the holder of the whole token has.
pub(crate) fn derive_key(token: &Token, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::from_prk(token.expose())
        .expect("a server-side token has the 32 bytes of a pseudorandom key")
        .expand(purpose, &mut *key)
        .expect("32 bytes are within the limit of HKDF-SHA-256");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CookieName, OsEntropy};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn token() -> Token {
        let name = CookieName::new("id").expect("two letters are a name");
        Token::random(&OsEntropy, &name).expect("the system has random bytes")
    }

    fn next(token: &Token) -> Token {
        token.with_new_secret(&OsEntropy).unwrap()
    }

    #[test]
    fn only_the_present_secret_of_a_new_session_has_a_standing() {
        let token = token();
        let header = Header::new(&token);
        assert_eq!(header.standing(&token, NOW).unwrap(), Standing::Present);
        let other = next(&token);
        assert_eq!(header.standing(&other, NOW).unwrap(), Standing::Unknown);
    }

    /// A lookup or a comparison that stops at the first difference tells how long a prefix of a hash
    /// was right, which nobody can choose: not of the id or the secret.
    #[test]
    fn what_is_looked_up_and_compared_has_nothing_of_the_token() {
        let good = token();
        let (key, verifier) = (good.key(), Verifier::of(&good).0);
        for position in 0..Token::LEN {
            let mut bytes = good.expose().to_vec();
            bytes[position] ^= 1;
            let other = Token::from_bytes(bytes, good.cookie());
            let in_common = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
            let verifiers = in_common(&Verifier::of(&other).0, &verifier);
            let keys = in_common(other.key().as_bytes(), key.as_bytes());
            // Eight bytes in common by chance: once in 2^50.
            assert!(verifiers < 8, "byte {position}: {verifiers}");
            let is_id = position < Token::ID_LEN;
            assert_eq!(keys < 12, is_id, "byte {position}: {keys}");
        }
        for part in good.expose().windows(4) {
            assert!(!key.as_bytes().windows(4).any(|window| window == part));
            assert!(!verifier.windows(4).any(|window| window == part));
        }
    }

    #[test]
    fn a_change_of_privilege_makes_every_earlier_secret_worthless_at_once() {
        let first = token();
        let second = next(&first);
        let third = next(&first);
        let header = Header::new(&first)
            .rotated(&first, &second, NOW, &OsEntropy)
            .unwrap()
            .renewed(&third, NOW);
        for old in [&first, &second] {
            assert_eq!(header.standing(old, NOW).unwrap(), Standing::Renewed);
            let later = NOW + GRACE;
            assert_eq!(header.standing(old, later).unwrap(), Standing::Replaced);
            let much_later = later + CLOCK_SKEW;
            let standing = header.standing(old, much_later).unwrap();
            assert_eq!(standing, Standing::Unknown);
        }
        assert_eq!(header.standing(&third, NOW).unwrap(), Standing::Present);
    }

    #[test]
    fn a_rotated_secret_works_until_the_new_one_was_presented_for_thirty_seconds() {
        let first = token();
        let second = next(&first);
        let rotated = Header::new(&first)
            .rotated(&first, &second, NOW, &OsEntropy)
            .unwrap();
        let much_later = NOW + Duration::from_secs(86_400);
        assert_eq!(
            rotated.standing(&first, much_later).unwrap(),
            Standing::Rotated(second.clone())
        );
        let presented = rotated.kept(true, NOW);
        let nearly = NOW + (GRACE - Duration::from_millis(1));
        assert_eq!(
            presented.standing(&first, nearly).unwrap(),
            Standing::Rotated(second)
        );
        let over = NOW + GRACE;
        let standing = presented.standing(&first, over).unwrap();
        assert_eq!(standing, Standing::Replaced);
        let written = presented.kept(true, over);
        assert_eq!(written, presented, "by another clock the grace is not over");
        let long_over = over + CLOCK_SKEW;
        let written = presented.kept(true, long_over);
        assert_eq!(written.rotated.as_ref().unwrap().sealed, None);
        for header in [&presented, &written] {
            let standing = header.standing(&first, long_over).unwrap();
            assert_eq!(standing, Standing::Reused);
        }
    }

    #[test]
    fn a_header_remembers_no_more_than_a_few_retired_secrets() {
        let first = token();
        let mut header = Header::new(&first);
        for _ in 0..10 {
            header = header.renewed(&next(&first), NOW);
        }
        assert_eq!(header.retired.len(), MAX_RETIRED);
        let (soon, later) = (NOW + GRACE, NOW + GRACE + CLOCK_SKEW);
        assert_eq!(header.kept(true, soon).retired.len(), MAX_RETIRED);
        assert!(header.kept(true, later).retired.is_empty());
    }
}
