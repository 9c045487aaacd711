//! What a function of a process or thread failed with: its error, or its panic.
//!
//! Flow: error or panic -> [`Failure`] -> [`Slot`], memory that both processes have -> whoever asks, as often as he asks.
//! A panic is caught around the function and nowhere else. A hook before the program's own notes where it happened, and
//! writes it down at once where the process has a slot: a second panic while the first unwinds aborts, and so does the
//! first with `panic = "abort"`. What is written then counts only if the process ends by it: the function may catch the
//! panic itself and go on.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::cancel::interrupt::Killed;
use crate::codec::{BoxError, Reader, Writer};

/// A message that is longer is cut.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// A backtrace that is longer is cut: hundreds of frames have room.
const MAX_BACKTRACE_BYTES: usize = 256 << 10;

/// Why a function did not end well: what it returned, or that it panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    backtrace: Option<String>,
    panicked: bool,
}

impl Failure {
    /// An error that a function returned.
    pub(crate) fn of_error(error: &BoxError) -> Failure {
        Failure {
            message: cut(full_text(&**error), MAX_MESSAGE_BYTES),
            backtrace: own_backtrace(&**error).map(|text| cut(text, MAX_BACKTRACE_BYTES)),
            panicked: false,
        }
    }

    /// Its text and those of its sources (64 KiB at most). Of a panic, its message and where in the source it was.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How it came there. Of a panic always, unless `RUST_BACKTRACE=0` forbids it; of an error if it carries one and shows it
    /// with `{:?}`, as those of `anyhow` do.
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }

    /// Whether it was a panic.
    pub fn panicked(&self) -> bool {
        self.panicked
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.panicked { "panicked: " } else { "" }, self.message)
    }
}

/// The texts of an error and its sources, without those that repeat what stands there already.
fn full_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

/// The backtrace that an error shows itself, as there is no other way yet to ask for it.
fn own_backtrace(error: &dyn Error) -> Option<String> {
    let text = format!("{error:?}");
    let (_, backtrace) = text.split_once("Stack backtrace:\n")?;
    Some(backtrace.to_owned())
}

fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The last panic of a thread.
struct Noted {
    /// Tells it from another one, which may come here without passing the hook.
    text: String,
    failure: Failure,
}

thread_local! {
    /// Whether this thread is inside [`catch`], and what the hook noted there.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
    /// Where this thread's panics are written down at once.
    static SLOT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// Runs a function of the user's and catches its panic. The program's own hook has run then.
///
/// # Errors
/// What is known of the panic; none if it was a thread that was killed.
pub(crate) fn catch<T>(function: impl FnOnce() -> T) -> Result<T, Option<Failure>> {
    note_panics();
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(function));
    CATCHING.set(outer);
    let noted = NOTED.take();
    result.map_err(|payload| {
        let text = text_of(&*payload);
        let noted = noted.filter(|noted| noted.text == text).map(|noted| noted.failure);
        let is_killed = payload.is::<Killed>();
        (!is_killed).then(|| noted.unwrap_or_else(|| panicked(text, None, None)))
    })
}

/// Has this thread's panics written into a slot as they happen.
pub(crate) fn write_panics_to(slot: Slot) {
    SLOT.set(Some(slot));
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(put_hook_first);
}

/// Has panics noted before the hook that the program has now, which may have taken the place of an earlier one of these.
pub(crate) fn put_hook_first() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // One that comes later, since a hook of the program's calls it, has nothing to add.
        if !CATCHING.replace(false) {
            return previous(info);
        }
        note(info);
        previous(info);
        // That has not ended the process, and the function may catch the panic.
        with_slot(Slot::write_going_on);
        CATCHING.set(true);
    }));
}

fn note(info: &PanicHookInfo<'_>) {
    // The runtime's own last word before it aborts tells less than the panic that has led to it.
    let is_runtime =
        info.location().is_some_and(|location| location.file().ends_with("core/src/panicking.rs"));
    if is_runtime && NOTED.with_borrow(Option::is_some) {
        return;
    }
    let backtrace = wants_backtrace().then(|| Backtrace::force_capture().to_string());
    let text = text_of(info.payload());
    let failure = panicked(text.clone(), info.location().map(ToString::to_string), backtrace);
    with_slot(|slot| slot.write(&Err(failure.clone())));
    NOTED.set(Some(Noted { text, failure }));
}

fn with_slot(write: impl FnOnce(&Slot) -> io::Result<()>) {
    SLOT.with_borrow(|slot| {
        // What cannot be written is told all the same: by the code with which the process ends.
        let _ = slot.as_ref().map(write);
    });
}

fn wants_backtrace() -> bool {
    std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0")
}

