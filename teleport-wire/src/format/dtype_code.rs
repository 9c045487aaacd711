//! The numbers of dtypes on the wire, and the parameters of some of them.
//!
//! Numbers never change their meaning. Only signatures use them.

use crate::format::{decode_error::DecodeError, reader::Reader};
use crate::model::dtype::numpy::PLAIN;
use crate::model::dtype::{DType, TimeBase, TimeUnit};

const BYTES: u8 = 16;
const UNICODE: u8 = 17;
const DATE_TIME: u8 = 18;
const TIME_DELTA: u8 = 19;

/// Returns the number of a dtype. Those of dtypes without parameters are their places in [`PLAIN`], from 1.
pub(crate) fn number(dtype: DType) -> u8 {
    match dtype {
        DType::Bool => 1,
        DType::I8 => 2,
        DType::I16 => 3,
        DType::I32 => 4,
        DType::I64 => 5,
        DType::U8 => 6,
        DType::U16 => 7,
        DType::U32 => 8,
        DType::U64 => 9,
        DType::F16 => 10,
        DType::BF16 => 11,
        DType::F32 => 12,
        DType::F64 => 13,
        DType::C64 => 14,
        DType::C128 => 15,
        DType::Bytes(_) => BYTES,
        DType::Unicode(_) => UNICODE,
        DType::DateTime(_) => DATE_TIME,
        DType::TimeDelta(_) => TIME_DELTA,
    }
}

/// Appends the parameters of a dtype: a width, a unit, or nothing.
pub(crate) fn encode_parameters(dtype: DType, bytes: &mut Vec<u8>) {
    match dtype {
        DType::Bytes(width) | DType::Unicode(width) => bytes.extend_from_slice(&width.to_le_bytes()),
        DType::DateTime(unit) | DType::TimeDelta(unit) => {
            bytes.push(unit.base() as u8);
            bytes.extend_from_slice(&unit.multiple().to_le_bytes());
        }
        _ => {}
    }
}

/// Returns the dtype with this number, and reads its parameters.
pub(crate) fn decode(number: u8, reader: &mut Reader<'_>) -> Result<DType, DecodeError> {
    match number {
        BYTES => reader.u32("dtype width").map(DType::Bytes),
        UNICODE => reader.u32("dtype width").map(DType::Unicode),
        DATE_TIME => decode_unit(reader).map(DType::DateTime),
        TIME_DELTA => decode_unit(reader).map(DType::TimeDelta),
        plain => match PLAIN.get(usize::from(plain).wrapping_sub(1)) {
            Some((dtype, ..)) => Ok(*dtype),
            None => Err(DecodeError::UnknownValue { field: "dtype", value: u64::from(plain) }),
        },
    }
}

fn decode_unit(reader: &mut Reader<'_>) -> Result<TimeUnit, DecodeError> {
    let unknown = |field, value| DecodeError::UnknownValue { field, value };
    let number = reader.u8("time base")?;
    let base = TimeBase::ALL.get(usize::from(number));
    let base = *base.ok_or_else(|| unknown("time base", u64::from(number)))?;
    let multiple = reader.u32("time multiple")?;
    TimeUnit::new(multiple, base).ok_or_else(|| unknown("time multiple", u64::from(multiple)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dtypes_convert_both_ways() {
        for (index, (dtype, ..)) in PLAIN.iter().enumerate() {
            assert_eq!(usize::from(number(*dtype)), index + 1);
        }
        for number in 0..=u8::MAX {
            let parameters = [7, 1, 0, 0, 0];
            let mut reader = Reader::new(&parameters);
            let Ok(dtype) = decode(number, &mut reader) else {
                assert!(number == 0 || number > TIME_DELTA);
                continue;
            };
            assert_eq!(super::number(dtype), number);
            let mut encoded = Vec::new();
            encode_parameters(dtype, &mut encoded);
            assert_eq!(encoded, parameters[..parameters.len() - reader.remaining()]);
        }
    }

    #[test]
    fn units_unknown_to_numpy_are_refused() {
        for parameters in [[14, 1, 0, 0, 0], [7, 0, 0, 0, 0], [0, 2, 0, 0, 0], [7, 0, 0, 0, 0x80]] {
            assert!(decode(DATE_TIME, &mut Reader::new(&parameters)).is_err(), "{parameters:?}");
        }
    }
}
