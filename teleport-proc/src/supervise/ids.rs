//! The marks by which processes of this crate recognise each other, and the descriptors that they start with.

/// The environment variable that marks a zygote, or a process that runs a function.
pub(crate) const MARK_VARIABLE: &str = "TELEPORT_PROC";

/// The mark of a zygote. The processes below it do not inherit it: they get an environment of their own.
pub(crate) const ZYGOTE_MARK: &str = "zygote";

/// The descriptors of a process that runs a function, after the three standard ones: the request, the memory
/// for the result, and a pipe that becomes readable when the function should stop.
pub(crate) const REQUEST: usize = 3;
pub(crate) const RESULT: usize = 4;
pub(crate) const STOP: usize = 5;

/// Returns the mark of this process, if it was started to run a function. The mark holds the process id,
/// since the children of the process inherit the variable and must not take it for theirs.
pub(crate) fn own_process_mark() -> String {
    format!("process:{}", std::process::id())
}
