use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sessionkit::{
    Clock, CookieName, Custody, Entropy, Error, ErrorKind, Label, Record, Result, Revision,
    SessionStore, Timestamp, Token,
};

use crate::codec::{Envelope, Family};

/// By how much the clocks of two hosts may differ before a token that one of them has sealed could
/// outlive the entry that another one has made.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// For how long after a renewal a request may come late, with the cookie from before it.
const LATE: Duration = Duration::from_secs(30);

/// How often a write is tried anew because others have written the same entry.
const TRIES: usize = 8;

/// The first byte of an encoded entry; a change of [`Entry`] takes another one.
const FORMAT: u8 = 1;

/// A list of families, in a server-side store: which of a session's tokens are dead.
///
/// It has one entry for a family, and none as long as all tokens of the family are good. An entry
/// changes by compare-and-swap.
#[derive(Clone)]
pub(crate) struct Families {
    list: Arc<dyn SessionStore>,
    /// The longest time from the making of a token to its expiry.
    longest: Duration,
}

/// What the list says about the tokens of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    /// All are dead, for good.
    Ended,
    /// Those of a lower generation are.
    Lowest {
        generation: u32,
        /// The time of the renewal, in milliseconds.
        renewed_at: i64,
        /// The revision of the record that the renewal wrote, by which it knows its own entry.
        renewed_to: u64,
    },
}

/// Whether a token is good, as far as the list can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// A renewal has replaced it a moment ago.
    Late,
    Dead,
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Families")
            .field("list", &self.list)
            .field("longest", &self.longest)
            .finish()
    }
}

