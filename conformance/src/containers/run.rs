//! What the tests of one run share: a run is one `cargo test` or `cargo nextest run`, of which each
//! test program, or each test, is a process of its own.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    fs::File,
    path::PathBuf,
    process::{self, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

use sessionkit::Result;

use super::{engine::failed, probe};

/// The label by which the containers of a run are found again.
pub(super) const LABEL: &str = "sessionkit.test.run";

/// The process at whose end the run is over.
struct Run {
    key: String,
    runner: u32,
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let parent = parent().filter(|parent| is_runner(*parent));
    let runner = parent.unwrap_or_else(process::id);
    // Numbers of processes come again.
    let began = began(runner).unwrap_or_default();
    Run {
        key: format!("{runner}-{began}"),
        runner,
    }
});

/// The URLs of the servers that this process knows. No pool: those end with the runtime of a test.
static URLS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

pub(super) fn key() -> &'static str {
    &RUN.key
}

/// The URL of the server of this name, which the first test of the run starts.
pub(super) async fn shared<F>(name: &str, start: impl FnOnce() -> F) -> Result<String>
where
    F: Future<Output = Result<String>>,
{
    if let Some(url) = known(name) {
        return Ok(url);
    }
    let directory = directory()?;
    let lock = tokio::task::spawn_blocking({
        let path = directory.join(format!("{name}.lock"));
        move || File::create(path).and_then(|file| file.lock().map(|()| file))
    })
    .await
    .map_err(|error| failed("the lock of the run cannot be waited for").with_source(error))?
    .map_err(|error| failed("the lock of the run cannot be taken").with_source(error))?;
    if let Some(url) = known(name) {
        return Ok(url);
    }
    let path = directory.join(name);
    let url = match fs::read_to_string(&path) {
        Ok(url) if probe::is_ready(&url).await => url,
        _ => {
            let url = start().await?;
            fs::write(&path, &url).map_err(|error| {
                failed("the directory of the run cannot be written").with_source(error)
            })?;
            url
        }
    };
    let mut urls = URLS.lock().unwrap_or_else(PoisonError::into_inner);
    urls.insert(name.to_owned(), url.clone());
    drop(lock);
    Ok(url)
}

/// Makes sure that what this run starts is removed when it is over, also if it is killed.
#[cfg(unix)]
pub(super) fn ensure_reaper() -> Result<()> {
    use std::os::unix::process::CommandExt;

    let directory = directory()?;
    if File::create_new(directory.join("reaper")).is_err() {
        return Ok(());
    }
    let script = r#"
        while kill -0 "$1" 2>/dev/null; do sleep 0.5; done
        ids=$(docker ps --all --quiet --filter "label=$2")
        [ -z "$ids" ] || docker rm --force --volumes $ids
        rm -rf "$3"
    "#;
    Command::new("sh")
        .args(["-c", script, "sessionkit-reaper"])
        .arg(RUN.runner.to_string())
        .arg(format!("{LABEL}={}", key()))
        .arg(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not ended together with the run by the terminal.
        .process_group(0)
        .spawn()
        .map(drop)
        .map_err(|error| failed("the process that cleans up cannot be started").with_source(error))
}

/// Prints a line about what is used, once for each process.
pub(super) fn say_once(line: &str) {
    static SAID: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(line.to_owned()) {
        eprintln!("sessionkit test servers: {line}");
    }
}

fn known(name: &str) -> Option<String> {
    let urls = URLS.lock().unwrap_or_else(PoisonError::into_inner);
    urls.get(name).cloned()
}

fn directory() -> Result<PathBuf> {
    let directory = env::temp_dir().join(format!("sessionkit-test-{}", key()));
    fs::create_dir_all(&directory)
        .map_err(|error| failed("the directory of the run cannot be made").with_source(error))?;
    Ok(directory)
}

#[cfg(unix)]
fn parent() -> Option<u32> {
    Some(std::os::unix::process::parent_id())
}

fn is_runner(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/comm"))
        .is_ok_and(|name| matches!(name.trim(), "cargo" | "cargo-nextest"))
}

/// When a process began, in ticks since the machine did: field 22 of `/proc/…/stat`, the 20th behind
/// the name, which may hold spaces and brackets.
fn began(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19).map(str::to_owned)
}
