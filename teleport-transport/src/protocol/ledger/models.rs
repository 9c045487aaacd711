//! Models of threads that drop leases beside the thread that writes, in every possible order of their steps.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::ReturnedCredit;

const EAGER_BYTES: u64 = 16;
/// A quarter is worth a write.
const MIN_WRITE_BYTES: u64 = 4;
const LEASE_BYTES: u64 = 3;

#[test]
fn all_credit_is_taken_once_and_no_quarter_is_left_without_a_write() {
    loom::model(|| {
        let is_write_due = Arc::new(AtomicBool::new(false));
        let due = is_write_due.clone();
        let wake = Box::new(move || due.store(true, Ordering::SeqCst));
        let credit = Arc::new(ReturnedCredit::new(EAGER_BYTES, wake));
        let threads = [(); 2].map(|()| {
            let credit = credit.clone();
            thread::spawn(move || credit.give_back(LEASE_BYTES))
        });
        // A write that happens anyway takes what is there.
        let mut taken_bytes = credit.take();
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        assert!(is_write_due.load(Ordering::SeqCst) || credit.bytes() < MIN_WRITE_BYTES);
        taken_bytes += credit.take();
        assert_eq!((taken_bytes, credit.bytes()), (2 * LEASE_BYTES, 0));
    });
}
