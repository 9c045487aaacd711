//! The sizes of an array's axes.
//!
//! Up to [`INLINE_RANK`] sizes are stored inline, so that making, cloning and viewing common arrays does not
//! allocate for them. Products of sizes are checked where an array is made.

use std::fmt;
use std::ops::Deref;

/// Batches of images have rank 4. A larger value would make `Array` larger than two cache lines.
const INLINE_RANK: usize = 4;

/// The sizes of an array's axes, outermost first. Rank 0 is a scalar; sizes of 0 are legal.
///
/// Converts from arrays, slices and vectors of `usize`, from one `usize`, and from tuples. Derefs to a slice.
///
/// ```
/// use teleport_wire::Shape;
///
/// let shape = Shape::from([64, 64, 3]);
/// assert_eq!(shape, Shape::from((64, 64, 3)));
/// assert_eq!(shape.iter().product::<usize>(), 12288);
/// assert_eq!(Shape::from(()).len(), 0); // a scalar
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Sizes);

/// Invariant: equal shapes have equal values, so that comparisons can be derived.
#[derive(PartialEq, Eq, Hash)]
enum Sizes {
    /// Invariant: `rank <= INLINE_RANK`, and all sizes from `rank` on are 0.
    Inline { rank: u32, sizes: [usize; INLINE_RANK] },
    /// Invariant: more than `INLINE_RANK` sizes.
    Heap(Box<[usize]>),
}

impl Shape {
    /// The shape of a scalar: no axes.
    pub const SCALAR: Shape = Shape(Sizes::Inline { rank: 0, sizes: [0; INLINE_RANK] });

    /// Returns the sizes, outermost first.
    pub fn as_slice(&self) -> &[usize] {
        match &self.0 {
            Sizes::Inline { rank, sizes } => &sizes[..*rank as usize],
            Sizes::Heap(sizes) => sizes,
        }
    }

    /// Returns true if the sizes are stored inline.
    #[inline]
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self.0, Sizes::Inline { .. })
    }

    /// Returns this shape with a first axis of `size` before the others.
    pub fn with_first(&self, size: usize) -> Shape {
        std::iter::once(size).chain(self.iter().copied()).collect()
    }
}

impl Clone for Sizes {
    /// Copies what is stored inline, without a call.
    #[inline]
    fn clone(&self) -> Sizes {
        match self {
            Sizes::Inline { rank, sizes } => Sizes::Inline { rank: *rank, sizes: *sizes },
            Sizes::Heap(sizes) => Sizes::Heap(copy_sizes(sizes)),
        }
    }
}

#[cold]
fn copy_sizes(sizes: &[usize]) -> Box<[usize]> {
    sizes.into()
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        self.as_slice()
    }
}

impl AsRef<[usize]> for Shape {
    fn as_ref(&self) -> &[usize] {
        self
    }
}

impl Default for Shape {
    fn default() -> Shape {
        Shape::SCALAR
    }
}

/// Writes a list: `[64, 64, 3]`.
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_slice())
    }
}

/// Writes a list: `[64, 64, 3]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_slice())
    }
}

impl From<&[usize]> for Shape {
    fn from(from: &[usize]) -> Shape {
        let mut sizes = [0; INLINE_RANK];
        match sizes.get_mut(..from.len()) {
            Some(inline) => {
                inline.copy_from_slice(from);
                Shape(Sizes::Inline { rank: from.len() as u32, sizes })
            }
            None => Shape(Sizes::Heap(from.into())),
        }
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(from: I) -> Shape {
        let mut from = from.into_iter();
        let mut sizes = [0; INLINE_RANK];
        let mut rank = 0;
        while let Some(size) = from.next() {
            if rank == INLINE_RANK {
                return Shape(Sizes::Heap(sizes.into_iter().chain([size]).chain(from).collect()));
            }
            sizes[rank] = size;
            rank += 1;
        }
        Shape(Sizes::Inline { rank: rank as u32, sizes })
    }
}

/// Types that deref to a slice.
macro_rules! from_slices {
    ($([$($generics:tt)*] $sizes:ty;)*) => {$(
        impl<$($generics)*> From<$sizes> for Shape {
            fn from(sizes: $sizes) -> Shape {
                sizes[..].into()
            }
        }
    )*};
}

from_slices! {
    [const RANK: usize] [usize; RANK];
    [const RANK: usize] &[usize; RANK];
    [] Vec<usize>;
    [] &Vec<usize>;
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Shape {
        shape.clone()
    }
}

/// Creates a shape of one axis.
impl From<usize> for Shape {
    fn from(size: usize) -> Shape {
        [size].into()
    }
}

/// Creates the shape of a scalar.
impl From<()> for Shape {
    fn from((): ()) -> Shape {
        Shape::SCALAR
    }
}

macro_rules! from_tuples {
    ($(($($name:ident $size:ty),+))*) => {$(
        impl From<($($size,)+)> for Shape {
            fn from(($($name,)+): ($($size,)+)) -> Shape {
                [$($name),+].into()
            }
        }
    )*};
}

from_tuples! {
    (a usize)
    (a usize, b usize)
    (a usize, b usize, c usize)
    (a usize, b usize, c usize, d usize)
    (a usize, b usize, c usize, d usize, e usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_round_trips() {
        for rank in 0..9 {
            let sizes: Vec<usize> = (10..10 + rank).collect();
            let shape = Shape::from(sizes.as_slice());
            assert_eq!(&shape[..], sizes);
            assert_eq!(shape, Shape::from(sizes.clone()));
            assert_eq!(shape, sizes.iter().copied().collect());
            assert_eq!(shape.with_first(7)[0], 7);
            assert_eq!(shape.with_first(7)[1..], sizes);
        }
    }

    #[test]
    fn ranks_differ_even_where_sizes_are_zero() {
        assert_ne!(Shape::from([]), Shape::from([0]));
        assert_ne!(Shape::from([0]), Shape::from([0, 0]));
    }

    #[test]
    fn prints_as_a_list() {
        assert_eq!(Shape::from((64, 3)).to_string(), "[64, 3]");
        assert_eq!(Shape::SCALAR.to_string(), "[]");
    }
}
