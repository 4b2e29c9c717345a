use std::fmt::Write;

use super::{RunReport, StoreReport};
use crate::{CaseReport, Verdict, runner::Explained};

/// The report in the XML that continuous integration servers read (JUnit).
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "writing to a string does not fail"
)]
pub fn junit(report: &RunReport) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for one in &report.stores {
        write_store(&mut text, report, one).expect("a string takes every text");
    }
    text + "</testsuites>\n"
}

fn write_store(text: &mut String, run: &RunReport, store: &StoreReport) -> std::fmt::Result {
    let (tests, skipped) = (
        store.cases.len(),
        store.count("skip") + store.count("waived"),
    );
    let (failures, errors) = (
        store.count("fail"),
        store.count("error") + store.count("inconclusive"),
    );
    let (name, time) = (escape(&store.name), store.duration.as_secs_f64());
    writeln!(
        text,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" \
         errors=\"{errors}\" skipped=\"{skipped}\" time=\"{time:.3}\">\n    \
         <properties><property name=\"seed\" value=\"{}\"/></properties>",
        run.seed
    )?;
    for report in &store.cases {
        write_case(text, run, store, report)?;
    }
    writeln!(text, "  </testsuite>")
}

fn write_case(
    text: &mut String,
    run: &RunReport,
    store: &StoreReport,
    report: &CaseReport,
) -> std::fmt::Result {
    let case = report.case;
    write!(
        text,
        "    <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\"",
        escape(&store.name),
        case.group,
        case.name,
        report.duration.as_secs_f64()
    )?;
    let reason = escape(&report.verdict.reason());
    let element = match &report.verdict {
        Verdict::Pass => return writeln!(text, "/>"),
        Verdict::Skip(_) | Verdict::Waived { .. } => {
            let word = report.verdict.word();
            return writeln!(text, "><skipped message=\"{word}: {reason}\"/></testcase>");
        }
        Verdict::Fail { .. } => "failure",
        Verdict::Inconclusive(_) | Verdict::Error(_) => "error",
    };
    let explained = Explained {
        case,
        verdict: &report.verdict,
        seed: run.seed,
        again: &run.again(store, case),
    };
    let explained = escape(&explained.to_string());
    writeln!(
        text,
        "><{element} message=\"{reason}\">{explained}</{element}></testcase>"
    )
}

/// The text as XML 1.0, which has no place for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}
