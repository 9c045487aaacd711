//! Models of a thread that reads into rows and one that arranges them, in every possible order of their
//! steps.
//!
//! Loom runs each model again and again. A model fails if an assertion fails, if two threads use a
//! row's bytes without synchronization, or if no thread can go on.

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;

/// A row has two arrays of two bytes.
const LENGTHS: [usize; 2] = [2, 2];
const SENT: [u8; 4] = [1, 2, 3, 4];

fn slab() -> Slab {
    Slab::new(stacked(&LENGTHS, 2), &Pool::new(0), Pages::Usual).expect("there is memory")
}

fn content(slab: Slab, row: usize) -> Vec<u8> {
    payload(&rows(slab, 2)[row])
}

/// Receives payload as a connection does: two reads in place, and a copy from the read-ahead in
/// between.
fn receive(row: &Row) {
    let rest = read(row, &SENT, 1, 4);
    row.push(&rest[..1]);
    read(row, &rest[1..], 2, 4);
}

/// Counts the rows that are abandoned.
#[derive(Default)]
struct Count(AtomicUsize);

impl Rows for Count {
    fn abandoned(&self, key: u64) {
        assert_eq!(key, 7);
        self.0.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_row_that_moves_keeps_what_comes() {
    loom::model(|| {
        let (from, to) = (slab(), slab());
        let row = Arc::new(Row::new(from.claim(0)));
        let reader = {
            let row = row.clone();
            thread::spawn(move || receive(&row))
        };
        assert!(row.move_to(to.claim(1).expect("it is free")) <= 4);
        // Another row may be written to the old place at once.
        from.claim(0).expect("it was left").write(0, &[9; 4]);
        reader.join().expect("the reader ends");
        assert_eq!(row.filled_bytes(), 4);
        drop(row.vacate());
        assert_eq!(content(to, 1), SENT);
    });
}

#[test]
fn a_row_that_may_be_moved_now_or_not_keeps_what_comes() {
    loom::model(|| {
        let (from, to) = (slab(), slab());
        let row = Arc::new(Row::new(from.claim(0)));
        let reader = {
            let row = row.clone();
            thread::spawn(move || receive(&row))
        };
        let moved = row.try_move_to(to.claim(0).expect("it is free"));
        let is_moved = moved.is_ok();
        // If the row cannot be moved now, the new place is freed.
        drop(moved);
        reader.join().expect("the reader ends");
        drop(row.vacate());
        assert_eq!(content(if is_moved { to } else { from }, 0), SENT);
    });
}

#[test]
fn a_vacated_row_leaves_its_bytes_to_the_next() {
    loom::model(|| {
        let slab = slab();
        let row = Arc::new(Row::new(slab.claim(0)));
        let reader = {
            let row = row.clone();
            thread::spawn(move || receive(&row))
        };
        drop(row.vacate().expect("it had memory"));
        slab.claim(0).expect("it was left").write(0, &[9; 4]);
        let next = content(slab, 0);
        reader.join().expect("the reader ends");
        assert_eq!((next, row.vacate().is_none()), (vec![9; 4], true));
    });
}

#[test]
fn a_batch_is_taken_when_all_of_it_has_come() {
    loom::model(|| {
        let slab = slab();
        let count = Arc::new(Count::default());
        let ticket = Ticket::new(slab.claim(0), 7, count.clone());
        let row = ticket.row().clone();
        let done = Arc::new(loom::sync::Mutex::new(None));
        let reader = {
            let done = done.clone();
            thread::spawn(move || {
                receive(ticket.row());
                *done.lock().expect("nobody panics") = Some(ticket.complete());
            })
        };
        let taken = done.lock().expect("nobody panics").take();
        if taken.is_some() {
            drop(row.vacate());
            assert_eq!(content(slab, 0), SENT);
        } else {
            // The row is too slow, and the batch starts without it.
            let seen = row.filled_bytes();
            let kept = row.vacate().map_or(0, |_| row.filled_bytes());
            assert!(seen <= kept && kept <= 4);
            assert!(slab.into_tree(&Order::sorted(), 0, None).is_ok(), "nobody holds a row of it");
        }
        reader.join().expect("the reader ends");
        assert_eq!(count.0.load(loom::sync::atomic::Ordering::SeqCst), 0);
    });
}

#[test]
fn a_row_is_abandoned_once_while_it_is_moved() {
    loom::model(|| {
        let (from, to) = (slab(), slab());
        let count = Arc::new(Count::default());
        let ticket = Ticket::new(from.claim(0), 7, count.clone());
        let row = ticket.row().clone();
        let reader = thread::spawn(move || {
            read(ticket.row(), &SENT, 3, 4);
            drop(ticket); // the connection died
        });
        row.move_to(to.claim(0).expect("it is free"));
        assert!(from.into_tree(&Order::sorted(), 0, None).is_ok(), "nothing is left there");
        reader.join().expect("the reader ends");
        assert_eq!(count.0.load(loom::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(row.filled_bytes(), 3);
        drop(row.vacate());
        assert_eq!(content(to, 0)[..3], SENT[..3]);
    });
}

#[test]
fn a_claim_sees_the_bytes_that_were_left_in_the_row() {
    loom::model(|| {
        let slab = slab();
        let mut memory = slab.claim(0).expect("it is free");
        let writer = thread::spawn(move || {
            memory.write(0, &SENT);
            drop(memory);
        });
        if let Some(mut memory) = slab.claim(0) {
            memory.write(0, &[9]);
            drop(memory);
            assert_eq!(content(slab, 0), [9, 2, 3, 4]);
        } else if let Ok(tree) = slab.into_tree(&Order::sorted(), 1, None) {
            assert_eq!(payload(&tree), SENT);
        }
        writer.join().expect("the writer ends");
    });
}
