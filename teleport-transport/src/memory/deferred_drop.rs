//! What is dropped once no lock is held: buffers may stand on owners of the user's, whose destructors run any code.
//!
//! Flow: whoever takes a link's locks opens a [`DropScope`] first -> what is let go of under them goes through [`drop_later`] ->
//! the outermost bin of the thread drops it as it closes, when the locks have been given back. Without a bin, such as in
//! tests of the pure state, things are dropped at once. A destructor that panics is reported in the log and ends nothing.
//! Never blocks. Bound: what one turn of reading or writing lets go of.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use teleport_wire::Buffer;

/// Room for so many buffers is kept by a thread: the pieces of a few small messages.
const KEPT: usize = 64;

struct Local {
    /// Bins that are open.
    open: Cell<usize>,
    buffers: RefCell<Vec<Buffer>>,
    others: RefCell<Vec<Box<dyn Any>>>,
}

thread_local! {
    static LOCAL: Local = const {
        Local { open: Cell::new(0), buffers: RefCell::new(Vec::new()), others: RefCell::new(Vec::new()) }
    };
}

/// While it is open, nothing that this thread lets go of is dropped. Open it before a lock is taken.
#[derive(Debug)]
pub(crate) struct DropScope(());

impl DropScope {
    pub(crate) fn enter() -> DropScope {
        // Fails while the thread ends: things are dropped at once then.
        let _ = LOCAL.try_with(|local| local.open.set(local.open.get() + 1));
        DropScope(())
    }
}

impl Drop for DropScope {
    fn drop(&mut self) {
        let is_outermost = LOCAL.try_with(|local| {
            local.open.set(local.open.get().saturating_sub(1));
            local.open.get() == 0
        });
        if is_outermost == Ok(true) {
            empty();
        }
    }
}

/// Drops what has come together, and what that lets go of in its turn.
fn empty() {
    while let Ok(mut buffers) = LOCAL.try_with(|local| mem::take(&mut *local.buffers.borrow_mut()))
        && !buffers.is_empty()
    {
        buffers.drain(..).for_each(drop_one);
        if buffers.capacity() <= KEPT {
            let _ = LOCAL.try_with(|local| {
                let mut kept = local.buffers.borrow_mut();
                if kept.capacity() == 0 {
                    *kept = buffers;
                }
            });
        }
    }
    while let Ok(others) = LOCAL.try_with(|local| mem::take(&mut *local.others.borrow_mut()))
        && !others.is_empty()
    {
        others.into_iter().for_each(drop_one);
    }
}

fn drop_one(waste: impl Sized) {
    if catch_unwind(AssertUnwindSafe(|| drop(waste))).is_err() {
        tracing::error!("the owner of an array that was sent panicked as it was dropped");
    }
}

/// Puts a thing aside if a bin is open, and drops it otherwise.
fn put<T>(waste: T, put: impl FnOnce(&Local, T)) {
    let mut waste = Some(waste);
    let _ = LOCAL.try_with(|local| {
        if local.open.get() > 0
            && let Some(waste) = waste.take()
        {
            put(local, waste);
        }
    });
    if let Some(waste) = waste {
        drop_one(waste);
    }
}

/// Drops `buffer` once this thread holds no lock of a link.
pub(crate) fn drop_buffer_later(buffer: Buffer) {
    put(buffer, |local, buffer| local.buffers.borrow_mut().push(buffer));
}

/// Drops what may run code of the user's, such as the arguments of a call, once this thread holds no lock of a link. For
/// [handlers](crate::Handler), which are told of what arrives while their link's receiving half is locked: a destructor
/// that used the link would wait for itself. Elsewhere it is dropped at once. A panic of it is logged.
pub fn drop_later<T: 'static>(waste: T) {
    put(waste, |local, waste| local.others.borrow_mut().push(Box::new(waste)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts its end, and does more.
    struct Owner(Arc<AtomicUsize>, fn());

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &[1, 2, 3]
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            (self.1)();
        }
    }

    fn throw(dropped: &Arc<AtomicUsize>, then: fn()) {
        drop_buffer_later(Buffer::from_owner(Owner(dropped.clone(), then)));
        drop_later(Owner(dropped.clone(), then));
    }

    #[test]
    fn the_outermost_bin_drops_what_was_put_aside() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let count = || dropped.load(Ordering::Relaxed);
        throw(&dropped, || {});
        assert_eq!(count(), 2);
        let outer = DropScope::enter();
        drop(DropScope::enter());
        throw(&dropped, || drop(DropScope::enter()));
        drop(DropScope::enter());
        assert_eq!(count(), 2);
        drop(outer);
        assert_eq!(count(), 4);
    }

    #[test]
    fn what_a_destructor_lets_go_of_goes_too_and_its_panic_ends_nothing() {
        let dropped = Arc::new(AtomicUsize::new(0));
        static LAST: AtomicUsize = AtomicUsize::new(0);
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                LAST.fetch_add(1, Ordering::Relaxed);
            }
        }
        let bin = DropScope::enter();
        throw(&dropped, || {
            let _bin = DropScope::enter();
            drop_later(Last);
        });
        throw(&dropped, || panic!("this destructor panics"));
        throw(&dropped, || {});
        drop(bin);
        assert_eq!((dropped.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)), (6, 2));
    }
}
