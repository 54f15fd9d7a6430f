//! `carrack prune`: frees what no snapshot needs.

use clap::Args;

use crate::cli::units;

/// Free the data that no snapshot needs
///
/// Plans first, and shows the plan. Backups may run meanwhile: nothing is locked. Packs that are dead go; of those
/// that are mostly dead, the live part moves. What was condemned is deleted by a later prune, once no running
/// backup can still need it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack prune --dry-run
  carrack prune --max-unused 10%
  carrack prune --fence-after 7d")]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) how: PruneHow,
    /// Say what would be freed, and free nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// How to prune; of `carrack forget --prune` too, with these defaults.
#[derive(Debug, Clone, Args)]
pub(crate) struct PruneHow {
    /// Unused space to leave in packs, as a share of the repository
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_percent_or_zero, default_value = "5%")]
    pub(crate) max_unused: f64,
    /// Shut out sessions that began longer ago than this and never ended, so that their packs can go too (1m, 14d)
    #[arg(long, value_name = "SPAN", value_parser = units::parse_span)]
    pub(crate) fence_after: Option<jiff::Span>,
}
