//! What an application does with its sessions, through a manager on the store: two hosts, each with
//! a handle of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use sessionkit::{
    Clock, ErrorKind, Key, Keyring, ManualClock, Origin, Result, Saved, SessionConfig,
    SessionManager, SessionStore, Subject, SubjectSession,
};

use super::{
    canc::{MAX_POLLS, drop_after},
    case,
};
use crate::{
    Case, Context, Failure, Outcome,
    browser::{Browser, Visit, manager_by},
    interleave::{Plan, play},
    verdict::describe_error,
};

pub(super) const CASES: &[Case] = &[
    case!(Flow r01_a_renewal_keeps_the_session_and_makes_the_old_cookie_dead [Server CompareAndSwap]
        "Gives the session a new secret when it is saved, and makes the old one worthless"
        "The cookie that an attacker planted before the login works after it (session fixation)."),
    case!(Flow r02_a_late_request_gets_no_cookie_for_thirty_seconds [Server CompareAndSwap]
        "What it writes is dropped and reported, and the browser keeps the cookie it has, or is about to get"
        "An answer that was under way replaces the cookie of the login, and the user is logged out."),
    case!(Flow r03_a_change_beside_a_renewal_is_refused_and_reported [Server CompareAndSwap]
        "its changes are dropped, and it is told [`Saved::Gone`]."
        "A change of the visitor from before the login enters the session after it, or vanishes with a 200."),
    case!(Flow r04_a_change_beside_a_routine_rotation_is_kept [Server CompareAndSwap]
        "the old secret goes on working until 30 seconds after the new one was presented for the first time, and its holder gets the new cookie again."
        "Every few minutes a click is lost, or the user with it."),
    case!(parallel Flow r05_of_parallel_renewals_one_wins [Server CompareAndSwap]
        "Another request that came with the old secret can change nothing any more"
        "One login becomes two sessions, and ending one of them leaves the other."),
    case!(parallel Flow r06_a_sign_out_beside_a_renewal_ends_the_session [Server CompareAndSwap]
        "the record is deleted and the cookie removed, whatever other requests do to it meanwhile."
        "Sign-out says that it is done, and the cookie of the renewal arrives a moment later."),
    case!(parallel Flow r07_a_sign_out_beside_changes_ends_the_session [Server CompareAndSwap]
        "the record is deleted and the cookie removed, whatever other requests do to it meanwhile."
        "A request that was under way brings the session back after the sign-out."),
    case!(parallel Flow r08_revoking_beside_renewals_ends_the_sessions [Server CompareAndSwap Subjects]
        "Ends every session of the subject that was stored before the call"
        "The thief's session is renewed in the moment of `log out everywhere`, and survives it."),
    case!(parallel Flow r09_of_two_clicks_on_a_login_one_session_is_left [Server CompareAndSwap Subjects]
        "begins another session, after it has ended the first one if that has the same subject."
        "A double click locks the user out, or leaves a session that nobody knows of."),
    case!(parallel Flow r10_no_count_of_parallel_requests_is_lost [Server CompareAndSwap]
        "`f` runs again on the value that it has left: a counter counts every request."
        "Carts and attempts lose changes when a page makes several requests at a time."),
    case!(Flow r11_a_dropped_renewal_leaves_the_session_before_or_after_it [Server CompareAndSwap]
        "The session is then stored or not, and a later save finds out which."
        "The visitor closes the page during the login, and the session is lost or cannot be read."),
];

/// How long a request counts as late for a renewal.
const GRACE: Duration = Duration::from_secs(30);

/// The age at which the hosts of a case about it replace a secret.
const AGE: Duration = Duration::from_secs(60);

/// Two processes of one application.
struct Hosts {
    hosts: [SessionManager; 2],
    /// The time of both.
    clock: Arc<ManualClock>,
}

impl Hosts {
    async fn start(cx: &Context, configure: fn(SessionConfig) -> SessionConfig) -> Outcome<Self> {
        let stores = [cx.open().await?, cx.open().await?];
        Self::on(cx, stores, configure)
    }

    /// Hosts between whose calls others get their turn.
    async fn start_busy(cx: &Context) -> Outcome<Self> {
        let stores = [cx.open_with_jitter().await?, cx.open_with_jitter().await?];
        Self::on(cx, stores, |config| config)
    }

