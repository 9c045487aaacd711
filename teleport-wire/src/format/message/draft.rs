//! Calls and results that are not encoded yet.

use std::time::Duration;

use crate::format::header::Kind;
use crate::format::limits::Limits;
use crate::format::metadata::{CallHead, IDEMPOTENT, RESUME};
use crate::model::tree::Tree;

/// A call or a result that is not encoded.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub(super) kind: Kind,
    /// Zero for a result.
    pub(super) flags: u16,
    /// Empty for a result.
    pub(super) method: &'a str,
    /// Zero for no deadline.
    pub(super) deadline_micros: u64,
    pub(super) tree: &'a Tree,
    pub(super) limits: &'a Limits,
}

/// The sizes of a message in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSizes {
    /// The size of the metadata.
    pub metadata_bytes: u32,
    /// The size of the payload.
    pub payload_bytes: u32,
    /// The size of the payload in the receiver's memory.
    pub memory_bytes: u64,
}

impl<'a> Draft<'a> {
    /// Describes a call for a receiver with these limits.
    #[inline]
    pub fn call(head: &CallHead<'a>, tree: &'a Tree, limits: &'a Limits) -> Draft<'a> {
        let flags = if head.idempotent { IDEMPOTENT } else { 0 } | if head.resume { RESUME } else { 0 };
        // Zero would mean that there is no deadline.
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let deadline_micros = head.deadline.map_or(0, micros);
        Draft { kind: Kind::Call, flags, method: head.method, deadline_micros, tree, limits }
    }

    /// Describes a result for a receiver with these limits.
    #[inline]
    pub fn result(tree: &'a Tree, limits: &'a Limits) -> Draft<'a> {
        Draft { kind: Kind::Result, flags: 0, method: "", deadline_micros: 0, tree, limits }
    }
}
