//! The types that an array's items can have.
//!
//! A [`DType`] says how many bytes an item takes. Its names and NumPy's type strings are in [`mod@numpy`].
//! Items are read by [`Element`](crate::Element) and [`Array`](crate::Array).

pub(crate) mod numpy;

/// The type of an array's items.
///
/// Items are little-endian and packed, exactly as in NumPy, so that array memory is sent unchanged.
///
/// ```
/// use teleport_wire::DType;
///
/// assert_eq!(DType::F32.item_bytes(), 4);
/// assert_eq!(DType::F32.numpy(), "<f4");
/// assert_eq!("<f4".parse::<DType>()?, DType::F32);
/// assert_eq!(DType::Unicode(3).item_bytes(), 12);
/// # Ok::<(), teleport_wire::ParseDTypeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// One byte, 0 or 1. Reading another value as `bool` is an error.
    Bool,
    /// Signed integer of 1 byte.
    I8,
    /// Signed integer of 2 bytes.
    I16,
    /// Signed integer of 4 bytes.
    I32,
    /// Signed integer of 8 bytes.
    I64,
    /// Unsigned integer of 1 byte.
    U8,
    /// Unsigned integer of 2 bytes.
    U16,
    /// Unsigned integer of 4 bytes.
    U32,
    /// Unsigned integer of 8 bytes.
    U64,
    /// IEEE half precision, 2 bytes.
    F16,
    /// The upper half of an `f32`, 2 bytes. NumPy needs the package `ml_dtypes` for it.
    BF16,
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE double precision, 8 bytes.
    F64,
    /// Two `f32`, real part first: 8 bytes.
    C64,
    /// Two `f64`, real part first: 16 bytes.
    C128,
    /// NumPy's `S<n>`: this number of bytes, padded with zero bytes.
    Bytes(u32),
    /// NumPy's `U<n>`: this number of code points of 4 bytes each, padded with zeros.
    Unicode(u32),
    /// NumPy's `datetime64`: an `i64` count of units since 1970-01-01, `i64::MIN` for "not a time".
    DateTime(TimeUnit),
    /// NumPy's `timedelta64`: an `i64` count of units, `i64::MIN` for "not a time".
    TimeDelta(TimeUnit),
}

impl DType {
    /// Returns the size of one item in bytes. It is zero only for `Bytes(0)` and `Unicode(0)`.
    pub const fn item_bytes(self) -> u64 {
        match self {
            DType::Bool | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 | DType::C64 => 8,
            DType::DateTime(_) | DType::TimeDelta(_) => 8,
            DType::C128 => 16,
            DType::Bytes(bytes) => bytes as u64,
            DType::Unicode(chars) => chars as u64 * 4,
        }
    }

    /// Returns the size in bytes of an array of this type and shape, or `None` if no memory could hold it.
    ///
    /// The product of all sizes other than 0 must fit an `isize` too, so that the product of any part of the
    /// shape is safe to compute later.
    ///
    /// ```
    /// use teleport_wire::DType;
    ///
    /// assert_eq!(DType::F32.array_bytes(&[2, 3]), Some(24));
    /// assert_eq!(DType::F32.array_bytes(&[2, 0]), Some(0));
    /// assert_eq!(DType::F32.array_bytes(&[usize::MAX, 0]), None);
    /// ```
    pub fn array_bytes(self, shape: &[usize]) -> Option<usize> {
        let item_bytes = usize::try_from(self.item_bytes()).ok()?;
        let bytes =
            shape.iter().try_fold(item_bytes.max(1), |bytes, &size| bytes.checked_mul(size.max(1)))?;
        isize::try_from(bytes).ok()?;
        Some(if item_bytes == 0 || shape.contains(&0) { 0 } else { bytes })
    }

