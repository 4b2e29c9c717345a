use std::time::Duration;

use sessionkit::{Clock, Error, ErrorKind, Result, SystemClock, Timestamp};

use crate::{CaseReport, Verdict, find_case};

/// The failures that the author of a store knows about, in a file of the author's own.
///
/// Each line is the id of a case, the beginning of the name of a store (or `*`), the last day on
/// which the waiver holds, a link and a reason. Lines that begin with `#` say nothing.
///
/// A waiver that is no longer needed is an error: the file shrinks, or it means nothing.
///
/// ```
/// use sessionkit_conformance::Waivers;
///
/// let waivers = Waivers::parse(
///     "# case store until link reason
///      C11 redis://replica 2999-12-31 https://example.org/7 replicas lag behind",
/// )?;
/// assert!(Waivers::parse("C11 * someday").is_err());
/// # let _ = waivers;
/// # Ok::<(), sessionkit::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waivers(Vec<Waiver>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiver {
    case: String,
    store: String,
    until: String,
    link: String,
    reason: String,
}

impl Waivers {
    /// Reads a waiver file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when a line is not a waiver, or names a case that does not
    /// exist.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).enumerate();
        let waivers = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let waiver = |(number, line): (usize, &str)| {
            Waiver::parse(line).ok_or_else(|| {
                let text = format!(
                    "line {} of the waivers is not `case store YYYY-MM-DD link reason`",
                    number + 1
                );
                Error::new(ErrorKind::InvalidConfig, text)
            })
        };
        waivers.map(waiver).collect::<Result<_>>().map(Self)
    }

    /// Turns failures that are waived into that verdict, and waivers that are stale into errors.
    /// Returns whether there are any.
    pub fn apply(&self, store: &str, reports: &mut [CaseReport]) -> bool {
        self.apply_on(&today(SystemClock.now()), store, reports)
    }

    fn apply_on(&self, today: &str, store: &str, reports: &mut [CaseReport]) -> bool {
        let mut stale = false;
        for report in reports {
            let id = report.case.id();
            let applies = |waiver: &&Waiver| {
                waiver.case == id && (waiver.store == "*" || store.starts_with(&waiver.store))
            };
            let Some(waiver) = self.0.iter().find(applies) else {
                continue;
            };
            report.verdict = match &report.verdict {
                Verdict::Pass => Verdict::Error("the waiver is stale: the case passes".into()),
                Verdict::Skip(reason) => Verdict::Error(format!(
                    "the waiver is stale: the case is skipped, {reason}"
                )),
                Verdict::Fail { .. } if *waiver.until < *today => {
                    let reason = report.verdict.reason();
                    Verdict::Error(format!("the waiver ended on {}: {reason}", waiver.until))
                }
                Verdict::Fail { .. } => Verdict::Waived {
                    reason: waiver.reason.clone(),
                    link: waiver.link.clone(),
                    until: waiver.until.clone(),
                },
                other => other.clone(),
            };
            stale |= matches!(&report.verdict, Verdict::Error(reason) if reason.starts_with("the waiver"));
        }
        stale
    }
}

impl Waiver {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (case, store, until, link) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let reason = words.collect::<Vec<_>>().join(" ");
        let is_date = until.len() == 10
            && until
                .bytes()
                .enumerate()
                .all(|(position, byte)| match position {
                    4 | 7 => byte == b'-',
                    _ => byte.is_ascii_digit(),
                });
        let case = find_case(case)?.id();
        (is_date && !reason.is_empty()).then(|| Self {
            case,
            store: store.into(),
            until: until.into(),
            link: link.into(),
            reason,
        })
    }
}

/// The day in UTC as `YYYY-MM-DD` (the algorithm `civil_from_days` by Howard Hinnant).
fn today(now: Timestamp) -> String {
    let day = Duration::from_secs(86_400).as_millis() as i64;
    let z = now.as_millis() / day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> CaseReport {
        CaseReport {
            case: find_case("C11").unwrap(),
            verdict,
            duration: Duration::ZERO,
            checks: 1,
            operations: None,
        }
    }

    fn fail() -> Verdict {
        Verdict::Fail {
            expected: "a".into(),
            actual: "b".into(),
        }
    }

    fn waivers() -> Waivers {
        Waivers::parse("C11 redis: 2026-12-31 https://example.org replicas lag").unwrap()
    }

    fn after(store: &str, day: &str, verdict: Verdict) -> (bool, Verdict) {
        let mut reports = [report(verdict)];
        let stale = waivers().apply_on(day, store, &mut reports);
        (stale, reports[0].verdict.clone())
    }

    #[test]
    fn a_failure_is_waived_until_the_day_is_over() {
        let (stale, verdict) = after("redis://x", "2026-12-31", fail());
        assert!(!stale);
        assert_eq!(verdict.word(), "waived");
        assert!(verdict.reason().contains("replicas lag"));
        let (stale, verdict) = after("redis://x", "2027-01-01", fail());
        assert!(stale);
        assert_eq!(verdict.word(), "error");
    }

    #[test]
    fn a_waiver_for_a_case_that_passes_is_stale() {
        let (stale, verdict) = after("redis://x", "2026-12-31", Verdict::Pass);
        assert!(stale);
        assert_eq!(verdict.word(), "error");
    }

    #[test]
    fn a_waiver_is_for_one_store() {
        assert_eq!(after("memory:", "2026-12-31", fail()), (false, fail()));
    }

    #[test]
    fn a_line_that_is_no_waiver_is_refused() {
        for line in [
            "C11 * 2026-12-31 https://example.org",
            "C99 * 2026-12-31 x y",
            "C11 * soon x y",
        ] {
            assert_eq!(
                Waivers::parse(line).unwrap_err().kind(),
                ErrorKind::InvalidConfig
            );
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (millis, day) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (1_795_392_000_000, "2026-11-23"),
            (Timestamp::MAX.as_millis(), "9999-12-31"),
        ] {
            assert_eq!(today(Timestamp::from_millis(millis)), day);
        }
    }
}
