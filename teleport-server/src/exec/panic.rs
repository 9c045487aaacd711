//! Catches panics of functions, and notes where they happened.
//!
//! A panic is caught where a function is called and nowhere else. The process's own panic hook prints its
//! message, and a hook that this crate adds before it notes the place.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt::{self, Display, Formatter};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panic {
    pub(crate) message: String,
    /// Such as `src/model.rs:31:9`; `None` if another hook has replaced that of this crate.
    pub(crate) location: Option<String>,
    /// Present if `RUST_BACKTRACE` is set.
    pub(crate) backtrace: Option<String>,
}

impl Panic {
    /// Converts the panic to the error that the caller gets.
    pub(crate) fn remote(&self) -> RemoteError {
        let mut error = RemoteError::new(ErrorKind::Panicked, Ran::Yes, self.to_string());
        error.backtrace.clone_from(&self.backtrace);
        error
    }
}

impl Display for Panic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.location.as_ref().map_or(Ok(()), |location| write!(f, " (at {location})"))
    }
}

#[derive(Debug, Default)]
struct Noted {
    location: Option<String>,
    backtrace: Option<String>,
}

thread_local! {
    /// True once this thread has been inside `catch`: it runs functions.
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// The location and backtrace that the hook recorded on a thread that runs functions.
    static NOTED: RefCell<Noted> = const { RefCell::new(Noted { location: None, backtrace: None }) };
}

/// Adds a hook, once, that records the places of panics on threads that run functions. The previous hook
/// still runs for every panic.
pub(crate) fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHES.get() {
                note(info);
            }
            previous(info);
        }));
    });
}

fn note(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    NOTED.set(Noted {
        location: info.location().map(ToString::to_string),
        backtrace: captured.then(|| backtrace.to_string()),
    });
}

/// Runs `function` and catches its panic. The caller must drop anything that the function may have left
/// inconsistent.
pub(crate) fn catch<T>(function: impl FnOnce() -> T) -> Result<T, Panic> {
    CATCHES.set(true);
    panic::catch_unwind(AssertUnwindSafe(function)).map_err(|payload| caught(&*payload))
}

#[cold]
fn caught(payload: &(dyn Any + Send)) -> Panic {
    let Noted { location, backtrace } = NOTED.take();
    Panic { message: message(payload), location, backtrace }
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_its_place() {
        note_panics();
        let caught = catch(|| panic!("{} rows", 3)).unwrap_err();
        assert_eq!(caught.message, "3 rows");
        assert!(caught.location.as_ref().unwrap().contains("panic.rs"), "{caught:?}");
        assert_eq!(catch(|| panic!("plain")).unwrap_err().message, "plain");
        assert_eq!(catch(|| panic::panic_any(7)).unwrap_err().message, "a panic without a message");
        assert_eq!(catch(|| 7).unwrap(), 7);
    }
}