    fn on(
        cx: &Context,
        [first, second]: [Arc<dyn SessionStore>; 2],
        configure: fn(SessionConfig) -> SessionConfig,
    ) -> Outcome<Self> {
        // Seconds and minutes pass in these cases, and lifetimes are days: where the store has its
        // own time, that does no harm.
        let clock = cx
            .manual_clock()
            .unwrap_or_else(|| Arc::new(ManualClock::new(cx.now())));
        let keyring = Keyring::new([Key::generate()?])?;
        let host = |store| manager_by(cx, store, &keyring, Arc::clone(&clock) as _, configure);
        Ok(Self {
            hosts: [host(&first)?, host(&second)?],
            clock,
        })
    }

    fn host(&self, number: usize) -> &SessionManager {
        &self.hosts[number % 2]
    }

    /// A browser with a session that holds a cart.
    async fn shopper(&self, cx: &Context) -> Outcome<Browser> {
        let mut browser = Browser::default();
        browser
            .visit(self.host(0), |session| session.insert("cart", "apple"))
            .await?;
        cx.settle().await;
        Ok(browser)
    }

    /// What the cookies of a browser open on both hosts, which must agree.
    async fn look(&self, cx: &Context, when: &str, browser: &Browser) -> Outcome<Seen> {
        let mut seen = Vec::new();
        for host in &self.hosts {
            let visit = browser.open(host).await?;
            let text = |key: &str| visit.session.get::<String>(key);
            seen.push(Seen {
                origin: visit.session.origin(),
                cart: text("cart")?,
                late: text("late")?,
                role: text("role")?,
            });
        }
        let second = seen.pop();
        let first = seen.pop();
        let agree = first == second;
        let (first, second) = first
            .zip(second)
            .ok_or_else(|| Failure::error("there are two hosts"))?;
        let expected = format!("{when}, both hosts see {first}");
        cx.check(agree, expected, &second)?;
        Ok(first)
    }

    /// No cookie of these browsers opens a session, or shows what was in it.
    async fn dead(&self, cx: &Context, when: &str, browsers: &[&Browser]) -> Outcome {
        cx.settle().await;
        for browser in browsers {
            let seen = self.look(cx, when, browser).await?;
            let expected = format!("{when}, no session under any cookie");
            cx.check(!seen.is_live(), expected, &seen)?;
        }
        Ok(())
    }

    /// The cookies of the browser open the session with this content.
    async fn alive(
        &self,
        cx: &Context,
        when: &str,
        browser: &Browser,
        content: Content,
    ) -> Outcome {
        cx.settle().await;
        self.alive_now(cx, when, browser, content).await
    }

    /// The same before any more time passes.
    async fn alive_now(
        &self,
        cx: &Context,
        when: &str,
        browser: &Browser,
        content: Content,
    ) -> Outcome {
        let seen = self.look(cx, when, browser).await?;
        let (cart, late, role) = content;
        let expected = Seen {
            origin: Origin::Stored,
            cart: Some(cart.into()),
            late: late.map(str::to_owned),
            role: role.map(str::to_owned),
        };
        cx.check(seen == expected, format_args!("{when}, {expected}"), &seen)
    }
}

/// The cart, and what a late request and a renewal have written.
type Content = (&'static str, Option<&'static str>, Option<&'static str>);

/// What a request finds.
#[derive(Debug, PartialEq)]
struct Seen {
    origin: Origin,
    cart: Option<String>,
    late: Option<String>,
    role: Option<String>,
}

impl Seen {
    fn is_live(&self) -> bool {
        self.origin == Origin::Stored
            || self.cart.is_some()
            || self.late.is_some()
            || self.role.is_some()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            origin,
            cart,
            late,
            role,
        } = self;
        write!(
            f,
            "a session of the origin {origin:?} with cart {cart:?}, late {late:?}, role {role:?}"
        )
    }
}

/// The rounds of a race of requests. In every other one somebody is held after one more step while
/// the others run; in the others, between whose calls there are pauses, everybody runs as it comes.
struct Turns<'a> {
    cx: &'a Context,
    /// Those with pauses first.
    hosts: [Arc<Hosts>; 2],
    round: usize,
    least: usize,
    begun: Instant,
    /// Who is held in the next round, and after how many steps.
    who: usize,
    steps: usize,
    over: bool,
}

