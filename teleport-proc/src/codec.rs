//! Arguments and results as bytes.
//!
//! Types of any crate implement [`Message`] through the conversions of the standard library, and small values
//! do in this module. The compiler tells the two apart by a marker type.

use std::error::Error;

/// Any error that a function returns.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A value that can go to another process as an argument, or come back as a result.
///
/// It is implemented for
/// - every type with `TryInto<Vec<u8>>` and `TryFrom<Vec<u8>>`: `String`, `Vec<u8>`, the `Tree` of
///   `teleport-wire`, and your own types, which need not depend on this crate;
/// - `()`, `bool`, numbers, and tuples and options of all these.
///
/// `M` marks which of the two it is. The compiler infers it.
///
/// # Examples
/// ```
/// use teleport_proc::{BoxError, Message};
///
/// struct Seed([u8; 4]);
/// impl From<Seed> for Vec<u8> {
///     fn from(seed: Seed) -> Vec<u8> { seed.0.to_vec() }
/// }
/// impl TryFrom<Vec<u8>> for Seed {
///     type Error = BoxError;
///     fn try_from(bytes: Vec<u8>) -> Result<Seed, BoxError> {
///         bytes.try_into().map(Seed).map_err(|_| "a seed has 4 bytes".into())
///     }
/// }
///
/// fn check<M>(argument: impl Message<M>) { assert!(argument.into_message().is_ok()) }
/// check((7u64, "name".to_owned(), Some(Seed([1, 2, 3, 4]))));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot go to another process",
    note = "implement `From<{Self}> for Vec<u8>` and `TryFrom<Vec<u8>> for {Self}`"
)]
pub trait Message<M>: Sized {
    /// Converts the value to bytes.
    ///
    /// # Errors
    /// Returns the error of the type's own conversion.
    fn into_message(self) -> Result<Vec<u8>, BoxError>;

    /// Converts the bytes of [`into_message`](Message::into_message) back to the value.
    ///
    /// # Errors
    /// Returns an error if the bytes do not hold such a value.
    fn from_message(bytes: Vec<u8>) -> Result<Self, BoxError>;
}

/// Marks types that use the conversions of the standard library.
#[derive(Debug)]
pub enum Converted {}

/// Marks values that this crate converts itself.
#[derive(Debug)]
pub enum Plain {}

impl<T> Message<Converted> for T
where
    T: TryInto<Vec<u8>> + TryFrom<Vec<u8>>,
    <T as TryInto<Vec<u8>>>::Error: Into<BoxError>,
    <T as TryFrom<Vec<u8>>>::Error: Into<BoxError>,
{
    fn into_message(self) -> Result<Vec<u8>, BoxError> {
        self.try_into().map_err(Into::into)
    }

    fn from_message(bytes: Vec<u8>) -> Result<T, BoxError> {
        T::try_from(bytes).map_err(Into::into)
    }
}

fn wrong_length(bytes: &[u8]) -> BoxError {
    format!("{} bytes do not hold such a value", bytes.len()).into()
}

impl Message<Plain> for () {
    fn into_message(self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }

    fn from_message(bytes: Vec<u8>) -> Result<(), BoxError> {
        if bytes.is_empty() { Ok(()) } else { Err(wrong_length(&bytes)) }
    }
}

impl Message<Plain> for bool {
    fn into_message(self) -> Result<Vec<u8>, BoxError> {
        Ok(vec![self.into()])
    }

