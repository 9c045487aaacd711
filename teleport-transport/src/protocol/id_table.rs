//! A table by id, for ids that mostly come in increasing order.
//!
//! The entries are in a deque that is sorted by id. A new id is appended. Most ids are found at their
//! distance from the first. Peers may choose ids but gain nothing by it: a lookup takes at most a binary
//! search. A removed entry leaves a gap. Bound: as many gaps as entries, and `MIN_GAPS`.

use std::collections::VecDeque;

/// This number of gaps is never worth a compaction.
const MIN_GAPS: usize = 16;

/// An empty table keeps memory for this many entries.
const MAX_KEPT: usize = 64;

/// A table of calls by id.
#[derive(Debug)]
pub struct IdTable<V> {
    /// Invariant: sorted by id, and the first slot is no gap.
    slots: VecDeque<(u64, Option<V>)>,
    /// Invariant: the id of the first slot, if there is one.
    first_id: u64,
    /// Invariant: the slots that are no gaps.
    len: usize,
}

impl<V> Default for IdTable<V> {
    fn default() -> IdTable<V> {
        IdTable { slots: VecDeque::new(), first_id: 0, len: 0 }
    }
}

impl<V> IdTable<V> {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn index_of(&self, id: u64) -> Option<usize> {
        let expected = id.wrapping_sub(self.first_id) as usize;
        match self.slots.get(expected) {
            Some((found, _)) if *found == id => Some(expected),
            _ => self.search(id),
        }
    }

    #[cold]
    fn search(&self, id: u64) -> Option<usize> {
        self.slots.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    /// Returns the entry of `id`.
    #[inline]
    pub fn get(&self, id: u64) -> Option<&V> {
        self.index_of(id).and_then(|index| self.slots[index].1.as_ref())
    }

    /// Returns the entry of `id`, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: u64) -> Option<&mut V> {
        self.index_of(id).and_then(|index| self.slots[index].1.as_mut())
    }

    /// Adds an entry, or replaces the one with the same id.
    pub fn insert(&mut self, id: u64, value: V) {
        if self.slots.back().is_none_or(|(last, _)| *last < id) {
            if self.slots.capacity() == 0 {
                // Most connections never have two open calls at once.
                self.slots.reserve_exact(1);
            }
            if self.slots.is_empty() {
                self.first_id = id;
            }
            self.slots.push_back((id, Some(value)));
            self.len += 1;
            return;
        }
        match self.slots.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(index) => self.len += usize::from(self.slots[index].1.replace(value).is_none()),
            Err(index) => {
                self.slots.insert(index, (id, Some(value)));
                self.first_id = self.first_id.min(id);
                self.len += 1;
            }
        }
    }

    /// Removes the entry of `id`, and returns it.
    pub fn remove(&mut self, id: u64) -> Option<V> {
        let index = self.index_of(id)?;
        // The first slot goes at once. Any other becomes a gap, until it is the first.
        let value = if index == 0 { self.slots.pop_front()?.1? } else { self.slots[index].1.take()? };
        self.len -= 1;
        while let Some((id, value)) = self.slots.front() {
            if value.is_some() {
                self.first_id = *id;
                break;
            }
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.len + MIN_GAPS {
            self.slots.retain(|(_, value)| value.is_some());
        }
        if self.len == 0 && self.slots.capacity() > MAX_KEPT {
            self.slots = VecDeque::new();
        }
        Some(value)
    }

    /// Returns the entries in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.slots.iter().filter_map(|(id, value)| value.as_ref().map(|value| (*id, value)))
    }

    /// Returns the entries in the order of their ids, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut V)> {
        self.slots.iter_mut().filter_map(|(id, value)| value.as_mut().map(|value| (*id, value)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Checks that the table and a map of the standard library agree after the same operations.
    #[test]
    fn an_id_table_works_like_a_map() {
        for spread in [1, 3, 1u64 << 40] {
            let (mut table, mut map) = (IdTable::default(), BTreeMap::new());
            let (mut state, mut newest) = (spread, 0u64);
            for step in 0..20_000u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let random = state >> 33;
                let id = (newest / spread).saturating_sub(random % 40) * spread;
                match random % 16 {
                    0..6 if map.len() < 60 => {
                        newest += spread;
                        table.insert(newest, step);
                        map.insert(newest, step);
                    }
                    6 => {
                        table.insert(id, step);
                        map.insert(id, step);
                    }
                    7..14 => assert_eq!(table.remove(id), map.remove(&id)),
                    _ => assert_eq!(table.get_mut(id), map.get_mut(&id)),
                }
                assert_eq!((table.get(id), table.len()), (map.get(&id), map.len()));
                assert!(table.slots.len() <= 2 * table.len() + MIN_GAPS);
            }
            assert!(table.iter().eq(map.iter().map(|(id, value)| (*id, value))));
            assert!(table.iter_mut().map(|(id, _)| id).eq(map.into_keys()));
        }
    }

    #[test]
    fn one_old_entry_does_not_keep_the_gaps_of_all_that_came_after_it() {
        let mut table = IdTable::default();
        table.insert(1, ());
        for id in 2..10_000 {
            table.insert(id, ());
            assert_eq!(table.remove(id), Some(()));
        }
        assert!(table.slots.len() <= MIN_GAPS + 2);
        assert_eq!((table.get(1), table.get(9_999), table.get(u64::MAX)), (Some(&()), None, None));
    }
}
