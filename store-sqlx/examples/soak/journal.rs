//! A process that writes until it is killed, and says before and after each call what it does.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use sessionkit::{
    Clock, CookieName, ErrorKind, OsEntropy, Record, Result, Revision, SessionStore, SystemClock,
    Token,
};

/// The argument that makes this program such a process.
pub(crate) const WRITER: &str = "sqlite-writer";

/// The argument that makes this program one that opens the file, counts and closes it.
pub(crate) const COUNTER: &str = "sqlite-counter";

const TASKS: usize = 8;

/// How many changes a session lives for.
const LIFE: usize = 20;

/// Writes for ever: lines of a task, a call, a token and a revision before each call, and of a task
/// and `ok` after it.
pub(crate) async fn write(store: Arc<dyn SessionStore>) -> Result<ExitCode> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(write_sessions(Arc::clone(&store), task)))
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    Ok(ExitCode::FAILURE)
}

async fn write_sessions(store: Arc<dyn SessionStore>, task: usize) {
    loop {
        let (token, mut stored) = (token(), record());
        say(task, "create", &token, stored.revision);
        until_ok(|| store.create(token.clone(), &stored)).await;
        println!("{task} ok");
        for _ in 0..LIFE {
            let next = record();
            say(task, "update", &token, next.revision);
            let update = || store.update(&token, stored.revision, &next);
            until_ok(update).await;
            println!("{task} ok");
            stored = next;
        }
        say(task, "delete", &token, stored.revision);
        until_ok(|| store.delete(&token, Some(stored.revision))).await;
        println!("{task} ok");
    }
}

/// Again while the other process keeps the file. A try whose answer was lost may have been done: then
/// the next one finds it so.
async fn until_ok<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) {
    let mut unsure = false;
    while let Err(error) = call().await {
        match error.kind() {
            ErrorKind::Unavailable => {}
            ErrorKind::Ambiguous => unsure = true,
            _ => {
                assert!(unsure, "{error:?}");
                return;
            }
        }
    }
}

fn say(task: usize, call: &str, token: &Token, revision: Revision) {
    let token = token.expose().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes every text");
        hex
    });
    println!("{task} {call} {token} {}", revision.to_bits());
}

/// The process, and what it has said so far.
pub(crate) struct Writer {
    child: Child,
    lines: JoinHandle<Vec<String>>,
}

