use serde_json::{Map, Value, json as object};
use sessionkit::Capabilities;

use super::{RunReport, StoreReport, VERDICTS};
use crate::{CaseReport, Verdict};

/// The report as JSON, which `conformance/schema.json` describes.
#[must_use]
pub fn json(report: &RunReport) -> String {
    let stores: Vec<_> = report.stores.iter().map(|one| store(report, one)).collect();
    let document = object!({
        "tool": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "seed": report.seed,
        "status": report.status(),
        "stores": stores,
    });
    format!("{document:#}")
}

fn store(run: &RunReport, store: &StoreReport) -> Value {
    let counts: Map<_, _> = VERDICTS
        .iter()
        .map(|word| ((*word).to_owned(), object!(store.count(word))))
        .collect();
    let cases: Vec<_> = store
        .cases
        .iter()
        .map(|one| case(run, store, one))
        .collect();
    object!({
        "name": store.name,
        "level": store.level().name(),
        "capabilities": store.capabilities.as_ref().map(capabilities),
        "millis": millis(store.duration),
        "counts": counts,
        "cases": cases,
    })
}

fn case(run: &RunReport, store: &StoreReport, report: &CaseReport) -> Value {
    let (case, verdict) = (report.case, &report.verdict);
    let mut value = object!({
        "id": case.id(),
        "name": case.name,
        "group": case.group.name(),
        "sentence": case.sentence(),
        "verdict": verdict.word(),
        "reason": verdict.reason(),
        "millis": millis(report.duration),
        "checks": report.checks,
        "operations": report.operations.map(|operations| format!("{operations:016x}")),
    });
    if let Verdict::Fail { expected, actual } = verdict {
        value["expected"] = object!(expected);
        value["actual"] = object!(actual);
        value["contract"] = object!(case.contract);
        value["why"] = object!(case.why);
        value["again"] = object!(run.again(store, case));
    }
    value
}

fn capabilities(declared: &Capabilities) -> Value {
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    object!({
        "custody": word(&declared.custody),
        "compare_and_swap": declared.compare_and_swap,
        "max_data": declared.max_data,
        "expiry_granularity_millis": millis(declared.expiry_granularity),
        "time_source": word(&declared.time_source),
        "durability": word(&declared.durability),
        "sweep": word(&declared.sweep),
        "staleness_millis": millis(declared.staleness),
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