    fn from_message(bytes: Vec<u8>) -> Result<bool, BoxError> {
        match bytes[..] {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(wrong_length(&bytes)),
        }
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Message<Plain> for $number {
            fn into_message(self) -> Result<Vec<u8>, BoxError> {
                Ok(self.to_le_bytes().to_vec())
            }

            fn from_message(bytes: Vec<u8>) -> Result<$number, BoxError> {
                bytes.try_into().map(<$number>::from_le_bytes).map_err(|bytes: Vec<u8>| wrong_length(&bytes))
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

impl<T: Message<M>, M> Message<Option<M>> for Option<T> {
    fn into_message(self) -> Result<Vec<u8>, BoxError> {
        let mut writer = Writer::default();
        if let Some(value) = self {
            writer.bytes(&value.into_message()?);
        }
        Ok(writer.0)
    }

    fn from_message(bytes: Vec<u8>) -> Result<Option<T>, BoxError> {
        let mut reader = Reader(&bytes);
        let value = if bytes.is_empty() { None } else { Some(T::from_message(reader.bytes()?)?) };
        reader.end()?;
        Ok(value)
    }
}

macro_rules! tuples {
    ($(($($value:ident $marker:ident),+))*) => {$(
        impl<$($value: Message<$marker>, $marker),+> Message<($($marker,)+)> for ($($value,)+) {
            #[allow(non_snake_case, reason = "a value has the name of its type")]
            fn into_message(self) -> Result<Vec<u8>, BoxError> {
                let ($($value,)+) = self;
                let mut writer = Writer::default();
                $(writer.bytes(&$value.into_message()?);)+
                Ok(writer.0)
            }

            fn from_message(bytes: Vec<u8>) -> Result<Self, BoxError> {
                let mut reader = Reader(&bytes);
                let value = ($($value::from_message(reader.bytes()?)?,)+);
                reader.end()?;
                Ok(value)
            }
        }
    )*};
}

tuples! {
    (A MA)
    (A MA, B MB)
    (A MA, B MB, C MC)
    (A MA, B MB, C MC, D MD)
    (A MA, B MB, C MC, D MD, E ME)
    (A MA, B MB, C MC, D MD, E ME, F MF)
}

/// Writes numbers, and byte strings with their lengths before them.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, BoxError> {
        let length = usize::try_from(self.number()?)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(|| wrong_length(self.0))?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    pub(crate) fn number(&mut self) -> Result<u64, BoxError> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(|| wrong_length(self.0))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn end(&self) -> Result<(), BoxError> {
        if self.0.is_empty() { Ok(()) } else { Err(wrong_length(self.0)) }
    }
}

/// The return type of a function of another process: `()`, a [`Message`], or a `Result` of it with any error.
#[diagnostic::on_unimplemented(message = "a function of another process cannot return `{Self}`")]
pub trait Return<M>: Sized {
    /// The type that the caller receives.
    type Value;

    /// Converts the value to bytes.
    ///
    /// # Errors
    /// Returns the function's own error, or that of the conversion.
    fn into_bytes(self) -> Result<Vec<u8>, BoxError>;

    /// Converts the bytes of [`into_bytes`](Return::into_bytes) back to the value.
    ///
    /// # Errors
    /// Returns an error if the bytes do not hold such a value.
    fn value(bytes: Vec<u8>) -> Result<Self::Value, BoxError>;
}

/// Marks functions that cannot fail.
#[derive(Debug)]
pub struct Always<M>(M);

/// Marks functions that return a `Result`.
#[derive(Debug)]
pub struct Fallible<M>(M);

impl<T: Message<M>, M> Return<Always<M>> for T {
    type Value = T;

    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        self.into_message()
    }

    fn value(bytes: Vec<u8>) -> Result<T, BoxError> {
        T::from_message(bytes)
    }
}

impl<T: Message<M>, E: Into<BoxError>, M> Return<Fallible<M>> for Result<T, E> {
    type Value = T;

    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        self.map_err(Into::into)?.into_message()
    }

    fn value(bytes: Vec<u8>) -> Result<T, BoxError> {
        T::from_message(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trips<M, T: Message<M> + Clone + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = value.clone().into_message().unwrap();
        assert_eq!(T::from_message(bytes.clone()).unwrap(), value);
        let longer = [&bytes[..], &[7]].concat();
        assert!(T::from_message(longer).map_or(true, |other| other != value), "{value:?}");
    }

    #[test]
    fn values_round_trip() {
        round_trips(());
        round_trips(true);
        round_trips(-7i64);
        round_trips(0.5f32);
        round_trips("text".to_owned());
        round_trips(vec![1u8, 2]);
        round_trips(Some(String::new()));
        round_trips(None::<()>);
        round_trips((1u64, "a".to_owned(), (vec![0u8; 100], Some(false))));
    }

    #[test]
    fn truncated_bytes_are_an_error() {
        let bytes = (1u64, "text".to_owned()).into_message().unwrap();
        for length in 0..bytes.len() {
            assert!(<(u64, String)>::from_message(bytes[..length].to_vec()).is_err(), "{length}");
        }
        assert!(u32::from_message(vec![0; 3]).is_err());
    }
}
