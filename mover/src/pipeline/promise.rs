//! A value that one thread gives and another waits for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::cancel::{Cancel, TICK};

type Fallback<T> = Box<dyn FnOnce() -> T + Send>;

struct State<T> {
    value: Option<T>,
    /// None once it was given, or the value was.
    fallback: Option<Fallback<T>>,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    given: Condvar,
}

/// The side that gives. Dropping it without giving gives the fallback, so that nobody waits for ever.
pub(crate) struct Giver<T> {
    inner: Arc<Inner<T>>,
}

/// The side that waits.
pub(crate) struct Promise<T> {
    inner: Arc<Inner<T>>,
}

/// Makes the two sides; `fallback` is what is given when the giver is dropped first, or never gives.
pub(crate) fn promise<T>(fallback: impl FnOnce() -> T + Send + 'static) -> (Giver<T>, Promise<T>) {
    let state = Mutex::new(State { value: None, fallback: Some(Box::new(fallback)) });
    let inner = Arc::new(Inner { state, given: Condvar::new() });
    (Giver { inner: Arc::clone(&inner) }, Promise { inner })
}

impl<T> Inner<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Giver<T> {
    /// Gives the value.
    pub(crate) fn give(self, value: T) {
        let mut state = self.inner.lock();
        state.fallback = None;
        state.value = Some(value);
        drop(state);
        self.inner.given.notify_all();
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(fallback) = state.fallback.take() {
            state.value = Some(fallback());
            drop(state);
            self.inner.given.notify_all();
        }
    }
}

impl<T> Promise<T> {
    /// Waits for the value. Once all is given up, whoever was to give it may never do so: then it is the fallback.
    pub(crate) fn wait(self, given_up: &Cancel) -> T {
        let mut state = self.inner.lock();
        loop {
            if let Some(value) = state.value.take() {
                return value;
            }
            if given_up.is_cancelled()
                && let Some(fallback) = state.fallback.take()
            {
                return fallback();
            }
            state = self.inner.given.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The value, if it was given already.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.inner.lock().value.take()
    }
}

#[cfg(test)]
mod tests {
    use super::promise;
    use crate::cancel::Cancel;

    #[test]
    fn a_promise_is_kept_or_its_fallback_is_given() {
        let (giver, promised) = promise(|| 7);
        assert_eq!(promised.try_take(), None);
        giver.give(5);
        assert_eq!((promised.try_take(), promised.try_take()), (Some(5), None));
        let (giver, promised) = promise(|| 7);
        let waits = std::thread::spawn(move || promised.wait(&Cancel::default()));
        drop(giver);
        assert_eq!(waits.join().unwrap(), 7);
    }

    #[test]
    fn nobody_waits_for_who_may_never_give() {
        let given_up = Cancel::default();
        let (never, promised) = promise(|| 7);
        let (kept, given) = promise(|| 7);
        kept.give(5);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| promised.wait(&given_up));
            given_up.cancel();
            assert_eq!(waits.join().unwrap(), 7);
        });
        assert_eq!(given.wait(&given_up), 5);
        // It comes back, and nobody is there any more.
        never.give(9);
    }
}
