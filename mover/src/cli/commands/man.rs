//! `carrack man`: manual pages.

use std::path::{Path, PathBuf};

use carrack_mover::error::{Error, Result};
use clap::{Args, Command, CommandFactory as _};

use crate::cli::{args::Cli, exit::Outcome, output::Output};

/// Print the manual page, or write all of them into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack man | man -l -
  carrack man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Directory for carrack.1 and one page for each verb
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

pub(crate) fn run(output: &Output, args: &ManArgs) -> Result<Outcome> {
    output.refuse_json("manual pages are text")?;
    let mut program = Cli::command();
    program.build();
    match &args.dir {
        None => {
            let page = render(&program)?;
            output.stdout(|out| out.write_all(&page))?;
        }
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .map_err(|error| Error::io(error, format!("directory {} cannot be made", dir.display())))?;
            write_pages(dir, "carrack", &program)?;
        }
    }
    Ok(Outcome::Done)
}

fn render(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Error::internal("a manual page could not be made").with_source(error))?;
    Ok(page)
}

/// The page of a command and those of its verbs, and of theirs.
fn write_pages(dir: &Path, name: &str, command: &Command) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    std::fs::write(&path, render(command)?)
        .map_err(|error| Error::io(error, format!("manual page {} cannot be written", path.display())))?;
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    for verb in verbs {
        write_pages(dir, &format!("{name}-{}", verb.get_name()), verb)?;
    }
    Ok(())
}
