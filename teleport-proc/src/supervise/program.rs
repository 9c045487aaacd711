//! Functions of this program, found again in a process that executes it anew.
//!
//! A function is sent as its distance from a known one. The distance is the same in every process that
//! executes the same file. The file is opened through `/proc/self/exe`, since another may have its path by
//! now, and compared by its [`Identity`]. Functions of shared libraries may lie elsewhere, and are refused.

use std::io;
use std::mem;
use std::ptr;

use crate::cancel::stop::Stop;
use crate::codec::{BoxError, Message, Return};
use crate::sys;

/// Identifies a file and its content: device, inode, length and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(pub(crate) [u64; 4]);

impl Identity {
    /// Returns that of the file that this process executes.
    pub(crate) fn of_this() -> io::Result<Identity> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(sys::program_path()?)?;
        Ok(Identity([file.dev(), file.ino(), file.len(), file.mtime() as u64]))
    }
}

/// Runs a function whose types it knows.
type Runner = fn(Distance, Vec<u8>, &Stop) -> Result<Vec<u8>, BoxError>;

/// The distance of a function from [`anchor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distance(pub(crate) u64);

/// A function of the program, and the function that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) runner: Distance,
    pub(crate) function: Distance,
}

/// The function from which distances are measured.
#[inline(never)]
fn anchor() {}

impl Distance {
    /// Returns that of an initializer.
    pub(crate) fn of(function: fn()) -> Distance {
        Distance::to(function as usize)
    }

    fn to(address: usize) -> Distance {
        Distance(address.wrapping_sub(anchor as fn() as usize) as u64)
    }

    fn address(self) -> usize {
        (self.0 as usize).wrapping_add(anchor as fn() as usize)
    }

    /// Returns a pointer to the function, which may be called: [`Distance::to`] was given the function's
    /// address by a cast from a pointer.
    fn pointer(self) -> *const () {
        ptr::with_exposed_provenance(self.address())
    }

    /// Runs the initializer that [`Distance::of`] was given.
    ///
    /// # Safety
    /// A process that executes the same file made this.
    pub(crate) unsafe fn call(self) {
        // SAFETY: by the caller's promise, this function is at the same distance here, and has this type.
        let function = unsafe { mem::transmute::<*const (), fn()>(self.pointer()) };
        function();
    }
}

impl Function {
    pub(crate) fn of<A: Message<M>, M, R: Return<N>, N>(function: fn(A) -> R) -> Function {
        let runner: Runner = run::<A, M, R, N>;
        Function { runner: Distance::to(runner as usize), function: Distance::to(function as usize) }
    }

    pub(crate) fn with_stop<A: Message<M>, M, R: Return<N>, N>(function: fn(A, &Stop) -> R) -> Function {
        let runner: Runner = run_with_stop::<A, M, R, N>;
        Function { runner: Distance::to(runner as usize), function: Distance::to(function as usize) }
    }

    /// Returns the file of the function, if that is a shared library and not the program itself.
    pub(crate) fn library(self) -> io::Result<Option<String>> {
        let Identity([_, program, ..]) = Identity::of_this()?;
        let file = sys::mapped_file(self.function.address())?;
        Ok(file.filter(|(inode, _)| *inode != program).map(|(_, path)| path))
    }

    /// Runs the function.
    ///
    /// # Safety
    /// A process that executes the same file made this.
    pub(crate) unsafe fn call(self, argument: Vec<u8>, stop: &Stop) -> Result<Vec<u8>, BoxError> {
        // SAFETY: by the caller's promise, this runner is at the same distance here, and has this type.
        let runner = unsafe { mem::transmute::<*const (), Runner>(self.runner.pointer()) };
        runner(self.function, argument, stop)
    }
}

fn run<A: Message<M>, M, R: Return<N>, N>(
    function: Distance,
    argument: Vec<u8>,
    _stop: &Stop,
) -> Result<Vec<u8>, BoxError> {
    // SAFETY: only `Function::of` pairs this runner with a function, and that has this type.
    let function = unsafe { mem::transmute::<*const (), fn(A) -> R>(function.pointer()) };
    function(A::from_message(argument)?).into_bytes()
}

fn run_with_stop<A: Message<M>, M, R: Return<N>, N>(
    function: Distance,
    argument: Vec<u8>,
    stop: &Stop,
) -> Result<Vec<u8>, BoxError> {
    // SAFETY: only `Function::with_stop` pairs this runner with a function, and that has this type.
    let function = unsafe { mem::transmute::<*const (), fn(A, &Stop) -> R>(function.pointer()) };
    function(A::from_message(argument)?, stop).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_again() {
        fn twice(x: u32) -> Result<u32, String> {
            x.checked_mul(2).ok_or_else(|| format!("{x} is too large"))
        }
        let function = Function::of(twice);
        assert_eq!(function.library().unwrap(), None);
        let call = |x: u32| {
            // SAFETY: this process made it.
            unsafe { function.call(x.into_message().unwrap(), &Stop::of_thread(Default::default())) }
        };
        assert_eq!(call(21).unwrap(), 42u32.into_message().unwrap());
        assert_eq!(call(u32::MAX).unwrap_err().to_string(), "4294967295 is too large");
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_function_of_a_library_is_recognised() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-")).unwrap();
        let start = usize::from_str_radix(libc.split('-').next().unwrap(), 16).unwrap();
        let function = Function { runner: Distance(0), function: Distance::to(start) };
        assert!(function.library().unwrap().unwrap().contains("libc"));
    }
}
