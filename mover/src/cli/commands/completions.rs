//! `carrack completions`: completions for a shell.

use carrack_mover::error::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::{args::Cli, exit::Outcome, output::Output};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack completions bash > /etc/bash_completion.d/carrack
  carrack completions zsh > \"${fpath[1]}/_carrack\"
  carrack completions fish > ~/.config/fish/completions/carrack.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

pub(crate) fn run(output: &Output, args: &CompletionsArgs) -> Result<Outcome> {
    output.refuse_json("completions are a script for a shell")?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "carrack", &mut script);
    output.stdout(|out| out.write_all(&script))?;
    Ok(Outcome::Done)
}
