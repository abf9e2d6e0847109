//! How often each of a few things happened: a counter for each that did.

use std::sync::OnceLock;

use super::row::Row;

/// Counts by key. A key is there from the first time it is counted, and never goes; so keys come from
/// closed lists.
///
/// Keys are looked for one after the other, the first one counted first: what happens nearly always is
/// found at once. Nothing waits for a lock but two threads that count a new key at the same moment.
#[derive(Debug)]
pub struct Tally<K>(OnceLock<Box<Block<K>>>);

#[derive(Debug)]
struct Block<K> {
    keys: [OnceLock<K>; Row::LENGTH],
    counts: Row,
    more: Tally<K>,
}

impl<K: Copy + PartialEq> Tally<K> {
    /// Counts one of `key`.
    pub fn count(&self, key: K) {
        let mut tally = self;
        loop {
            let block = tally.0.get_or_init(Box::default);
            for (index, known) in block.keys.iter().enumerate() {
                if *known.get_or_init(|| key) == key {
                    return block.counts.add(index, 1);
                }
            }
            tally = &block.more;
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Vec<(K, u64)> {
        let mut counted = Vec::new();
        let mut tally = self;
        while let Some(block) = tally.0.get() {
            let keys = block.keys.iter().enumerate();
            let known =
                keys.filter_map(|(index, key)| Some((*key.get()?, block.counts.sum(index))));
            counted.extend(known);
            tally = &block.more;
        }
        counted
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<K> Default for Block<K> {
    fn default() -> Self {
        Self {
            keys: std::array::from_fn(|_| OnceLock::new()),
            counts: Row::default(),
            more: Tally::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_counted_by_itself() {
        let tally = Tally::default();
        assert_eq!(tally.counts(), []);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2100_u32 {
                        tally.count((round % 21, "x"));
                    }
                });
            }
        });
        let mut counts = tally.counts();
        counts.sort_unstable();
        let expected: Vec<_> = (0..21).map(|key| ((key, "x"), 400)).collect();
        assert_eq!(counts, expected);
    }
}
