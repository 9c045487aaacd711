//! Rust types for an array's items, and the reading of scalars across dtypes.
//!
//! An [`Element`] ties a Rust type to the one [`DType`] with the same bytes. Whole arrays are cast without
//! conversion. A single item may also be read as a wider type, through [`Value`]. Casts are bytemuck's: they
//! check lengths, alignment and the values of `bool`, since a peer may have written them.

use bytemuck::checked::{self, CheckedCastError};

use crate::model::dtype::DType;

/// A Rust type for the items of an array.
///
/// Implemented for `bool`, `i8` to `i64`, `u8` to `u64`, `f32`, `f64`, [`Complex<f32>`](Complex),
/// `Complex<f64>`, and with the feature `half` for `half::f16` and `half::bf16`. This trait is sealed.
pub trait Element: Cast + Copy + Send + Sync + 'static {
    /// The dtype with the same bytes.
    const DTYPE: DType;
}

/// A complex number: [`DType::C64`] for `Complex<f32>`, [`DType::C128`] for `Complex<f64>`.
///
/// ```
/// use teleport_wire::{Array, Complex, DType};
///
/// let array = Array::from(vec![Complex { re: 1.0f32, im: -1.0 }]);
/// assert_eq!(array.dtype(), DType::C64);
/// ```
#[derive(Clone, Copy, PartialEq, Default, Debug)]
#[repr(C)]
pub struct Complex<T> {
    /// The real part.
    pub re: T,
    /// The imaginary part.
    pub im: T,
}

// SAFETY: two `f32`, for which zeros are a value.
unsafe impl bytemuck::Zeroable for Complex<f32> {}
// SAFETY: two `f64`, for which zeros are a value.
unsafe impl bytemuck::Zeroable for Complex<f64> {}
// SAFETY: `repr(C)` of two fields of the same plain old type: no padding, and any bits are a value.
unsafe impl bytemuck::Pod for Complex<f32> {}
// SAFETY: `repr(C)` of two fields of the same plain old type: no padding, and any bits are a value.
unsafe impl bytemuck::Pod for Complex<f64> {}

/// The private half of [`Element`]: casts, and reading from another dtype.
pub trait Cast: bytemuck::NoUninit {
    #[doc(hidden)]
    fn cast(bytes: &[u8]) -> Result<&[Self], CheckedCastError>;
    #[doc(hidden)]
    fn cast_mut(bytes: &mut [u8]) -> Result<&mut [Self], CheckedCastError>;
    /// Returns the value as this type if it keeps its meaning.
    #[doc(hidden)]
    fn from_value(value: Value) -> Option<Self>;
}

/// One number of any dtype.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// Any integer dtype.
    Int(i128),
    /// A real number, and the precision of its dtype.
    Float(f64, Precision),
    /// A complex number, and the precision of its parts.
    Complex(Complex<f64>, Precision),
}

/// The precision of a float.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub enum Precision {
    /// `f16`
    Half,
    /// `bf16`
    Brain,
    /// `f32`
    Single,
    /// `f64`
    Double,
}

impl Value {
    /// Reads one item. Returns `None` if the dtype has no numbers, or if `bytes` is not an item of it.
    pub(crate) fn read(dtype: DType, bytes: &[u8]) -> Option<Value> {
        use Precision::*;
        Some(match dtype {
            DType::Bool => Value::Bool(checked::try_pod_read_unaligned(bytes).ok()?),
            DType::I8 => Value::Int(read::<i8>(bytes)?.into()),
            DType::I16 => Value::Int(read::<i16>(bytes)?.into()),
            DType::I32 => Value::Int(read::<i32>(bytes)?.into()),
            DType::I64 => Value::Int(read::<i64>(bytes)?.into()),
            DType::U8 => Value::Int(read::<u8>(bytes)?.into()),
            DType::U16 => Value::Int(read::<u16>(bytes)?.into()),
            DType::U32 => Value::Int(read::<u32>(bytes)?.into()),
            DType::U64 => Value::Int(read::<u64>(bytes)?.into()),
            DType::F16 => Value::Float(f16_to_f64(read(bytes)?), Half),
            DType::BF16 => Value::Float(bf16_to_f64(read(bytes)?), Brain),
            DType::F32 => Value::Float(read::<f32>(bytes)?.into(), Single),
            DType::F64 => Value::Float(read(bytes)?, Double),
            DType::C64 => {
                let Complex { re, im } = read::<Complex<f32>>(bytes)?;
                Value::Complex(Complex { re: re.into(), im: im.into() }, Single)
            }
            DType::C128 => Value::Complex(read(bytes)?, Double),
            DType::Bytes(_) | DType::Unicode(_) | DType::DateTime(_) | DType::TimeDelta(_) => return None,
        })
    }

    fn as_complex(self, max: Precision) -> Option<Complex<f64>> {
        match self {
            Value::Complex(value, precision) => (precision <= max).then_some(value),
            other => Some(Complex { re: other.as_float(max)?, im: 0.0 }),
        }
    }

    /// Returns a float, or an integer that a float of this precision holds exactly. A double is rounded to
    /// single precision if it is in range, since literals and Python's numbers are doubles.
    fn as_float(self, max: Precision) -> Option<f64> {
        match self {
            Value::Float(value, precision) if precision <= max => Some(value),
            Value::Float(value, _) if max == Precision::Single => {
                let rounded = value as f32;
                (rounded.is_finite() || !value.is_finite()).then(|| f64::from(rounded))
            }
            Value::Int(value) => {
                let exact = if max == Precision::Double { value as f64 } else { f64::from(value as f32) };
                (exact as i128 == value).then_some(exact)
            }
            Value::Float(..) | Value::Bool(_) | Value::Complex(..) => None,
        }
    }
}

