//! `carrack repo revive`: brings back what is out of view.

use carrack_mover::{
    error::{Error, Result},
    format::session::SessionName,
    repo::{Hidden, Watch},
};
use serde::Serialize;

use crate::cli::{context::Context, engine, exit::Outcome, units};

/// Body of `hidden`.
#[derive(Serialize)]
struct Line<'a> {
    id: String,
    session: String,
    forgotten: bool,
    time: Option<String>,
    hostname: Option<&'a str>,
    paths: &'a [String],
}

/// Body of `revived`.
#[derive(Serialize)]
struct Back {
    from: String,
    snapshot_id: String,
    session: String,
    missing_packs: Vec<String>,
}

/// Body of `summary`.
#[derive(Serialize)]
struct Summary {
    hidden: usize,
    revived: usize,
}

pub(crate) async fn run(context: &Context, names: &[String]) -> Result<Outcome> {
    let repository = engine::open(context).await?;
    let out = &context.output;
    let hidden = repository.hidden().await?;
    if names.is_empty() {
        hidden.iter().try_for_each(|one| show(context, one))?;
        if out.is_json() {
            out.message("summary", &Summary { hidden: hidden.len(), revived: 0 })?;
        } else {
            out.remark(format_args!("{} can be brought back", hidden.len()))?;
        }
        return Ok(Outcome::Done);
    }
    let chosen: Vec<SessionName> = names.iter().map(|name| find(&hidden, name)).collect::<Result<_>>()?;
    let watch = context.watch("revive");
    let monitor = watch.monitor();
    let mut missing = 0;
    for session in &chosen {
        let watching = Watch { monitor: monitor.as_ref(), cancel: &context.cancel };
        let revived = repository.revive(*session, watching).await?;
        for pack in &revived.missing {
            out.problem(&format!("pack {pack}"), "it is missing: what is in it does not restore");
        }
        missing += revived.missing.len() as u64;
        let (from, id) = (session.nonce.short(), revived.session.nonce.short());
        if out.is_json() {
            let missing_packs = revived.missing.iter().map(ToString::to_string).collect();
            let session = revived.session.to_string();
            out.message("revived", &Back { from, snapshot_id: id, session, missing_packs })?;
        } else {
            out.line(format_args!("{from} -> {id}"))?;
        }
    }
    drop(watch);
    if out.is_json() {
        out.message("summary", &Summary { hidden: hidden.len(), revived: chosen.len() })?;
    }
    Ok(Outcome::of_problems(missing))
}

/// The one that a person means.
fn find(hidden: &[Hidden], text: &str) -> Result<SessionName> {
    if text.is_empty() {
        return Err(Error::invalid("an empty text names nothing to bring back")
            .with_hint("see what there is: carrack repo revive"));
    }
    let is_meant =
        |one: &&Hidden| one.session.nonce.to_hex().starts_with(text) || one.session.to_string() == text;
    let mut found = hidden.iter().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.session),
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("more than one begins with {text:?}; give more of the id")))
        }
        (None, _) => Err(Error::not_found(format!("there is no {text:?} to bring back"))
            .with_hint("see what there is: carrack repo revive")),
    }
}

fn show(context: &Context, hidden: &Hidden) -> Result<()> {
    let out = &context.output;
    let (id, snapshot) = (hidden.session.nonce.short(), hidden.snapshot.as_ref());
    if out.is_json() {
        let line = Line {
            id,
            session: hidden.session.to_string(),
            forgotten: hidden.is_forgotten,
            time: snapshot.map(|snapshot| snapshot.started.to_string()),
            hostname: snapshot.map(|snapshot| snapshot.host.as_str()),
            paths: snapshot.map_or(&[], |snapshot| snapshot.paths.as_slice()),
        };
        return out.message("hidden", &line);
    }
    let why = if hidden.is_forgotten { "forgotten" } else { "its session object is lost or damaged" };
    match snapshot {
        Some(snapshot) => out.line(format_args!(
            "{id}  {}  {}  {}  ({why})",
            units::moment(snapshot.started),
            snapshot.host,
            snapshot.paths.join(", ")
        )),
        None => out.line(format_args!("{id}  moves of a prune  ({why})")),
    }
}
