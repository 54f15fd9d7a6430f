//! Tells when every other thread of this process waits: then whatever the engine does next is decided by whoever
//! answers it, and not by which of its threads is faster.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::Duration,
};

/// Looks at the threads of this process, but for the one that it was made on.
#[derive(Debug)]
pub struct Quiet {
    own: String,
    threads: BTreeMap<String, Thread>,
}

#[derive(Debug)]
struct Thread {
    state: File,
    turns: File,
}

/// Looks without a pause before the processor is given away between two of them.
const EAGER_LOOKS: u32 = 50;

impl Quiet {
    /// To be used on this thread only.
    pub fn new() -> io::Result<Self> {
        let own = fs::read_link("/proc/thread-self")?;
        let own = own.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { own, threads: BTreeMap::new() })
    }

    /// Waits until all others wait.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut looks = 0;
        while !self.is_quiet()? {
            looks += 1;
            if looks < EAGER_LOOKS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    /// All were seen asleep, and none has had a turn on a processor between the first look and the last.
    fn is_quiet(&mut self) -> io::Result<bool> {
        self.find_threads()?;
        let before = self.turns();
        if !self.threads.values().all(|thread| thread.sleeps()) {
            return Ok(false);
        }
        Ok(before == self.turns() && !self.find_threads()?)
    }

    /// Opens the files of new threads and drops those that are gone; answers whether there were new ones.
    fn find_threads(&mut self) -> io::Result<bool> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc/self/task")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != self.own {
                found.push(name);
            }
        }
        self.threads.retain(|name, _| found.contains(name));
        let mut are_new = false;
        for name in found {
            if let Entry::Vacant(vacant) = self.threads.entry(name) {
                let place = PathBuf::from("/proc/self/task").join(vacant.key());
                // One that ended meanwhile does nothing more.
                if let (Ok(state), Ok(turns)) =
                    (File::open(place.join("stat")), File::open(place.join("schedstat")))
                {
                    vacant.insert(Thread { state, turns });
                    are_new = true;
                }
            }
        }
        Ok(are_new)
    }

    fn turns(&self) -> Vec<u64> {
        self.threads.values().map(Thread::turns).collect()
    }
}

impl Thread {
    /// Whether it waits for something, or is gone.
    fn sleeps(&self) -> bool {
        let text = read(&self.state);
        let state = text.rfind(')').and_then(|end| text[end..].split_ascii_whitespace().nth(1));
        matches!(state, None | Some("S" | "Z" | "X"))
    }

    /// How often it had a processor.
    fn turns(&self) -> u64 {
        read(&self.turns).split_ascii_whitespace().nth(2).and_then(|turns| turns.parse().ok()).unwrap_or(0)
    }
}

fn read(file: &File) -> String {
    let mut buffer = [0; 512];
    let length = file.read_at(&mut buffer, 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
