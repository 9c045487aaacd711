//! Counts system calls, by the C library's wrappers.

use libc::{
    c_int, c_long, c_ulong, c_void, epoll_event, iovec, msghdr, nfds_t, off_t, pollfd, sigset_t, size_t,
    sockaddr, socklen_t, ssize_t, timespec,
};

use crate::Counter;
use crate::next::next;
use crate::places::{RECEIVED, SENT};

/// Defines functions that count, then call the C library's function.
macro_rules! counted {
    ($($name:ident = $text:literal, ($($argument:ident: $type:ty),*) -> $result:ty $(, $then:expr)?;)*) => {
        #[allow(non_upper_case_globals, reason = "the counters have the names of their functions")]
        mod counter {
            $(pub(super) static $name: crate::Counter = crate::Counter::new();)*
        }

        /// Each function's name and counter.
        pub(crate) const COUNTERS: &[(&str, &Counter)] = &[$((stringify!($name), &counter::$name)),*];

        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                counter::$name.add(1);
                let result = next!($text as unsafe extern "C" fn($($type),*) -> $result, $($argument),*);
                $(
                    let note = $then;
                    note(result);
                )?
                result
            }
        )*
    };
}

counted! {
    read = c"read", (fd: c_int, bytes: *mut c_void, length: size_t) -> ssize_t,
        |done| RECEIVED.add(bytes, done);
    recv = c"recv", (fd: c_int, bytes: *mut c_void, length: size_t, flags: c_int) -> ssize_t,
        |done| RECEIVED.add(bytes, done);
    recvfrom = c"recvfrom", (fd: c_int, bytes: *mut c_void, length: size_t, flags: c_int,
        from: *mut sockaddr, size: *mut socklen_t) -> ssize_t,
        |done| RECEIVED.add(bytes, done);
    readv = c"readv", (fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t,
        |done| {
            // SAFETY: the call has just used the pieces that its caller describes.
            unsafe { RECEIVED.add_pieces(pieces, count as usize, done) }
        };
    recvmsg = c"recvmsg", (fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t,
        |done| {
            // SAFETY: the call has just used the pieces that its caller describes.
            unsafe { RECEIVED.add_message(message, done) }
        };
    write = c"write", (fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t,
        |done| SENT.add(bytes, done);
    send = c"send", (fd: c_int, bytes: *const c_void, length: size_t, flags: c_int) -> ssize_t,
        |done| SENT.add(bytes, done);
    sendto = c"sendto", (fd: c_int, bytes: *const c_void, length: size_t, flags: c_int,
        to: *const sockaddr, size: socklen_t) -> ssize_t,
        |done| SENT.add(bytes, done);
    writev = c"writev", (fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t,
        |done| {
            // SAFETY: the call has just used the pieces that its caller describes.
            unsafe { SENT.add_pieces(pieces, count as usize, done) }
        };
    sendmsg = c"sendmsg", (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t,
        |done| {
            // SAFETY: the call has just used the pieces that its caller describes.
            unsafe { SENT.add_message(message, done) }
        };
    poll = c"poll", (fds: *mut pollfd, count: nfds_t, wait_ms: c_int) -> c_int;
    ppoll = c"ppoll", (fds: *mut pollfd, count: nfds_t, wait: *const timespec, mask: *const sigset_t) -> c_int;
    epoll_wait = c"epoll_wait", (fd: c_int, events: *mut epoll_event, count: c_int, wait_ms: c_int) -> c_int;
    epoll_ctl = c"epoll_ctl", (fd: c_int, change: c_int, of: c_int, event: *mut epoll_event) -> c_int;
    // Futexes and all calls without a wrapper. The C library declares any number of arguments here, as for
    // fcntl and ioctl, but reads a fixed number from where callers put them. So do these functions, on
    // x86-64 and on 64-bit ARM.
    syscall = c"syscall", (number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long,
        |done: c_long| match number {
            libc::SYS_recvfrom => RECEIVED.add(b as *const c_void, done as isize),
            libc::SYS_sendto => SENT.add(b as *const c_void, done as isize),
            _ => {}
        };
    sched_yield = c"sched_yield", () -> c_int;
    nanosleep = c"nanosleep", (time: *const timespec, left: *mut timespec) -> c_int;
    mmap = c"mmap", (at: *mut c_void, length: size_t, protection: c_int, flags: c_int, fd: c_int,
        from: off_t) -> *mut c_void;
    munmap = c"munmap", (at: *mut c_void, length: size_t) -> c_int;
    madvise = c"madvise", (at: *mut c_void, length: size_t, advice: c_int) -> c_int;
    mprotect = c"mprotect", (at: *mut c_void, length: size_t, protection: c_int) -> c_int;
    fcntl = c"fcntl", (fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    ioctl = c"ioctl", (fd: c_int, request: c_ulong, argument: c_ulong) -> c_int;
    getsockopt = c"getsockopt", (fd: c_int, level: c_int, name: c_int, value: *mut c_void,
        size: *mut socklen_t) -> c_int;
    setsockopt = c"setsockopt", (fd: c_int, level: c_int, name: c_int, value: *const c_void,
        size: socklen_t) -> c_int;
    close = c"close", (fd: c_int) -> c_int;
}
