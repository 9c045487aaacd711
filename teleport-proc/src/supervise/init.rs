//! The first line of `main`: where a process that was started by this crate leaves the program that it was made of.
//!
//! A process of this crate carries a mark in its environment. `init` sees it and never returns: as a zygote, or as the
//! function that it was started for. In every other process it notes that it was called, without which nothing is
//! started: so no process comes to `main` of a program that does not expect it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::supervise::{child, ids, zygote};

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Runs the function that this process was started for, if it was started by [`Process`](crate::Process), and never
/// returns then. **Call it first in `main`**: what stands before it runs in every such process too.
///
/// ```no_run
/// use teleport_proc::BoxError;
///
/// fn main() -> Result<(), BoxError> {
///     teleport_proc::init();
///     Ok(()) // here only the program itself arrives
/// }
/// ```
///
/// It must come before the program has other threads. So where the work is asynchronous, `main` itself is not:
///
/// ```no_run
/// fn main() {
///     teleport_proc::init();
///     run() // `#[tokio::main] async fn run()`
/// }
/// # fn run() {}
/// ```
///
/// Where `main` is not yours, as in tests, [`init_before_main!`](crate::init_before_main) does it.
pub fn init() {
    // Relaxed: nothing else is passed along with it.
    INITIALIZED.store(true, Ordering::Relaxed);
    match std::env::var(ids::MARK_VARIABLE) {
        Ok(mark) if mark == ids::ZYGOTE_MARK => zygote::run(),
        Ok(mark) if mark == ids::own_process_mark() => child::run(),
        _ => {}
    }
}

/// Has [`init`] called before `main`, once for a program: for tests, whose `main` is not yours, put it into each file of
/// `tests` and at the top of a crate with unit tests.
///
/// It stands among the functions that the system calls when it has loaded the program (`.init_array`). So a process that
/// such a program starts runs its function before `main`: that is sound, since Rust's standard library needs nothing that
/// `main` sets up, but static objects of C++ code in the program itself may not exist yet. Where you can, call [`init`].
///
/// ```
/// teleport_proc::init_before_main!();
/// ```
#[macro_export]
macro_rules! init_before_main {
    () => {
        const _: () = {
            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
            static INIT: extern "C" fn() = {
                extern "C" fn init() {
                    $crate::init();
                }
                init
            };
        };
    };
}

/// Whether [`init`] was called, so that this program may be executed again.
pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}
