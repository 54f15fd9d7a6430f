//! The recovery handbook: its recipes, and a shell that runs them as they stand there.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{place::program, program::install, server::repository_root};

/// Stands before the program, and writes down what it ends with.
const WITNESS: &str = "#!/bin/sh\n\"$WITNESSED\" \"$@\"\ncode=$?\necho $code >> \"$CODES\"\nexit $code\n";

/// The fenced blocks of the document by the name of their recipe.
pub fn recipes() -> BTreeMap<String, String> {
    let text = fs::read_to_string(repository_root().join("docs/recovery.md")).expect("the handbook");
    let mut recipes: BTreeMap<String, String> = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        match (&current, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let name = info.strip_prefix("sh recipe=");
                current = Some(name.expect("every block of the handbook is a recipe").to_owned());
            }
            (Some(_), Some(_)) => current = None,
            (Some(name), None) => {
                let block = recipes.entry(name.clone()).or_default();
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    recipes
}

/// Runs a recipe in one shell that stops at the first command that fails; answers with what was said, and with the exit codes
/// of the program. The shell has the environment already; what stands before the program lies in `folder`.
pub fn cook(name: &str, mut shell: Command, folder: &Path) -> (String, Vec<i32>) {
    let recipe = recipes().remove(name).expect("the recipe");
    let (bin, codes, witness) = (folder.join("bin"), folder.join("codes"), folder.join("witness"));
    fs::create_dir_all(&bin).expect("makes");
    fs::write(&witness, WITNESS).expect("writes");
    install(&witness, &bin.join("carrack")).expect("copies");
    fs::write(&codes, b"").expect("writes");
    shell.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display()));
    shell.env("WITNESSED", program()).env("CODES", &codes);
    let output = shell.args(["-exuo", "pipefail", "-c", &recipe]).output().expect("bash runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{name}: {}\n{text}", output.status);
    let codes = fs::read_to_string(codes).expect("reads");
    (text, codes.lines().map(|code| code.parse().expect("a code")).collect())
}

/// The name of the newest snapshot, of what `snapshots --json` has printed.
pub fn newest(printed: &str) -> String {
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut sessions = messages.filter_map(|message| message["session"].as_str().map(str::to_owned));
    let session = sessions.next_back().expect("a snapshot");
    session.split_once('-').expect("a session").1.to_owned()
}
