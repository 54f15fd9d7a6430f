//! What volumes hold.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

/// What a directory holds: every path with its attributes and the hash of its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(Vec<String>);

/// Fills a directory with what file systems can hold.
///
/// # Errors
///
/// Something cannot be written.
pub fn fill(directory: &Path, files: u32) -> Result<()> {
    let script = format!(
        "set -e
        cd {}
        mkdir -p many/below deep/er/still
        i=0; while [ $i -lt {files} ]; do echo \"file $i $i $i\" > many/file-$i; i=$((i+1)); done
        head -c 20000000 /dev/urandom > random
        truncate -s 50M sparse; echo end >> sparse
        ln many/file-1 many/below/linked
        ln -s ../many/file-2 deep/link
        mkfifo deep/pipe
        chown 1234:5678 many/file-3; chmod 4711 many/file-4; chmod 0000 many/file-5
        setfattr -n user.colour -v blue many/file-6
        setfacl -m u:4321:rx many/file-7
        touch -d '1965-04-03 02:01:00.123456789' many/file-8
        chmod 1775 deep; chown 7:8 . ; chmod 0751 .
        printf 'x' > \"$(printf 'name\\377\\nline')\"
        sync",
        directory.display()
    );
    run(Command::new("sh").args(["-c", &script])).map(drop)
}

impl Contents {
    /// Looks at a directory. What a file system puts into each new volume is no contents.
    ///
    /// # Errors
    ///
    /// Something cannot be read.
    pub fn of(directory: &Path) -> Result<Self> {
        ensure!(directory.is_dir(), "{} is no directory", directory.display());
        let listed =
            "cd \"$0\" && find . -path ./lost+found -prune -o -printf '%P|%y|%m|%U|%G|%T@|%l|%n\\n' | sort";
        let attributes = "cd \"$0\" && getfattr -R -h -d -m - . 2>/dev/null | sort";
        let hashes =
            "cd \"$0\" && find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
        let mut found = Vec::new();
        for script in [listed, attributes, hashes] {
            let text = run(Command::new("sh").args(["-c", script]).arg(directory))?;
            // A directory's number of links and the attributes of its own kind of labels are the file system's.
            found.extend(text.lines().map(|line| match line.split_once("|d|") {
                Some((name, rest)) => {
                    format!("{name}|d|{}", rest.rsplit_once('|').map_or(rest, |(kept, _)| kept))
                }
                None => line.to_owned(),
            }));
        }
        Ok(Self(found))
    }

    /// How many lines differ, and the first of them.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mine = self.0.iter().filter(|line| !other.0.contains(line)).map(|line| format!("- {line}"));
        let theirs = other.0.iter().filter(|line| !self.0.contains(line)).map(|line| format!("+ {line}"));
        mine.chain(theirs).take(20).collect()
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
