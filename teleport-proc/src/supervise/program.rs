//! Functions of this program, found again in a process that executes it anew.
//!
//! A function is sent as its distance from a known one. That holds in every process that executes the same file: it is
//! opened by way of `/proc/self/exe`, which is the file itself, even if another has taken its name since, and compared by
//! [`Identity`]. A function of a library that was loaded is refused, since it may lie elsewhere there.

use std::io;
use std::mem;

use crate::cancel::stop::Stop;
use crate::codec::{BoxError, Message, Reader, Return, Writer};

/// Where the program is, for a process that executes it again.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn path() -> io::Result<std::path::PathBuf> {
    Ok("/proc/self/exe".into())
}

/// Where the program is, for a process that executes it again.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn path() -> io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

/// What tells a file from another one, and from itself after it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: i64,
}

impl Identity {
    /// The file that this process executes.
    pub(crate) fn of_this() -> io::Result<Identity> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(path()?)?;
        Ok(Identity { device: file.dev(), inode: file.ino(), bytes: file.len(), modified: file.mtime() })
    }

    pub(crate) fn write(self, parts: &mut Writer) {
        let fields = [self.device, self.inode, self.bytes, self.modified as u64];
        fields.into_iter().for_each(|field| parts.number(field));
    }

    pub(crate) fn read(parts: &mut Reader<'_>) -> Result<Identity, BoxError> {
        let [device, inode, bytes] = [parts.number()?, parts.number()?, parts.number()?];
        Ok(Identity { device, inode, bytes, modified: parts.number()? as i64 })
    }
}

/// A function that runs another one, of types that it knows.
type Runner = fn(Distance, Vec<u8>, &Stop) -> Result<Vec<u8>, BoxError>;

/// How far from [`anchor`] a function lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distance(u64);

/// A function of the program and what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    runner: Distance,
    function: Distance,
}

/// From here the others are counted.
#[inline(never)]
fn anchor() {}

impl Distance {
    fn to(address: usize) -> Distance {
        Distance(address.wrapping_sub(anchor as fn() as usize) as u64)
    }

    fn address(self) -> usize {
        (self.0 as usize).wrapping_add(anchor as fn() as usize)
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

    /// Where the library lies that the function belongs to, if it is none of the program's own.
    pub(crate) fn library(self) -> io::Result<Option<String>> {
        library(self.function.address())
    }

    pub(crate) fn write(self, parts: &mut Writer) {
        parts.number(self.runner.0);
        parts.number(self.function.0);
    }

    pub(crate) fn read(parts: &mut Reader<'_>) -> Result<Function, BoxError> {
        Ok(Function { runner: Distance(parts.number()?), function: Distance(parts.number()?) })
    }

    /// Runs the function.
    ///
    /// # Safety
    /// This was made by a process that executes the same file.
    pub(crate) unsafe fn call(self, argument: Vec<u8>, stop: &Stop) -> Result<Vec<u8>, BoxError> {
        // SAFETY: the same file has the same functions at the same distances, and there it was one of this type.
        let runner = unsafe { mem::transmute::<usize, Runner>(self.runner.address()) };
        runner(self.function, argument, stop)
    }
}

impl Distance {
    /// That of an initializer.
    pub(crate) fn of(function: fn()) -> Distance {
        Distance::to(function as usize)
    }

    pub(crate) fn write(self, parts: &mut Writer) {
        parts.number(self.0);
    }

    pub(crate) fn read(parts: &mut Reader<'_>) -> Result<Distance, BoxError> {
        Ok(Distance(parts.number()?))
    }

    /// Runs what [`Distance::of`] was given.
    ///
    /// # Safety
    /// This was made by a process that executes the same file.
    pub(crate) unsafe fn call(self) {
        // SAFETY: as the caller says, it is one of this type.
        let function = unsafe { mem::transmute::<usize, fn()>(self.address()) };
        function();
    }
}

fn run<A: Message<M>, M, R: Return<N>, N>(
    function: Distance,
    argument: Vec<u8>,
    _stop: &Stop,
) -> Result<Vec<u8>, BoxError> {
    // SAFETY: `Function::of` is the only place that pairs this with a function, and pairs it with one of this type.
    let function = unsafe { mem::transmute::<usize, fn(A) -> R>(function.address()) };
    function(A::from_message(argument)?).into_bytes()
}

fn run_with_stop<A: Message<M>, M, R: Return<N>, N>(
    function: Distance,
    argument: Vec<u8>,
    stop: &Stop,
) -> Result<Vec<u8>, BoxError> {
    // SAFETY: `Function::with_stop` is the only place that pairs this with a function, and pairs it with one of this type.
    let function = unsafe { mem::transmute::<usize, fn(A, &Stop) -> R>(function.address()) };
    function(A::from_message(argument)?, stop).into_bytes()
}

/// The file that an address of this process belongs to, unless that is the program or none at all.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn library(address: usize) -> io::Result<Option<String>> {
    let program = Identity::of_this()?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    // `start-end rights offset device inode path`
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        range.is_some_and(|(start, end)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(start)..number(end)).contains(&address)
        })
    });
    let mut fields = line.unwrap_or_default().split_ascii_whitespace().skip(4);
    let inode = fields.next().and_then(|inode| inode.parse::<u64>().ok()).unwrap_or(0);
    let path = fields.collect::<Vec<_>>().join(" ");
    Ok((inode != 0 && inode != program.inode).then_some(path))
}

/// Not to be told here: that the program has no libraries with such functions is up to its author.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn library(_address: usize) -> io::Result<Option<String>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_again() {
        fn twice(x: u32) -> Result<u32, String> {
            x.checked_mul(2).ok_or_else(|| format!("{x} is too large"))
        }
        let mut parts = Writer::default();
        Function::of(twice).write(&mut parts);
        let read = Function::read(&mut Reader(&parts.0)).unwrap();
        assert_eq!(read.library().unwrap(), None);
        let call = |x: u32| {
            // SAFETY: this process made it.
            unsafe { read.call(x.into_message().unwrap(), &Stop::of_thread(Default::default())) }
        };
        assert_eq!(call(21).unwrap(), 42u32.into_message().unwrap());
        assert_eq!(call(u32::MAX).unwrap_err().to_string(), "4294967295 is too large");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_function_of_a_library_is_told_from_ours() {
        let address = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = address.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-")).unwrap();
        let start = usize::from_str_radix(libc.split('-').next().unwrap(), 16).unwrap();
        assert!(library(start).unwrap().unwrap().contains("libc"));
    }
}
