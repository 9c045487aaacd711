//! The functions that the fuzz targets in `fuzz/` call. The test `corpus` calls them with the committed
//! inputs.
//!
//! Each function takes any bytes, and panics only if the crate has a bug.

pub(crate) mod decoder;
pub(crate) mod frames;
pub(crate) mod signature;
pub(crate) mod trees;
