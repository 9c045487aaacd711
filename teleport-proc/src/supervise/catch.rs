//! Catches the panics of functions.
//!
//! A hook that runs before the program's own notes where a panic happened. If the process has a
//! [`ResultFile`], the hook also writes the panic to it at once: a second panic while the first unwinds
//! aborts the process, and so does the first with `panic = "abort"`. A panic that was written counts only if
//! the process ends by it, since the function may catch the panic itself and continue.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::cancel::interrupt::Killed;
use crate::codec::BoxError;
use crate::failure::Failure;
use crate::supervise::outcome::ResultFile;

thread_local! {
    /// True while this thread is inside [`catch`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// The last panic of this thread that the hook has seen.
    static NOTED: RefCell<Option<Failure>> = const { RefCell::new(None) };
    static RESULT_FILE: RefCell<Option<ResultFile>> = const { RefCell::new(None) };
}

/// Runs a function of the user, and catches its panic after the program's own hook has run.
///
/// # Errors
/// Returns the error or panic of the function, or `None` if this thread was killed.
pub(crate) fn catch<T>(function: impl FnOnce() -> Result<T, BoxError>) -> Result<T, Option<Failure>> {
    static ONCE: Once = Once::new();
    ONCE.call_once(put_hook_first);
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(function));
    CATCHING.set(outer);
    let noted = NOTED.take();
    match result {
        Ok(result) => result.map_err(|error| Some(Failure::of_error(&error))),
        Err(payload) if payload.is::<Killed>() => Err(None),
        Err(payload) => {
            // This panic may not have passed the hook: compare the texts.
            let failure = Failure::of_panic(text_of(&*payload), None, None);
            let text = format!("{} (at ", failure.message);
            Err(Some(noted.filter(|noted| noted.message.starts_with(&text)).unwrap_or(failure)))
        }
    }
}

/// Has each panic of this thread written to `file` as it happens.
pub(crate) fn write_panics_to(file: ResultFile) {
    RESULT_FILE.set(Some(file));
}

/// Puts the hook of this module before the present one, which may have replaced it.
pub(crate) fn put_hook_first() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // If the previous hook calls this one again, there is nothing left to do.
        if !CATCHING.replace(false) {
            return previous(info);
        }
        note(info);
        previous(info);
        // The previous hook has not ended the process, and the function may catch the panic.
        write(ResultFile::write_caught);
        CATCHING.set(true);
    }));
}

fn note(info: &PanicHookInfo<'_>) {
    // The runtime's own panic before it aborts says less than the panic that has led to it.
    let is_runtime =
        info.location().is_some_and(|location| location.file().ends_with("core/src/panicking.rs"));
    if is_runtime && NOTED.with_borrow(Option::is_some) {
        return;
    }
    let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0");
    let backtrace = wants_backtrace.then(|| Backtrace::force_capture().to_string());
    let location = info.location().map(ToString::to_string);
    let failure = Failure::of_panic(text_of(info.payload()), location, backtrace);
    write(|file| file.write(&Err(failure.clone())));
    NOTED.set(Some(failure));
}

fn write(write: impl FnOnce(&ResultFile) -> io::Result<()>) {
    RESULT_FILE.with_borrow(|file| {
        // If this fails, the exit code still shows the panic.
        let _ = file.as_ref().map(write);
    });
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_its_place_and_backtrace() {
        let failure = catch::<()>(|| panic!("number {}", 7)).unwrap_err().unwrap();
        assert!(failure.message().starts_with("number 7 (at "), "{failure}");
        assert!(failure.message().contains("catch.rs:"), "{failure}");
        assert!(failure.backtrace().is_some_and(|text| text.contains("a_panic_has_its_place_and_backtrace")));
    }

    #[test]
    fn a_panic_that_was_caught_before_is_another() {
        let caught = || assert!(panic::catch_unwind(|| panic!("handled here")).is_err());
        let failure = catch::<()>(|| {
            caught();
            panic::resume_unwind(Box::new("not that one"))
        });
        assert_eq!(failure.unwrap_err().unwrap().message(), "not that one");
        let result = catch(|| {
            caught();
            Ok(())
        });
        assert!(result.is_ok());
    }
}
