//! `cluster up DIRECTORY`, `cluster down DIRECTORY`: the test clusters for people.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use carrack_cluster::{Bed, Level, Options, down, sweep};

const USAGE: &str = "\
usage: cluster up DIRECTORY [--clusters 1|2] [--level control-plane|full]
       cluster show DIRECTORY            what to export, and which parts run
       cluster down DIRECTORY            end it, whatever state it is in
       cluster kill|stop|start DIRECTORY CLUSTER PART
                                         one part, such as: cluster kill DIRECTORY one kubelet
       cluster image DIRECTORY FILE      make an image archive known to every cluster
       cluster sweep                     end what killed tests have left
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match act(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "cluster: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["up", directory, switches @ ..] => up(directory, switches),
        ["show", directory] => show(&attach(directory)?),
        ["down", directory] => down(Path::new(directory)),
        ["sweep"] => sweep(),
        ["image", directory, file] => {
            attach(directory)?.clusters().iter().try_for_each(|cluster| cluster.import_image(Path::new(file)))
        }
        [verb @ ("kill" | "stop" | "start"), directory, name, part] => {
            let bed = attach(directory)?;
            let cluster = bed.clusters().iter().find(|cluster| cluster.name() == *name);
            let cluster = cluster.with_context(|| format!("there is no cluster {name}; take one or two"))?;
            match *verb {
                "kill" => cluster.kill(part),
                "stop" => cluster.stop(part),
                _ => cluster.start(part),
            }
        }
        _ => bail!("what shall be done is not clear\n{USAGE}"),
    }
}

fn attach(directory: &str) -> Result<Bed> {
    Bed::attach(&absolute(directory)?)
}

fn absolute(directory: &str) -> Result<PathBuf> {
    std::path::absolute(directory).with_context(|| format!("{directory:?} is no path"))
}

fn up(directory: &str, switches: &[&str]) -> Result<()> {
    let mut options = Options::new(Level::Full, absolute(directory)?);
    for switch in switches.chunks(2) {
        match switch {
            ["--clusters", "1"] => options.clusters = 1,
            ["--clusters", "2"] => options.clusters = 2,
            ["--clusters", count] => bail!("--clusters is 1 or 2, not {count}"),
            ["--level", "control-plane"] => options.level = Level::ControlPlane,
            ["--level", "full"] => options.level = Level::Full,
            ["--level", level] => bail!("--level is control-plane or full, not {level}"),
            other => bail!("{} is no switch, or lacks its value\n{USAGE}", other.concat()),
        }
    }
    options.minio = options.level == Level::Full;
    let bed = Bed::start(options)?;
    show(&bed)?;
    bed.keep()
}

fn show(bed: &Bed) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for cluster in bed.clusters() {
        let name = cluster.name().to_uppercase();
        writeln!(out, "export KUBECONFIG_{name}={}", cluster.kubeconfig().display())?;
    }
    writeln!(out, "export KUBECONFIG=$KUBECONFIG_ONE")?;
    writeln!(out, "export PATH={}:$PATH", carrack_cluster::program("")?.display())?;
    if let Some(minio) = bed.minio() {
        writeln!(out, "export AWS_ENDPOINT_URL={}", minio.url)?;
        writeln!(out, "export AWS_ACCESS_KEY_ID={}", minio.access_key)?;
        writeln!(out, "export AWS_SECRET_ACCESS_KEY={}", minio.secret_key)?;
    }
    for cluster in bed.clusters() {
        writeln!(out, "# {}: {}, logs in {}", cluster.name(), cluster.server(), cluster.logs().display())?;
        for part in cluster.parts() {
            let state = if cluster.runs(&part)? { "runs" } else { "has ended" };
            writeln!(out, "#   {part} {state}")?;
        }
    }
    Ok(())
}
