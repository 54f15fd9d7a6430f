//! Looking without restoring: `diff` and `find` as people use them, and how far `check` can be believed.
//!
//! Needs the program beside the tests: `cargo build -p carrack-mover` first.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use carrack_tests::{program::Program, trees::noise};
use serde_json::Value;
use tempfile::TempDir;

/// A repository with two snapshots of one host, and one of another.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        let write = |name: &str, text: &str| {
            let path = place.path("source").join(name);
            fs::create_dir_all(path.parent().expect("a directory above")).expect("makes");
            fs::write(path, text).expect("writes");
        };
        place.run(&["init"]);
        for (name, text) in [("etc/passwd", "root"), ("etc/gone", "gone"), ("srv/Dump.SQL", "rows")] {
            write(name, text);
        }
        place.backup("one");
        fs::remove_file(place.path("source/etc/gone")).expect("removes");
        write("etc/passwd", "root and more");
        write("etc/new", "new");
        place.backup("one");
        place.backup("two");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn backup(&self, host: &str) {
        let source = self.path("source");
        self.run(&["backup", source.to_str().expect("UTF-8"), "--host", host]);
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(assert_cmd::cargo::cargo_bin("carrack"))
            .args(arguments)
            .env_clear()
            .env("CARRACK_PASSWORD", "correct")
            .env("CARRACK_REPOSITORY", self.path("repository"))
            .output()
            .expect("the program was built: cargo build -p carrack-mover");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{out}\n{err}");
        out
    }

    /// The ids of all snapshots, oldest first.
    fn ids(&self) -> Vec<String> {
        let listed = self.run(&["snapshots", "--json"]);
        let messages =
            listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        messages.filter_map(|message| Some(message["id"].as_str()?.to_owned())).collect()
    }

    /// Lines about files below the source, without its path.
    fn files(&self, text: &str) -> Vec<String> {
        let source = self.path("source").display().to_string();
        let lines = text.lines().filter(|line| line.contains(&source));
        lines.map(|line| line.replace(&format!("{source}/"), "")).collect()
    }
}

#[test]
fn diff_tells_what_changed() {
    let place = Place::new();
    let ids = place.ids();
    let told = place.run(&["diff", &ids[0], &ids[1]]);
    assert_eq!(place.files(&told), ["-    etc/gone", "+    etc/new", "M    etc/passwd"], "{told}");
    assert!(told.contains("1 added (3 B), 1 removed (4 B), 1 changed"), "{told}");
    let with_attributes = place.run(&["diff", &ids[0], &ids[1], "--metadata"]);
    assert!(place.files(&with_attributes).contains(&"U    etc".to_owned()), "{with_attributes}");
    let source = place.path("source").display().to_string();
    let srv = |id: &str| format!("{id}:{source}/srv");
    let told = place.run(&["diff", &srv(&ids[0]), &srv(&ids[1])]);
    assert!(place.files(&told).is_empty(), "{told}");
    let told = place.run(&["diff", &ids[1], &ids[2]]);
    assert!(told.starts_with("0 added"), "equal trees of two hosts: {told}");
}

#[test]
fn find_looks_by_pattern_case_and_snapshot() {
    let place = Place::new();
    let ids = place.ids();
    assert_eq!(place.files(&place.run(&["find", "passwd"])), ["etc/passwd"; 3]);
    assert_eq!(place.files(&place.run(&["find", "passwd", "--host", "two"])), ["etc/passwd"]);
    assert_eq!(place.files(&place.run(&["find", "gone", "--snapshot", &ids[0]])), ["etc/gone"]);
    assert!(place.run(&["find", "gone", "--snapshot", &ids[1]]).contains("nothing matches"));
    assert!(place.run(&["find", "dump.*"]).contains("nothing matches"));
    assert_eq!(place.files(&place.run(&["find", "-i", "dump.*", "--snapshot", "latest"])), ["srv/Dump.SQL"]);
    let told = place.run(&["find", "new", "gone", "--snapshot", &ids[1], "--long"]);
    assert!(told.contains(&format!("snapshot {}", ids[1])) && told.contains("rw-"), "{told}");
}

/// A repository, and an empty directory to back up.
fn prepared() -> (Program, PathBuf) {
    let carrack = Program::new(assert_cmd::cargo::cargo_bin("carrack")).expect("a repository");
    let source = carrack.path("source");
    fs::create_dir(&source).expect("makes");
    (carrack, source)
}

fn packs(carrack: &Program) -> Vec<PathBuf> {
    fn below(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).expect("lists").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { below(&entry, found) } else { found.push(entry) }
        }
    }
    let mut found = Vec::new();
    below(&carrack.path("repository/packs"), &mut found);
    found
}

