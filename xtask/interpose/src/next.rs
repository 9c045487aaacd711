//! The C library's own functions, which the functions defined here call.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the next library in the linker's order. It is looked up on first use, which can be before
/// any constructor of this library has run.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Returns its address, which is never null.
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() { self.look_up() } else { found }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: the name ends with a zero, and the lookup has no other condition.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            // A panic would need some of these functions.
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
        // SAFETY: the caller keeps the rules of the function that it called, which is this one.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use next;