impl<'a> Turns<'a> {
    /// How long a case goes on for those who were not held yet.
    const MORE: Duration = Duration::from_secs(3);

    async fn start(cx: &'a Context, least: usize) -> Outcome<Self> {
        Ok(Self {
            cx,
            hosts: [
                Arc::new(Hosts::start_busy(cx).await?),
                Arc::new(Hosts::start(cx, |config| config).await?),
            ],
            round: 0,
            least,
            begun: Instant::now(),
            who: 0,
            steps: 1,
            over: false,
        })
    }

    /// The hosts of the next round, where there is one.
    fn next(&mut self) -> Option<Arc<Hosts>> {
        self.round += 1;
        let more = !self.over && self.begun.elapsed() < Self::MORE;
        (self.round <= self.least || more).then(|| Arc::clone(&self.hosts[self.round % 2]))
    }

    /// What came of requests that have all loaded the session before the first of them saves it.
    async fn at_once<T: Send + 'static>(
        &mut self,
        requests: Vec<BoxFuture<'static, T>>,
    ) -> Outcome<Vec<T>> {
        // All but the first meet another revision than they have loaded.
        self.cx.contended();
        if self.round.is_multiple_of(2) {
            return self.cx.together(requests).await;
        }
        let (who, steps, count) = (self.who, self.steps, requests.len());
        let played = play(
            requests,
            &Plan::Hold {
                who,
                steps,
                turn: 0,
            },
        )
        .await;
        (self.who, self.steps) = match played.steps[who] > steps {
            true => (who, steps + 1),
            false => ((who + 1) % count, 1),
        };
        self.over |= (self.who, self.steps) == (0, 1);
        Ok(played.answers)
    }
}

/// A save with the request that it is part of.
type Saving = BoxFuture<'static, (Visit, Result<Saved>)>;

fn save(visit: Visit) -> Saving {
    Box::pin(async move {
        let saved = visit.session.save().await;
        (visit, saved)
    })
}

/// One of these outcomes.
fn saved_as(cx: &Context, what: &str, saved: &Result<Saved>, allowed: &[Saved]) -> Outcome {
    let words: Vec<_> = allowed.iter().map(|saved| format!("{saved:?}")).collect();
    let expected = format!("{what} is {}", words.join(" or "));
    match saved {
        Ok(saved) => cx.check(allowed.contains(saved), expected, format_args!("{saved:?}")),
        Err(error) => cx.check(false, expected, describe_error(error)),
    }
}

async fn r01_a_renewal_keeps_the_session_and_makes_the_old_cookie_dead(cx: &Context) -> Outcome {
    let hosts = Hosts::start(cx, |config| config).await?;
    let old = hosts.shopper(cx).await?;
    let mut renewed = old.clone();
    let key = renewed
        .visit(hosts.host(1), |session| {
            session.renew();
            session.insert("role", "member")?;
            Ok(session.store_key())
        })
        .await?;
    cx.check(
        renewed.cookie().is_some() && renewed.cookie() != old.cookie(),
        "another cookie after a renewal",
        "the same cookie",
    )?;
    hosts
        .dead(cx, "by the cookie from before the renewal", &[&old])
        .await?;
    let content = ("apple", None, Some("member"));
    hosts
        .alive(cx, "after a renewal", &renewed, content)
        .await?;
    let visit = renewed.open(hosts.host(0)).await?;
    cx.check(
        key.is_some() && visit.session.store_key() == key,
        "the key of the session after a renewal",
        "another key",
    )?;
    // Nobody brings it back.
    let mut late = old.clone();
    let visit = late.open(hosts.host(0)).await?;
    visit.session.destroy();
    late.close(visit).await;
    hosts
        .alive(cx, "after a sign-out by the old cookie", &renewed, content)
        .await
}

