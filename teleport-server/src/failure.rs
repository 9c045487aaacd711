//! Errors of functions: what they may return, how a caller reads it, and panics caught.
//!
//! Flow: a function's error or panic -> [`RemoteError`] for the caller -> a line of the log and `check` for the owner.
//! A panic is caught where a function is called and nowhere else; its message is printed by the process's own hook, and
//! a hook installed before it notes where it happened. Texts are cut by the format's limits when they are sent.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

/// Any error that a function may return; `?` makes it of every other.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error with a code of the application's own, which the caller gets beside the message.
///
/// Any error will do for a function, and arrives as its message. This one also carries a code, so that a caller can tell
/// failures apart without reading text. It is found anywhere in an error's chain of sources.
///
/// ```
/// use teleport_server::{BoxError, Failure, Methods};
/// use teleport_server::wire::{Tree, tree};
///
/// let methods = Methods::new().register("load", |name: String| -> Result<Tree, BoxError> {
///     let bytes = std::fs::read(&name).map_err(|error| Failure::with_code("no_file", name).caused_by(error))?;
///     Ok(tree!({"bytes": bytes}))
/// });
/// ```
#[derive(Debug)]
pub struct Failure {
    code: String,
    message: String,
    source: Option<BoxError>,
}

impl Failure {
    /// An error with a code (at most 256 bytes travel) and a text for people (at most 16 KiB travel).
    pub fn with_code(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { code: code.into(), message: message.into(), source: None }
    }

    /// The same with what caused it, whose text is added to the message that the caller gets.
    #[must_use]
    pub fn caused_by(self, source: impl Into<BoxError>) -> Failure {
        Failure { source: Some(source.into()), ..self }
    }

    /// The application's code.
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// What the caller is told of an error that its function returned.
pub(crate) fn failed(error: &BoxError) -> RemoteError {
    let code = chain(&**error).find_map(|link| link.downcast_ref::<Failure>()).map_or("", Failure::code);
    RemoteError::new(ErrorKind::Failed, Ran::Yes, full_text(&**error)).with_code(code)
}

/// An error and what caused it, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The texts of an error and its sources, without those that repeat what stands there already.
pub(crate) fn full_text(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for part in chain(error).map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panic {
    pub(crate) message: String,
    /// `src/model.rs:31:9`; none if a later hook replaced the one of this crate.
    pub(crate) location: Option<String>,
    /// Only where `RUST_BACKTRACE` asks for it.
    pub(crate) backtrace: Option<String>,
}

impl Panic {
    /// What the caller is told of it.
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
    /// Whether this thread is inside `catch`, and what the hook noted there.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Noted> = const { RefCell::new(Noted { location: None, backtrace: None }) };
}

/// Has panics inside [`catch`] noted with their place. The process's own hook still runs after it, for every panic.
pub(crate) fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
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

/// Runs `function` and catches its panic. Whoever calls it drops what the function may have left half done.
pub(crate) fn catch<T>(function: impl FnOnce() -> T) -> Result<T, Panic> {
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(function));
    CATCHING.set(outer);
    result.map_err(|payload| {
        let Noted { location, backtrace } = NOTED.take();
        Panic { message: message(&*payload), location, backtrace }
    })
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
    fn a_chain_is_told_once() {
        let inner = std::io::Error::other("disk full");
        let error: BoxError = Failure::with_code("no_space", "cannot save").caused_by(inner).into();
        let remote = failed(&error);
        assert_eq!((remote.code.as_str(), remote.message.as_str()), ("no_space", "cannot save: disk full"));
        assert_eq!((remote.kind, remote.ran), (ErrorKind::Failed, Ran::Yes));

        let repeated: BoxError = Failure::with_code("", "cannot save: disk full")
            .caused_by(std::io::Error::other("disk full"))
            .into();
        assert_eq!(failed(&repeated).message, "cannot save: disk full");
    }

    #[test]
    fn a_code_is_found_under_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("while stepping")]
        struct Outer(#[source] Failure);
        let error: BoxError = Outer(Failure::with_code("not_ready", "no weights yet")).into();
        let remote = failed(&error);
        assert_eq!(
            (remote.code.as_str(), remote.message.as_str()),
            ("not_ready", "while stepping: no weights yet")
        );
    }

    #[test]
    fn a_panic_tells_its_place() {
        note_panics();
        let caught = catch(|| panic!("{} rows", 3)).unwrap_err();
        assert_eq!(caught.message, "3 rows");
        assert!(caught.location.as_ref().unwrap().contains("failure.rs"), "{caught:?}");
        assert_eq!(catch(|| panic!("plain")).unwrap_err().message, "plain");
        assert_eq!(catch(|| panic::panic_any(7)).unwrap_err().message, "a panic without a message");
        assert_eq!(catch(|| 7).unwrap(), 7);
    }
}
