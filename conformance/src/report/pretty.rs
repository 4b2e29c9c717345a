use std::fmt::{self, Write};

use super::{RunReport, StoreReport, VERDICTS};
use crate::{Case, CaseReport, Group, Verdict, runner::Explained};

/// The report for people: a matrix, cases down and stores across, what did not pass, and the sums.
/// With `color`, for a terminal.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "writing to a string does not fail"
)]
pub fn pretty(report: &RunReport, color: bool) -> String {
    let mut text = String::new();
    write_matrix(&mut text, report, Paint(color))
        .and_then(|()| write_reasons(&mut text, report))
        .and_then(|()| write_sums(&mut text, report))
        .expect("a string takes every text");
    text
}

/// The cases, one a line, by group.
#[must_use]
pub fn list<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let mut text = String::new();
    let mut group = None;
    for case in cases {
        if group != Some(case.group) {
            group = Some(case.group);
            writeln!(text, "{}: {}", case.group, case.group.description())
                .expect("a string takes every text");
        }
        writeln!(text, "  {} {}", case.id(), case.sentence()).expect("a string takes every text");
    }
    text
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn verdict(self, word: &str, width: usize) -> String {
        let padded = format!("{word:>width$}");
        let code = match word {
            "pass" => "32",
            "fail" | "error" => "31;1",
            "skip" | "-" => "2",
            _ => "33",
        };
        if self.0 {
            format!("\x1b[{code}m{padded}\x1b[0m")
        } else {
            padded
        }
    }
}

const WIDTH: usize = 14;

fn write_matrix(text: &mut String, report: &RunReport, paint: Paint) -> fmt::Result {
    let short = report
        .stores
        .iter()
        .all(|store| store.name.chars().count() < WIDTH);
    if !short {
        for (number, store) in report.stores.iter().enumerate() {
            writeln!(text, "[{}] {}", number + 1, store.name)?;
        }
        writeln!(text)?;
    }
    let columns = report
        .stores
        .iter()
        .enumerate()
        .map(|(number, store)| match short {
            true => store.name.clone(),
            false => format!("[{}]", number + 1),
        });
    let columns: Vec<_> = columns.map(|name| format!("{name:>WIDTH$}")).collect();
    let cases: Vec<&'static Case> = crate::registry()
        .filter(|case| {
            report
                .stores
                .iter()
                .any(|store| find(store, case).is_some())
        })
        .collect();
    let widest = cases
        .iter()
        .map(|case| case.sentence().len())
        .max()
        .unwrap_or(0)
        + 6;
    for group in Group::ALL {
        let mut cases = cases.iter().filter(|case| case.group == group).peekable();
        if cases.peek().is_some() {
            writeln!(text, "{group:<widest$}{}", columns.concat())?;
        }
        for case in cases {
            write!(
                text,
                "  {:<1$}",
                format!("{} {}", case.id(), case.sentence()),
                widest - 2
            )?;
            for store in &report.stores {
                let word = find(store, case).map_or("-", |report| report.verdict.word());
                text.push_str(&paint.verdict(word, WIDTH));
            }
            writeln!(text)?;
        }
    }
    Ok(())
}

fn find<'a>(store: &'a StoreReport, case: &Case) -> Option<&'a CaseReport> {
    store
        .cases
        .iter()
        .find(|report| report.case.name == case.name)
}

fn write_reasons(text: &mut String, report: &RunReport) -> fmt::Result {
    for store in &report.stores {
        for one in &store.cases {
            let (case, verdict) = (one.case, &one.verdict);
            if matches!(verdict, Verdict::Pass | Verdict::Skip(_)) {
                continue;
            }
            let again = &report.again(store, case);
            let seed = report.seed;
            let explained = Explained {
                case,
                verdict,
                seed,
                again,
            };
            write!(text, "\n{}\n{explained}\n", store.name)?;
        }
    }
    let mut skips: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for store in &report.stores {
        for one in &store.cases {
            if let Verdict::Skip(reason) = &one.verdict {
                match skips
                    .iter_mut()
                    .find(|(name, known, _)| *name == store.name && known == reason)
                {
                    Some((_, _, ids)) => ids.push(one.case.id()),
                    None => skips.push((&store.name, reason, vec![one.case.id()])),
                }
            }
        }
    }
    if !skips.is_empty() {
        writeln!(text, "\nskipped")?;
    }
    for (store, reason, ids) in skips {
        writeln!(text, "  {store} {}: {reason}", ids.join(" "))?;
    }
    Ok(())
}

fn write_sums(text: &mut String, report: &RunReport) -> fmt::Result {
    writeln!(text)?;
    for store in &report.stores {
        let counts = VERDICTS.iter().map(|word| (store.count(word), word));
        let counts: Vec<_> = counts
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        let (level, seconds) = (store.level().name(), store.duration.as_secs_f64());
        writeln!(
            text,
            "{}  {} (level: {level}, {seconds:.1} s)",
            store.name,
            counts.join(", ")
        )?;
    }
    writeln!(text, "seed {}", report.seed)
}
