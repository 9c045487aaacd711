//! The names of a dict in their order, which dicts of one shape share.

use std::hash::BuildHasher;

use crate::model::quick_hash::QuickHash;
use crate::model::tree::key::Key;

/// Up to this number, names are compared one by one, which costs less than to hash one.
const MAX_SCANNED: usize = 8;

/// Names in order, none of them twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    names: Vec<Key>,
    /// A hash table: the index of a name plus one, or 0 for a free place. Invariant: empty up to
    /// [`MAX_SCANNED`] names, and else a power of two that is at least twice their number.
    places: Vec<u32>,
}

impl Keys {
    pub(crate) fn with_capacity(names: usize) -> Keys {
        Keys { names: Vec::with_capacity(names), places: Vec::new() }
    }

    pub(crate) fn names(&self) -> &[Key] {
        &self.names
    }

    pub(crate) fn into_names(self) -> Vec<Key> {
        self.names
    }

    /// Returns the index of a name.
    #[inline]
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        if self.places.is_empty() {
            return self.names.iter().position(|other| other == name);
        }
        let mask = self.places.len() - 1;
        let mut place = hash(name) & mask;
        loop {
            // Half of the places are free, so one is found.
            let index = (self.places[place] as usize).checked_sub(1)?;
            if self.names[index] == *name {
                return Some(index);
            }
            place = (place + 1) & mask;
        }
    }

    /// Appends a name, which must be new.
    pub(crate) fn push(&mut self, name: Key) {
        self.names.push(name);
        if self.names.len() <= MAX_SCANNED {
            return;
        }
        if self.names.len() * 2 > self.places.len() {
            return self.index();
        }
        self.place(self.names.len() - 1);
    }

    /// Removes the name at `index`.
    pub(crate) fn remove(&mut self, index: usize) -> Key {
        let name = self.names.remove(index);
        self.index();
        name
    }

    /// Makes the hash table, with room for the names that the list has room for.
    fn index(&mut self) {
        self.places.clear();
        if self.names.len() > MAX_SCANNED {
            self.places.resize((self.names.len() * 2).next_power_of_two(), 0);
            (0..self.names.len()).for_each(|index| self.place(index));
        }
    }

    fn place(&mut self, index: usize) {
        let mask = self.places.len() - 1;
        let mut place = hash(&self.names[index]) & mask;
        while self.places[place] != 0 {
            place = (place + 1) & mask;
        }
        self.places[place] = u32::try_from(index + 1).expect("a dict has fewer than 4 billion entries");
    }
}

/// Collects names, none of which may come twice.
impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(names: I) -> Keys {
        let mut keys = Keys { names: names.into_iter().collect(), places: Vec::new() };
        keys.index();
        keys
    }
}

fn hash(name: &str) -> usize {
    QuickHash::default().hash_one(name) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_short_and_long_lists() {
        let name = |index: usize| format!("name {index}");
        let mut keys = Keys::default();
        for count in 0..100 {
            for index in 0..100 {
                assert_eq!(keys.position(&name(index)), Some(index).filter(|index| *index < count));
            }
            keys.push(Key::from(name(count)));
        }
        let collected: Keys = keys.names().iter().cloned().collect();
        assert_eq!((collected.position("name 99"), collected.position("")), (Some(99), None));
        for count in (0..100).rev() {
            assert_eq!(keys.remove(0).as_str(), name(99 - count));
            assert_eq!(keys.position("name 99"), count.checked_sub(1));
            assert_eq!(keys.position(&name(99 - count)), None);
        }
    }
}
