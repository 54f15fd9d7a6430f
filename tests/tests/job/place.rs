//! A repository, the files that a pod has mounted, and jobs.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use carrack_proto::{
    BackupTask, Job, JobResult, Keys, MaintainTask, Outcome, Output, Place as Volume, RepositoryAccess,
    Resources, RestoreTask, SealKey, Source, TERMINATION_MESSAGE_LIMIT, Target, Task, VERSION,
};
use carrack_tests::{
    minio::MinioServer,
    program::{Printed, Running, ended, wait},
};
use serde_json::Value;
use tempfile::TempDir;

/// What tells the source from all others.
pub(crate) const HOST: &str = "east/shop/data";

/// Where everything of one test lies.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) repository: RepositoryAccess,
    variables: BTreeMap<String, OsString>,
}

impl Place {
    /// With a repository in a directory, which is not made yet.
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("carrack-job-").expect("a directory");
        let url = directory.path().join("repository").display().to_string();
        let repository = RepositoryAccess { url, ..RepositoryAccess::default() };
        let place = Self { directory, repository, variables: BTreeMap::new() };
        fs::write(place.path("password"), "correct\n").expect("writes");
        fs::create_dir(place.path("data")).expect("makes");
        place
    }

    /// The same in a bucket.
    pub(crate) fn in_bucket(server: &MinioServer) -> Self {
        let mut place = Self::new();
        place.repository.url = server.repository("fleet");
        place.repository.endpoint = Some(server.url());
        place.variable("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file());
        place
    }

    /// Sets a variable of the pod's environment.
    pub(crate) fn variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as the text that stands in a job.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn password(&self) -> Keys {
        Keys::PasswordFile(self.text("password"))
    }

    pub(crate) fn job(&self, keys: Keys, task: Task) -> Job {
        let resources = Resources { threads: Some(2), ..Resources::default() };
        let (repository, last_seen) = (self.repository.clone(), Vec::new());
        Job { version: VERSION, repository, keys, resources, last_seen, task }
    }

    /// The command that a pod runs, with nothing in its environment but credentials.
    pub(crate) fn command(&self, job: &Job) -> Command {
        self.write(job);
        self.command_to("result")
    }

    pub(crate) fn write(&self, job: &Job) {
        self.write_text(&serde_json::to_string(job).expect("JSON"));
    }

    fn write_text(&self, text: &str) {
        fs::write(self.path("job.json"), text).expect("writes");
    }

    /// The job that was written last, with a file of its own for the result.
    pub(crate) fn command_to(&self, result: &str) -> Command {
        // Whoever runs the tests may have signals ignored, as nohup does, and programs inherit that.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal").arg(assert_cmd::cargo::cargo_bin("carrack")).arg("job");
        command.arg(self.path("job.json")).arg("--result").arg(self.path(result));
        command.env_clear().envs(&self.variables).current_dir("/").stdin(Stdio::null());
        command
    }

    /// The termination message, which has to fit.
    pub(crate) fn result(&self) -> Option<JobResult> {
        self.result_in("result")
    }

    pub(crate) fn result_in(&self, name: &str) -> Option<JobResult> {
        let text = fs::read_to_string(self.path(name)).expect("a file for the result");
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes", text.len());
        JobResult::read(&text)
    }

    /// The result of a run that has ended, which standard output ends with as well.
    pub(crate) fn told(&self, printed: &Printed, code: i32) -> JobResult {
        let result = self.result().unwrap_or_else(|| panic!("no result:\n{}\n{}", printed.out, printed.err));
        let last: Value = serde_json::from_str(printed.out.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["message_type"], "result", "{}", printed.out);
        let last: JobResult = serde_json::from_value(last).expect("a result");
        assert_eq!(last, result);
        assert_eq!((i32::from(result.exit_code), result.version), (code, VERSION), "{result:?}");
        if code != 0 {
            assert!(!result.message.is_empty(), "{result:?}");
        }
        result
    }

    /// Runs a task with the password; it must end with this code.
    pub(crate) fn run(&self, task: Task, code: i32) -> JobResult {
        self.run_with(self.password(), task, code)
    }

    pub(crate) fn run_with(&self, keys: Keys, task: Task, code: i32) -> JobResult {
        let printed = ended(&mut self.command(&self.job(keys, task)), code);
        self.told(&printed, code)
    }

    /// Runs what is not a job.
    pub(crate) fn run_text(&self, text: &str, code: i32) -> JobResult {
        self.write_text(text);
        let printed = ended(&mut self.command_to("result"), code);
        self.told(&printed, code)
    }

    pub(crate) fn initialised(&self) -> &Self {
        self.run(Task::Connect { initialise: true }, 0);
        self
    }

    /// The source that a pod sees.
    pub(crate) fn source(&self) -> Source {
        Source { host: HOST.to_owned(), place: Volume::Directory(self.text("data")) }
    }

    /// Makes the writer bundle of the source, and puts it where a mover finds it.
    pub(crate) fn bundle(&self, source: Source) -> Keys {
        let key = SealKey::generate().expect("randomness");
        fs::write(self.path("seal"), key.to_text()).expect("writes");
        let task = Task::Bundle { source, seal_key_file: self.text("seal") };
        let printed = ended(&mut self.command(&self.job(self.password(), task)), 0);
        let told = self.told(&printed, 0);
        let Some(Output::Bundle { sealed }) = told.output else { panic!("no bundle: {told:?}") };
        let bundle = key.open(&sealed).expect("it was sealed with this key");
        // Neither the whole nor any key of it is anywhere else.
        let secrets: Value = serde_json::from_slice(&bundle).expect("JSON");
        for (name, secret) in secrets.as_object().expect("an object").iter().filter(|(_, s)| s.is_string()) {
            let secret = secret.as_str().expect("text");
            let seen = printed.out.contains(secret) || printed.err.contains(secret);
            assert!(!seen, "{name} was printed:\n{}\n{}", printed.out, printed.err);
        }
        fs::write(self.path("bundle.json"), bundle).expect("writes");
        Keys::WriterBundle(self.text("bundle.json"))
    }

    /// Backs up; answers the session and how it ended.
    pub(crate) fn backup(&self, keys: Keys, code: i32) -> (JobResult, String) {
        let told = self.run_with(keys, Task::Backup(of(self.source())), code);
        let session = session(&told);
        (told, session)
    }

    /// Starts a job whose lines of output are read by nobody.
    pub(crate) fn start(&self, job: &Job) -> Running {
        Running::start(&mut self.command(job))
    }

    /// Waits for a job that was asked to stop.
    pub(crate) fn stopped(&self, running: Running) -> JobResult {
        let printed = wait(running, 130);
        let told = self.told(&printed, 130);
        assert_eq!(told.outcome, Outcome::Cancelled);
        told
    }
}

