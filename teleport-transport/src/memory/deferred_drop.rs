//! Drops users' values only when no lock is held: the owner of a buffer may be a user's value whose
//! destructor runs any code.
//!
//! Flow: a thread enters a [`DropScope`] before it takes a link's locks -> values that are released under the
//! locks go through [`drop_later`] -> the outermost scope of the thread drops them when it ends, after the
//! locks are released. Without a scope, values are dropped at once. A destructor's panic is caught and
//! logged. Never blocks. Bound: the values that one turn of reading or writing releases.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use teleport_wire::{Buffer, Tree};

/// The capacity that a thread keeps: the trees of a few small messages.
const KEPT_CAPACITY: usize = 64;

/// Added to the word of a thread for each scope that it has entered.
const SCOPE: usize = 2;
/// Set in the word of a thread that has deferred a value.
const HAS_DEFERRED: usize = 1;

thread_local! {
    /// The scopes that this thread is in, and whether it has deferred a value. Apart from the values, because
    /// a word without a destructor is cheap to change, and most scopes defer nothing.
    static SCOPES: Cell<usize> = const { Cell::new(0) };
    static DEFERRED: RefCell<Vec<Tree>> = const { RefCell::new(Vec::new()) };
}

/// Defers drops of this thread until the outermost scope ends. Enter it before taking a lock.
#[derive(Debug)]
pub struct DropScope {
    /// The scope belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl DropScope {
    /// Enters a scope, which may be one within another.
    #[inline]
    pub fn enter() -> DropScope {
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
    // In a scope, so that a destructor that enters another one leaves its values to this loop.
    SCOPES.set(SCOPE);
    // Fails while the thread ends; then the list is dropped with the thread.
    while let Ok(Some(tree)) = DEFERRED.try_with(pop_deferred) {
        drop_with(|| drop(tree));
    }
    SCOPES.set(0);
}

/// Returns the last deferred value. An empty list keeps little memory.
fn pop_deferred(deferred: &RefCell<Vec<Tree>>) -> Option<Tree> {
    let mut deferred = deferred.borrow_mut();
    let last = deferred.pop();
    if last.is_none() && deferred.capacity() > KEPT_CAPACITY {
        *deferred = Vec::new();
    }
    last
}

fn drop_with(drop: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(drop)).is_err() {
        tracing::error!("the destructor of a sent array's owner panicked");
    }
}

/// Drops `buffer` once this thread holds no lock of a link.
pub(crate) fn drop_buffer_later(buffer: Buffer) {
    drop_later(Tree::Bytes(buffer));
}

/// Drops `tree`, such as the arguments of a call, once this thread holds no lock of a link: a destructor of
/// the user that used the link would deadlock.
///
/// That is the end of the thread's outermost [`DropScope`]. A [handler](crate::Handler) runs in one. Without
/// a scope, the tree is dropped at once. A panic of a destructor is caught and logged.
pub fn drop_later(tree: Tree) {
    let scopes = SCOPES.get();
    let mut tree = Some(tree);
    if scopes >= SCOPE {
        // Fails while the thread ends; then the tree is dropped at once.
        let _ = DEFERRED.try_with(|deferred| tree.take().map(|tree| deferred.borrow_mut().push(tree)));
        SCOPES.set(scopes | HAS_DEFERRED);
    }
    if let Some(tree) = tree {
        drop_with(|| drop(tree));
    }
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
        let buffer = || Buffer::from_owner(Owner(dropped.clone(), then));
        drop_buffer_later(buffer());
        drop_later(Tree::List(vec![Tree::Bytes(buffer())]));
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
        impl AsRef<[u8]> for Last {
            fn as_ref(&self) -> &[u8] {
                &[1]
            }
        }
        impl Drop for Last {
            fn drop(&mut self) {
                LAST.fetch_add(1, Ordering::Relaxed);
            }
        }
        let scope = DropScope::enter();
        throw(&dropped, || {
            let _scope = DropScope::enter();
            drop_buffer_later(Buffer::from_owner(Last));
        });
        throw(&dropped, || panic!("this destructor panics"));
        throw(&dropped, || {});
        drop(scope);
        assert_eq!((dropped.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)), (6, 2));
    }

    #[test]
    fn destructors_that_enter_scopes_do_not_nest() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let scope = DropScope::enter();
        for _ in 0..100_000 {
            let then = || {
                let _scope = DropScope::enter();
                drop_buffer_later(Buffer::copy_from(&[1]));
            };
            drop_buffer_later(Buffer::from_owner(Owner(dropped.clone(), then)));
        }
        drop(scope);
        assert_eq!((dropped.load(Ordering::Relaxed), SCOPES.get()), (100_000, 0));
        assert!(DEFERRED.with_borrow(|kept| kept.is_empty() && kept.capacity() <= KEPT_CAPACITY));
    }
}