impl Families {
    pub(crate) fn new(list: Arc<dyn SessionStore>, longest: Duration) -> Result<Self> {
        if list.capabilities().custody != Custody::Server {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a revocation list needs a store that keeps its records on a server",
            ));
        }
        if longest.is_zero() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "with a longest life of zero no session could be stored",
            ));
        }
        Ok(Self { list, longest })
    }

    pub(crate) fn list(&self) -> &dyn SessionStore {
        &*self.list
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// Refuses to make a token that could outlive its entry: entries end, so the tokens that they
    /// revoke have to end before.
    pub(crate) fn check_expiry(&self, now: Timestamp, expires_at: Timestamp) -> Result<()> {
        if expires_at > now + self.longest {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the session would live longer than the revocation list is told to expect",
            ));
        }
        Ok(())
    }

    /// What the list says about a token that has not ended by itself.
    pub(crate) async fn standing(&self, envelope: &Envelope, now: Timestamp) -> Result<Standing> {
        let entry = match self.list.load(&entry_token(envelope.family)).await? {
            Some(found) => Entry::decode(&found.data)?,
            None => return Ok(Standing::Good),
        };
        Ok(match entry {
            Entry::Lowest { generation, .. } if envelope.generation >= generation => Standing::Good,
            Entry::Lowest { renewed_at, .. } => {
                let renewed_at = Timestamp::from_millis(renewed_at);
                // One that lies far ahead is a clock's mistake.
                match now < renewed_at + LATE && renewed_at <= now + CLOCK_SKEW {
                    true => Standing::Late,
                    false => Standing::Dead,
                }
            }
            Entry::Ended => Standing::Dead,
        })
    }

    /// Whether the token was made under other settings, and could outlive its entry. It ends in
    /// time.
    pub(crate) fn could_outlive_entry(&self, envelope: &Envelope, now: Timestamp) -> bool {
        now >= envelope.issued_at + self.longest
    }

    /// Makes `generation` the lowest one of the family of `old`, if `old` is good still.
    ///
    /// Of several renewals of one token one succeeds; the others, and those of an ended session, are
    /// [`ErrorKind::Missing`]. The revision of the renewed record tells whose renewal it is, so that
    /// repeating one is harmless.
    pub(crate) async fn renew(
        &self,
        old: &Envelope,
        generation: u32,
        revision: Revision,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<()> {
        let (renewed_to, renewed_at) = (revision.to_bits(), clock.now().as_millis());
        self.write(old, clock, entropy, |found| match found {
            Some(Entry::Lowest {
                generation: lowest,
                renewed_to: by,
                ..
            }) if (lowest, by) == (generation, renewed_to) => Ok(None),
            Some(Entry::Lowest {
                generation: lowest, ..
            }) if lowest >= generation => Err(ErrorKind::Missing.into()),
            Some(Entry::Ended) => Err(ErrorKind::Missing.into()),
            Some(Entry::Lowest { .. }) | None => Ok(Some(Entry::Lowest {
                generation,
                renewed_at,
                renewed_to,
            })),
        })
        .await
        .map(drop)
    }

    /// Ends all tokens of a family, whatever generation it has by now. Returns whether they had not
    /// ended before.
    pub(crate) async fn end(
        &self,
        envelope: &Envelope,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<bool> {
        self.write(envelope, clock, entropy, |found| {
            Ok((found != Some(Entry::Ended)).then_some(Entry::Ended))
        })
        .await
    }

    /// Replaces the entry of a family by what `change` makes of it, in one step. Returns whether it
    /// did, and not whether `change` found nothing to do.
    async fn write(
        &self,
        envelope: &Envelope,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
        change: impl Fn(Option<Entry>) -> Result<Option<Entry>> + Send + Sync,
    ) -> Result<bool> {
        let token = entry_token(envelope.family);
        // One for all tries, by which an entry is known as the one that this call has written.
        let revision = Revision::random(entropy)?;
        let mut lost = None;
        // Most sessions have no entry before they are renewed or ended. If this one has, creating it
        // fails, and says so.
        let mut found = match envelope.generation {
            0 => None,
            _ => self.list.load(&token).await?,
        };
        for _ in 0..TRIES {
            let new = match change(found.as_ref().map(Entry::of).transpose()?)? {
                Some(new) => self.record(new, revision, found.as_ref(), envelope, clock.now()),
                None => return Ok(false),
            };
            let written = match &found {
                None => self.list.create(token.clone(), &new).await,
                Some(found) => self.list.update(&token, found.revision, &new).await,
            };
            let Err(error) = written else {
                return Ok(true);
            };
            match error.kind() {
                ErrorKind::Exists | ErrorKind::Conflict | ErrorKind::Missing => {}
                ErrorKind::Ambiguous => lost = Some(error),
                _ => return Err(lost.unwrap_or(error)),
            }
            found = match self.list.load(&token).await {
                Ok(found) => found,
                Err(error) => return Err(lost.unwrap_or(error)),
            };
            if found
                .as_ref()
                .is_some_and(|found| found.revision == revision)
            {
                return Ok(true);
            }
        }
        Err(lost.unwrap_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "the entry of the session in the revocation list keeps changing",
            )
        }))
    }

    /// An entry outlives every token that it revokes: all of them were made before `now`, or before
    /// the moment at which the one that is known was made by a clock that runs ahead.
    fn record(
        &self,
        entry: Entry,
        revision: Revision,
        before: Option<&Record>,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Record {
        let granularity = self.list.capabilities().expiry_granularity;
        let last_made = now.max(envelope.issued_at);
        let expires_at = last_made + self.longest + granularity + CLOCK_SKEW;
        Record {
            data: entry.encode(),
            revision,
            created_at: before.map_or(now, |before| before.created_at),
            expires_at: before.map_or(expires_at, |before| expires_at.max(before.expires_at)),
            subject: None,
            label: Label::default(),
        }
    }
}

impl Entry {
    fn of(record: &Record) -> Result<Self> {
        Self::decode(&record.data)
    }

    fn encode(self) -> Bytes {
        postcard::to_extend(&self, vec![FORMAT])
            .expect("a vector takes every byte")
            .into()
    }

    /// What cannot be read is an error and not a session that lives.
    fn decode(data: &[u8]) -> Result<Self> {
        match data.split_first() {
            Some((&FORMAT, fields)) => match postcard::take_from_bytes(fields) {
                Ok((entry, &[])) => Some(entry),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "the entry of the session in the revocation list cannot be read",
            )
        })
    }
}

/// The token under which a family is on the list. It has another length than the tokens of
/// sessions, so that a list may share its store with them.
fn entry_token(family: Family) -> Token {
    let cookie = CookieName::new("revoked").expect("seven letters are a cookie name");
    Token::from_bytes(
        [b"sessionkit-cookie family 1\0", family.as_bytes()].concat(),
        &cookie,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_in_no_other_way() {
        let lowest = Entry::Lowest {
            generation: u32::MAX,
            renewed_at: -1,
            renewed_to: u64::MAX,
        };
        for entry in [Entry::Ended, lowest] {
            let encoded = entry.encode();
            assert_eq!(Entry::decode(&encoded).unwrap(), entry);
            for len in 0..encoded.len() {
                let error = Entry::decode(&encoded[..len]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
            for other in [
                [&encoded[..], &[0]].concat(),
                [&[2], &encoded[1..]].concat(),
            ] {
                let error = Entry::decode(&other).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }
}
