//! The catalogue, a file for each group, or two where a theme fills its own.

use crate::Case;

mod answers;
mod beside;
mod canc;
mod client;
mod conc;
mod discreet;
mod fid;
mod flow;
mod flt;
mod history;
mod iso;
mod key;
mod life;
mod lim;
mod list;
mod meta;
mod mixture;
mod race;
mod rounds;
mod sec;
mod states;
mod subject;
mod sweep;
mod time;

/// A case whose calls come one after the other and are determined by the seed, or with `parallel`
/// come from concurrent tasks, or with `random` depend on random choices of the store.
macro_rules! case {
    ($group:ident $name:ident [$($need:ident)*] $contract:literal $why:literal) => {
        crate::cases::case!(@ true, $group $name [$($need)*] $contract $why)
    };
    (parallel $group:ident $name:ident [$($need:ident)*] $contract:literal $why:literal) => {
        crate::cases::case!(@ false, $group $name [$($need)*] $contract $why)
    };
    (random $group:ident $name:ident [$($need:ident)*] $contract:literal $why:literal) => {
        crate::cases::case!(@ false, $group $name [$($need)*] $contract $why)
    };
    (@ $sequential:literal, $group:ident $name:ident [$($need:ident)*] $contract:literal $why:literal) => {
        crate::Case {
            name: stringify!($name),
            group: crate::Group::$group,
            contract: $contract,
            why: $why,
            needs: &[$(crate::Need::$need),*],
            sequential: $sequential,
            run: |context| Box::pin($name(context)),
        }
    };
}
use case;

pub(crate) const ALL: &[&[Case]] = &[
    life::CASES,
    states::LIFE,
    fid::CASES,
    key::CASES,
    states::KEY,
    time::CASES,
    states::TIME,
    conc::CASES,
    beside::CASES,
    canc::CASES,
    states::CANC,
    iso::CASES,
    states::ISO,
    lim::CASES,
    flt::CASES,
    answers::CASES,
    states::FLT,
    sec::CASES,
    discreet::CASES,
    sweep::CASES,
    mixture::CASES,
    list::CASES,
    subject::CASES,
    flow::CASES,
    client::CASES,
    states::CLIENT,
    meta::CASES,
];