async fn r02_a_late_request_gets_no_cookie_for_thirty_seconds(cx: &Context) -> Outcome {
    let hosts = Hosts::start(cx, |config| config).await?;
    let old = hosts.shopper(cx).await?;
    let mut renewed = old.clone();
    renewed
        .visit(hosts.host(0), |session| {
            session.renew();
            Ok(())
        })
        .await?;
    let over = hosts.clock.now() + GRACE;
    cx.settle().await;
    for now in [hosts.clock.now(), over - Duration::from_millis(1)] {
        hosts.clock.set(now);
        for number in 0..2 {
            let mut late = old.clone();
            let visit = late.open(hosts.host(number)).await?;
            let origin = visit.session.origin();
            cx.equal("the origin of a late request is", &origin, &Origin::Renewed)?;
            let closed = late.close(visit).await;
            cx.equal(
                "a late request that reads gets cookies:",
                &closed.cookies,
                &0,
            )?;

            let visit = late.open(hosts.host(number)).await?;
            visit.session.insert("late", "lost")?;
            let closed = late.close(visit).await;
            cx.equal(
                "a late request that writes gets cookies:",
                &closed.cookies,
                &0,
            )?;
            let refused = closed.failure.map_or(Ok(()), Err);
            cx.err(
                "the end of a late request that writes",
                ErrorKind::Gone,
                refused,
            )?;
        }
    }
    hosts.clock.set(over);
    let mut late = old.clone();
    hosts
        .dead(cx, "by the old cookie after thirty seconds", &[&late])
        .await?;
    late.visit(hosts.host(1), |session| session.insert("late", "kept"))
        .await?;
    let other = late.cookie().is_some() && late.cookie() != old.cookie();
    cx.check(
        other,
        "another session after thirty seconds",
        "the old cookie",
    )?;
    hosts
        .alive(cx, "after all that", &renewed, ("apple", None, None))
        .await
}

async fn r03_a_change_beside_a_renewal_is_refused_and_reported(cx: &Context) -> Outcome {
    let hosts = Hosts::start(cx, |config| config).await?;
    let old = hosts.shopper(cx).await?;
    let told = old.open(hosts.host(0)).await?;
    let untold = old.open(hosts.host(1)).await?;
    let reader = old.open(hosts.host(0)).await?;
    told.session.insert("late", "told")?;
    untold.session.insert("late", "untold")?;

    // What was saved before the renewal is kept, whoever loaded first.
    let renewing = old.open(hosts.host(0)).await?;
    let mut renewed = old.clone();
    renewed
        .clone()
        .visit(hosts.host(1), |session| session.insert("cart", "pear"))
        .await?;
    cx.settle().await;
    renewing.session.renew();
    renewing.session.insert("role", "member")?;
    let closed = renewed.close(renewing).await;
    cx.ok(
        "a renewal beside changes",
        closed.failure.map_or(Ok(()), Err),
    )?;
    cx.settle().await;

    let saved = told.session.save().await;
    saved_as(cx, "a change beside a renewal", &saved, &[Saved::Gone])?;
    for (what, visit, errors) in [
        ("that was told", told, 0),
        ("that was not told", untold, 1),
        ("that only reads", reader, 0),
    ] {
        let closed = old.clone().close(visit).await;
        cx.equal(
            &format!("a request beside a renewal {what} gets cookies:"),
            &closed.cookies,
            &0,
        )?;
        let errors_seen = usize::from(closed.failure.is_some());
        cx.equal(
            &format!("a request beside a renewal {what} ends with errors:"),
            &errors_seen,
            &errors,
        )?;
        if let Some(error) = closed.failure {
            let call = format!("the end of a request {what}");
            cx.err(&call, ErrorKind::Gone, Err::<(), _>(error))?;
        }
    }
    let content = ("pear", None, Some("member"));
    hosts
        .alive(cx, "after the renewal", &renewed, content)
        .await
}

