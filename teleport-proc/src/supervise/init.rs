//! The first line of `main`, where a process that this crate started leaves the program that it was made of.
//!
//! Such a process carries a mark in its environment. `init` sees it and never returns: it becomes a zygote,
//! or runs the function of the process. In every other process it notes that it was called. Without that
//! nothing is started, so that no process reaches the `main` of a program that does not expect it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::supervise::{child, ids, zygote};

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Runs the function of this process and never returns, if [`Process`](crate::Process) started it. Otherwise
/// returns at once. **Call it first in `main`**: what stands before it also runs in every such process.
///
/// Call it before the program starts threads. So an asynchronous program needs a plain `main`:
///
/// ```no_run
/// fn main() {
///     teleport_proc::init();
///     run() // `#[tokio::main] async fn run()`
/// }
/// # fn run() {}
/// ```
///
/// In tests, whose `main` is not yours, use [`init_before_main!`](crate::init_before_main).
pub fn init() {
    // Relaxed: no other memory depends on it.
    INITIALIZED.store(true, Ordering::Relaxed);
    match std::env::var(ids::MARK_VARIABLE) {
        Ok(mark) if mark == ids::ZYGOTE_MARK => zygote::run(),
        Ok(mark) if mark == ids::own_process_mark() => child::run(),
        _ => {}
    }
}

/// Calls [`init`] before `main`. Put it once into a program whose `main` is not yours: into each file of
/// `tests`, and at the top of a crate with unit tests.
///
/// The system calls it when it has loaded the program (`.init_array`), so that a process runs its function
/// before `main`. This is sound, since Rust's standard library needs nothing that `main` sets up. Static
/// objects of C++ code in the program itself may not exist yet.
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

/// Returns whether [`init`] was called, so that this program may be executed again.
pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}