fn panicked(text: String, location: Option<String>, backtrace: Option<String>) -> Failure {
    let text = cut(text, MAX_MESSAGE_BYTES - 1024);
    Failure {
        message: location.map_or(text.clone(), |location| format!("{text} (at {location})")),
        backtrace: backtrace.map(|text| cut(text, MAX_BACKTRACE_BYTES)),
        panicked: true,
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// Memory into which a process writes what became of its function, and which its owner reads when it has ended.
#[derive(Debug)]
pub(crate) struct Slot(pub(crate) File);

/// What stands in a [`Slot`].
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The process did not come as far as `init`.
    Nothing,
    /// It ended while the function ran.
    Running,
    /// The same, and this was its last panic: it has ended by that, or the function caught it.
    Panicking(Failure),
    Value(Vec<u8>),
    Failure(Failure),
}

const RUNNING: u64 = 1;
const VALUE: u64 = 2;
const FAILURE: u64 = 3;
const PANIC: u64 = 4;
const PANICKING: u64 = 5;

/// The state and the length of what follows.
const HEAD_BYTES: u64 = 16;

impl Slot {
    pub(crate) fn write_running(&self) -> io::Result<()> {
        self.head(RUNNING, 0)
    }

    /// The head goes last: who is killed meanwhile has not ended well.
    pub(crate) fn write(&self, result: &Result<Vec<u8>, Failure>) -> io::Result<()> {
        self.write_running()?;
        let mut parts = Writer::default();
        let (state, bytes) = match result {
            Ok(bytes) => (VALUE, bytes),
            Err(failure) => {
                parts.push(failure.message.as_bytes());
                failure.backtrace.iter().for_each(|text| parts.push(text.as_bytes()));
                (if failure.panicked { PANIC } else { FAILURE }, &parts.0)
            }
        };
        self.0.write_all_at(bytes, HEAD_BYTES)?;
        self.head(state, bytes.len() as u64)
    }

    /// Turns a panic into one that may be caught.
    fn write_going_on(&self) -> io::Result<()> {
        self.0.write_all_at(&PANICKING.to_le_bytes(), 0)
    }

    fn head(&self, state: u64, bytes: u64) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES as usize];
        head[..8].copy_from_slice(&state.to_le_bytes());
        head[8..].copy_from_slice(&bytes.to_le_bytes());
        self.0.write_all_at(&head, 0)
    }

    pub(crate) fn read(&self) -> io::Result<Outcome> {
        if self.0.metadata()?.len() == 0 {
            return Ok(Outcome::Nothing);
        }
        let mut head = [0; HEAD_BYTES as usize];
        self.0.read_exact_at(&mut head, 0)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        // The process has the file too and may have cut it: what is not there is not asked for.
        let length = number(8).min(self.0.metadata()?.len().saturating_sub(HEAD_BYTES));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.0.read_exact_at(&mut bytes, HEAD_BYTES)?;
        Ok(match number(0) {
            VALUE => Outcome::Value(bytes),
            state @ (FAILURE | PANIC | PANICKING) => {
                let mut parts = Reader(&bytes);
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let message = parts.next().map(text).unwrap_or_default();
                let backtrace = parts.next().map(text).ok();
                let failure = Failure { message, backtrace, panicked: state != FAILURE };
                if state == PANICKING { Outcome::Panicking(failure) } else { Outcome::Failure(failure) }
            }
            _ => Outcome::Running,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    fn a_slot_says_how_far_the_function_came() {
        let slot = Slot(sys::memory().unwrap());
        assert!(matches!(slot.read().unwrap(), Outcome::Nothing));
        slot.write_running().unwrap();
        assert!(matches!(slot.read().unwrap(), Outcome::Running));
        let failure = Failure { message: "no".into(), backtrace: Some("here".into()), panicked: true };
        slot.write(&Err(failure.clone())).unwrap();
        assert!(matches!(slot.read().unwrap(), Outcome::Failure(read) if read == failure));
        slot.write_going_on().unwrap();
        assert!(matches!(slot.read().unwrap(), Outcome::Panicking(read) if read == failure));
        slot.write(&Ok(vec![7; 100])).unwrap();
        assert!(matches!(slot.read().unwrap(), Outcome::Value(bytes) if bytes == [7; 100]));
    }

    #[test]
    fn panics_tell_where_they_were() {
        let failure = catch(|| panic!("number {}", 7)).unwrap_err().unwrap();
        assert!(failure.message().starts_with("number 7 (at "), "{failure}");
        assert!(failure.message().contains("failure.rs:"), "{failure}");
        assert!(failure.backtrace().is_some_and(|text| text.contains("panics_tell_where_they_were")));
    }

    #[test]
    fn a_panic_that_was_caught_before_is_another() {
        let caught = || assert!(panic::catch_unwind(|| panic!("handled here")).is_err());
        let failure = catch(|| {
            caught();
            panic::resume_unwind(Box::new("not that one"))
        });
        assert_eq!(failure.map(|()| "well").unwrap_err().unwrap().message(), "not that one");
        assert!(catch(caught).is_ok());
    }

    #[test]
    fn errors_tell_what_caused_them() {
        let inner = io::Error::other("inner");
        let failure = Failure::of_error(&BoxError::from(crate::ProcError::system("outer")(inner)));
        assert_eq!(failure.message(), "outer: inner");
        let long: BoxError = "ü".repeat(MAX_MESSAGE_BYTES).into();
        assert_eq!(Failure::of_error(&long).message().len(), MAX_MESSAGE_BYTES);
    }
}
