//! `kubectl carrack`: backups and restores of volumes from a terminal.

use std::process::ExitCode;

use carrack_controller::plugin::{self, Program};
use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    plugin::run(Program::parse()).await
}
