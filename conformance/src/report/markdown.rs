use std::fmt::Write;

use crate::{Case, Group, registry};

/// The catalogue of cases in Markdown, a table for each group.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "writing to a string does not fail"
)]
pub fn catalogue() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        write_group(&mut text, group).expect("a string takes every text");
    }
    text
}

fn write_group(text: &mut String, group: Group) -> std::fmt::Result {
    write!(text, "\n### {group}\n\n{}\n\n", group.description())?;
    writeln!(
        text,
        "| id | property | clause of the contract | why it matters | applies to |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    for case in registry().filter(|case| case.group == group) {
        let (id, sentence) = (case.id(), case.sentence());
        let (contract, why) = (plain(case.contract), case.why);
        writeln!(
            text,
            "| {id} | {sentence} | {contract} | {why} | {} |",
            scope(case)
        )?;
    }
    Ok(())
}

/// The stores that a case is for.
fn scope(case: &Case) -> String {
    let needs: Vec<_> = case.needs.iter().map(|need| need.description()).collect();
    match needs.is_empty() {
        true => "every store".into(),
        false => needs.join(", "),
    }
}

/// The text without the links of rustdoc, and without what would end a cell.
pub(super) fn plain(contract: &str) -> String {
    let mut text = String::new();
    let mut rest = contract;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((label, behind)) = after.split_once(']') else {
            break;
        };
        text.push_str(before);
        text.push_str(label);
        rest = match behind
            .strip_prefix('(')
            .and_then(|target| target.split_once(')'))
        {
            Some((_, behind)) => behind,
            None => behind,
        };
    }
    text.push_str(rest);
    text.replace('|', "\\|")
}
