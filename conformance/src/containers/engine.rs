//! The container engine, by its command.

use std::process::{Output, Stdio};

use sessionkit::{Error, ErrorKind, Result};
use tokio::process::Command;

use super::Server;

/// Runs `docker` and returns what it prints.
pub(super) async fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed("docker cannot be run").with_source(error))?;
    text(args, &output)
}

/// The same for places that cannot wait, such as a destructor.
pub(super) fn docker_now(args: &[&str]) -> Result<String> {
    let output = std::process::Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed("docker cannot be run").with_source(error))?;
    text(args, &output)
}

fn text(args: &[&str], output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let command = args.first().copied().unwrap_or_default();
    let why = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("docker {command} fails: {}", why.trim())))
}

pub(super) async fn has_image(image: &str) -> bool {
    docker(&["image", "inspect", "--format", "x", image])
        .await
        .is_ok()
}

/// One line that says what to do.
pub(super) async fn check(server: Server) -> Result<()> {
    match docker(&["version", "--format", "{{.Server.Version}}"]).await {
        Ok(_) => Ok(()),
        Err(_) => Err(failed(format!(
            "no {} to test with: run scripts/docker and scripts/images, or set {}",
            server.name(),
            server.variable("URL"),
        ))),
    }
}

pub(super) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message.into())
}
