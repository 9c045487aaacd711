//! Models of the two threads that hand the memory of a message over and free it, in every possible order of
//! their steps.

use loom::thread;
use teleport_wire::Buffer;

use super::Lent;

const BYTES: u64 = 1 << 20;

#[test]
fn memory_counts_between_its_handover_and_its_end_only() {
    loom::model(|| {
        let lent = Lent::default();
        let (memory, loan) = lent.watch_bytes(Buffer::zeroed(64), BYTES);
        let threads = [thread::spawn(move || drop(loan)), thread::spawn(move || drop(memory))];
        let seen = lent.bytes();
        assert!(seen == 0 || seen == BYTES, "{seen}");
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        assert_eq!(lent.bytes(), 0);
    });
}
