//! The program itself, as a newcomer starts it.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use sessionkit::Key;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
};

use crate::{
    client::{Answer, Client},
    server::{Setup, watched},
};

struct Program {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    line: String,
    client: Client,
}

fn command(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessionkit-demo"));
    command
        .args(["--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .args(arguments)
        .env_remove("SESSIONKIT_KEYS")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Program {
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = output
        .next_line()
        .await
        .unwrap()
        .expect("a line at the start");
    let address = line.split(['/', ',']).nth(2).unwrap();
    let address: SocketAddr = address
        .parse()
        .unwrap_or_else(|_| panic!("an address: {line}"));
    Program {
        child,
        output,
        line,
        client: Client::new(address),
    }
}

impl Program {
    fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap();
        let kill = format!("kill -{signal} {id}");
        let status = std::process::Command::new("sh")
            .args(["-c", &kill])
            .status();
        assert!(status.unwrap().success());
    }

    /// The status, and what else it has printed.
    async fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().await.unwrap();
        let mut rest = String::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            rest += &line;
        }
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut rest).await.unwrap();
        (status, rest)
    }
}

#[tokio::test]
async fn it_says_where_it_is_in_one_line_and_stops_on_both_signals() {
    for signal in ["INT", "TERM"] {
        let state = tempfile::tempdir().unwrap();
        let program = run(command(state.path(), &["--store", "memory:"])).await;
        assert!(
            program.line.starts_with("listening on http://127.0.0.1:"),
            "{}",
            program.line
        );
        assert!(
            program.line.ends_with(", sessions in memory:"),
            "{}",
            program.line
        );
        program.client.get("/set?name=Ada").await;
        assert_eq!(program.client.get("/").await.text, "name: Ada");
        program.signal(signal);
        let (status, rest) = program.end().await;
        assert!(status.success(), "{signal}: {status}");
        assert_eq!(rest, "", "{signal}");
    }
}

/// An app in this process that is told to stop, while an update of the store is held up.
async fn stopped_during_an_update(
    grace: Duration,
) -> (Setup, JoinHandle<Answer>, JoinHandle<io::Result<()>>) {
    let setup = watched().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap());
    let app = sessionkit_demo::App::new(setup.store.clone(), setup.keyring.clone())
        .with_clock(setup.clock.clone());
    let stop_signal = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(sessionkit_demo::serve(
        listener,
        app.router().unwrap(),
        stop_signal,
        grace,
    ));
    client.get("/set?name=Ada").await;
    setup.store.hold_updates();
    let slow = tokio::spawn(async move { client.put("/api/slow/a?ms=0", "x").await });
    setup.store.update_arrived().await;
    stop.send(()).unwrap();
    (setup, slow, serving)
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_before_it_stops() {
    let (setup, slow, serving) = stopped_during_an_update(Duration::from_secs(60)).await;
    setup.store.release_updates();
    assert_eq!(slow.await.unwrap().status, 200);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_it_from_stopping() {
    let (_setup, _slow, serving) = stopped_during_an_update(Duration::from_millis(1)).await;
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn sessions_survive_a_restart_where_the_store_does() {
    let state = tempfile::tempdir().unwrap();
    let files = format!("fs://{}", state.path().join("files").display());
    for store in [&[][..], &["--store", "cookie:"], &["--store", &files]] {
        let first = run(command(state.path(), store)).await;
        first.client.get("/set?name=Ada").await;
        let cookie = first.client.cookie("id").unwrap();
        first.signal("TERM");
        assert!(first.end().await.0.success(), "{store:?}");

        let second = run(command(state.path(), store)).await;
        second.client.put_cookie("id", &cookie);
        assert_eq!(second.client.get("/").await.text, "name: Ada", "{store:?}");
        second.client.post("/api/logout", "").await;
        second.signal("TERM");
        assert!(second.end().await.0.success(), "{store:?}");
    }
}

#[tokio::test]
async fn keys_of_the_environment_are_used_in_place_of_a_file() {
    let state = tempfile::tempdir().unwrap();
    let key = Key::generate().unwrap().expose_base64();
    let start = || async {
        let mut command = command(state.path(), &["--store", "cookie:"]);
        command.env("SESSIONKIT_KEYS", &**key);
        run(command).await
    };
    let (first, second) = (start().await, start().await);
    first.client.get("/set?name=Ada").await;
    second
        .client
        .put_cookie("id", &first.client.cookie("id").unwrap());
    assert_eq!(second.client.get("/").await.text, "name: Ada");
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_one_line() {
    let state = tempfile::tempdir().unwrap();
    for (arguments, problem) in [
        (["--store", "floppy:"], "scheme"),
        (["--listen", "0.0.0.0:0"], "--https"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessionkit-demo"));
        command.arg("--state").arg(state.path()).args(arguments);
        let output = command.output().await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(problem), "{text}");
    }
}

/// What the program says about keys: whether it succeeds, and all that it prints.
async fn about_keys(arguments: &[&str], variable: Option<&str>, input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessionkit-demo"));
    command.args(arguments).env_remove("SESSIONKIT_KEYS");
    command.envs(variable.map(|keys| ("SESSIONKIT_KEYS", keys)));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without reading.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .await;
    let output = child.wait_with_output().await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

#[tokio::test]
async fn a_key_that_the_program_makes_is_one_that_it_accepts() {
    let (made, old) = about_keys(&["key"], None, "").await;
    let (_, new) = about_keys(&["key"], None, "").await;
    assert!(made);
    assert_ne!(old, new);
    assert_eq!((old.len(), old.lines().count()), (45, 1), "{old}");
    let id = |text: &str| Key::parse(text.trim_end()).unwrap().id();
    let both = format!("{new}{old}");
    for (arguments, variable, input, place) in [
        (&["check-key"][..], Some(&*both), "", "SESSIONKIT_KEYS"),
        (&["check-key"], None, &*both, "the standard input"),
        (
            &["check-key", "-"],
            Some("no key"),
            &*both,
            "the standard input",
        ),
    ] {
        let (accepted, printed) = about_keys(arguments, variable, input).await;
        assert!(accepted, "{printed}");
        let expected = format!(
            "{place}: the key {} writes and reads\n{place}: the key {} reads\n",
            id(&new),
            id(&old)
        );
        assert_eq!(printed, expected);
    }
}

#[tokio::test]
async fn a_key_that_the_app_would_refuse_is_refused_and_not_shown() {
    let placeholder = "CHANGE_ME_TO_A_RANDOM_STRING_BEFORE_DEPLOYMENT_1";
    let good = Key::generate().unwrap().expose_base64();
    let list = format!("{} {placeholder}", *good);
    let twice = format!("{0} {0}", *good);
    for (arguments, variable, input, problem) in [
        (&["check-key"][..], Some(placeholder), "", "pattern"),
        (&["check-key"], None, placeholder, "pattern"),
        (&["check-key"], Some(&*list), "", "number 2 of the keys"),
        (&["check-key"], Some(&*twice), "", "twice"),
        (&["check-key"], Some(""), &*good, "a keyring needs a key"),
        (&["check-key"], None, "", "a keyring needs a key"),
        (&["check-key", &*good], None, "", "not in an argument"),
        (
            &["check-key", "-", &*good],
            None,
            &*good,
            "not in an argument",
        ),
        (
            &["check-key", "--key", &*good],
            None,
            "",
            "not in an argument",
        ),
    ] {
        let (accepted, printed) = about_keys(arguments, variable, input).await;
        assert!(!accepted, "{arguments:?}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(printed.contains(problem), "{printed}");
        for secret in [placeholder, &**good] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
