//! A list on the memory of a buffer.
//!
//! A `Vec` would allocate for each dict of each message. Small buffers are used again, so short lists do not.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::model::buffer::{ALIGNMENT, Buffer, Fresh};

/// Returns the items as places that are written without dropping what they held.
#[inline]
pub(crate) fn places<T>(items: &mut [T]) -> &mut [ManuallyDrop<T>] {
    let places = std::ptr::from_mut(items) as *mut [ManuallyDrop<T>];
    // SAFETY: a `ManuallyDrop` has the layout of its value, and all of its values are valid for that.
    unsafe { &mut *places }
}

/// Knows without a call whether there is something to do when it is dropped.
pub(crate) trait HasDrop {
    /// Returns false if dropping the value has no effect.
    fn has_drop(&self) -> bool;
}

/// What a dict needs of a `Vec`.
pub(crate) struct List<T: HasDrop> {
    /// Invariant: the first `len` items that it has room for are initialized.
    memory: Fresh,
    len: usize,
    items: PhantomData<T>,
}

impl<T: HasDrop> List<T> {
    pub(crate) fn with_capacity(items: usize) -> List<T> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= ALIGNMENT) };
        let bytes = items.checked_mul(size_of::<T>()).expect("a list fits the address space");
        List { memory: Buffer::fresh(bytes), len: 0, items: PhantomData }
    }

    /// Returns the memory that a new list of so many items takes.
    pub(crate) const fn taken_bytes(items: usize) -> usize {
        Buffer::taken_bytes(items * size_of::<T>())
    }

    /// Creates a list of default items.
    #[inline]
    pub(crate) fn defaults(count: usize) -> List<T>
    where
        T: Default,
    {
        let mut list = List::with_capacity(count);
        for place in &mut list.room()[..count] {
            place.write(T::default());
        }
        list.len = count;
        list
    }

    /// Returns the places of all items that there is room for.
    #[inline]
    fn room(&mut self) -> &mut [MaybeUninit<T>] {
        let start = self.memory.start().cast::<MaybeUninit<T>>();
        // SAFETY: the memory is aligned to 64 or empty, has room for so many items, and belongs to this list
        // alone, which is borrowed uniquely.
        unsafe { NonNull::slice_from_raw_parts(start, self.memory.len() / size_of::<T>()).as_mut() }
    }

    pub(crate) fn push(&mut self, item: T) {
        if self.len == self.room().len() {
            self.grow();
        }
        let len = self.len;
        self.room()[len].write(item);
        self.len = len + 1;
    }

    /// Moves the items to memory with more room.
    #[cold]
    fn grow(&mut self) {
        let mut larger = List::with_capacity((self.len * 2).max(4));
        larger.take_all(self);
        *self = larger;
    }

    /// Moves all items of `other` into this list, which must be empty and have the room.
    fn take_all(&mut self, other: &mut List<T>) {
        let len = std::mem::take(&mut other.len);
        for (place, item) in self.room()[..len].iter_mut().zip(other.room()) {
            // SAFETY: the other list had so many items, and has none now.
            place.write(unsafe { item.assume_init_read() });
        }
        self.len = len;
    }

    /// Removes the item at `index`, and moves up those behind it.
    pub(crate) fn remove(&mut self, index: usize) -> T {
        self[index..].rotate_left(1);
        self.pop().expect("the index is that of an item")
    }

    fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        let len = self.len;
        // SAFETY: this item was in the list, and is not now.
        Some(unsafe { self.room()[len].assume_init_read() })
    }

    pub(crate) fn into_vec(mut self) -> Vec<T> {
        let mut items = Vec::with_capacity(self.len);
        items.extend(std::iter::from_fn(|| self.pop()));
        items.reverse();
        items
    }
}

impl<T: HasDrop> Default for List<T> {
    fn default() -> List<T> {
        List::with_capacity(0)
    }
}

impl<T: HasDrop> Deref for List<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` items are initialized. Writes need a unique borrow of this list.
        unsafe { NonNull::slice_from_raw_parts(self.memory.start().cast::<T>(), self.len).as_ref() }
    }
}

impl<T: HasDrop> DerefMut for List<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        let start = self.memory.start().cast::<T>();
        // SAFETY: the first `len` items are initialized, and belong to this list alone, which is borrowed
        // uniquely.
        unsafe { NonNull::slice_from_raw_parts(start, self.len).as_mut() }
    }
}

impl<T: HasDrop> Drop for List<T> {
    #[inline(never)]
    fn drop(&mut self) {
        let len = std::mem::take(&mut self.len);
        for item in &mut self.room()[..len] {
            // SAFETY: the list had so many items, and has none now: each is dropped once.
            let item = unsafe { item.assume_init_mut() };
            if item.has_drop() {
                // SAFETY: as above.
                unsafe { std::ptr::drop_in_place(item) }
            }
        }
    }
}

impl<T: HasDrop + Clone> Clone for List<T> {
    fn clone(&self) -> List<T> {
        let mut list = List::with_capacity(self.len);
        self.iter().for_each(|item| list.push(item.clone()));
        list
    }
}

impl<T: HasDrop + PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &List<T>) -> bool {
        **self == **other
    }
}

impl<T: HasDrop + fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that may have memory.
    type Item = (u64, Option<Buffer>);

    impl HasDrop for Item {
        fn has_drop(&self) -> bool {
            self.1.is_some()
        }
    }

    fn item(index: u64) -> Item {
        (index, (!index.is_multiple_of(3)).then(|| Buffer::zeroed(100)))
    }

    #[test]
    fn lists_grow_and_shrink_like_vectors() {
        let (mut list, mut expected) = (List::default(), Vec::new());
        for index in 0..100 {
            list.push(item(index));
            expected.push(item(index));
            assert_eq!(*list, *expected);
        }
        assert_eq!(list.clone(), list);
        for index in [99, 0, 50, 3, 95] {
            assert_eq!(list.remove(index), expected.remove(index));
            assert_eq!(*list, *expected);
        }
        list[7] = item(0);
        expected[7] = item(0);
        assert_eq!(list.into_vec(), expected);
        assert_eq!(*List::<Item>::defaults(3), [const { (0, None) }; 3]);
        assert_eq!(List::<Item>::default().len(), 0);
    }

    #[test]
    fn places_are_written_without_a_drop() {
        let owner = Buffer::zeroed(100);
        let mut list = List::<Item>::defaults(2);
        places(&mut list)[1] = ManuallyDrop::new((7, Some(owner.clone())));
        assert_eq!((list[0].0, list[1].0), (0, 7));
        let taken = std::mem::take(&mut list[1]);
        places(&mut list)[1] = ManuallyDrop::new(taken);
        drop(list);
        assert!(owner.is_unique(), "it was dropped once, with the list");
    }

    #[test]
    fn items_are_dropped_with_their_list() {
        let owner = Buffer::zeroed(100);
        let mut list = List::with_capacity(2);
        for index in 0..5 {
            list.push((index, Some(owner.clone())));
            list.push((index, None));
        }
        drop(list.remove(2));
        drop(list.clone());
        assert!(!owner.is_unique());
        drop(list);
        assert!(owner.is_unique());
    }

    #[test]
    #[should_panic = "out of range for slice"]
    fn only_items_of_the_list_are_removed() {
        List::<Item>::defaults(3).remove(4);
    }
}
