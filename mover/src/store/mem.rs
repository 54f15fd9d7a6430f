//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{ByteRange, Capabilities, Listed, ObjectStore, Page, Put, check_name, past_end, span};
use crate::error::{Error, Result};

/// Objects in a map.
#[derive(Debug)]
pub struct MemStore {
    state: Mutex<State>,
    page: usize,
}

#[derive(Debug, Clone, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// What time it is, if not what the system says.
    now: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    modified: Timestamp,
}

impl State {
    fn put(&mut self, name: &str, body: Bytes) {
        let modified = self.now.unwrap_or_else(Timestamp::now);
        self.objects.insert(name.to_owned(), Object { body, modified });
    }
}

impl Default for MemStore {
    fn default() -> Self {
        Self::with_page_size(1000)
    }
}

impl MemStore {
    /// An empty store with pages of 1 000 objects, like S3.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that lists `page` objects at a time.
    pub fn with_page_size(page: usize) -> Self {
        Self { state: Mutex::default(), page: page.max(1) }
    }

    /// From now on it is this time for the store.
    pub fn set_time(&self, now: Timestamp) {
        self.state().now = Some(now);
    }

    /// Changes an object behind everybody's back, as a failing disk would; no bytes: it vanishes.
    pub fn tamper(&self, name: &str, body: Option<Bytes>) {
        let mut state = self.state();
        match body {
            Some(body) => state.put(name, body),
            None => {
                state.objects.remove(name);
            }
        }
    }

    /// A copy of everything, as after a crash at this moment.
    pub fn fork(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()), page: self.page }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ObjectStore for MemStore {
    async fn put_if_absent(&self, name: &str, body: Bytes) -> Result<Put> {
        check_name(name)?;
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Ok(Put::Exists);
        }
        state.put(name, body);
        Ok(Put::Created)
    }

    async fn get(&self, name: &str, range: ByteRange) -> Result<Bytes> {
        check_name(name)?;
        let body = self.state().objects.get(name).map(|object| object.body.clone());
        let body = body.ok_or_else(|| Error::not_found(format!("memory:{name} does not exist")))?;
        let size = body.len() as u64;
        if range == ByteRange::All {
            super::check_whole(name, size)?;
        }
        let (offset, length) = span(size, range).ok_or_else(|| past_end(name, size, range))?;
        let start = usize::try_from(offset).expect("the span lies inside the body");
        let length = usize::try_from(length).expect("the span lies inside the body");
        Ok(body.slice(start..start + length))
    }

    async fn list(&self, prefix: &str, token: Option<String>) -> Result<Page> {
        let start = match &token {
            Some(last) => Bound::Excluded(last.as_str()),
            None => Bound::Included(prefix),
        };
        let state = self.state();
        let listed = |(name, object): (&String, &Object)| Listed {
            name: name.clone(),
            size: object.body.len() as u64,
            modified: Some(object.modified),
        };
        let mut found = state
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(listed);
        let page: Vec<Listed> = found.by_ref().take(self.page).collect();
        let more = found.next().is_some();
        let next = page.last().filter(|_| more).map(|last| last.name.clone());
        Ok(Page { objects: page, next })
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        Ok(self.state().objects.remove(name).is_some())
    }

    fn describe(&self) -> String {
        "memory".into()
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { local: true, preferred_parallel_puts: 4, preferred_parallel_gets: 4 }
    }
}