async fn r04_a_change_beside_a_routine_rotation_is_kept(cx: &Context) -> Outcome {
    let hosts = Hosts::start(cx, |config| config.rotate_every(AGE)).await?;
    let old = hosts.shopper(cx).await?;
    let changing = old.open(hosts.host(0)).await?;
    changing.session.insert("late", "kept")?;
    hosts.clock.advance(AGE);
    let mut rotated = old.clone();
    rotated
        .visit(hosts.host(1), |session| session.insert("role", "member"))
        .await?;
    cx.check(
        rotated.cookie().is_some() && rotated.cookie() != old.cookie(),
        "another cookie after a rotation",
        "the same cookie",
    )?;
    cx.settle().await;

    let saved = changing.session.save().await;
    saved_as(cx, "a change beside a rotation", &saved, &[Saved::Stored])?;
    let mut changed = old.clone();
    let closed = changed.close(changing).await;
    cx.ok("the end of the request", closed.failure.map_or(Ok(()), Err))?;
    let content = ("apple", Some("kept"), Some("member"));
    for (when, browser) in [
        ("by the cookie of the change", &changed),
        ("by the cookie from before the rotation", &old),
    ] {
        hosts.alive(cx, when, browser, content).await?;
    }
    let mut again = old.clone();
    let visit = again.open(hosts.host(0)).await?;
    let closed = again.close(visit).await;
    cx.equal(
        "the old cookie is answered with cookies:",
        &closed.cookies,
        &1,
    )?;
    hosts
        .alive(cx, "by the cookie that was sent again", &again, content)
        .await?;

    // The new secret is presented, and 30 seconds later the old one is over.
    rotated
        .visit(hosts.host(0), |session| session.insert("cart", "pear"))
        .await?;
    let over = hosts.clock.now() + GRACE;
    cx.settle().await;
    hosts.clock.set(over - Duration::from_millis(1));
    let content = ("pear", Some("kept"), Some("member"));
    hosts
        .alive_now(cx, "within the grace", &old, content)
        .await?;
    hosts.clock.set(over);
    hosts
        .dead(cx, "by the old cookie after the grace", &[&old])
        .await?;
    hosts
        .alive(cx, "by the new cookie after the grace", &rotated, content)
        .await
}

async fn r05_of_parallel_renewals_one_wins(cx: &Context) -> Outcome {
    let mut turns = Turns::start(cx, 10).await?;
    while let Some(hosts) = turns.next() {
        let old = hosts.shopper(cx).await?;
        let mut calls = Vec::new();
        for number in 0..4 {
            let visit = old.open(hosts.host(number)).await?;
            visit.session.renew();
            calls.push(save(visit));
        }
        let mut winners = Vec::new();
        let mut losers = Vec::new();
        for (visit, saved) in turns.at_once(calls).await? {
            saved_as(
                cx,
                "one of four renewals",
                &saved,
                &[Saved::Stored, Saved::Gone],
            )?;
            let mut browser = old.clone();
            let closed = browser.close(visit).await;
            let won = matches!(saved, Ok(Saved::Stored));
            cx.equal(
                &format!("a renewal that is {saved:?} gets cookies:"),
                &closed.cookies,
                &usize::from(won),
            )?;
            match won {
                true => winners.push(browser),
                false => losers.push(browser),
            }
        }
        cx.equal(
            &format!("in round {}, of four renewals win", turns.round),
            &winners.len(),
            &1,
        )?;
        hosts.dead(cx, "by the old cookie", &[&old]).await?;
        for browser in &winners {
            let content = ("apple", None, None);
            hosts
                .alive(cx, "after four renewals", browser, content)
                .await?;
        }
    }
    Ok(())
}

/// Signs out on one host while other requests save on both.
async fn sign_out_beside(
    cx: &Context,
    act: fn(&Visit, usize) -> Result<()>,
    what: &str,
) -> Outcome {
    let mut turns = Turns::start(cx, 20).await?;
    while let Some(hosts) = turns.next() {
        // Each host now with the sign-out, now without, held or not.
        let round = turns.round / 2;
        let old = hosts.shopper(cx).await?;
        let leaving = old.open(hosts.host(round)).await?;
        leaving.session.destroy();
        let mut calls = vec![save(leaving)];
        for number in 1..4 {
            let visit = old.open(hosts.host(round + number)).await?;
            act(&visit, number)?;
            calls.push(save(visit));
        }
        let mut answers = turns.at_once(calls).await?;
        let (leaving, left) = answers.remove(0);
        saved_as(
            cx,
            &format!("a sign-out beside {what}"),
            &left,
            &[Saved::Stored],
        )?;
        let mut browsers = vec![old.clone(), old.clone()];
        browsers[1].close(leaving).await;
        for (visit, saved) in answers {
            let call = format!("one of the {what}");
            saved_as(cx, &call, &saved, &[Saved::Stored, Saved::Gone])?;
            let mut browser = old.clone();
            browser.close(visit).await;
            browsers.push(browser);
        }
        let browsers: Vec<_> = browsers.iter().collect();
        hosts
            .dead(cx, &format!("after a sign-out beside {what}"), &browsers)
            .await?;
    }
    Ok(())
}

