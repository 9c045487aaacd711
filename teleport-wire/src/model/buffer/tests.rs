use super::*;
use std::sync::{Arc, Weak};

/// An owner whose drop can be observed. Its bytes are inline: they would move if it did.
struct Watched([u8; 8], #[expect(dead_code, reason = "tests watch its count")] Arc<()>);

impl Watched {
    fn new() -> (Watched, Weak<()>) {
        let alive = Arc::new(());
        let seen = Arc::downgrade(&alive);
        (Watched([1, 2, 3, 4, 5, 6, 7, 8], alive), seen)
    }
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Watched {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

fn is_aligned(buffer: &Buffer) -> bool {
    buffer.as_ptr().addr().is_multiple_of(Buffer::ALIGNMENT)
}

#[test]
fn own_memory_is_aligned_and_zero() {
    for len in [0, 1, 63, 64, 65, 4096, 1 << 20] {
        let mut buffer = Buffer::zeroed(len);
        assert_eq!(buffer.len(), len);
        assert!(is_aligned(&buffer) || len == 0);
        // Whole slices are compared: a loop over all bytes takes minutes under Miri.
        assert_eq!(buffer[..], vec![0; len]);
        buffer.get_mut().unwrap().fill(7);
        assert!(is_aligned(&Buffer::copy_from(&buffer)) || len <= MAX_INLINE_BYTES);
        assert_eq!(Buffer::copy_from(&buffer), buffer);
    }
}

#[test]
fn short_copies_are_in_the_buffer() {
    for len in 0..=MAX_INLINE_BYTES {
        let bytes = &[1, 2, 3, 4, 5, 6, 7, 8][..len];
        let mut buffer = Buffer::copy_from(bytes);
        let clone = buffer.clone();
        let place = (&raw const buffer).addr()..(&raw const buffer).addr() + size_of::<Buffer>();
        assert!(place.contains(&buffer.as_ptr().addr()) && buffer.as_ptr().cast::<u64>().is_aligned());
        assert!(buffer.is_unique() && buffer.make_mut().as_ptr().addr() == buffer.as_ptr().addr());
        buffer.get_mut().unwrap().fill(9);
        assert_eq!((&*buffer, &*clone), (&[9; 8][..len], bytes));
        assert_eq!(*clone.slice(len / 2..), bytes[len / 2..]);
        let parts = clone.split(&[0..len / 2, len / 2..len]).unwrap();
        assert_eq!((&*parts[0], &*parts[1]), bytes.split_at(len / 2));
    }
    let long = Buffer::copy_from(&[1; MAX_INLINE_BYTES + 1]);
    assert_eq!(long.clone().as_ptr(), long.as_ptr());
}

#[test]
fn vectors_are_not_copied() {
    let items = vec![1u32, 2, 3];
    let start = items.as_ptr().cast::<u8>();
    let mut buffer = Buffer::from_vec(items);
    assert_eq!((buffer.as_ptr(), buffer.len()), (start, 12));
    buffer.get_mut().unwrap()[4] = 9;
    assert_eq!(buffer[..8], [1, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(Buffer::from_vec(Vec::<f64>::new()).len(), 0);
    assert_eq!(*Buffer::from_vec(vec![true, false]), [1, 0]);
}

#[test]
fn owners_live_as_long_as_their_bytes() {
    let (owner, alive) = Watched::new();
    let buffer = Buffer::from_owner(owner);
    let tail = buffer.slice(6..);
    drop(buffer);
    assert_eq!(*tail, [7, 8]);
    assert_eq!(alive.strong_count(), 1);
    drop(tail);
    assert_eq!(alive.strong_count(), 0);
}

#[test]
fn written_only_with_one_owner() {
    let mut buffer = Buffer::from_owner_mut(Watched::new().0);
    let clone = buffer.clone();
    assert!(!buffer.is_unique() && buffer.get_mut().is_none());
    drop(clone);
    buffer.get_mut().unwrap()[0] = 9;
    assert_eq!(buffer[..2], [9, 2]);
}

#[test]
fn read_only_memory_is_never_written() {
    let mut buffer = Buffer::from_owner(b"static".as_slice());
    assert!(buffer.is_unique() && buffer.get_mut().is_none());
    let before = buffer.clone();
    buffer.make_mut()[0] = b'S';
    assert_eq!((&*before, &*buffer), (b"static".as_slice(), b"Static".as_slice()));
}

#[test]
fn make_mut_copies_only_what_is_shared() {
    let mut buffer = Buffer::from(vec![1, 2, 3, 4]);
    let start = buffer.as_ptr();
    buffer.make_mut()[0] = 9;
    assert_eq!(buffer.as_ptr(), start);
    let mut tail = buffer.slice(2..);
    tail.make_mut()[0] = 8;
    assert_eq!((&*buffer, &*tail), ([9, 2, 3, 4].as_slice(), [8, 4].as_slice()));
    assert!(buffer.is_unique() && tail.is_unique());
}

#[test]
fn parts_are_written_apart_and_keep_the_whole() {
    let (owner, alive) = Watched::new();
    let mut parts = Buffer::from_owner_mut(owner).split(&[0..2, 2..2, 3..8]).unwrap();
    parts[2].get_mut().unwrap().fill(0);
    parts[0].get_mut().unwrap().fill(9);
    assert!(parts[1].is_empty() && parts[1].is_unique());
    assert_eq!((&*parts[0], &*parts[2]), ([9, 9].as_slice(), [0; 5].as_slice()));
    let last = parts.swap_remove(2).split(&[1..2, 3..5]).unwrap().swap_remove(1);
    drop(parts);
    assert_eq!((alive.strong_count(), &*last), (1, [0, 0].as_slice()));
    drop(last);
    assert_eq!(alive.strong_count(), 0);
}

#[test]
fn shared_buffers_do_not_split() {
    let buffer = Buffer::zeroed(8);
    let clone = buffer.clone();
    assert_eq!(buffer.split(&[0..4, 4..8]).unwrap_err().as_ptr(), clone.as_ptr());
    let parts = Buffer::from_owner(Watched::new().0).split(&[0..4, 4..8]).unwrap();
    assert!(parts.into_iter().all(|mut part| part.is_unique() && part.get_mut().is_none()));
    assert_eq!(Buffer::empty().split(&[0..0, 0..0]), Ok(vec![Buffer::empty(); 2]));
}

#[test]
#[should_panic = "range 3..6 of a buffer of 8 bytes, after one that ends at 4"]
fn overlapping_parts_are_refused() {
    let _ = Buffer::zeroed(8).split(&[0..4, 3..6]);
}

#[test]
#[should_panic = "range 3..9 of a buffer of 8 bytes"]
fn slices_stay_inside() {
    Buffer::zeroed(8).slice(3..=8);
}

#[test]
fn parts_go_to_threads() {
    let parts = Buffer::zeroed(1 << 12).split(&[0..1 << 11, 1 << 11..1 << 12]).unwrap();
    let write = |(value, mut part): (usize, Buffer)| {
        std::thread::spawn(move || {
            part.get_mut().unwrap().fill(value as u8 + 1);
            part
        })
    };
    let threads: Vec<_> = parts.into_iter().enumerate().map(write).collect();
    let parts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!((&parts[0][..], &parts[1][..]), ([1; 1 << 11].as_slice(), [2; 1 << 11].as_slice()));
}
