//! What the fuzz targets in `fuzz/` do with an input. The test `corpus` runs the same on the committed inputs.
//!
//! Each function takes any bytes, and panics only on a fault of the crate.

pub(crate) mod decoder;
pub(crate) mod frames;
pub(crate) mod signature;
pub(crate) mod trees;
