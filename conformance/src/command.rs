mod stores;

use std::{
    collections::VecDeque,
    fs,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sessionkit::{Entropy, Error, ErrorKind, OsEntropy};
use sessionkit_conformance::{
    Case, CaseReport, Options, Waivers, probe, registry,
    report::{self, RunReport, StoreReport},
    run_case,
};

use stores::Target;

/// Checks that session stores keep the contract of `sessionkit::SessionStore`.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "exit status: 0 every store conforms, 1 a case failed, 2 the harness broke or a \
                  case was inconclusive, 3 a waiver is stale"
)]
struct Arguments {
    /// The stores, by URL: memory:, cookie:, and those that sessionkit-any opens. `broken:BUG` is a
    /// store that is wrong on purpose, to see a failure; `broken:` lists the bugs.
    stores: Vec<String>,

    /// Only the cases with this id or with this text in their names. Can be repeated.
    #[arg(long)]
    case: Vec<String>,

    /// Only the cases of this group. Can be repeated.
    #[arg(long)]
    group: Vec<String>,

    /// Determines the random choices; another one in each run by default.
    #[arg(long)]
    seed: Option<u64>,

    /// How many cases run at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,

    /// A file of waivers: `case store YYYY-MM-DD link reason`, one a line.
    #[arg(long, value_name = "FILE")]
    waivers: Option<String>,

    /// How to report.
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,

    /// Shows the cases and runs none.
    #[arg(long)]
    list: bool,

    /// Shows which case reads which sentence of the contract, in Markdown, and runs none.
    #[arg(long, conflicts_with_all = ["list", "stores"])]
    matrix: bool,

    /// The seconds after which a case is given up.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    watchdog: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A matrix for people.
    Pretty,
    /// JSON, as conformance/schema.json describes it.
    Json,
    /// JUnit XML.
    Junit,
    /// The level as JSON for a badge (the endpoint badge of shields.io).
    Badge,
    /// Markdown, for --list.
    Markdown,
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

impl Arguments {
    fn run(&self) -> sessionkit::Result<u8> {
        let cases = self.cases()?;
        if self.list {
            self.print(&self.listing(&cases))?;
            return Ok(0);
        }
        if self.matrix {
            self.print(&report::matrix())?;
            return Ok(0);
        }
        if self.stores.iter().any(|store| store == "broken:") {
            self.print(&stores::bugs())?;
            return Ok(0);
        }
        if self.stores.is_empty() || self.format == Format::Markdown {
            let text =
                "name at least one store, such as memory:, and no --format markdown without --list";
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        let targets = self.stores.iter().map(|url| Target::parse(url));
        let targets = targets.collect::<sessionkit::Result<Vec<_>>>()?;
        let waivers = self.read_waivers()?;
        let mut report = self.run_cases(&targets, &cases)?;
        for store in &mut report.stores {
            store.stale = waivers.apply(&store.name, &mut store.cases);
        }
        let text = match self.format {
            Format::Json => report::json(&report) + "\n",
            Format::Badge => report::badge(&report) + "\n",
            Format::Junit => report::junit(&report),
            Format::Pretty | Format::Markdown => {
                report::pretty(&report, io::stdout().is_terminal())
            }
        };
        self.print(&text)?;
        Ok(report.status())
    }

    fn cases(&self) -> sessionkit::Result<Vec<&'static Case>> {
        let named = |case: &Case, name: &String| {
            case.id().eq_ignore_ascii_case(name) || case.name.contains(&name.to_lowercase())
        };
        let chosen = |case: &&'static Case| {
            (self.case.is_empty() || self.case.iter().any(|name| named(case, name)))
                && (self.group.is_empty()
                    || self
                        .group
                        .iter()
                        .any(|group| case.group.name().eq_ignore_ascii_case(group)))
        };
        let cases: Vec<_> = registry().filter(chosen).collect();
        for name in &self.case {
            if !registry().any(|case| named(case, name)) {
                let text = format!("no case is called {name:?}");
                return Err(Error::new(ErrorKind::InvalidConfig, text));
            }
        }
        if cases.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "no case is left to run",
            ));
        }
        Ok(cases)
    }

    fn listing(&self, cases: &[&'static Case]) -> String {
        match self.format {
            Format::Markdown => report::catalogue(),
            _ => report::list(cases.iter().copied()),
        }
    }

    fn read_waivers(&self) -> sessionkit::Result<Waivers> {
        let Some(path) = &self.waivers else {
            return Ok(Waivers::default());
        };
        let text = fs::read_to_string(path).map_err(|error| {
            let text = format!("the waivers {path:?} cannot be read");
            Error::new(ErrorKind::InvalidConfig, text).with_source(error)
        })?;
        Waivers::parse(&text)
    }

    fn run_cases(
        &self,
        targets: &[Target],
        cases: &[&'static Case],
    ) -> sessionkit::Result<RunReport> {
        let options = Options {
            seed: match self.seed {
                Some(seed) => seed,
                None => random_seed()?,
            },
            watchdog: Duration::from_secs(self.watchdog),
        };
        let jobs: VecDeque<_> = (0..targets.len())
            .flat_map(|target| cases.iter().map(move |case| (target, *case)))
            .collect();
        let progress = progress(jobs.len());
        let jobs = Mutex::new(jobs);
        let done = Mutex::new(vec![Vec::new(); targets.len()]);
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while let Some((target, case)) = lock(&jobs).pop_front() {
                        progress.set_message(format!("{} {}", targets[target].name, case.name));
                        let report = run_case(case, &targets[target].make, &options);
                        if report.verdict.word() == "fail" {
                            progress.println(format!(
                                "{} fails on {}",
                                case.id(),
                                targets[target].name
                            ));
                        }
                        lock(&done)[target].push(report);
                        progress.inc(1);
                    }
                });
            }
        });
        progress.finish_and_clear();
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stores = targets
            .iter()
            .zip(done)
            .map(|(target, cases)| store_report(target, cases));
        Ok(RunReport {
            seed: options.seed,
            command: env!("CARGO_BIN_NAME").into(),
            stores: stores.collect(),
        })
    }

    fn print(&self, text: &str) -> sessionkit::Result<()> {
        // A reader that has seen enough, such as `head`, is no error.
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let text = "the report cannot be written";
                Err(Error::new(ErrorKind::Unavailable, text).with_source(error))
            }
            _ => Ok(()),
        }
    }
}

fn store_report(target: &Target, mut cases: Vec<CaseReport>) -> StoreReport {
    let position = |report: &CaseReport| registry().position(|case| case.name == report.case.name);
    cases.sort_by_key(position);
    StoreReport {
        name: target.name.clone(),
        capabilities: probe(&target.make).ok(),
        stale: false,
        duration: cases.iter().map(|report| report.duration).sum(),
        cases,
    }
}

/// Small enough for every reader of JSON.
fn random_seed() -> sessionkit::Result<u64> {
    let mut bytes = [0; 4];
    OsEntropy.fill(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// A bar on standard error, where that is a terminal.
fn progress(len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    let bar = ProgressBar::new(len as u64);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
