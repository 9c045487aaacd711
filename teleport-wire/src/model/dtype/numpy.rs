//! Names of dtypes: NumPy's type strings, and readable names such as `float32`.
//!
//! `numpy` and `Display` write them, and `FromStr` reads both. Big-endian types are refused.

use crate::model::dtype::{DType, TimeBase, TimeUnit};
use std::fmt;
use std::str::FromStr;

/// The types without parameters: the type, its NumPy string, its readable name.
pub(crate) const PLAIN: [(DType, &str, &str); 15] = [
    (DType::Bool, "|b1", "bool"),
    (DType::I8, "|i1", "int8"),
    (DType::I16, "<i2", "int16"),
    (DType::I32, "<i4", "int32"),
    (DType::I64, "<i8", "int64"),
    (DType::U8, "|u1", "uint8"),
    (DType::U16, "<u2", "uint16"),
    (DType::U32, "<u4", "uint32"),
    (DType::U64, "<u8", "uint64"),
    (DType::F16, "<f2", "float16"),
    (DType::BF16, "bfloat16", "bfloat16"),
    (DType::F32, "<f4", "float32"),
    (DType::F64, "<f8", "float64"),
    (DType::C64, "<c8", "complex64"),
    (DType::C128, "<c16", "complex128"),
];

impl DType {
    /// Returns NumPy's type string: `<f4`, `|b1`, `|S5`, `<U3`, `<M8[25s]`.
    ///
    /// For `bf16` it is `bfloat16`, which `numpy.dtype` accepts after `import ml_dtypes`.
    pub fn numpy(self) -> String {
        match self {
            DType::Bytes(bytes) => format!("|S{bytes}"),
            DType::Unicode(chars) => format!("<U{chars}"),
            DType::DateTime(unit) => format!("<M8{unit}"),
            DType::TimeDelta(unit) => format!("<m8{unit}"),
            _ => self.plain().1.to_string(),
        }
    }

    fn plain(self) -> &'static (DType, &'static str, &'static str) {
        let found = PLAIN.iter().find(|(dtype, ..)| *dtype == self);
        found.expect("every dtype without a parameter is in the table, as a test checks")
    }
}

/// Writes a readable name, as NumPy's `dtype.name` does: `float32`, `datetime64[ns]`. Fixed-width strings are
/// `S5` and `U3`.
impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DType::Bytes(bytes) => write!(f, "S{bytes}"),
            DType::Unicode(chars) => write!(f, "U{chars}"),
            DType::DateTime(unit) => write!(f, "datetime64{unit}"),
            DType::TimeDelta(unit) => write!(f, "timedelta64{unit}"),
            _ => f.write_str(self.plain().2),
        }
    }
}

/// Reads NumPy's type strings, with or without their byte order sign, and readable names.
impl FromStr for DType {
    type Err = ParseDTypeError;

    fn from_str(text: &str) -> Result<DType, ParseDTypeError> {
        let big_endian = text.starts_with('>');
        let name = text.strip_prefix(['<', '|', '=', '>']).unwrap_or(text);
        let dtype = parse_name(name).ok_or_else(|| ParseDTypeError::Unknown { text: text.to_string() })?;
        let has_byte_order = dtype.item_bytes() > 1 && !matches!(dtype, DType::Bytes(_));
        if big_endian && has_byte_order {
            return Err(ParseDTypeError::BigEndian { text: text.to_string() });
        }
        Ok(dtype)
    }
}

fn parse_name(name: &str) -> Option<DType> {
    let plain = PLAIN.iter().find(|(_, numpy, readable)| *readable == name || numpy[1..] == *name);
    if let Some((dtype, ..)) = plain {
        return Some(*dtype);
    }
    let count = |prefix| name.strip_prefix(prefix).and_then(parse_count);
    let unit = |short, long| name.strip_prefix(short).or(name.strip_prefix(long)).and_then(parse_unit);
    let string = count('S').map(DType::Bytes).or(count('U').map(DType::Unicode));
    let time = || unit("M8", "datetime64").map(DType::DateTime);
    string.or_else(time).or_else(|| unit("m8", "timedelta64").map(DType::TimeDelta))
}