/// More than is listed of an object comes one by one, for programs and with -v.
#[test]
fn a_check_tells_of_every_file_that_damage_touches() {
    let (carrack, source) = prepared();
    let names: BTreeSet<String> = (0..60).map(|index| format!("file{index}")).collect();
    for (seed, name) in names.iter().enumerate() {
        fs::write(source.join(name), noise(seed as u64, 9000)).expect("writes");
    }
    carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    let size = |pack: &PathBuf| fs::metadata(pack).expect("a size").len();
    fs::remove_file(packs(&carrack).into_iter().max_by_key(size).expect("a pack")).expect("removes");
    let printed = carrack.run(["check", "--json"], 14);
    let damage = printed.message("damage");
    assert_eq!((&damage["files_touched"], damage["files"].as_array().map(Vec::len)), (&60.into(), Some(20)));
    let messages = printed.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let touched: Vec<Value> = messages.filter(|message| message["message_type"] == "touched").collect();
    assert!(touched.iter().all(|message| message["object"] == damage["object"] && message["entries"] == 1));
    let prefix = format!("{}/", source.display());
    let path =
        |message: &Value| Some(format!("/{}", message["path"].as_str()?).strip_prefix(&prefix)?.to_owned());
    assert_eq!(touched.iter().filter_map(path).collect::<BTreeSet<_>>(), names);
    assert_eq!(touched.len(), names.len());

    let (few, all) = (carrack.run(["check"], 14).out, carrack.run(["check", "-v"], 14).out);
    let named = |text: &str| {
        let is_named = |name: &&String| text.contains(&format!("/{name} because of packs/"));
        names.iter().filter(is_named).count()
    };
    assert_eq!((named(&few), named(&all)), (0, names.len()), "{all}");
    assert!(few.contains("and 40 more") && !few.contains("found      packs/"), "{few}");
    assert!(all.contains("found      packs/"), "{all}");
}

/// How many ways there are to choose so many of so many.
fn choices(of: u64, number: u64) -> f64 {
    (0..number).fold(1.0, |ways, step| ways * (of - step) as f64 / (step + 1) as f64)
}

/// What a sample proves, worked out by counting samples: those that miss, of all that there are.
#[test]
fn a_sample_says_what_it_is_worth() {
    let (carrack, source) = prepared();
    for seed in 0..12 {
        fs::write(source.join("file"), noise(seed, 20_000)).expect("writes");
        carrack.run(["backup".as_ref(), source.as_os_str()], 0);
    }
    let all = packs(&carrack);
    let count = all.len() as u64;
    assert!(count >= 20, "{count} packs");
    for percent in [10_u64, 50, 90, 100] {
        let share = format!("--read-data-subset={percent}%");
        let summary = carrack.run(["check", &share, "--json"], 0).message("summary");
        let sample = &summary["sample"];
        let drawn = (count * percent).div_ceil(100);
        let counts = [&sample["packs"], &sample["drawn"], &summary["packs_read"]];
        assert_eq!(counts, [count, drawn, drawn].map(Value::from).each_ref());
        let finds = |damaged: u64| {
            let whole = count - damaged;
            let misses = if drawn > whole { 0.0 } else { choices(whole, drawn) };
            1.0 - misses / choices(count, drawn)
        };
        let near = |field: &str, wanted: f64| {
            let said = sample[field].as_f64().expect("a share");
            assert!((said - wanted).abs() < 1e-9, "{field} of {percent} %: {said}, and not {wanted}");
        };
        near("finds_one", drawn as f64 / count as f64);
        near("finds_one_percent", finds(count.div_ceil(100)));
        near("finds_ten_percent", finds(count.div_ceil(10)));
        let bound = |certainty: f64| (1..=count).find(|damaged| finds(*damaged) >= certainty - 1e-12);
        let (likely, surely) = (bound(0.95).expect("some"), bound(0.99).expect("some"));
        assert_eq!((&sample["fewer_than_95"], &sample["fewer_than_99"]), (&likely.into(), &surely.into()));
        let words = carrack.run(["check", &share], 0).out;
        let shares = [1, count.div_ceil(100), count.div_ceil(10)].map(|damaged| finds(damaged) * 100.0);
        let wanted = [
            format!(
                "sample     {drawn} of {count} packs: finds damage in one pack with {:.1} %, ",
                shares[0]
            ),
            format!("in 1 % of the packs with {:.1} %, in 10 % with {:.1} %\n", shares[1], shares[2]),
            format!(
                "fewer than {likely} packs are damaged with 95 % certainty, fewer than {surely} with 99 %"
            ),
        ];
        assert!(wanted.iter().all(|part| words.contains(part)), "{wanted:?}: {words}");
    }
    // After damage nothing is claimed of the rest.
    for pack in all {
        let mut bytes = fs::read(&pack).expect("reads");
        bytes[40] ^= 1;
        fs::remove_file(&pack).expect("removes");
        fs::write(&pack, bytes).expect("writes");
    }
    let summary = carrack.run(["check", "--read-data-subset=100%", "--json"], 14).message("summary");
    let sample = &summary["sample"];
    assert!(sample["fewer_than_95"].is_null() && sample["fewer_than_99"].is_null(), "{sample}");
    let words = carrack.run(["check", "--read-data-subset=100%"], 14).out;
    assert!(words.contains("sample     ") && !words.contains("certainty"), "{words}");
}
