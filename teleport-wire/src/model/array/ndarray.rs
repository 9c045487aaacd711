//! Conversion from arrays of the crate `ndarray`.

use ndarray::Dimension;

use crate::model::{array::Array, buffer::Buffer, convert::IntoTree, element::Element, tree::Tree};

/// Takes over the memory if the items are in C order. Copies them otherwise.
impl<T: Element, D: Dimension> From<ndarray::Array<T, D>> for Array {
    fn from(array: ndarray::Array<T, D>) -> Array {
        let (dtype, shape) = (T::DTYPE, array.shape().into());
        if !array.is_standard_layout() {
            let buffer = Buffer::from_vec(array.iter().copied().collect::<Vec<T>>());
            return Array { dtype, shape, buffer };
        }
        let (items, bytes) = (array.len(), size_of::<T>());
        // The vector may hold more than the array, which was sliced in place.
        let (memory, first) = array.into_raw_vec_and_offset();
        let first = first.unwrap_or(0) * bytes;
        Array { dtype, shape, buffer: Buffer::from_vec(memory).slice(first..first + items * bytes) }
    }
}

impl<T: Element, D: Dimension> IntoTree for ndarray::Array<T, D> {
    fn into_tree(self) -> Tree {
        Array::from(self).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};

    #[test]
    fn standard_layout_moves() {
        let source = array![[1i32, 2, 3], [4, 5, 6]];
        let start = source.as_ptr().cast::<u8>();
        let array = Array::from(source);
        assert_eq!(array.as_bytes().as_ptr(), start);
        assert_eq!(array.shape(), [2, 3]);
        assert_eq!(array.view::<i32>().unwrap()[[1, 0]], 4);
    }

    #[test]
    fn slices_in_place_keep_their_offset() {
        let rows = array![[1i32, 2], [3, 4], [5, 6]].slice_move(s![1..2, ..]);
        assert_eq!(Array::from(rows), Array::from_vec(vec![3i32, 4], [1, 2]).unwrap());
    }

    #[test]
    fn other_layouts_are_copied_in_order() {
        let turned = array![[1i32, 2, 3], [4, 5, 6]].reversed_axes();
        assert_eq!(Array::from(turned).as_slice::<i32>().unwrap(), [1, 4, 2, 5, 3, 6]);
        let backwards = array![1i32, 2, 3].slice_move(s![..;-1]);
        assert_eq!(Array::from(backwards).as_slice::<i32>().unwrap(), [3, 2, 1]);
    }

    #[test]
    fn empty_and_scalar() {
        assert_eq!(Array::from(ndarray::Array2::<f32>::zeros((0, 3))).shape(), [0, 3]);
        assert_eq!(Array::zeros::<f32>([2, 0]).view::<f32>().unwrap().shape(), [2, 0]);
        assert_eq!(Array::from(ndarray::arr0(7u8)), Array::scalar(7u8));
        assert_eq!(Array::scalar(7u8).view::<u8>().unwrap()[[]], 7);
    }

    #[test]
    fn views_write_in_place() {
        let mut array = Array::from(vec![1u8, 2]);
        let start = array.as_bytes().as_ptr();
        array.view_mut::<u8>().unwrap()[[1]] = 9;
        assert_eq!((array.as_slice::<u8>().unwrap(), array.as_bytes().as_ptr()), (&[1, 9][..], start));
    }

    #[test]
    fn sent_as_they_are() {
        assert_eq!(array![1.0f32].into_tree(), Array::from([1.0f32]).into());
    }
}