/// Reads digits only. `u32::from_str` accepts a sign as well.
fn parse_count(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Reads `""`, `[s]` or `[25s]`.
fn parse_unit(text: &str) -> Option<TimeUnit> {
    if text.is_empty() {
        return Some(TimeBase::Generic.into());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    let multiple = if digits == 0 { 1 } else { parse_count(&inner[..digits])? };
    let base = TimeBase::ALL.into_iter().find(|base| base.symbol() == &inner[digits..])?;
    TimeUnit::new(multiple, base)
}

impl TimeBase {
    /// Returns NumPy's symbol: `Y`, `M`, `W`, `D`, `h`, `m`, `s`, `ms` … `as`, or `generic`.
    pub const fn symbol(self) -> &'static str {
        const SYMBOLS: [&str; TimeBase::ALL.len()] =
            ["generic", "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"];
        SYMBOLS[self as usize]
    }
}

/// Writes the unit as in a type string: `[s]` or `[25s]`. The generic unit is empty.
impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.multiple(), self.base()) {
            (_, TimeBase::Generic) => Ok(()),
            (1, base) => write!(f, "[{}]", base.symbol()),
            (multiple, base) => write!(f, "[{multiple}{}]", base.symbol()),
        }
    }
}

/// A text that is not the name of a [`DType`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDTypeError {
    /// No dtype has this name.
    #[error(
        "no dtype is called {text:?}; expected one like \"<f4\", \"|u1\", \"|S5\", \"<M8[ns]\" or \"float32\""
    )]
    Unknown {
        /// The text.
        text: String,
    },
    /// The items are big-endian.
    #[error(
        "dtype {text:?} is big-endian; convert the array first, in NumPy by `a.astype(a.dtype.newbyteorder('<'))`"
    )]
    BigEndian {
        /// The text.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dtype: DType, numpy: &str, name: &str) {
        assert_eq!(dtype.numpy(), numpy);
        assert_eq!(dtype.to_string(), name);
        assert_eq!(numpy.parse(), Ok(dtype), "{numpy}");
        assert_eq!(name.parse(), Ok(dtype), "{name}");
    }

    #[test]
    fn names_convert_both_ways() {
        for (dtype, numpy, name) in PLAIN {
            check(dtype, numpy, name);
        }
        check(DType::Bytes(5), "|S5", "S5");
        check(DType::Bytes(0), "|S0", "S0");
        check(DType::Unicode(3), "<U3", "U3");
        for base in TimeBase::ALL {
            let unit = TimeUnit::from(base);
            check(DType::DateTime(unit), &format!("<M8{unit}"), &format!("datetime64{unit}"));
        }
        let unit = TimeUnit::new(25, TimeBase::Second).unwrap();
        check(DType::DateTime(unit), "<M8[25s]", "datetime64[25s]");
        check(DType::TimeDelta(unit), "<m8[25s]", "timedelta64[25s]");
        check(DType::TimeDelta(TimeBase::Generic.into()), "<m8", "timedelta64");
    }

    #[test]
    fn other_spellings() {
        for (text, dtype) in
            [("f4", DType::F32), ("=i8", DType::I64), ("<b1", DType::Bool), (">u1", DType::U8)]
        {
            assert_eq!(text.parse(), Ok(dtype), "{text}");
        }
        assert_eq!("<M8[generic]".parse(), Ok(DType::DateTime(TimeBase::Generic.into())));
        assert_eq!(">S3".parse(), Ok(DType::Bytes(3)));
    }

    #[test]
    fn refused() {
        for text in [">f4", ">U3", ">M8[s]", ">c16"] {
            let error = text.parse::<DType>().unwrap_err();
            assert_eq!(error, ParseDTypeError::BigEndian { text: text.to_string() });
        }
        for text in [
            "",
            "<",
            "f3",
            "S",
            "U",
            "S-1",
            "S+1",
            "S4294967296",
            "<M8[",
            "M8[0s]",
            "M8[s",
            "M8[x]",
            "<<f4",
            "float",
            "é",
        ] {
            assert!(matches!(text.parse::<DType>(), Err(ParseDTypeError::Unknown { .. })), "{text}");
        }
    }
}
