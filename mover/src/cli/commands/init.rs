//! `carrack init`: makes a repository.

use carrack_mover::{
    error::{Error, Result},
    repo::{CreateOptions, Repository},
};
use clap::Args;
use serde::Serialize;

use crate::cli::{
    config::SecretSource,
    context::Context,
    engine,
    exit::Outcome,
    password::{self, Ask},
};

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

pub(crate) async fn run(context: &Context, args: &InitArgs) -> Result<Outcome> {
    let config = context.config()?;
    if matches!(config.place.secret, SecretSource::Bundle(_)) {
        return Err(Error::invalid("a writer bundle cannot make a repository")
            .with_hint("give a password or a key file"));
    }
    let store = engine::store(&config).await?;
    let unlock = engine::unlock(password::obtain(&config.place.secret, &config.place.url, Ask::Twice)?);
    let options = CreateOptions { label: args.label.clone(), ..CreateOptions::default() };
    let repository = Repository::create(store, context.world.clone(), &unlock, &options).await?;
    let format = repository.format();
    if context.output.is_json() {
        let body = Summary { repository: config.place.url, id: format.repository.to_hex() };
        context.output.message("summary", &body)?;
        return Ok(Outcome::Done);
    }
    context.output.remark(format_args!(
        "made repository {} at {}",
        format.repository.short(),
        config.place.url
    ))?;
    context.output.remark("keep the password safe: without it, nobody can read what you back up")?;
    context.output.remark(format_args!("next: carrack -r {} backup PATH", config.place.url))?;
    Ok(Outcome::Done)
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    repository: String,
    id: String,
}
