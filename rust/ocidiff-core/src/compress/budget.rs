//! A bound of memory that blobs share: whoever wants more than is left waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The bytes that may still be taken.
#[derive(Debug)]
pub struct Budget {
    left: Mutex<usize>,
    returned: Condvar,
}

/// Bytes that were taken from a budget. They go back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Returns a budget of so many bytes.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(bytes), returned: Condvar::new() })
    }

    /// Takes `bytes`, which are no more than the whole budget, as soon as they are there. One thread alone may wait: a small
    /// charge would go before a large one.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Charge {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.returned.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        Charge { budget: self.clone(), bytes }
    }

    fn give_back(&self, bytes: usize) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        self.returned.notify_one();
    }
}

impl Charge {
    /// Returns the part of the charge beyond its first `bytes` as a charge of its own.
    pub fn split_off(&mut self, bytes: usize) -> Self {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        Self { budget: self.budget.clone(), bytes: rest }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_taker_waits_for_what_goes_back() {
        let budget = Budget::new(10);
        let mut first = budget.take(8);
        let rest = first.split_off(3);
        assert_eq!((first.bytes, rest.bytes, *budget.left.lock().unwrap()), (3, 5, 2));
        let waiting = thread::spawn({
            let budget = budget.clone();
            move || budget.take(7).bytes
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(rest);
        assert_eq!(waiting.join().unwrap(), 7);
        drop(first);
        assert_eq!(*budget.left.lock().unwrap(), 10);
    }
}