/// A backup of a source, without more ado.
pub(crate) fn of(source: Source) -> BackupTask {
    BackupTask {
        source,
        tags: vec![],
        exclude: vec![],
        cloned: false,
        force: false,
        strict: false,
        changes: None,
    }
}

/// The newest of the source to a place.
pub(crate) fn to(place: Volume) -> RestoreTask {
    RestoreTask {
        snapshot: "latest".to_owned(),
        host: Some(HOST.to_owned()),
        as_of: None,
        previous: None,
        target: Target { place, delete: false },
        verify: true,
        include: vec![],
        exclude: vec![],
        strict: false,
    }
}

pub(crate) fn directory(path: &Path) -> Volume {
    Volume::Directory(path.display().to_string())
}

pub(crate) fn keep_last(count: u32) -> MaintainTask {
    let keep = BTreeMap::from([("last".to_owned(), count.to_string())]);
    MaintainTask { keep, prune: true, check_percent: Some(100) }
}

/// The snapshot that a backup has written.
pub(crate) fn session(told: &JobResult) -> String {
    match &told.output {
        Some(Output::Backup(done)) => done.snapshot.clone().expect("a snapshot"),
        other => panic!("no backup: {other:?}"),
    }
}

/// Long enough for the clocks of two snapshots to differ.
pub(crate) fn a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}
