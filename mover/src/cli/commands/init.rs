//! `carrack init`: makes a repository.

use clap::Args;

/// Make a new repository
///
/// In a directory or a bucket. Asks for a password twice if none is given otherwise. Whoever loses the password
/// loses the data: nobody can open the repository without it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carrack -r /srv/backup init
  carrack -r s3://bucket/prefix --password-file /etc/carrack/password init
  carrack -r s3://bucket/prefix --endpoint https://minio.example:9000 --ca-file ca.pem init")]
pub(crate) struct InitArgs {
    /// What to call the first key
    #[arg(long, value_name = "TEXT", default_value = "first")]
    pub(crate) label: String,
}