fn read<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

/// A `bf16` is the upper half of an `f32`.
fn bf16_to_f64(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

/// Reads IEEE half precision: 1 bit of sign, 5 of exponent, 10 of fraction.
fn f16_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1F);
    let fraction = f64::from(bits & 0x3FF) / 1024.0;
    sign * match exponent {
        0 => fraction * power_of_two(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * power_of_two(exponent - 15),
    }
}

/// Returns the power of two with a small exponent, exactly. `powi` promises no precision.
fn power_of_two(exponent: i32) -> f64 {
    const BIAS: i32 = 1023;
    f64::from_bits(((exponent + BIAS) as u64) << 52)
}

/// Implements the traits, with the casts of the module `$casts`: `checked` for types with invalid bits.
macro_rules! elements {
    ($casts:ident: $($element:ty, $dtype:ident, $from_value:expr;)*) => {$(
        impl Element for $element {
            const DTYPE: DType = DType::$dtype;
        }

        impl Cast for $element {
            fn cast(bytes: &[u8]) -> Result<&[Self], CheckedCastError> {
                $casts::try_cast_slice(bytes).map_err(CheckedCastError::from)
            }

            fn cast_mut(bytes: &mut [u8]) -> Result<&mut [Self], CheckedCastError> {
                $casts::try_cast_slice_mut(bytes).map_err(CheckedCastError::from)
            }

            fn from_value(value: Value) -> Option<Self> {
                let from_value: fn(Value) -> Option<Self> = $from_value;
                from_value(value)
            }
        }
    )*};
}

macro_rules! integer_elements {
    ($($element:ident $dtype:ident),*) => {
        elements! {bytemuck: $(
            $element, $dtype, |value| match value {
                Value::Int(value) => value.try_into().ok(),
                _ => None,
            };
        )*}
    };
}

integer_elements! { i8 I8, i16 I16, i32 I32, i64 I64, u8 U8, u16 U16, u32 U32, u64 U64 }

elements! {
    bytemuck:
    f32, F32, |value| value.as_float(Precision::Single).map(|value| value as f32);
    f64, F64, |value| value.as_float(Precision::Double);
    Complex<f32>, C64, |value| {
        let Complex { re, im } = value.as_complex(Precision::Single)?;
        Some(Complex { re: re as f32, im: im as f32 })
    };
    Complex<f64>, C128, |value| value.as_complex(Precision::Double);
}

elements! {
    checked:
    bool, Bool, |value| match value {
        Value::Bool(value) => Some(value),
        _ => None,
    };
}

#[cfg(feature = "half")]
elements! {
    bytemuck:
    half::f16, F16, |value| match value {
        Value::Float(value, Precision::Half) => Some(half::f16::from_f64(value)),
        _ => None,
    };
    half::bf16, BF16, |value| match value {
        Value::Float(value, Precision::Brain) => Some(half::bf16::from_f64(value)),
        _ => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_read_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65504.0),
            (0x0001, 1.0 / f64::from(1 << 24)),
            (0x03FF, 1023.0 / f64::from(1 << 24)),
            (0x0400, 1.0 / f64::from(1 << 14)),
            (0x7C00, f64::INFINITY),
            (0xFC00, f64::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(f16_to_f64(bits).to_bits(), f64::to_bits(value), "{bits:#x}");
        }
        assert!(f16_to_f64(0x7C01).is_nan());
        assert_eq!(bf16_to_f64(0x3F80), 1.0);
        assert_eq!(bf16_to_f64(0xC0A0), -5.0);
    }

    #[test]
    fn integers_must_fit() {
        assert_eq!(u8::from_value(Value::Int(255)), Some(255));
        assert_eq!(u8::from_value(Value::Int(256)), None);
        assert_eq!(u64::from_value(Value::Int(-1)), None);
        assert_eq!(i64::from_value(Value::Int(u64::MAX.into())), None);
        assert_eq!(i64::from_value(Value::Float(1.0, Precision::Double)), None);
    }

    #[test]
    fn floats_widen_and_doubles_round_to_single() {
        assert_eq!(f64::from_value(Value::Float(0.5, Precision::Single)), Some(0.5));
        assert_eq!(f32::from_value(Value::Float(0.1, Precision::Double)), Some(0.1));
        assert_eq!(f32::from_value(Value::Float(f64::INFINITY, Precision::Double)), Some(f32::INFINITY));
        assert_eq!(f32::from_value(Value::Float(1e300, Precision::Double)), None);
        assert_eq!(f32::from_value(Value::Int(1 << 24)), Some(16_777_216.0));
        assert_eq!(f32::from_value(Value::Int((1 << 24) + 1)), None);
        assert_eq!(f64::from_value(Value::Int((1 << 53) + 1)), None);
        assert_eq!(f64::from_value(Value::Int(i64::MIN.into())), Some(-9_223_372_036_854_775_808.0));
        assert_eq!(f64::from_value(Value::Bool(true)), None);
        let value = Value::Float(2.0, Precision::Half);
        assert_eq!(Complex::<f32>::from_value(value), Some(Complex { re: 2.0, im: 0.0 }));
    }

    #[test]
    fn bool_bytes_are_checked() {
        assert!(matches!(bool::cast(&[0, 1, 2]), Err(CheckedCastError::InvalidBitPattern)));
        assert_eq!(bool::cast(&[0, 1]).unwrap(), [false, true]);
        assert_eq!(Value::read(DType::Bool, &[2]), None);
    }
}
