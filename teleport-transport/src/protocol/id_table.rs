//! A table by id, for ids that mostly come in increasing order.
//!
//! The lowest bits of an id tell its place, so ids in order need no search and never meet. If an entry is
//! left behind by many others, an id may find its place taken: it goes to a map. Peers may choose ids but
//! gain nothing by it: a lookup takes at most a search in the map. Bounds: the places are at most
//! `MIN_PLACES` or four times the entries that there were at once. They have memory by pages, from their
//! first use on, so ids in order take little more than their entries.

use std::collections::BTreeMap;
use std::mem;

/// A table that is not empty may have this many places.
const MIN_PLACES: usize = 16;

/// The places of a page. Most tables have one page, or a part of one.
const PAGE_PLACES: usize = 64;

/// An empty table keeps memory for this many entries.
const MAX_KEPT: usize = 64;

/// A table of calls by id.
#[derive(Debug)]
pub struct IdTable<V> {
    /// Invariant: each entry is at the place that the lowest bits of its id name. A page has no memory before
    /// it is used. Then it has [`PAGE_PLACES`] places, or those of the table if these are fewer.
    pages: Vec<Box<[Place<V>]>>,
    /// Invariant: a power of two, or 0 if there are no pages.
    places: usize,
    /// Invariant: the places that are taken.
    taken: usize,
    /// Entries whose place was taken.
    others: BTreeMap<u64, V>,
}

type Place<V> = Option<(u64, V)>;

