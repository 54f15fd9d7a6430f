//! `carrack check`: looks for damage.

use clap::Args;

use crate::cli::{args::FilterArgs, units};

/// Look for damage
///
/// Without options: every record, footer, page and reference. The other levels include it. Names what is damaged,
/// which files of which snapshots that touches, and which snapshots restore in full; the exit code is 14 if
/// anything is damaged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack check
  carrack check --read-data-subset 5%
  carrack check --read-data --host db1

A sample of 5 % finds damage in one pack of a hundred packs with a probability of 5 %, and damage in twenty of
them with 65 %; the summary says what this run's sample is worth.")]
pub(crate) struct CheckArgs {
    /// Compare the size of every pack with what the store says
    #[arg(long)]
    pub(crate) sizes: bool,
    /// Read, decrypt and compare all data
    #[arg(long, conflicts_with_all = ["sizes", "read_data_subset"])]
    pub(crate) read_data: bool,
    /// The same for a share of the packs, drawn at random
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_percent, conflicts_with = "sizes")]
    pub(crate) read_data_subset: Option<f64>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}
