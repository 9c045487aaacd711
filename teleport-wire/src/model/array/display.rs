//! Arrays as text: small ones in full, large ones abbreviated, on one line inside a tree.
//!
//! As in NumPy, arrays of more than [`MAX_FULL_ITEMS`] items show the first and last [`EDGE_ITEMS`] of each
//! axis. If that is still too much, only dtype and shape are shown. So the text stays short whatever a peer
//! sends.

use crate::model::array::{Array, strings};
use crate::model::dtype::DType;
use crate::model::element::{Complex, Precision, Value};
use std::fmt::{self, Write};

/// Larger arrays are abbreviated. This is NumPy's threshold.
const MAX_FULL_ITEMS: usize = 1000;
/// Items shown at each end of an abbreviated axis, as in NumPy.
const EDGE_ITEMS: usize = 3;
/// Arrays of high rank whose edges have more items show only dtype and shape.
const MAX_SHOWN_ITEMS: usize = 4096;
/// Larger arrays within a line show only dtype and shape, so that the rest of the line stays readable.
const MAX_INLINE_ITEMS: usize = 16;

/// Formats like NumPy's `str`: a scalar is its value, rows have lines of their own, large arrays are
/// abbreviated.
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printer = Printer { array: self, abbreviated: extent(self) > MAX_FULL_ITEMS, multiline: true };
        if printer.shown_items() > MAX_SHOWN_ITEMS {
            return write_summary(self, f);
        }
        printer.write(f)
    }
}

/// Shows dtype and shape, and the items if they are few: `float32[2]([0.5 1.0])`.
impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_summary(self, f)?;
        if extent(self) <= MAX_INLINE_ITEMS { write!(f, "({})", Inline(self)) } else { Ok(()) }
    }
}

/// Shows an array within a line: its items if they are few, otherwise dtype and shape.
pub(crate) struct Inline<'a>(pub(crate) &'a Array);

impl fmt::Display for Inline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if extent(self.0) > MAX_INLINE_ITEMS {
            return write_summary(self.0, f);
        }
        Printer { array: self.0, abbreviated: false, multiline: false }.write(f)
    }
}

fn write_summary(array: &Array, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}{}", array.dtype(), array.shape)
}

/// Returns the number of items to write, or of brackets where an axis of size 0 leaves no items.
fn extent(array: &Array) -> usize {
    array.shape().iter().map(|&size| size.max(1)).product()
}

/// Writes one array.
struct Printer<'a> {
    array: &'a Array,
    abbreviated: bool,
    /// Rows have lines of their own, in columns of equal width.
    multiline: bool,
}

impl Printer<'_> {
    fn shown_items(&self) -> usize {
        let shown = |&size: &usize| if self.has_gap(size) { 2 * EDGE_ITEMS + 1 } else { size.max(1) };
        self.array.shape().iter().map(shown).fold(1, usize::saturating_mul)
    }

    fn has_gap(&self, size: usize) -> bool {
        self.abbreviated && size > 2 * EDGE_ITEMS
    }

    /// Returns the indices to show along an axis, with `None` for the gap.
    fn visible(&self, size: usize) -> impl Iterator<Item = Option<usize>> + use<> {
        let gap = self.has_gap(size);
        let (head, tail) = if gap { (EDGE_ITEMS, size - EDGE_ITEMS) } else { (size, size) };
        (0..head).map(Some).chain(gap.then_some(None)).chain((tail..size).map(Some))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut width = 0;
        if self.multiline {
            self.each_shown(0, 0, &mut |item| width = width.max(self.item(item).chars().count()));
        }
        self.write_axis(f, 0, 0, width)
    }

    /// Calls `show` with the index of every shown item, in C order. `first` is the index in C order along the
    /// axes before `axis`.
    fn each_shown(&self, axis: usize, first: usize, show: &mut impl FnMut(usize)) {
        let Some(&size) = self.array.shape().get(axis) else { return show(first) };
        for index in self.visible(size).flatten() {
            self.each_shown(axis + 1, first * size + index, show);
        }
    }

    fn write_axis(&self, f: &mut fmt::Formatter<'_>, axis: usize, first: usize, width: usize) -> fmt::Result {
        let shape = self.array.shape();
        let Some(&size) = shape.get(axis) else { return write!(f, "{:>width$}", self.item(first)) };
        f.write_char('[')?;
        for (place, index) in self.visible(size).enumerate() {
            if place > 0 {
                self.write_separator(f, axis)?;
            }
            match index {
                Some(index) => self.write_axis(f, axis + 1, first * size + index, width)?,
                None => f.write_str("...")?,
            }
        }
        f.write_char(']')
    }

    /// Writes a space between items, a line break between rows, and one more for each axis further out.
    fn write_separator(&self, f: &mut fmt::Formatter<'_>, axis: usize) -> fmt::Result {
        let inner_axes = self.array.rank() - axis - 1;
        if inner_axes == 0 || !self.multiline {
            return f.write_char(' ');
        }
        for _ in 0..inner_axes {
            f.write_char('\n')?;
        }
        write!(f, "{:width$}", "", width = axis + 1)
    }

    /// Formats the item at an index in C order. Invalid bits show as `?`.
    fn item(&self, index: usize) -> String {
        let dtype = self.array.dtype();
        let bytes = dtype.item_bytes() as usize;
        let item = &self.array.as_bytes()[index * bytes..][..bytes];
        let value = |dtype| Value::read(dtype, item).map(|value| value.to_string());
        let text = match dtype {
            DType::Bytes(_) => Some(format!("b\"{}\"", strings::without_zeros(item).escape_ascii())),
            DType::Unicode(_) => strings::decode_unicode(item).ok().map(|text| format!("{text:?}")),
            DType::DateTime(_) | DType::TimeDelta(_) if item == i64::MIN.to_le_bytes() => Some("NaT".into()),
            DType::DateTime(_) | DType::TimeDelta(_) => value(DType::I64),
            _ => value(dtype),
        };
        text.unwrap_or_else(|| "?".to_string())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value, precision) => write_float(f, value, precision),
            Value::Complex(Complex { re, im }, precision) => {
                write_float(f, re, precision)?;
                f.write_str(if im.is_sign_negative() { "" } else { "+" })?;
                write_float(f, im, precision)?;
                f.write_char('j')
            }
        }
    }
}

