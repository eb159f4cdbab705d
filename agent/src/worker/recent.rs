//! Prepared work within a budget of memory, the most recently used first. Preparation takes milliseconds and more, and a
//! run visits each key many times.

use std::collections::VecDeque;

use super::Work;
use super::plan::Budget;

/// Prepared work, each piece with what its worker has of it.
pub struct Recent<T> {
    entries: VecDeque<Entry<T>>,
    budget: Budget,
}

struct Entry<T> {
    work: Work,
    bytes: u64,
    ready: T,
}

impl<T> Recent<T> {
    /// Nothing yet.
    pub fn new(budget: Budget) -> Recent<T> {
        Recent { entries: VecDeque::new(), budget }
    }

    /// The memory that it may take.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// What there is of some work, which becomes the most recent.
    pub fn find(&mut self, work: &Work) -> Option<&mut T> {
        let place = self.entries.iter().position(|entry| entry.work == *work)?;
        let entry = self.entries.remove(place)?;
        self.entries.push_front(entry);
        self.entries.front_mut().map(|entry| &mut entry.ready)
    }

    /// Takes out what has to go before so many bytes are added, the oldest first.
    pub fn make_room(&mut self, bytes: u64) -> Vec<T> {
        let kept: u64 = self.entries.iter().map(|entry| entry.bytes).sum();
        let mut used = bytes.saturating_add(kept);
        let mut gone = Vec::new();
        while used > self.budget.cache {
            let Some(oldest) = self.entries.pop_back() else { break };
            used -= oldest.bytes;
            gone.push(oldest.ready);
        }
        gone
    }

    /// Adds work, as the most recent.
    pub fn add(&mut self, work: Work, bytes: u64, ready: T) {
        self.entries.push_front(Entry { work, bytes, ready });
    }
}

#[cfg(test)]
mod tests {
    use ops_catalog::{Catalog, Shape};

    use super::*;

    fn work(size: u32) -> Work {
        let def = Catalog::builtin().op("ReLU").unwrap().def().clone();
        let shape = Shape {
            batch: 1,
            input_h: size,
            input_w: size,
            channels_in: 1,
            channels_out: 1,
            stride: 1,
        };
        Work::Op { def, shape }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut recent = Recent::new(Budget { limit: 100, cache: 10 });
        for size in 1..=2 {
            assert!(recent.make_room(4).is_empty());
            recent.add(work(size), 4, size);
        }
        assert_eq!(recent.find(&work(1)), Some(&mut 1));
        assert_eq!(recent.make_room(4), [2], "the other one was used last");
        recent.add(work(3), 4, 3);
        assert_eq!(recent.find(&work(2)), None);
        assert_eq!(recent.make_room(50), [1, 3], "nothing is kept beside it");
    }
}
