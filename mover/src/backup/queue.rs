//! Queues between the threads of a backup, none of which waits for one that may never come back.

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use super::dispatch::stopped;
use crate::{
    cancel::{Cancel, TICK},
    error::Result,
};

/// What comes next; none at the end, or when the queue is empty and all is given up.
pub(super) fn next<T>(queue: &Receiver<T>, given_up: &Cancel) -> Option<T> {
    loop {
        match queue.recv_timeout(TICK) {
            Ok(value) => return Some(value),
            Err(RecvTimeoutError::Timeout) if !given_up.is_cancelled() => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Sends this, unless nobody is there to take it or somebody asks to stop before there is room.
pub(super) fn send<T>(queue: &Sender<T>, mut value: T, stop: &Cancel) -> Result<()> {
    loop {
        value = match queue.send_timeout(value, TICK) {
            Ok(()) => return Ok(()),
            Err(SendTimeoutError::Timeout(value)) if !stop.is_cancelled() => value,
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => return Err(stopped()),
        };
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn nobody_waits_at_a_queue_of_what_is_given_up() {
        let (sender, receiver) = bounded(1);
        let given_up = Cancel::default();
        send(&sender, 1, &given_up).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| send(&sender, 2, &given_up));
            given_up.cancel();
            assert!(waits.join().unwrap().is_err());
        });
        assert_eq!(next(&receiver, &given_up), Some(1), "what is there is taken");
        assert_eq!(next(&receiver, &given_up), None);
        drop(receiver);
        assert!(send(&sender, 3, &Cancel::default()).is_err());
        let (sender, receiver) = bounded::<u8>(1);
        drop(sender);
        assert_eq!(next(&receiver, &Cancel::default()), None);
    }
}
