//! What every verb works with.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use carrack_mover::{cancel::Cancel, clock::World, error::Result, repo::Repository};

use super::{args::GlobalArgs, config::Config, output::Output, progress::Watch, record::Record};

/// Looks up a variable of the environment; an empty one counts as absent.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The options of every verb, where output goes, and the request to stop.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: GlobalArgs,
    pub(crate) output: Output,
    pub(crate) world: World,
    pub(crate) cancel: Cancel,
    /// Whether the verb looks at `cancel` by itself; if not, the first signal ends the program at once.
    graceful: Arc<AtomicBool>,
    /// The repository, if it is open already.
    pub(crate) opened: Option<Repository>,
}

impl Context {
    pub(crate) fn new(global: GlobalArgs) -> Self {
        let output = Output::new(&global.output, &environment);
        Self {
            global,
            output,
            world: World::system(),
            cancel: Cancel::default(),
            graceful: Arc::new(AtomicBool::new(false)),
            opened: None,
        }
    }

    /// For a verb that is a part of this one's work: with options of its own, and what it says is kept too.
    pub(crate) fn of_part(&self, global: GlobalArgs, record: &Arc<Record>) -> Self {
        Self {
            output: Output::new(&global.output, &environment).recorded(record),
            global,
            world: self.world.clone(),
            cancel: self.cancel.clone(),
            graceful: Arc::clone(&self.graceful),
            opened: None,
        }
    }

    /// What the options mean together with the environment.
    pub(crate) fn config(&self) -> Result<Config> {
        let mut config = Config::resolve(&self.global, &environment)?;
        config.store.waits = Some(Arc::new(self.output.clone()));
        Ok(config)
    }

    pub(crate) fn threads(&self) -> usize {
        self.global
            .engine
            .threads
            .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    pub(crate) fn graceful(&self) -> &Arc<AtomicBool> {
        &self.graceful
    }

    /// From here on the verb looks at the request to stop.
    pub(crate) fn begin_graceful(&self) {
        self.graceful.store(true, Ordering::Relaxed);
    }

    /// Long work begins that stops by itself when asked to.
    pub(crate) fn watch(&self, what: &'static str) -> Watch {
        self.begin_graceful();
        Watch::start(what, &self.output, &self.world)
    }
}