async fn r06_a_sign_out_beside_a_renewal_ends_the_session(cx: &Context) -> Outcome {
    let renew = |visit: &Visit, _| {
        visit.session.renew();
        Ok(())
    };
    sign_out_beside(cx, renew, "renewals").await
}

async fn r07_a_sign_out_beside_changes_ends_the_session(cx: &Context) -> Outcome {
    let change = |visit: &Visit, number: usize| visit.session.insert("late", &number.to_string());
    sign_out_beside(cx, change, "changes").await
}

async fn listed(cx: &Context, host: &SessionManager, of: &Subject) -> Outcome<Vec<SubjectSession>> {
    cx.ok("the list of a subject", host.subject_sessions(of).await)
}

/// What one of those does that run beside each other.
enum Beside {
    Saved((Visit, Result<Saved>)),
    Revoked(Result<u64>),
}

async fn r08_revoking_beside_renewals_ends_the_sessions(cx: &Context) -> Outcome {
    let mut turns = Turns::start(cx, 20).await?;
    while let Some(hosts) = turns.next() {
        let round = turns.round / 2;
        let alice = cx.subject(&format!("alice{}", turns.round));
        let mut browsers = Vec::new();
        let mut calls: Vec<BoxFuture<'static, Beside>> = Vec::new();
        let mut keys = Vec::new();
        for number in 0..3 {
            let mut browser = hosts.shopper(cx).await?;
            let visit = browser.open(hosts.host(0)).await?;
            visit.session.sign_in(alice.clone())?;
            cx.ok("a sign-in", visit.session.save().await)?;
            keys.extend(visit.session.store_key());
            browser.close(visit).await;
            cx.settle().await;
            let visit = browser.open(hosts.host(number)).await?;
            visit.session.renew();
            browsers.push(browser);
            let save = save(visit);
            calls.push(Box::pin(async move { Beside::Saved(save.await) }));
        }
        let (host, subject) = (hosts.host(round).clone(), alice.clone());
        let one_by_one = round % 4 < 2;
        let revoke = async move {
            if !one_by_one {
                return host.revoke_all(&subject).await;
            }
            let mut revoked = 0;
            for key in &keys {
                revoked += u64::from(host.revoke(&subject, key).await?);
            }
            Ok(revoked)
        };
        calls.push(Box::pin(async move { Beside::Revoked(revoke.await) }));
        let (mut renewed, mut revoked) = (Vec::new(), Ok(0));
        for (number, did) in turns.at_once(calls).await?.into_iter().enumerate() {
            let (visit, saved) = match did {
                Beside::Saved(saved) => saved,
                Beside::Revoked(count) => {
                    revoked = count;
                    continue;
                }
            };
            let allowed = [Saved::Stored, Saved::Gone];
            saved_as(cx, "a renewal beside a revocation", &saved, &allowed)?;
            let mut browser = browsers[number].clone();
            browser.close(visit).await;
            renewed.push(browser);
        }
        let revoked = cx.ok("a revocation beside renewals", revoked)?;
        cx.equal("the sessions that were revoked are", &revoked, &3)?;
        let browsers: Vec<_> = browsers.iter().chain(&renewed).collect();
        hosts
            .dead(cx, "after a revocation beside renewals", &browsers)
            .await?;
        let left = listed(cx, hosts.host(1), &alice).await?.len();
        cx.equal("in the list are left", &left, &0)?;
    }
    Ok(())
}

