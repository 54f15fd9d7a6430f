//! The program `carrack`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::panic::install();
    cli::run(std::env::args_os())
}
