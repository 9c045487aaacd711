//! Starts processes, in their owner: functions by way of the zygote, closures by a fork of the owner itself.

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::cancel::stop::Stop;
use crate::codec::BoxError;
use crate::error::ProcError;
use crate::supervise::control::{self, Control, Step};
use crate::supervise::outcome::ResultFile;
use crate::supervise::program::{Distance, Function, Identity};
use crate::supervise::request::{self, Head};
use crate::supervise::run::Run;
use crate::supervise::settings::Settings;
use crate::supervise::zygote_handle::{self, MAX_START};
use crate::supervise::{catch, child, init, reaper};
use crate::sys::{self, Fork, Received};

/// The bytes of an argument, or the error of its conversion.
pub(crate) type Argument = Result<Vec<u8>, Arc<dyn Error + Send + Sync>>;

/// A closure for a forked process. It stays in the process that forks, and the fork takes its copy.
pub(crate) type Closure = Mutex<Option<Box<dyn FnOnce(&Stop) -> Result<Vec<u8>, BoxError> + Send>>>;

/// Starts a function in a process that executes this program again. **Blocks** until it runs.
pub(crate) fn function(
    settings: &Settings,
    variables: &[(String, String)],
    function: Function,
    argument: &Argument,
) -> Result<Run, ProcError> {
    let name = || settings.name.clone();
    let failed = |what| ProcError::start(&settings.name, what);
    if !init::is_initialized() {
        return Err(ProcError::NotInitialized { name: name() });
    }
    let argument = argument.as_ref();
    let argument = argument.map_err(|error| ProcError::Argument { name: name(), source: error.clone() })?;
    if let Some(library) = function.library().map_err(failed("its function cannot be found"))? {
        return Err(ProcError::ForeignFunction { name: name(), library });
    }
    if settings.name.contains('\0') {
        return Err(failed("its name has a zero byte")(io::ErrorKind::InvalidInput.into()));
    }
    let head = Head {
        identity: Identity::of_this().map_err(failed("the file of the program cannot be read"))?,
        function,
        initializers: settings.initializers.iter().map(|function| Distance::of(*function)).collect(),
        name: name(),
        program: request::program(),
        grace: settings.grace,
        environment: request::environment(variables),
    };
    let request = sys::memory().map_err(failed("no memory for its argument can be made"))?;
    request::write(&request, &head, argument).map_err(failed("its argument cannot be written"))?;
    let folder = sys::current_folder().map_err(failed("the current directory cannot be opened"))?;
    let result = ResultFile(sys::memory().map_err(failed("no memory for its result can be made"))?);
    let (stop, our_stop) = sys::pipe().map_err(failed("no pipe can be made"))?;
    let (our_control, control) = sys::pair().map_err(failed("no sockets to its reaper can be made"))?;
    let (out, error) = (io::stdout(), io::stderr());
    // The reaper's socket and the directory, then the descriptors of the process from 1 on: see `ids`.
    let fds = [
        control.as_fd(),
        folder.as_fd(),
        out.as_fd(),
        error.as_fd(),
        request.as_fd(),
        result.0.as_fd(),
        stop.as_fd(),
    ];
    let _until_answered = zygote_handle::send_request(&settings.name, &fds)?;
    // Without this copy, the socket shows when the reaper is gone.
    drop(control);
    started(settings, our_control, result, our_stop, None)
}

/// Starts a closure in a fork of this process. **Blocks** until it runs.
pub(crate) fn closure(settings: &Settings, closure: &Closure) -> Result<Run, ProcError> {
    let failed = |what| ProcError::start(&settings.name, what);
    let threads = sys::threads().map_err(failed("the threads of this process cannot be listed"))?;
    if threads.len() > 1 {
        return Err(ProcError::Threads { name: settings.name.clone(), threads });
    }
    let result = ResultFile(sys::memory().map_err(failed("no memory for its result can be made"))?);
    let (stop, our_stop) = sys::pipe().map_err(failed("no pipe can be made"))?;
    let (our_control, control) = sys::pair().map_err(failed("no sockets to its reaper can be made"))?;
    // Both processes would write what is still in the buffers.
    let _ = (io::stdout().flush(), io::stderr().flush());
    let this = std::process::id() as i32;
    let reaper = match sys::fork().map_err(failed(Step::Fork.text()))? {
        Fork::Parent { child } => child,
        Fork::Child => {
            let work = || run_closure(settings, closure, &Stop::of_process(stop), result);
            reaper::run_for_fork(control, sys::open_parent(this), settings.grace, work)
        }
    };
    drop(control);
    started(settings, our_control, result, our_stop, Some(reaper)).inspect_err(|_| sys::reap(reaper))
}

/// Runs the closure, in the process that was forked for it.
fn run_closure(settings: &Settings, closure: &Closure, stop: &Stop, result: ResultFile) -> ! {
    // No other thread can hold the lock: the process that forked had one thread.
    let closure = closure.lock().unwrap_or_else(PoisonError::into_inner).take();
    let initializers = settings.initializers.clone();
    let work = Box::new(move |stop: &Stop| {
        initializers.iter().for_each(|initializer| initializer());
        catch::put_hook_first();
        let closure = closure.ok_or("the closure was taken, which only a fork does to its own copy")?;
        closure(stop)
    });
    child::run_closure(&settings.name, work, stop, result)
}

/// Waits for the answer of the reaper, or of the zygote if it could not fork a reaper.
fn started(
    settings: &Settings,
    control: OwnedFd,
    result: ResultFile,
    stop: OwnedFd,
    reaper: Option<i32>,
) -> Result<Run, ProcError> {
    let failed = |what| ProcError::start(&settings.name, what);
    // A fork of this process needs no time to reach `init`.
    let deadline = reaper.is_none().then(|| Instant::now() + MAX_START);
    let answered = sys::readable(&control, deadline);
    if !answered.map_err(failed("its reaper cannot be waited for"))? {
        let silence = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {MAX_START:?}"));
        return Err(failed("its reaper does not answer")(silence));
    }
    match control::receive(&control).map_err(failed("the answer of its reaper cannot be read"))? {
        Received::Message(Control::Started { pid }, mut fds) => Ok(Run {
            name: settings.name.clone(),
            owner: std::process::id(),
            pid: pid as u32,
            control,
            reaper_fd: fds.pop(),
            reaper,
            result,
            stop: stop.into(),
            grace: settings.grace,
            asked: Default::default(),
            end: Mutex::default(),
        }),
        Received::Message(Control::Failed { step, errno: 0 }, _) => {
            Err(failed(step.text())(io::Error::other("the system gives no reason")))
        }
        Received::Message(Control::Failed { step, errno }, _) => {
            Err(failed(step.text())(io::Error::from_raw_os_error(errno)))
        }
        _ => {
            let ended = io::Error::new(io::ErrorKind::BrokenPipe, "it was killed, or has no descriptor left");
            Err(failed("its reaper or the zygote process has ended meanwhile")(ended))
        }
    }
}
