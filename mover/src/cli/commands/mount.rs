//! `carrack mount`: shows snapshots as a file system.

use std::path::PathBuf;

use carrack_mover::error::{Error, Result};
use clap::Args;
#[cfg(feature = "mount")]
use serde::Serialize;

use crate::cli::{args::FilterArgs, context::Context, exit::Outcome};

/// Show snapshots as a read-only file system
///
/// A directory for each snapshot, until the command is stopped (ctrl-C) or the directory is unmounted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mkdir /tmp/snapshots && carrack mount /tmp/snapshots
  carrack mount /tmp/snapshots --host db1 --allow-other")]
pub(crate) struct MountArgs {
    /// Empty directory to mount on
    #[arg(value_name = "DIR")]
    pub(crate) mountpoint: PathBuf,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Let other users look too; needs user_allow_other in /etc/fuse.conf unless you are root
    #[arg(long)]
    pub(crate) allow_other: bool,
}

/// Body of `mounted` and, at the end, of `summary`.
#[cfg(feature = "mount")]
#[derive(Clone, Serialize)]
struct Shown {
    mount_point: String,
    snapshots: usize,
}

#[cfg(feature = "mount")]
pub(crate) async fn run(context: &Context, args: &MountArgs) -> Result<Outcome> {
    use carrack_mover::mount::{self, MountOptions};

    use super::snapshots;
    use crate::cli::{engine, exit, units};

    let repository = engine::open(context).await?;
    let list = repository.snapshots().await?;
    let bad = snapshots::tell_unreadable(&context.output, &list);
    let filter = engine::filter(&args.filter)?;
    let chosen = snapshots::choose(&repository, &list, &[], &filter).await?;
    if chosen.is_empty() {
        return Err(filter.no_match().context("there is nothing to show"));
    }
    context.begin_graceful();
    let shown = Shown { mount_point: args.mountpoint.display().to_string(), snapshots: chosen.len() };
    let count = units::count(chosen.len() as u64, "snapshot", "snapshots");
    let note = format!("{count} on {}, until ctrl-C or umount", args.mountpoint.display());
    let announced = shown.clone();
    let options = MountOptions { allow_other: args.allow_other };
    let (point, cancel, output) = (args.mountpoint.clone(), context.cancel.clone(), context.output.clone());
    let handle = tokio::runtime::Handle::current();
    let mounted = move |place: mount::MountPlace| {
        exit::before_ending_at_once(move |_| {
            if let Err(error) = place.detach() {
                tracing::error!(hint = error.hint().unwrap_or_default(), "{error}");
            }
        });
        if output.is_json() {
            // Nobody need read it: what counts is the mount.
            drop(output.message("mounted", &announced));
        }
        output.note(note);
    };
    let work = move || mount::mount(repository, chosen, &point, options, (handle, cancel), mounted);
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::internal("the mounted file system ended unexpectedly").with_source(error)
    })??;
    if context.output.is_json() {
        context.output.message("summary", &shown)?;
    }
    Ok(Outcome::of_problems(bad as u64))
}

#[cfg(not(feature = "mount"))]
pub(crate) async fn run(_context: &Context, args: &MountArgs) -> Result<Outcome> {
    Err(Error::invalid(format!(
        "nothing can be mounted on {}: this program was built without it",
        args.mountpoint.display()
    ))
    .with_hint("build it with the feature \"mount\", or use: carrack restore"))
}
