//! The program `carrack`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    carrack_mover::sys::memory::keep_freed_buffers();
    cli::panic::install();
    cli::run(std::env::args_os())
}