    /// Returns true for `i8` to `i64` and `u8` to `u64`.
    pub const fn is_integer(self) -> bool {
        use DType::*;
        matches!(self, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
    }

    /// Returns true for the real floating point numbers: `f16`, `bf16`, `f32` and `f64`.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }
}

/// The unit of a [`DType::DateTime`] or [`DType::TimeDelta`], such as seconds, or 25 seconds.
///
/// ```
/// use teleport_wire::{DType, TimeBase, TimeUnit};
///
/// let unit = TimeUnit::new(25, TimeBase::Second).unwrap();
/// assert_eq!(DType::DateTime(unit).numpy(), "<M8[25s]");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeUnit {
    /// Invariant: between 1 and `i32::MAX`, and 1 if `base` is generic.
    multiple: u32,
    base: TimeBase,
}

impl TimeUnit {
    /// Creates a unit of `multiple` times `base`.
    ///
    /// Returns `None` if NumPy has no such unit: if the multiple is 0 or above `i32::MAX`, or if the base is
    /// generic and the multiple is not 1.
    pub const fn new(multiple: u32, base: TimeBase) -> Option<TimeUnit> {
        let generic = matches!(base, TimeBase::Generic);
        if multiple == 0 || multiple > i32::MAX as u32 || (generic && multiple != 1) {
            return None;
        }
        Some(TimeUnit { multiple, base })
    }

    /// Returns how many of [`base`](TimeUnit::base) make one unit: 1 to `i32::MAX`.
    pub const fn multiple(self) -> u32 {
        self.multiple
    }

    /// Returns the base.
    pub const fn base(self) -> TimeBase {
        self.base
    }
}

/// Creates a unit with the multiple 1.
impl From<TimeBase> for TimeUnit {
    fn from(base: TimeBase) -> TimeUnit {
        TimeUnit { multiple: 1, base }
    }
}

/// The base unit of a [`TimeUnit`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimeBase {
    /// No unit. NumPy writes it as `<M8`.
    Generic,
    /// `Y`
    Year,
    /// `M`
    Month,
    /// `W`
    Week,
    /// `D`
    Day,
    /// `h`
    Hour,
    /// `m`
    Minute,
    /// `s`
    Second,
    /// `ms`
    Millisecond,
    /// `us`
    Microsecond,
    /// `ns`
    Nanosecond,
    /// `ps`
    Picosecond,
    /// `fs`
    Femtosecond,
    /// `as`
    Attosecond,
}

impl TimeBase {
    /// All bases: the generic one, then the others from the longest to the shortest.
    pub const ALL: [TimeBase; 14] = [
        TimeBase::Generic,
        TimeBase::Year,
        TimeBase::Month,
        TimeBase::Week,
        TimeBase::Day,
        TimeBase::Hour,
        TimeBase::Minute,
        TimeBase::Second,
        TimeBase::Millisecond,
        TimeBase::Microsecond,
        TimeBase::Nanosecond,
        TimeBase::Picosecond,
        TimeBase::Femtosecond,
        TimeBase::Attosecond,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(DType::C128.item_bytes(), 16);
        assert_eq!(DType::Bytes(0).item_bytes(), 0);
        assert_eq!(DType::Unicode(u32::MAX).item_bytes(), u64::from(u32::MAX) * 4);
        assert_eq!(DType::DateTime(TimeBase::Nanosecond.into()).item_bytes(), 8);
    }

    #[test]
    fn products_are_checked() {
        assert_eq!(DType::U8.array_bytes(&[]), Some(1));
        assert_eq!(DType::Bytes(0).array_bytes(&[7]), Some(0));
        assert_eq!(DType::Bytes(0).array_bytes(&[usize::MAX, 2]), None);
        assert_eq!(DType::U8.array_bytes(&[isize::MAX as usize]), Some(isize::MAX as usize));
        assert_eq!(DType::U8.array_bytes(&[isize::MAX as usize + 1]), None);
        assert_eq!(DType::U8.array_bytes(&[0, usize::MAX, usize::MAX]), None);
    }

    #[test]
    fn units_match_numpy() {
        assert_eq!(TimeUnit::new(0, TimeBase::Second), None);
        assert_eq!(TimeUnit::new(1 << 31, TimeBase::Second), None);
        assert_eq!(TimeUnit::new(2, TimeBase::Generic), None);
        assert_eq!(TimeUnit::new(1, TimeBase::Generic), Some(TimeBase::Generic.into()));
    }
}
