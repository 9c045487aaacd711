//! Arithmetic on arrays of any numeric dtype.

use teleport::{Array, BoxError, DType, Tree};

/// Runs `$body` with `$T` as the Rust type of a dtype's numbers.
macro_rules! for_number {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::I16 => {
                type $T = i16;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::U16 => {
                type $T = u16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
                type $T = u64;
                $body
            }
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err(format!("{other} has no arithmetic here; send integers, f32 or f64").into()),
        }
    };
}

/// Adds two arrays of the same dtype and shape, in the memory of the first. Integers wrap around.
pub(crate) fn add(left: Array, right: Array) -> Result<Array, BoxError> {
    if (left.dtype(), left.shape()) != (right.dtype(), right.shape()) {
        let [foo_is, bar_is] = [&left, &right].map(|array| format!("{} {:?}", array.dtype(), array.shape()));
        return Err(
            format!("foo is {foo_is} and bar is {bar_is}; they must have the same dtype and shape").into()
        );
    }
    for_number!(left.dtype(), T => add_as::<T>(left, &right))
}

fn add_as<T: Number>(mut left: Array, right: &Array) -> Result<Array, BoxError> {
    for (sum, other) in left.as_mut_slice::<T>()?.iter_mut().zip(right.as_slice::<T>()?) {
        *sum = sum.plus(*other);
    }
    Ok(left)
}

/// Replaces each array by the sum of its items: an i64 for integers, an f64 for floats.
pub(crate) fn sum(tree: Tree) -> Result<Tree, BoxError> {
    let mut failure = None;
    let sums = tree.map(|leaf| match leaf {
        Tree::Array(array) => sum_of(&array).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            Tree::Null
        }),
        other => other,
    });
    failure.map_or(Ok(sums), Err)
}

fn sum_of(array: &Array) -> Result<Tree, BoxError> {
    for_number!(array.dtype(), T => Ok(T::sum(array.as_slice::<T>()?)))
}

trait Number: teleport::wire::Element {
    fn plus(self, other: Self) -> Self;
    fn sum(items: &[Self]) -> Tree;
}

macro_rules! integers {
    ($($T:ty),*) => {$(
        impl Number for $T {
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn sum(items: &[Self]) -> Tree {
                Array::scalar(items.iter().fold(0i64, |sum, item| sum.wrapping_add(*item as i64))).into()
            }
        }
    )*};
}

macro_rules! floats {
    ($($T:ty),*) => {$(
        impl Number for $T {
            fn plus(self, other: Self) -> Self {
                self + other
            }

            fn sum(items: &[Self]) -> Tree {
                Array::scalar(items.iter().map(|item| f64::from(*item)).sum::<f64>()).into()
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);
floats!(f32, f64);
