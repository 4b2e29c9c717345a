//! Sweeps of records of every kind, and of backends that fail.

use std::sync::Arc;

use futures_util::{FutureExt, future::join_all};
use sessionkit::{ErrorKind, Record, SessionStore, Subject, SubjectSession, Timestamp, Token};

use super::{
    case,
    flt::{GONE, in_time, recovered},
    sweep::expired,
};
use crate::{Case, Context, Fault, Outcome};

pub(super) const CASES: &[Case] = &[
    case!(parallel Sweep w40_a_sweep_that_fails_says_so [Server ExplicitSweep]
        "A failing backend is an error, never `Ok(None)`."
        "A cleaner that reports 0 for weeks, or leaves it to others that are not there, while the disk fills."),
    case!(Sweep w41_a_sweep_counts_every_record_once_whatever_became_of_it [Server ExplicitSweep]
        "returns how many records it removed. Fewer than `limit` means that none is left"
        "Sessions with a user, or those that were prolonged or shortened, are swept too early, never, or twice."),
];

type Store = Arc<dyn SessionStore>;

async fn w40_a_sweep_that_fails_says_so(cx: &Context) -> Outcome {
    const FAULTS: [Fault; 5] = [
        Fault::Down,
        Fault::Hang,
        Fault::ReadOnly,
        Fault::Vanished,
        Fault::LoseReplies,
    ];
    const EXPIRED: u64 = 12;
    let store = cx.open().await?;
    let live = cx.record("live");
    let kept = store.create(cx.token(), &live).await?;
    let stale = expired(cx, "stale");
    let stored = cx.stored_names().await;
    for _ in 0..EXPIRED {
        store.create(cx.token(), &stale).await?;
    }
    let (mut missing, mut open) = (Vec::new(), false);
    for fault in FAULTS {
        if let Err(hook) = cx.fault(fault).await {
            missing.push(hook);
            continue;
        }
        let sweep = |limit| store.sweep(limit).map(|swept| swept.map(drop));
        let try_sweep = |limit| store.try_sweep(limit).map(|swept| swept.map(drop));
        let calls = [
            ("sweep", sweep(1).boxed()),
            ("sweep of thousands", sweep(10_000).boxed()),
            ("try_sweep", try_sweep(1).boxed()),
            ("try_sweep of thousands", try_sweep(10_000).boxed()),
        ];
        let (names, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let answers = in_time(cx, "every sweep", join_all(calls)).await?;
        for (name, answer) in names.into_iter().zip(answers) {
            let call = format!("{name} on a backend with the fault {fault:?}");
            open |= matches!(&answer, Err(error) if error.kind() == ErrorKind::Ambiguous);
            let kinds = [GONE[0], GONE[1], ErrorKind::InvalidConfig];
            let kinds = match fault {
                Fault::Vanished => &kinds[..],
                _ => &GONE,
            };
            cx.err_in(&call, kinds, answer)?;
        }
        cx.fault(Fault::None).await?;
        recovered(cx, &store, &kept).await?;
    }
    if missing.len() == FAULTS.len()
        && let Some(hook) = missing.pop()
    {
        return Err(hook);
    }
    let mut total = sweep_until_empty(cx, &store, 5, EXPIRED).await?;
    let what = "of the records that are left, the sweeps that succeed remove";
    // What may have been done is not counted.
    if open && total < EXPIRED {
        total = EXPIRED;
    }
    cx.swept(what, (total, EXPIRED), stored.as_ref()).await?;
    cx.holds("of a live record after all sweeps", &store, &kept, &live)
        .await
}

/// Sweeps in portions until one removes nothing, and returns how many records went.
async fn sweep_until_empty(cx: &Context, store: &Store, limit: u64, most: u64) -> Outcome<u64> {
    let mut total = 0;
    loop {
        let swept = cx.ok("sweep", store.sweep(limit as usize).await)?;
        cx.check(
            swept <= limit,
            format_args!("a sweep of at most {limit} records"),
            swept,
        )?;
        total += swept;
        if swept == 0 || total > most {
            return Ok(total);
        }
    }
}

/// Records to be swept or not, of many kinds.
struct Mixture {
    long: Record,
    soon: Record,
    stale: Record,
    live: Vec<(Token, Record)>,
    /// Those that are over, or will be by then.
    over: Vec<(Token, Timestamp)>,
}

impl Mixture {
    fn new(cx: &Context) -> Self {
        Self {
            long: cx.record("long"),
            soon: cx.record_for("soon", cx.moment()),
            stale: expired(cx, "stale"),
            live: Vec::new(),
            over: Vec::new(),
        }
    }

    /// The long, the short and the expired record of an owner.
    fn of(&self, owner: Option<&Subject>) -> [Record; 3] {
        [&self.long, &self.soon, &self.stale].map(|record| Record {
            subject: owner.cloned(),
            ..record.clone()
        })
    }

    /// One more of each kind that no sweep may take.
    async fn add_live(&mut self, cx: &Context, store: &Store, owner: Option<&Subject>) -> Outcome {
        let [long, soon, stale] = self.of(owner);
        let token = store.create(cx.token(), &long).await?;
        self.live.push((token, long.clone()));

        // Prolonged, by touch and by update.
        let mut prolonged = soon.clone();
        prolonged.expires_at = long.expires_at;
        let token = store.create(cx.token(), &soon).await?;
        store.touch(&token, prolonged.expires_at).await?;
        self.live.push((token, prolonged));
        let token = store.create(cx.token(), &soon).await?;
        let prolonged = cx.changed(&long, "prolonged");
        store.update(&token, soon.revision, &prolonged).await?;
        self.live.push((token, prolonged));

        // Ended, and begun again under the same key.
        let token = store.create(cx.token(), &stale).await?;
        let again = cx.changed(&long, "again");
        store.create(token.clone(), &again).await?;
        self.live.push((token, again));
        let token = store.create(cx.token(), &stale).await?;
        store.delete(&token, None).await?;
        Ok(())
    }

    /// One more of each kind that comes to its end, from the beginning or since it was shortened.
    async fn add_soon(&mut self, cx: &Context, store: &Store, owner: Option<&Subject>) -> Outcome {
        let [long, soon, _] = self.of(owner);
        let token = store.create(cx.token(), &soon).await?;
        self.over.push((token, soon.expires_at));
        let token = store.create(cx.token(), &long).await?;
        store.touch(&token, soon.expires_at).await?;
        self.over.push((token, soon.expires_at));
        Ok(())
    }

    /// One more of each kind that is over.
    async fn add_over(&mut self, cx: &Context, store: &Store, owner: Option<&Subject>) -> Outcome {
        let [long, _, stale] = self.of(owner);
        let past = stale.expires_at;
        let token = store.create(cx.token(), &stale).await?;
        self.over.push((token, past));
        let token = store.create(cx.token(), &long).await?;
        store.touch(&token, past).await?;
        self.over.push((token, past));
        let token = store.create(cx.token(), &long).await?;
        let mut shortened = cx.changed(&long, "shortened");
        shortened.expires_at = past;
        store.update(&token, long.revision, &shortened).await?;
        self.over.push((token, past));
        Ok(())
    }
}

async fn listed(cx: &Context, store: &Store, subject: &Subject) -> Outcome<Vec<SubjectSession>> {
    match store.subjects() {
        Some(index) => cx.ok("list", index.list(subject, None, 1000).await),
        None => Ok(Vec::new()),
    }
}

async fn w41_a_sweep_counts_every_record_once_whatever_became_of_it(cx: &Context) -> Outcome {
    let store = cx.open().await?;
    let empty = cx.raw_dump().await;
    let alice = cx.subject("alice");
    let mut mixture = Mixture::new(cx);
    let owners = [None, Some(&alice)].repeat(6);
    for owner in &owners {
        mixture.add_live(cx, &store, *owner).await?;
    }
    let without_any = cx.stored_names().await;
    for owner in &owners {
        mixture.add_soon(cx, &store, *owner).await?;
    }
    let without_those = cx.stored_names().await;
    for owner in &owners {
        mixture.add_over(cx, &store, *owner).await?;
    }
    let ends = mixture.over.iter().map(|(_, end)| *end).max();
    let now = cx.now();
    // Where time passes by itself, all that is over soon may be over already.
    let rounds = match cx.has_manual_clock() {
        true => vec![
            ("that is over already", now, without_those),
            ("that comes to its end", ends.unwrap_or(now), without_any),
        ],
        false => vec![("that is over", ends.unwrap_or(now), without_any)],
    };
    let mut before = 0;
    for (what, end, stored) in rounds {
        let over = mixture.over.iter().filter(|(_, at)| *at <= end).count() as u64;
        if end > now {
            cx.pass_until(end + cx.margin()).await;
        }
        let expected = listed(cx, &store, &alice).await?;
        let none = cx.ok("sweep", store.sweep(0).await)?;
        cx.equal("a sweep of 0 records removes", &none, &0)?;
        let swept = sweep_until_empty(cx, &store, 7, over).await?;
        let count = format!("of what {what}, sweeps of at most 7 records remove");
        cx.swept(&count, (swept, over - before), stored.as_ref())
            .await?;
        before = over;
        let more = cx.ok("sweep", store.sweep(usize::MAX).await)?;
        cx.equal("after that, a sweep without a limit removes", &more, &0)?;
        let left = listed(cx, &store, &alice).await?;
        cx.check(
            left == expected,
            format_args!(
                "the {} sessions of the list from before the sweep",
                expected.len()
            ),
            left.len(),
        )?;
        for (token, record) in &mixture.live {
            let when = format!("of a live record after a sweep of what {what}");
            cx.holds(&when, &store, token, record).await?;
        }
    }
    let mine = listed(cx, &store, &alice).await?.len();
    let owned = mixture
        .live
        .iter()
        .filter(|(_, record)| record.subject.is_some());
    let owned = if store.subjects().is_some() {
        owned.count()
    } else {
        0
    };
    cx.equal(
        "the sessions of the subject that are left are",
        &mine,
        &owned,
    )?;
    for (token, _) in &mixture.over {
        cx.absent("of what was swept", &store, token).await?;
    }
    // What was swept has left nothing behind, and nor does the rest.
    let Ok(empty) = empty else {
        return Ok(());
    };
    for (token, _) in &mixture.live {
        store.delete(token, None).await?;
    }
    let left = cx.raw_dump().await?;
    let same = left.len() == empty.len();
    let expected = format!("{} stored entries when everything has ended", empty.len());
    cx.check(same, expected, left.len())
}
