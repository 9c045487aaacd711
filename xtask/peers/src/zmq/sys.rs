//! Functions of libzmq that the crate `zmq` lacks: sending shared bytes, and sending uninitialized memory.
//!
//! Flow: one of the two functions initializes a message and sends it, and then libzmq owns it. A message
//! that is not sent is closed. All unsafe code of this peer is here.

use std::ffi::c_void;
use std::sync::Arc;

use zmq::Socket;
use zmq_sys::{zmq_msg_close, zmq_msg_init_data, zmq_msg_init_size, zmq_msg_send, zmq_msg_t};

/// Bytes that messages share.
pub(super) type Shared = Arc<Vec<u8>>;

/// Sends `bytes` without a copy. Their count is released after they were sent.
pub(super) fn send_shared(socket: &mut Socket, bytes: &Shared, flags: i32) -> Result<(), zmq::Error> {
    let mut message = zmq_msg_t::default();
    let place = bytes.as_ptr().cast_mut().cast::<c_void>();
    let hint = Arc::into_raw(bytes.clone()).cast_mut().cast::<c_void>();
    // SAFETY: `place` has `bytes.len()` bytes, which live until `let_go` releases the count in `hint`.
    // libzmq only reads what it sends.
    let status = unsafe { zmq_msg_init_data(&mut message, place, bytes.len(), Some(let_go), hint) };
    assert_eq!(status, 0, "a message of borrowed bytes needs a few bytes of memory only");
    send(socket, message, flags)
}

/// Sends uninitialized memory of this size.
pub(super) fn send_uninitialized(socket: &mut Socket, bytes: usize) -> Result<(), zmq::Error> {
    let mut message = zmq_msg_t::default();
    // SAFETY: `message` owns nothing that could be lost. This process does not read its bytes; the kernel
    // does.
    let status = unsafe { zmq_msg_init_size(&mut message, bytes) };
    assert_eq!(status, 0, "there is memory for {bytes} bytes");
    send(socket, message, 0)
}

fn send(socket: &mut Socket, mut message: zmq_msg_t, flags: i32) -> Result<(), zmq::Error> {
    // SAFETY: `message` was initialised by the caller, and the socket is open and borrowed by this thread
    // alone.
    let sent = unsafe { zmq_msg_send(&mut message, socket.as_mut_ptr(), flags) };
    if sent >= 0 {
        return Ok(());
    }
    // SAFETY: the call returns the error number of this thread.
    let error = zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() });
    // SAFETY: a message that was not sent still belongs to this function, which does not use it again.
    unsafe { zmq_msg_close(&mut message) };
    Err(error)
}

/// Releases the bytes. libzmq calls it on any thread, when it no longer needs them.
unsafe extern "C" fn let_go(_bytes: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` came from `Arc::into_raw` in `send_shared`, and libzmq calls this once for each
    // message.
    drop(unsafe { Arc::from_raw(hint.cast_const().cast::<Vec<u8>>()) });
}
