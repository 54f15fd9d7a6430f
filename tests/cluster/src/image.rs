//! Images without a registry: files of this machine in an archive that containerd imports.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::machine::{run, write};

/// The image with busybox that every cluster of level full has.
pub const BUSYBOX: &str = "carrack.test/busybox:1";
/// What holds the namespaces of a pod.
pub(crate) const PAUSE: &str = "carrack.test/pause:1";

/// What an image has.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Its name with a tag, by which pods ask for it.
    pub name: &'a str,
    /// Files of this machine and their absolute paths in the image; modes are kept. The libraries that programs are
    /// linked to come with them.
    pub files: &'a [(PathBuf, &'a str)],
    /// What runs if the pod says nothing.
    pub entrypoint: &'a [&'a str],
    /// Whether busybox and its links are in it too, for a shell.
    pub busybox: bool,
}

impl Image<'_> {
    /// Writes the archive, for [`crate::Cluster::import_image`].
    ///
    /// # Errors
    ///
    /// A file cannot be read, or the archive not be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let work = archive.with_extension("parts");
        let written = self.write_in(&work, archive).with_context(|| format!("make the image {}", self.name));
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
        }
        written
    }

    fn write_in(&self, work: &Path, archive: &Path) -> Result<()> {
        let tree = work.join("tree");
        fs::create_dir_all(tree.join("tmp"))?;
        fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        write(&tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
        write(&tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        for (source, target) in self.files {
            copy(source, &tree, target)?;
            for library in libraries(source)? {
                copy(Path::new(&library), &tree, &library)?;
            }
        }
        if self.busybox {
            add_busybox(&tree)?;
        }
        let layout = work.join("layout");
        let layer = work.join("layer.tar");
        pack(&tree, &layer)?;
        // No compression: the digest of the layer is that of its contents.
        let layer = add_blob(&layout, &layer)?;
        let config = add_json(&layout, work, &self.config(&layer.digest))?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        });
        let mut manifest = add_json(&layout, work, &manifest)?.descriptor(MANIFEST);
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&layout.join("index.json"), &index.to_string())?;
        write(&layout.join("oci-layout"), &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
        pack(&layout, archive)
    }

    fn config(&self, layer: &str) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
        json!({
            "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": self.entrypoint, "Env": [path]},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        })
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Contents in the archive that are known by their digest.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.size})
    }
}

fn add_blob(layout: &Path, file: &Path) -> Result<Blob> {
    let printed = run(Command::new("sha256sum").arg(file))?;
    let Some(digest) = printed.get(..64) else { bail!("sha256sum printed {printed:?}") };
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::rename(file, blobs.join(digest))?;
    let size = fs::metadata(blobs.join(digest))?.len();
    Ok(Blob { digest: format!("sha256:{digest}"), size })
}

fn add_json(layout: &Path, work: &Path, value: &Value) -> Result<Blob> {
    let file = work.join("value.json");
    write(&file, &value.to_string())?;
    add_blob(layout, &file)
}

fn pack(folder: &Path, archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--numeric-owner", "--owner=0", "--group=0", "--file"]);
    run(command.arg(archive).arg("--directory").arg(folder).arg(".")).map(drop)
}

fn copy(source: &Path, tree: &Path, target: &str) -> Result<()> {
    let path = tree.join(target.trim_start_matches('/'));
    fs::create_dir_all(path.parent().context("an image's file has a name")?)?;
    fs::copy(source, &path).with_context(|| format!("copy {} into the image", source.display()))?;
    Ok(())
}

/// The absolute paths of the libraries that a program needs; none if it is static, or no program.
fn libraries(program: &Path) -> Result<Vec<String>> {
    // What it prints for a static program differs, and so does how it ends.
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = printed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(str::to_owned).collect())
}

/// The static busybox of this machine, and a link for each of its commands.
fn add_busybox(tree: &Path) -> Result<()> {
    let program = Path::new("/bin/busybox");
    if !program.exists() {
        bail!("/bin/busybox is not there; run: tests/setup.sh cluster");
    }
    copy(program, tree, "/bin/busybox")?;
    for name in run(Command::new(program).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(name)).with_context(|| format!("link {name}"))?;
    }
    Ok(())
}

/// Archives with the images that every cluster of level full has.
pub(crate) fn own(folder: &Path) -> Result<[PathBuf; 2]> {
    fs::create_dir_all(folder)?;
    let (busybox, pause) = (folder.join("busybox.tar"), folder.join("pause.tar"));
    Image { name: BUSYBOX, files: &[], entrypoint: &["/bin/sh"], busybox: true }.write(&busybox)?;
    let entrypoint = &["/bin/busybox", "sleep", "2147483647"];
    Image { name: PAUSE, files: &[], entrypoint, busybox: true }.write(&pause)?;
    Ok([busybox, pause])
}