/// Writes the shortest digits that read back as the same number in its own precision.
fn write_float(f: &mut fmt::Formatter<'_>, value: f64, precision: Precision) -> fmt::Result {
    match precision {
        Precision::Double => write!(f, "{value:?}"),
        Precision::Half | Precision::Brain | Precision::Single => write!(f, "{:?}", value as f32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(array: Array, text: &str) {
        assert_eq!(array.to_string(), text);
    }

    #[test]
    fn small_arrays_in_full() {
        check(Array::scalar(2i64), "2");
        check(Array::from([1i64, -20, 3]), "[  1 -20   3]");
        check(Array::from([0.5f32, 0.1, 1e20]), "[ 0.5  0.1 1e20]");
        check(Array::from([true, false]), "[ true false]");
        check(Array::from([Complex { re: 1.0, im: -0.5 }]), "[1.0-0.5j]");
        check(Array::from_vec(vec![1u8; 8], [2, 2, 2]).unwrap(), "[[[1 1]\n  [1 1]]\n\n [[1 1]\n  [1 1]]]");
        check(Array::from_strings(&["a", "b\n"]), "[  \"a\" \"b\\n\"]");
        check(Array::from_byte_strings(&[b"\xFF"]), "[b\"\\xff\"]");
        check(Array::zeros::<f32>([0]), "[]");
        check(Array::zeros::<f32>([2, 0]), "[[]\n []]");
    }

    #[test]
    fn large_arrays_abbreviated() {
        check(Array::from((0..2000i64).collect::<Vec<_>>()), "[   0    1    2 ... 1997 1998 1999]");
        check(Array::zeros::<u8>([1; 5]), "[[[[[0]]]]]");
        check(Array::zeros::<u8>([9; 5]), "uint8[9, 9, 9, 9, 9]");
        check(Array::zeros::<u8>([0, 1 << 40]), "[]");
        check(Array::zeros::<u8>([1 << 40, 0]).rows(..2), "[[]\n []]");
        check(Array::zeros::<u8>([1 << 40, 0]), "[[]\n []\n []\n ...\n []\n []\n []]");
        let tree = crate::Tree::from(Array::zeros::<u8>([1 << 40, 0]));
        assert_eq!(tree.to_string(), "uint8[1099511627776, 0]");
    }

    #[test]
    fn times_and_bad_items() {
        let dtype = DType::DateTime(crate::TimeBase::Second.into());
        let buffer = Array::from([5, i64::MIN]).into_buffer();
        check(Array::from_buffer(dtype, 2, buffer).unwrap(), "[  5 NaT]");
        check(Array::from_buffer(DType::Bool, (), vec![7].into()).unwrap(), "?");
        check(Array::from_buffer(DType::Unicode(1), (), vec![0xFF; 4].into()).unwrap(), "?");
        check(Array::from_buffer(DType::F16, (), vec![0, 0x3C].into()).unwrap(), "1.0");
    }

    #[test]
    fn debug_is_short() {
        assert_eq!(format!("{:?}", Array::from([1u8, 2])), "uint8[2]([1 2])");
        assert_eq!(format!("{:?}", Array::zeros::<f32>([64, 64])), "float32[64, 64]");
    }
}
