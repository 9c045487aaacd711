//! A table by id, for ids that mostly come in increasing order.
//!
//! The lowest bits of an id tell its place, so ids in order need no search and never meet. If an entry is
//! left behind by many others, an id may find its place taken: it goes to a map. Peers may choose ids but
//! gain nothing by it: a lookup takes at most a search in the map. Bounds: the places are at most
//! `MIN_PLACES` or four times the entries that there were at once.

use std::collections::BTreeMap;
use std::mem;

/// A table that is not empty may have this many places.
const MIN_PLACES: usize = 16;

/// An empty table keeps memory for this many entries.
const MAX_KEPT: usize = 64;

/// A table of calls by id.
#[derive(Debug)]
pub struct IdTable<V> {
    /// Invariant: each entry is at the place that the lowest bits of its id name. There is a power of two of
    /// places, or none.
    places: Vec<Option<(u64, V)>>,
    /// Invariant: the places that are taken.
    taken: usize,
    /// Entries whose place was taken.
    others: BTreeMap<u64, V>,
}

impl<V> Default for IdTable<V> {
    fn default() -> IdTable<V> {
        IdTable { places: Vec::new(), taken: 0, others: BTreeMap::new() }
    }
}

impl<V> IdTable<V> {
    /// Returns the number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.taken + self.others.len()
    }

    /// Returns true if there is no entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn place(&self, id: u64) -> usize {
        id as usize & self.places.len().wrapping_sub(1)
    }

    /// Returns the entry of `id`.
    #[inline]
    pub fn get(&self, id: u64) -> Option<&V> {
        match self.places.get(self.place(id)) {
            Some(Some((found, value))) if *found == id => Some(value),
            _ if self.others.is_empty() => None,
            _ => self.others.get(&id),
        }
    }

    /// Returns the entry of `id`, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: u64) -> Option<&mut V> {
        let place = self.place(id);
        match self.places.get_mut(place) {
            Some(Some((found, value))) if *found == id => Some(value),
            _ if self.others.is_empty() => None,
            _ => self.others.get_mut(&id),
        }
    }

    /// Adds an entry, or replaces the one with the same id. Returns the entry.
    #[inline]
    pub fn insert(&mut self, id: u64, value: V) -> &mut V {
        let place = self.place(id);
        let is_free = self.others.is_empty() && matches!(self.places.get(place), Some(None));
        if !is_free {
            return self.insert_anywhere(id, value);
        }
        self.taken += 1;
        &mut self.places[place].insert((id, value)).1
    }

    #[cold]
    #[inline(never)]
    fn insert_anywhere(&mut self, id: u64, value: V) -> &mut V {
        if self.get(id).is_none() {
            let is_free = |table: &IdTable<V>| matches!(table.places.get(table.place(id)), Some(None));
            while !is_free(self) && (self.places.len() < MIN_PLACES || self.taken * 2 > self.places.len()) {
                self.grow();
            }
            self.put(id, value);
        } else if let Some(before) = self.get_mut(id) {
            *before = value;
        }
        self.get_mut(id).expect("it was put there")
    }

    fn put(&mut self, id: u64, value: V) {
        let place = self.place(id);
        match &mut self.places[place] {
            free @ None => {
                *free = Some((id, value));
                self.taken += 1;
            }
            Some(_) => drop(self.others.insert(id, value)),
        }
    }

    /// Doubles the places.
    fn grow(&mut self) {
        // Most connections never have two open calls at once.
        let places = (self.places.len() * 2).max(1);
        let mut before = mem::take(&mut self.places);
        self.places.reserve_exact(places);
        self.places.resize_with(places, || None);
        self.taken = 0;
        let others = mem::take(&mut self.others);
        for (id, value) in before.drain(..).flatten().chain(others) {
            self.put(id, value);
        }
    }

    /// Removes the entry of `id`, and returns it.
    #[inline]
    pub fn remove(&mut self, id: u64) -> Option<V> {
        let place = self.place(id);
        let value = match self.places.get_mut(place) {
            Some(taken @ Some(_)) if taken.as_ref().is_some_and(|(found, _)| *found == id) => {
                self.taken -= 1;
                taken.take().map(|(_, value)| value)
            }
            _ => self.remove_other(id),
        };
        if self.taken == 0 && self.places.len() > MAX_KEPT {
            self.shrink();
        }
        value
    }

    /// Drops the entry of `id` where it is. Cheaper than [`remove`](IdTable::remove) for large entries, which
    /// are not moved.
    #[inline]
    pub fn discard(&mut self, id: u64) {
        let place = self.place(id);
        match self.places.get_mut(place) {
            Some(taken @ Some(_)) if taken.as_ref().is_some_and(|(found, _)| *found == id) => {
                self.taken -= 1;
                *taken = None;
                if self.taken == 0 && self.places.len() > MAX_KEPT {
                    self.shrink();
                }
            }
            _ => self.discard_other(id),
        }
    }

    #[cold]
    #[inline(never)]
    fn discard_other(&mut self, id: u64) {
        self.others.remove(&id);
    }

    #[cold]
    #[inline(never)]
    fn remove_other(&mut self, id: u64) -> Option<V> {
        self.others.remove(&id)
    }

    /// Frees the places of an empty table.
    #[cold]
    #[inline(never)]
    fn shrink(&mut self) {
        if self.is_empty() {
            self.places = Vec::new();
        }
    }

    /// Removes all entries and returns their values, in any order.
    pub fn drain(&mut self) -> impl Iterator<Item = V> {
        let IdTable { places, others, .. } = mem::take(self);
        places.into_iter().flatten().map(|(_, value)| value).chain(others.into_values())
    }

    /// Returns the entries in the order of their ids, which it sorts.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let placed = self.places.iter().flatten().map(|(id, value)| (*id, value));
        let mut all: Vec<_> = placed.chain(self.others.iter().map(|(id, value)| (*id, value))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter()
    }

    /// Returns the entries in the order of their ids, which it sorts, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut V)> {
        let placed = self.places.iter_mut().flatten().map(|(id, value)| (*id, value));
        let mut all: Vec<_> = placed.chain(self.others.iter_mut().map(|(id, value)| (*id, value))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The entries are at most 101 at once.
    const MAX_PLACES: usize = 256;

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
                    7..10 => {
                        table.discard(id);
                        map.remove(&id);
                    }
                    10..14 => assert_eq!(table.remove(id), map.remove(&id)),
                    _ => assert_eq!(table.get_mut(id), map.get_mut(&id)),
                }
                assert_eq!((table.get(id), table.len()), (map.get(&id), map.len()));
                assert!(table.places.len() <= MAX_PLACES);
            }
            assert!(table.iter().eq(map.iter().map(|(id, value)| (*id, value))));
            assert!(table.iter_mut().map(|(id, _)| id).eq(map.keys().copied()));
            let mut values: Vec<u64> = table.drain().collect();
            values.sort_unstable();
            let mut expected: Vec<u64> = map.into_values().collect();
            expected.sort_unstable();
            assert!(values == expected && table.is_empty());
        }
    }

    #[test]
    fn one_old_entry_takes_no_place_from_those_that_come_after_it() {
        let mut table = IdTable::default();
        table.insert(1, ());
        for id in 2..10_000 {
            table.insert(id, ());
            assert_eq!(table.len(), 2);
            assert_eq!(table.remove(id), Some(()));
        }
        assert!(table.places.len() <= MIN_PLACES && table.others.is_empty());
        assert_eq!((table.get(1), table.get(9_999), table.get(u64::MAX)), (Some(&()), None, None));
    }

    #[test]
    fn ids_that_meet_in_one_place_take_no_memory_for_others() {
        let mut table = IdTable::default();
        for id in 0..1000u64 {
            table.insert(id << 32, id);
        }
        assert_eq!((table.len(), table.places.len()), (1000, MIN_PLACES));
        assert!((0..1000).all(|id| table.remove(id << 32) == Some(id)));
    }

    #[test]
    fn an_empty_table_keeps_little_memory() {
        let mut table = IdTable::default();
        (0..1000).for_each(|id| *table.insert(id, ()) = ());
        (0..1000).for_each(|id| assert_eq!(table.remove(id), Some(())));
        assert_eq!(table.places.capacity(), 0);
    }
}
