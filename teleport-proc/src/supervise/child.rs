//! The other side: what a process does that was started to run a function.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;

use crate::cancel::stop::Stop;
use crate::codec::BoxError;
use crate::failure::{self, Failure, Slot};
use crate::supervise::ids::{MARK_VARIABLE, REQUEST, RESULT, STOP};
use crate::supervise::program::Identity;
use crate::supervise::request::{self, Head};
use crate::sys;
use crate::sys::PANIC_CODE;

/// The codes with which a process ends whose function ended well, returned an error, or panicked.
const CODES: [i32; 3] = [0, 1, PANIC_CODE];

/// A function with its argument.
type Work = Box<dyn FnOnce(&Stop) -> Result<Vec<u8>, BoxError>>;

/// Runs the function that this process was executed for, and ends it.
pub(crate) fn run() -> ! {
    // Where `init` runs before `main`, nobody has done so yet.
    sys::ignore_broken_pipes();
    sys::remove_variable(MARK_VARIABLE);
    match received() {
        Ok((head, argument, slot, stop)) => {
            sys::set_name(&head.name);
            let work = Box::new(move |stop: &Stop| {
                // SAFETY: the request came from this program, executed from the same file.
                head.initializers.iter().for_each(|initializer| unsafe { initializer.call() });
                failure::put_hook_first();
                // SAFETY: the same.
                unsafe { head.function.call(argument, stop) }
            });
            std::process::exit(work_and_tell(work, &stop, slot))
        }
        Err(error) => {
            eprintln!("a process of teleport-proc cannot start: {error}");
            std::process::exit(CODES[1])
        }
    }
}

fn received() -> Result<(Head, Vec<u8>, Slot, Stop), BoxError> {
    let inherited = |number: usize| {
        // SAFETY: the reaper put them there for this process, and only here they are taken.
        unsafe { sys::inherited(number as RawFd) }
    };
    let request = File::from(inherited(REQUEST)?);
    let slot = Slot(inherited(RESULT)?.into());
    let stop = Stop::of_process(inherited(STOP)?);
    let head = request::read_head(&request)?;
    if Identity::of_this()? != head.identity {
        return Err("the file of the program was changed while it ran: start it anew".into());
    }
    let argument = request::read_argument(&request)?;
    Ok((head, argument, slot, stop))
}

/// Runs a closure in a process that was forked for it, and ends that, without what its parent left to be done at the end.
pub(crate) fn run_closure(name: &str, work: Work, stop: &Stop, slot: Slot) -> ! {
    sys::set_name(name);
    let code = work_and_tell(work, stop, slot);
    // Nobody is told of what cannot be written now.
    let _ = io::stdout().flush();
    sys::leave(code)
}

/// Runs the function, writes down what became of it, and gives the code to end with.
fn work_and_tell(work: Work, stop: &Stop, slot: Slot) -> i32 {
    let written = slot.write_running().and_then(|()| slot.0.try_clone());
    if let Ok(copy) = written {
        failure::write_panics_to(Slot(copy));
    }
    let (code, result) = match failure::catch(|| work(stop)) {
        Ok(Ok(bytes)) => (CODES[0], Ok(bytes)),
        Ok(Err(error)) => (CODES[1], Err(Failure::of_error(&error))),
        // Nobody is killed here, where the only thread is no `Thread`.
        Err(failure) => (CODES[2], Err(failure.unwrap_or_else(|| Failure::of_error(&"killed".into())))),
    };
    match slot.write(&result) {
        Ok(()) => code,
        Err(error) => {
            let error: BoxError = format!("the result cannot be handed over: {error}").into();
            // The code tells of it, if nothing else can.
            let _ = slot.write(&Err(Failure::of_error(&error)));
            CODES[1]
        }
    }
}
