use std::fmt::Write;

use super::markdown::plain;
use crate::matrix::{Cell, DESCRIPTIONS, Sentence, State, contract};

/// The matrix of the contract in Markdown: how much of it is read, a table for each sentence, and
/// the sentences that have none.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "writing to a string does not fail"
)]
pub fn matrix() -> String {
    let mut text = String::new();
    write_counts(&mut text).expect("a string takes every text");
    let mut item = "";
    for sentence in contract() {
        if sentence.item != item {
            item = sentence.item;
            write!(text, "\n## `{item}`\n").expect("a string takes every text");
        }
        write_sentence(&mut text, sentence).expect("a string takes every text");
    }
    write_descriptions(&mut text).expect("a string takes every text");
    text
}

fn write_counts(text: &mut String) -> std::fmt::Result {
    let cells: Vec<_> = contract()
        .flat_map(Sentence::cells)
        .map(|(_, _, cell)| cell)
        .collect();
    let count =
        |wanted: fn(&Option<Cell>) -> bool| cells.iter().filter(|cell| wanted(cell)).count();
    writeln!(
        text,
        "\n| sentences | cells | with cases | with a reason | empty |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    writeln!(
        text,
        "| {} | {} | {} | {} | {} |",
        contract().count(),
        cells.len(),
        count(|cell| matches!(cell, Some(Cell::Cases(_)))),
        count(|cell| matches!(cell, Some(Cell::Reason(_)))),
        count(Option::is_none),
    )
}

fn write_sentence(text: &mut String, sentence: &Sentence) -> std::fmt::Result {
    let states = State::ALL.map(State::name).join(" | ");
    write!(text, "\n> {}\n\n| | {states} |\n|", plain(sentence.text))?;
    text.push_str(&"---|".repeat(State::ALL.len() + 1));
    let mut notes: Vec<&str> = Vec::new();
    for method in sentence.methods {
        write!(text, "\n| `{method}` |")?;
        for state in State::ALL {
            match sentence.cell(*method, state) {
                Some(Cell::Cases(cases)) => write!(text, " {cases} |")?,
                Some(Cell::Reason(reason)) => {
                    let known = notes.iter().position(|note| *note == reason);
                    let number = known.unwrap_or_else(|| {
                        notes.push(reason);
                        notes.len() - 1
                    });
                    write!(text, " ({}) |", number + 1)?;
                }
                None => text.push_str(" |"),
            }
        }
    }
    text.push('\n');
    for (number, note) in notes.iter().enumerate() {
        let before = if number == 0 { "\n" } else { "; " };
        write!(text, "{before}({}) {note}", number + 1)?;
    }
    text.push_str(if notes.is_empty() { "" } else { ".\n" });
    Ok(())
}

fn write_descriptions(text: &mut String) -> std::fmt::Result {
    write!(
        text,
        "\n## Sentences without cells\n\n| in | sentence | why |\n"
    )?;
    writeln!(text, "|---|---|---|")?;
    for sentence in DESCRIPTIONS {
        let (item, words) = (sentence.item, plain(sentence.text));
        writeln!(text, "| `{item}` | {words} | {} |", sentence.reason)?;
    }
    Ok(())
}
