//! What can be wrong with an array, for whoever reads or makes one.

use crate::model::dtype::DType;

/// Why an array cannot be made, or not be read in the way asked for.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The items are of another type. Arrays are never converted.
    #[error("the array is {found}, not {expected}")]
    DType {
        /// The type asked for.
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
    /// An array has another rank than expected.
    #[error("the array has shape {shape:?}; expected {expected} axes, 0 being a scalar")]
    Rank {
        /// How many axes were expected.
        expected: usize,
        /// The shape found.
        shape: Box<[usize]>,
    },
    /// The buffer has another length than the items would take.
    #[error(
        "an array of {dtype} and shape {shape:?} takes {expected_bytes} bytes, but its memory has {found_bytes}"
    )]
    Length {
        /// The type of the items.
        dtype: DType,
        /// The shape given.
        shape: Box<[usize]>,
        /// What the items take.
        expected_bytes: usize,
        /// What was given.
        found_bytes: usize,
    },
    /// No memory could hold the array.
    #[error("an array of {dtype} and shape {shape:?} exceeds the address space ({} bytes)", isize::MAX)]
    TooLarge {
        /// The type of the items.
        dtype: DType,
        /// The shape given.
        shape: Box<[usize]>,
    },
    /// The new shape has another number of items.
    #[error("an array of shape {from:?} cannot take shape {to:?}: the numbers of items differ")]
    Reshape {
        /// The array's shape.
        from: Box<[usize]>,
        /// The shape asked for.
        to: Box<[usize]>,
    },
    /// The memory starts at an address that items of this type cannot have.
    #[error("the memory of the array is not aligned for {dtype}; `detach` makes a copy that is")]
    Unaligned {
        /// The type of the items.
        dtype: DType,
    },
    /// An item is no value of its type.
    #[error("item {index} of the array has bits {bits:#x}, which no {dtype} has")]
    BadItem {
        /// The type of the items.
        dtype: DType,
        /// Which item, counted in C order.
        index: usize,
        /// Its bits: not 0 or 1 in a `bool`, no code point in a string.
        bits: u32,
    },
    /// A number does not fit the type it was to be read as.
    #[error("the {found} {value} cannot be read as {expected} without loss")]
    OutOfRange {
        /// The value, in decimal.
        value: String,
        /// The type of the item.
        found: DType,
        /// The type asked for.
        expected: DType,
    },
}
