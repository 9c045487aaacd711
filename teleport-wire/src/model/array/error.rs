//! The errors of making and reading arrays.

use crate::model::dtype::DType;

/// The error of an array that cannot be created or read as requested.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The items have another type. Arrays are never converted.
    #[error("the array is {found}, not {expected}")]
    DType {
        /// The requested type.
        expected: DType,
        /// The type of the items.
        found: DType,
    },
    /// The dtype holds no strings, or no strings of this kind.
    #[error("the array is {found}, not of fixed-width {expected}")]
    NoStrings {
        /// `"bytes"`, `"Unicode strings"`, or both.
        expected: &'static str,
        /// The type of the items.
        found: DType,
    },
    /// The array has another rank than expected.
    #[error("the array has shape {shape:?}; expected {expected} axes, 0 being a scalar")]
    Rank {
        /// The expected number of axes.
        expected: usize,
        /// The shape of the array.
        shape: Box<[usize]>,
    },
    /// The buffer has another length than the items would take.
    #[error(
        "an array of {dtype} and shape {shape:?} takes {expected_bytes} bytes, but its memory has {found_bytes}"
    )]
    Length {
        /// The type of the items.
        dtype: DType,
        /// The requested shape.
        shape: Box<[usize]>,
        /// The size of the items.
        expected_bytes: usize,
        /// The size of the buffer.
        found_bytes: usize,
    },
    /// No memory could hold the array.
    #[error("an array of {dtype} and shape {shape:?} exceeds the address space ({} bytes)", isize::MAX)]
    TooLarge {
        /// The type of the items.
        dtype: DType,
        /// The requested shape.
        shape: Box<[usize]>,
    },
    /// The new shape has another number of items.
    #[error("an array of shape {from:?} cannot take shape {to:?}: the numbers of items differ")]
    Reshape {
        /// The array's shape.
        from: Box<[usize]>,
        /// The requested shape.
        to: Box<[usize]>,
    },
    /// The memory is not aligned for items of this type.
    #[error("the memory of the array is not aligned for {dtype}; `detach` makes a copy that is")]
    Unaligned {
        /// The type of the items.
        dtype: DType,
    },
    /// The bits of an item are not a value of its type.
    #[error("item {index} of the array has bits {bits:#x}, which no {dtype} has")]
    BadItem {
        /// The type of the items.
        dtype: DType,
        /// The index of the item, in C order.
        index: usize,
        /// The bits: not 0 or 1 in a `bool`, or not a code point in a string.
        bits: u32,
    },
    /// A number does not fit the requested type.
    #[error("the {found} {value} cannot be read as {expected} without loss")]
    OutOfRange {
        /// The value, in decimal.
        value: String,
        /// The type of the item.
        found: DType,
        /// The requested type.
        expected: DType,
    },
}
