//! A pipe that wakers write to, for threads that wait for descriptors.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::sys;

/// A pipe and its waker.
#[derive(Debug)]
pub(crate) struct WakePipe {
    read: File,
    /// Makes the [`descriptor`](WakePipe::descriptor) readable.
    pub(crate) waker: Waker,
}

struct WriteEnd(File);

impl Wake for WriteEnd {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // This fails if the pipe is full or nobody reads it, and then it needs no more bytes.
        let _ = (&self.0).write(&[1]);
    }
}

impl WakePipe {
    pub(crate) fn new() -> io::Result<WakePipe> {
        let (read, write) = sys::nonblocking_pipe()?;
        Ok(WakePipe { read: read.into(), waker: Waker::from(Arc::new(WriteEnd(write.into()))) })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    pub(crate) fn clear(&self) {
        let mut bytes = [0; 64];
        while let Ok(1..) = (&self.read).read(&mut bytes) {}
    }
}