impl<V> Default for IdTable<V> {
    fn default() -> IdTable<V> {
        IdTable { pages: Vec::new(), places: 0, taken: 0, others: BTreeMap::new() }
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

    /// Returns the page of `id` and its place there.
    #[inline]
    fn index(&self, id: u64) -> (usize, usize) {
        let index = id as usize & self.places.wrapping_sub(1);
        (index / PAGE_PLACES, index % PAGE_PLACES)
    }

    /// Returns the place of `id`, if it has memory.
    #[inline]
    fn place(&self, id: u64) -> Option<&Place<V>> {
        let (page, place) = self.index(id);
        self.pages.get(page)?.get(place)
    }

    /// Returns the place of `id`, if it has memory.
    #[inline]
    fn place_mut(&mut self, id: u64) -> Option<&mut Place<V>> {
        let (page, place) = self.index(id);
        self.pages.get_mut(page)?.get_mut(place)
    }

    /// Returns the entry of `id`.
    #[inline]
    pub fn get(&self, id: u64) -> Option<&V> {
        match self.place(id) {
            Some(Some((found, value))) if *found == id => Some(value),
            _ if self.others.is_empty() => None,
            _ => self.others.get(&id),
        }
    }

    /// Returns the entry of `id`, to change it.
    #[inline]
    pub fn get_mut(&mut self, id: u64) -> Option<&mut V> {
        let (page, place) = self.index(id);
        match self.pages.get_mut(page).and_then(|page| page.get_mut(place)) {
            Some(Some((found, value))) if *found == id => Some(value),
            _ if self.others.is_empty() => None,
            _ => self.others.get_mut(&id),
        }
    }

    /// Adds an entry, or replaces the one with the same id. Returns the entry.
    #[inline]
    pub fn insert(&mut self, id: u64, value: V) -> &mut V {
        let (page, place) = self.index(id);
        if self.others.is_empty() && matches!(self.place(id), Some(None)) {
            self.taken += 1;
            return &mut self.pages[page][place].insert((id, value)).1;
        }
        self.insert_anywhere(id, value)
    }

    #[cold]
    #[inline(never)]
    fn insert_anywhere(&mut self, id: u64, value: V) -> &mut V {
        if self.get(id).is_none() {
            let may_grow = |table: &Self| table.places < MIN_PLACES || table.taken * 2 > table.places;
            while self.places == 0 || matches!(self.place(id), Some(Some(_))) && may_grow(self) {
                self.grow();
            }
            self.put(id, value);
        } else if let Some(before) = self.get_mut(id) {
            *before = value;
        }
        self.get_mut(id).expect("it was put there")
    }

    fn put(&mut self, id: u64, value: V) {
        let (page, place) = self.index(id);
        if self.pages[page].is_empty() {
            self.pages[page] = (0..self.places.min(PAGE_PLACES)).map(|_| None).collect();
        }
        match &mut self.pages[page][place] {
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
        self.places = (self.places * 2).max(1);
        self.taken = 0;
        let before = mem::take(&mut self.pages);
        self.pages.resize_with(self.places.div_ceil(PAGE_PLACES), Box::default);
        let others = mem::take(&mut self.others);
        for (id, value) in before.into_iter().flatten().flatten().chain(others) {
            self.put(id, value);
        }
    }

    /// Removes the entry of `id`, and returns it.
    #[inline]
    pub fn remove(&mut self, id: u64) -> Option<V> {
        let value = match self.place_mut(id) {
            Some(taken @ Some(_)) if taken.as_ref().is_some_and(|(found, _)| *found == id) => {
                let value = taken.take().map(|(_, value)| value);
                self.taken -= 1;
                value
            }
            _ => self.remove_other(id),
        };
        if self.taken == 0 && self.places > MAX_KEPT {
            self.shrink();
        }
        value
    }

    /// Drops the entry of `id` where it is. Cheaper than [`remove`](IdTable::remove) for large entries, which
    /// are not moved.
    #[inline]
    pub fn discard(&mut self, id: u64) {
        match self.place_mut(id) {
            Some(taken @ Some(_)) if taken.as_ref().is_some_and(|(found, _)| *found == id) => {
                *taken = None;
                self.taken -= 1;
                if self.taken == 0 && self.places > MAX_KEPT {
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
            *self = IdTable::default();
        }
    }

    /// Removes all entries and returns their values, in any order.
    pub fn drain(&mut self) -> impl Iterator<Item = V> {
        let IdTable { pages, others, .. } = mem::take(self);
        pages.into_iter().flatten().flatten().map(|(_, value)| value).chain(others.into_values())
    }

    /// Returns the entries in the order of their ids, which it sorts.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let placed = self.pages.iter().flatten().flatten().map(|(id, value)| (*id, value));
        let mut all: Vec<_> = placed.chain(self.others.iter().map(|(id, value)| (*id, value))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter()
    }

    /// Returns the entries in the order of their ids, which it sorts, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut V)> {
        let placed = self.pages.iter_mut().flatten().flatten().map(|(id, value)| (*id, value));
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
                assert!(table.places <= MAX_PLACES);
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
        assert!(table.places <= MIN_PLACES && table.others.is_empty());
        assert_eq!((table.get(1), table.get(9_999), table.get(u64::MAX)), (Some(&()), None, None));
    }

    #[test]
    fn ids_that_meet_in_one_place_take_no_memory_for_others() {
        let mut table = IdTable::default();
        for id in 0..1000u64 {
            table.insert(id << 32, id);
        }
        assert_eq!((table.len(), table.places), (1000, MIN_PLACES));
        assert!((0..1000).all(|id| table.remove(id << 32) == Some(id)));
    }

    #[test]
    fn pages_have_memory_once_they_are_used() {
        let mut table = IdTable::default();
        let ids = 1..=8 * PAGE_PLACES as u64;
        ids.clone().for_each(|id| *table.insert(id, id) = id);
        let used = |table: &IdTable<u64>| table.pages.iter().filter(|page| !page.is_empty()).count();
        assert_eq!((used(&table), table.pages.len()), (8, 8));
        // One more doubles the places, but not their memory.
        table.insert(ids.end() + 1, 0);
        assert_eq!((used(&table), table.pages.len()), (9, 16));
        assert!(ids.clone().all(|id| table.get(id) == Some(&id) && table.remove(id) == Some(id)));
    }

    #[test]
    fn an_empty_table_keeps_little_memory() {
        let mut table = IdTable::default();
        (0..1000).for_each(|id| *table.insert(id, ()) = ());
        (0..1000).for_each(|id| assert_eq!(table.remove(id), Some(())));
        assert_eq!((table.pages.capacity(), table.places), (0, 0));
    }
}
