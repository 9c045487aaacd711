//! Drops users' values only when no lock is held: the owner of a buffer may be a user's value whose
//! destructor runs any code.
//!
//! Flow: a thread enters a [`DropScope`] before it takes a link's locks -> values that are released under the
//! locks go through [`drop_later`] -> the outermost scope of the thread drops them when it ends, after the
//! locks are released. Without a scope, values are dropped at once. A destructor's panic is caught and
//! logged. Never blocks. Bound: the values that one turn of reading or writing releases.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use teleport_wire::Buffer;

/// The capacity that a thread keeps: the buffers of a few small messages.
const KEPT_CAPACITY: usize = 64;

struct Deferred {
    buffers: RefCell<Vec<Buffer>>,
    others: RefCell<Vec<Box<dyn Any>>>,
}

/// Added to the word of a thread for each scope that it has entered.
const SCOPE: usize = 2;
/// Set in the word of a thread that has deferred a value.
const HAS_DEFERRED: usize = 1;

thread_local! {
    /// The scopes that this thread is in, and whether it has deferred a value. Apart from the values, because
    /// a word without a destructor is cheap to change, and most scopes defer nothing.
    static SCOPES: Cell<usize> = const { Cell::new(0) };
    static DEFERRED: Deferred = const {
        Deferred { buffers: RefCell::new(Vec::new()), others: RefCell::new(Vec::new()) }
    };
}

/// Defers drops of this thread until the outermost scope ends. Enter it before taking a lock.
#[derive(Debug)]
pub(crate) struct DropScope {
    /// The scope belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl DropScope {
    #[inline]
    pub(crate) fn enter() -> DropScope {
        SCOPES.set(SCOPES.get() + SCOPE);
        DropScope { _not_send: PhantomData }
    }
}

impl Drop for DropScope {
    #[inline]
    fn drop(&mut self) {
        let scopes = SCOPES.get() - SCOPE;
        SCOPES.set(scopes);
        if scopes == HAS_DEFERRED {
            drop_deferred();
        }
    }
}

/// Drops the deferred values, and the values that those release in turn.
#[cold]
#[inline(never)]
fn drop_deferred() {
    SCOPES.set(0);
    while let Ok(mut buffers) = DEFERRED.try_with(|deferred| deferred.buffers.take())
        && !buffers.is_empty()
    {
        buffers.drain(..).for_each(drop_one);
        if buffers.capacity() <= KEPT_CAPACITY {
            let _ = DEFERRED.try_with(|deferred| {
                let mut kept = deferred.buffers.borrow_mut();
                if kept.capacity() == 0 {
                    *kept = buffers;
                }
            });
        }
    }
    while let Ok(others) = DEFERRED.try_with(|deferred| deferred.others.take())
        && !others.is_empty()
    {
        others.into_iter().for_each(drop_one);
    }
}

fn drop_one(value: impl Sized) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::error!("the destructor of a sent array's owner panicked");
    }
}

/// Defers `value` if a scope is entered, and drops it otherwise.
fn defer<T>(value: T, push: impl FnOnce(&Deferred, T)) {
    let scopes = SCOPES.get();
    let mut value = Some(value);
    if scopes >= SCOPE {
        // Fails while the thread ends; then the value is dropped at once.
        let _ = DEFERRED.try_with(|deferred| value.take().map(|value| push(deferred, value)));
        SCOPES.set(scopes | HAS_DEFERRED);
    }
    if let Some(value) = value {
        drop_one(value);
    }
}

/// Drops `buffer` once this thread holds no lock of a link.
pub(crate) fn drop_buffer_later(buffer: Buffer) {
    defer(buffer, |deferred, buffer| deferred.buffers.borrow_mut().push(buffer));
}

/// Drops a value whose destructor may run the user's code, such as the arguments of a call, once this thread
/// holds no lock of a link.
///
/// For [handlers](crate::Handler), which run while their link's receiving half is locked: a destructor that
/// used the link would deadlock. Elsewhere the value is dropped at once. A panic of its destructor is caught
/// and logged.
pub fn drop_later<T: 'static>(value: T) {
    defer(value, |deferred, value| deferred.others.borrow_mut().push(Box::new(value)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts its drop, then runs a function.
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
    fn the_outermost_scope_drops_deferred_values() {
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
    fn values_that_destructors_release_are_dropped_and_panics_are_caught() {
        let dropped = Arc::new(AtomicUsize::new(0));
        static LAST: AtomicUsize = AtomicUsize::new(0);
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                LAST.fetch_add(1, Ordering::Relaxed);
            }
        }
        let scope = DropScope::enter();
        throw(&dropped, || {
            let _scope = DropScope::enter();
            drop_later(Last);
        });
        throw(&dropped, || panic!("this destructor panics"));
        throw(&dropped, || {});
        drop(scope);
        assert_eq!((dropped.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)), (6, 2));
    }
}
