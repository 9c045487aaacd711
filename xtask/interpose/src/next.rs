//! The C library's own function behind one that is defined here.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the next library in the linker's order, looked up when it is first needed: that can be before any
/// constructor of this library has run.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Its address, never null.
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() { self.look_up() } else { found }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: the name ends with a zero, and looking it up has no other condition.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            // Nothing can be done without it, and a panic needs some of these very functions.
            std::process::abort();
        }
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// Calls the C library's own function `$name` with the arguments, as a function of type `$type`.
macro_rules! next {
    ($name:literal as $type:ty, $($argument:expr),*) => {{
        static NEXT: $crate::next::Next = $crate::next::Next::new($name);
        let address = NEXT.address();
        // SAFETY: the address is that of the C library's function of this name, which has this type.
        let function = unsafe { std::mem::transmute::<*mut std::ffi::c_void, $type>(address) };
        // SAFETY: the caller keeps the rules of the very function that it called.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use next;
