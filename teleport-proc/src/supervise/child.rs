//! The process that runs a function.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::RawFd;

use crate::cancel::stop::Stop;
use crate::codec::BoxError;
use crate::failure::Failure;
use crate::supervise::catch;
use crate::supervise::ids::{MARK_VARIABLE, REQUEST, RESULT, STOP};
use crate::supervise::outcome::ResultFile;
use crate::supervise::program::Identity;
use crate::supervise::request::{self, Head};
use crate::sys::{self, Exit};

/// The exit code of a process whose function returned an error.
const FAILURE_CODE: i32 = 1;

/// A function with its argument.
type Work = Box<dyn FnOnce(&Stop) -> Result<Vec<u8>, BoxError>>;

/// Runs the function for which this process was executed, and ends the process.
pub(crate) fn run() -> ! {
    // If `init` runs before `main`, Rust has not done so yet.
    sys::ignore_broken_pipes();
    sys::remove_variable(MARK_VARIABLE);
    match received() {
        Ok((head, argument, file, stop)) => {
            sys::set_name(&head.name);
            let work = Box::new(move |stop: &Stop| {
                // SAFETY: `received` has checked that a process with the same file made the request.
                head.initializers.iter().for_each(|initializer| unsafe { initializer.call() });
                catch::put_hook_first();
                // SAFETY: as above.
                unsafe { head.function.call(argument, stop) }
            });
            std::process::exit(run_and_write(work, &stop, file))
        }
        Err(error) => {
            eprintln!("a process of teleport-proc cannot start: {error}");
            std::process::exit(FAILURE_CODE)
        }
    }
}

fn received() -> Result<(Head, Vec<u8>, ResultFile, Stop), BoxError> {
    let inherited = |number: usize| {
        // SAFETY: the reaper opened them for this process, and they are taken only here.
        unsafe { sys::inherited(number as RawFd) }
    };
    let request = File::from(inherited(REQUEST)?);
    let file = ResultFile(inherited(RESULT)?.into());
    let stop = Stop::of_process(inherited(STOP)?);
    let head = request::read_head(&request)?;
    if Identity::of_this()? != head.identity {
        return Err("the file of the program was changed while it ran: restart the program".into());
    }
    let argument = request::read_argument(&request)?;
    Ok((head, argument, file, stop))
}

/// Runs a closure in a process that was forked for it, and ends the process without its exit handlers.
pub(crate) fn run_closure(name: &str, work: Work, stop: &Stop, file: ResultFile) -> ! {
    sys::set_name(name);
    let code = run_and_write(work, stop, file);
    let _ = io::stdout().flush();
    sys::leave(code)
}

/// Runs the function, writes its outcome, and returns the exit code.
fn run_and_write(work: Work, stop: &Stop, file: ResultFile) -> i32 {
    if let Ok(copy) = file.write_running().and_then(|()| file.0.try_clone()) {
        catch::write_panics_to(ResultFile(copy));
    }
    // No function is killed here: this thread is no `Thread`.
    let killed = || Failure::of_error(&"killed".into());
    let result = catch::catch(|| work(stop)).map_err(|failure| failure.unwrap_or_else(killed));
    if let Err(error) = file.write(&result) {
        let error: BoxError = format!("the result cannot be written: {error}").into();
        // If this fails too, the exit code still shows the failure.
        let _ = file.write(&Err(Failure::of_error(&error)));
        return FAILURE_CODE;
    }
    match result {
        Ok(_) => 0,
        Err(failure) if failure.panicked => Exit::PANIC_CODE,
        Err(_) => FAILURE_CODE,
    }
}
