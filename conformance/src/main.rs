//! The command: runs the cases against stores that are named by their URLs. See the README.

mod command;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::main()
}