async fn r09_of_two_clicks_on_a_login_one_session_is_left(cx: &Context) -> Outcome {
    let mut turns = Turns::start(cx, 10).await?;
    while let Some(hosts) = turns.next() {
        let round = turns.round / 2;
        let alice = cx.subject(&format!("alice{}", turns.round));
        let old = hosts.shopper(cx).await?;
        hosts.clock.advance(Duration::from_secs(1));
        let mut calls = Vec::new();
        for number in 0..2 {
            let visit = old.open(hosts.host(number)).await?;
            visit.session.sign_in(alice.clone())?;
            calls.push(save(visit));
        }
        let mut browsers = Vec::new();
        for (visit, saved) in turns.at_once(calls).await? {
            saved_as(cx, "one of two sign-ins", &saved, &[Saved::Stored])?;
            let mut browser = old.clone();
            browser.close(visit).await;
            browsers.push(browser);
        }
        let left = listed(cx, hosts.host(round), &alice).await?;
        cx.equal("the sessions after two sign-ins are", &left.len(), &1)?;
        let mut live = 0;
        cx.settle().await;
        for browser in &browsers {
            let seen = hosts.look(cx, "after two sign-ins", browser).await?;
            live += usize::from(seen.is_live());
        }
        cx.equal("the cookies that work after two sign-ins are", &live, &1)?;

        // A third click comes after all that, with the cookie from before.
        let mut third = old.clone();
        let visit = third.open(hosts.host(round)).await?;
        visit.session.sign_in(alice.clone())?;
        let saved = visit.session.save().await;
        saved_as(cx, "a late sign-in", &saved, &[Saved::Stored])?;
        third.close(visit).await;
        let left = listed(cx, hosts.host(1), &alice).await?;
        cx.check(
            (1..=2).contains(&left.len()),
            "one or two sessions after a late sign-in",
            left.len(),
        )?;
        cx.settle().await;
        let seen = hosts.look(cx, "after a late sign-in", &third).await?;
        cx.equal(
            "the origin after a late sign-in is",
            &seen.origin,
            &Origin::Stored,
        )?;
        hosts
            .dead(cx, "by the cookie from before the sign-ins", &[&old])
            .await?;
        let revoked = cx.ok("revoke_all", hosts.host(0).revoke_all(&alice).await)?;
        cx.equal(
            "the sessions that were revoked are",
            &revoked,
            &(left.len() as u64),
        )?;
    }
    Ok(())
}

async fn r10_no_count_of_parallel_requests_is_lost(cx: &Context) -> Outcome {
    let mut turns = Turns::start(cx, 10).await?;
    let mut browsers = Vec::new();
    for hosts in &turns.hosts {
        browsers.push(hosts.shopper(cx).await?);
    }
    let mut counts = [0, 0_u64];
    while let Some(hosts) = turns.next() {
        let (browser, count) = (&browsers[turns.round % 2], &mut counts[turns.round % 2]);
        *count += 8;
        cx.settle().await;
        let mut calls = Vec::new();
        for number in 0..8 {
            let visit = browser.open(hosts.host(number)).await?;
            visit
                .session
                .update("count", |count: Option<u64>| count.unwrap_or(0) + 1)?;
            calls.push(save(visit));
        }
        for (_, saved) in turns.at_once(calls).await? {
            saved_as(cx, "one of eight counts", &saved, &[Saved::Stored])?;
        }
        cx.settle().await;
        let visit = browser.open(hosts.host(0)).await?;
        let found = visit.session.get::<u64>("count")?;
        cx.equal(
            "the count of eight requests a round is",
            &found,
            &Some(*count),
        )?;
    }
    Ok(())
}

async fn r11_a_dropped_renewal_leaves_the_session_before_or_after_it(cx: &Context) -> Outcome {
    let hosts = Hosts::start(cx, |config| config).await?;
    for polls in 0..MAX_POLLS {
        let old = hosts.shopper(cx).await?;
        let visit = old.open(hosts.host(polls)).await?;
        visit.session.renew();
        visit.session.insert("role", "member")?;
        let done = drop_after(polls, visit.session.save()).await.is_some();
        let when = format!("after a renewal was dropped at poll {polls}");
        // The call that was sent may take effect between two looks.
        for number in 0..2 {
            let seen = old.open(hosts.host(number)).await?;
            let cart = seen.session.get::<String>("cart")?;
            let origin = seen.session.origin();
            let before = origin == Origin::Stored && cart.as_deref() == Some("apple");
            let after = origin == Origin::Renewed && cart.is_none();
            cx.check(
                before && !done || after,
                format_args!("{when}, the session before or after it"),
                format_args!("one of the origin {origin:?} with cart {cart:?}"),
            )?;
        }
        // The same request finds out what has become of it.
        let saved = visit.session.save().await;
        saved_as(
            cx,
            &format!("{when}, a second save"),
            &saved,
            &[Saved::Stored, Saved::Unchanged],
        )?;
        let mut renewed = old.clone();
        renewed.close(visit).await;
        let content = ("apple", None, Some("member"));
        hosts
            .alive(cx, &format!("{when} and saved again"), &renewed, content)
            .await?;
        hosts.dead(cx, "by the old cookie", &[&old]).await?;
        if done {
            break;
        }
    }
    Ok(())
}
