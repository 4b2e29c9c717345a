use serde_json::json;

use super::{Level, RunReport};

/// The level of the store as a badge, in the JSON that the endpoint badge of shields.io reads; of
/// several stores the lowest level. A report with failures says how many there are.
///
/// ```
/// use sessionkit_conformance::report::{RunReport, badge};
///
/// let report = RunReport { seed: 1, command: "kit".into(), stores: Vec::new() };
/// assert!(badge(&report).contains("\"message\":\"none\""));
/// ```
#[must_use]
pub fn badge(report: &RunReport) -> String {
    let stores = report.stores.iter();
    let level = stores.clone().map(|store| store.level()).min();
    let level = level.unwrap_or(Level::None);
    let failures: usize = stores.map(|store| store.count("fail")).sum();
    let (message, color) = match (failures, level) {
        (0, Level::None) => (level.name().to_owned(), "lightgrey"),
        (0, Level::Core) => (level.name().to_owned(), "yellow"),
        (0, _) => (level.name().to_owned(), "brightgreen"),
        (1, _) => ("1 case fails".to_owned(), "red"),
        (failures, _) => (format!("{failures} cases fail"), "red"),
    };
    json!({
        "schemaVersion": 1,
        "label": "sessionkit conformance",
        "message": message,
        "color": color,
    })
    .to_string()
}
