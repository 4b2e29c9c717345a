//! The web app as a program.

use std::process::ExitCode;

use clap::Parser;
use sessionkit_demo::Options;

#[tokio::main]
async fn main() -> ExitCode {
    match sessionkit_demo::run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("sessionkit-demo: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