impl Writer {
    pub(crate) fn start(file: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([WRITER.as_ref(), file.as_os_str()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let lines =
            std::thread::spawn(move || output.lines().map_while(|line| line.ok()).collect());
        Self { child, lines }
    }

    /// Kills the process (signal 9) and returns what it has said. A line that is not whole is left
    /// out.
    pub(crate) fn kill(mut self) -> Vec<String> {
        let running = self.child.try_wait().expect("a process").is_none();
        assert!(running, "the process ended by itself");
        self.child.kill().expect("a process");
        self.child.wait().expect("a process");
        self.lines.join().expect("no panic")
    }
}

/// Another process that opens the file, counts the sessions and closes it: the `sqlite3` command,
/// which is of another version than the one within this program, or else this program.
pub(crate) async fn count_beside(file: &Path) {
    let run = |command: &mut Command| command.stdout(Stdio::null()).status();
    let file = file.to_owned();
    let counted = tokio::task::spawn_blocking(move || {
        let command = run(Command::new("sqlite3")
            .args(["-cmd", ".timeout 10000"])
            .arg(&file)
            .arg("SELECT count(*) FROM sessions"));
        command.or_else(|_| {
            let program = std::env::current_exe()?;
            run(Command::new(program).args([COUNTER.as_ref(), file.as_os_str()]))
        })
    });
    let counted = counted.await.expect("no panic").expect("a process");
    assert!(counted.success(), "another process cannot count");
}

/// What is known of the sessions of killed processes, and of those who opened the file besides.
#[derive(Default)]
pub(crate) struct Journal {
    kills: u64,
    pub(crate) stores_beside: u64,
    pub(crate) counts_beside: u64,
    acknowledged: u64,
    sessions: u64,
    pub(crate) lost: u64,
    pub(crate) seen_again: u64,
    pub(crate) integrity_errors: u64,
    dead: Vec<Token>,
}

/// A task's session, as it was acknowledged, and the call that was under way.
#[derive(Default)]
struct Task {
    acknowledged: Option<(Token, u64)>,
    begun: Option<(String, Token, u64)>,
}

impl Journal {
    /// Compares what a killed process has said with what is stored.
    pub(crate) async fn compare(&mut self, lines: &[String], store: &dyn SessionStore) {
        self.kills += 1;
        let mut tasks: HashMap<String, Task> = HashMap::new();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let task = tasks.entry(words[0].to_owned()).or_default();
            match words[1..] {
                ["ok"] => self.acknowledge(task),
                [call, token, revision] => {
                    let (token, revision) = (parse(token), revision.parse());
                    if let (Some(token), Ok(revision)) = (token, revision) {
                        task.begun = Some((call.to_owned(), token, revision));
                    }
                }
                _ => {}
            }
        }
        for task in tasks.into_values() {
            self.sessions += 1;
            self.settle(task, store).await;
        }
        let begin = self.dead.len().saturating_sub(500);
        for token in &self.dead[begin..] {
            let seen = load(store, token).await;
            self.seen_again += u64::from(seen.is_some());
        }
    }

    fn acknowledge(&mut self, task: &mut Task) {
        self.acknowledged += 1;
        let Some((call, token, revision)) = task.begun.take() else {
            return;
        };
        if call == "delete" {
            task.acknowledged = None;
            self.dead.push(token);
        } else {
            task.acknowledged = Some((token, revision));
        }
    }

    /// A session is as it was acknowledged, or as the call would leave it that was under way.
    async fn settle(&mut self, task: Task, store: &dyn SessionStore) {
        let after = match &task.begun {
            Some((_, token, revision)) => is_stored(store, token, *revision).await,
            None => false,
        };
        let deleting = matches!(&task.begun, Some((call, ..)) if call == "delete");
        let Some((token, revision)) = task.acknowledged else {
            return;
        };
        let before = is_stored(store, &token, revision).await;
        let gone = load(store, &token).await.is_none();
        if !(before || after || deleting && gone) {
            self.lost += 1;
        }
        // Nobody goes on with it.
        while store.delete(&token, None).await.is_err() {}
        self.dead.push(token);
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "killed                         {:>9}", self.kills)?;
        writeln!(
            f,
            "opened and closed beside       {:>9}",
            self.stores_beside
        )?;
        writeln!(
            f,
            "counted by another process     {:>9}",
            self.counts_beside
        )?;
        writeln!(f, "calls acknowledged             {:>9}", self.acknowledged)?;
        writeln!(f, "sessions cut off               {:>9}", self.sessions)?;
        writeln!(f, "acknowledged changes lost      {:>9}", self.lost)?;
        writeln!(f, "ended sessions seen again      {:>9}", self.seen_again)?;
        writeln!(
            f,
            "integrity checks not ok        {:>9}",
            self.integrity_errors
        )
    }
}

async fn is_stored(store: &dyn SessionStore, token: &Token, revision: u64) -> bool {
    let expected = data(revision);
    let is_whole = |record: &Record| record.data == expected;
    let seen = load(store, token).await;
    seen.is_some_and(|record| record.revision.to_bits() == revision && is_whole(&record))
}

async fn load(store: &dyn SessionStore, token: &Token) -> Option<Record> {
    loop {
        if let Ok(seen) = store.load(token).await {
            return seen;
        }
    }
}

fn parse(hex: &str) -> Option<Token> {
    let byte = |index| u8::from_str_radix(hex.get(index..index + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == Token::LEN)?;
    Some(Token::from_bytes(bytes, &cookie()))
}

fn token() -> Token {
    Token::random(&OsEntropy, &cookie()).expect("randomness")
}

fn cookie() -> CookieName {
    CookieName::new("id").expect("a cookie name")
}

/// Data that tell from their revision whether they are whole.
fn data(revision: u64) -> Vec<u8> {
    let len = usize::try_from(revision % 2000).expect("a small number");
    revision
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(len)
        .collect()
}

fn record() -> Record {
    let revision = Revision::random(&OsEntropy).expect("randomness");
    Record {
        data: data(revision.to_bits()).into(),
        revision,
        created_at: SystemClock.now(),
        expires_at: SystemClock.now() + Duration::from_secs(3600),
        subject: None,
        label: Default::default(),
    }
}
