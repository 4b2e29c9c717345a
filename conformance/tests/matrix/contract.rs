//! The documentation of the contract, taken apart into sentences.

/// The traits that the contract stands in.
const TRAITS: [&str; 2] = ["SessionStore", "SubjectIndex"];

/// Every sentence in the documentation of the two traits and their methods, each with the name of
/// what it documents. What stands under `# Errors` is a list, and each item of it is one.
pub(crate) fn sentences(source: &str) -> Vec<(String, String)> {
    let mut sentences = Vec::new();
    let mut docs: Vec<&str> = Vec::new();
    let mut inside = false;
    let mut attribute = false;
    for line in source.lines() {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            docs.push(doc.trim());
            continue;
        }
        if attribute || text.starts_with("#[") {
            attribute = !text.ends_with(']');
            continue;
        }
        let documented = match text.strip_prefix("pub trait ") {
            Some(rest) => {
                let name = first_name(rest);
                inside = TRAITS.contains(&name);
                inside.then_some(name)
            }
            None => {
                let rest = text.strip_prefix("async ").unwrap_or(text);
                let name = rest.strip_prefix("fn ").map(first_name);
                name.filter(|_| inside)
            }
        };
        if let Some(item) = documented {
            let of_item = taken_apart(&docs).into_iter();
            sentences.extend(of_item.map(|sentence| (item.to_owned(), sentence)));
        }
        inside &= line != "}";
        docs.clear();
    }
    sentences
}

fn first_name(text: &str) -> &str {
    let end = text.find(|next: char| !next.is_alphanumeric() && next != '_');
    &text[..end.unwrap_or(text.len())]
}

fn taken_apart(docs: &[&str]) -> Vec<String> {
    let mut sentences = Vec::new();
    let (mut code, mut errors) = (false, false);
    let mut paragraph = String::new();
    for line in docs.iter().chain([&""]) {
        let ends = line.is_empty() || line.starts_with(['#', '-', '`']) && line.starts_with("```");
        let begins = line.strip_prefix("- ");
        if ends || begins.is_some() || line.starts_with("# ") {
            let whole = std::mem::take(&mut paragraph);
            split(&whole, errors, &mut sentences);
        }
        if line.starts_with("```") {
            code = !code;
        } else if let Some(heading) = line.strip_prefix("# ").filter(|_| !code) {
            errors = heading == "Errors";
        } else if !code && !line.is_empty() {
            let text = begins.map_or(*line, without_label);
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(text);
        }
    }
    sentences
}

/// An item of the list without the word that it begins with.
fn without_label(item: &str) -> &str {
    item.strip_prefix("**")
        .and_then(|rest| rest.split_once("** "))
        .map_or(item, |(_, text)| text)
}

fn split(paragraph: &str, errors: bool, sentences: &mut Vec<String>) {
    let mut rest = paragraph;
    let begins =
        |text: &str| text.starts_with(|next: char| next.is_uppercase() || "[`".contains(next));
    let mut from = 0;
    while let Some(at) = rest[from..].find([' ']) {
        let (before, after) = (&rest[..from + at], &rest[from + at + 1..]);
        if before.ends_with('.') && begins(after) || errors && before.ends_with(';') {
            sentences.push(before.trim_end_matches(';').to_owned());
            (rest, from) = (after, 0);
        } else {
            from += at + 1;
        }
    }
    if !rest.is_empty() {
        sentences.push(rest.to_owned());
    }
}
