//! A value that one thread gives and another waits for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

struct Inner<T> {
    value: Mutex<Option<T>>,
    given: Condvar,
}

/// The side that gives. Dropping it without giving gives the fallback, so that nobody waits for ever.
pub(crate) struct Giver<T> {
    inner: Arc<Inner<T>>,
    fallback: Option<Box<dyn FnOnce() -> T + Send>>,
}

/// The side that waits.
pub(crate) struct Promise<T> {
    inner: Arc<Inner<T>>,
}

/// Makes the two sides; `fallback` is what is given when the giver is dropped first.
pub(crate) fn promise<T>(fallback: impl FnOnce() -> T + Send + 'static) -> (Giver<T>, Promise<T>) {
    let inner = Arc::new(Inner { value: Mutex::new(None), given: Condvar::new() });
    (Giver { inner: Arc::clone(&inner), fallback: Some(Box::new(fallback)) }, Promise { inner })
}

impl<T> Giver<T> {
    /// Gives the value.
    pub(crate) fn give(mut self, value: T) {
        self.fallback = None;
        self.put(value);
    }

    fn put(&self, value: T) {
        *self.inner.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.inner.given.notify_all();
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        if let Some(fallback) = self.fallback.take() {
            self.put(fallback());
        }
    }
}

impl<T> Promise<T> {
    /// Waits for the value.
    pub(crate) fn wait(self) -> T {
        let mut value = self.inner.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = value.take() {
                return value;
            }
            value = self.inner.given.wait(value).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The value, if it was given already.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.inner.value.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::promise;

    #[test]
    fn a_promise_is_kept_or_its_fallback_is_given() {
        let (giver, promised) = promise(|| 7);
        assert_eq!(promised.try_take(), None);
        giver.give(5);
        assert_eq!((promised.try_take(), promised.try_take()), (Some(5), None));
        let (giver, promised) = promise(|| 7);
        let waits = std::thread::spawn(move || promised.wait());
        drop(giver);
        assert_eq!(waits.join().unwrap(), 7);
    }
}
