//! Properties of arrays, buffers and trees, over all dtypes and structures.

mod common;

use common::{array, arrays, dtypes, same_with_order, shapes, trees};
use proptest::prelude::*;
use std::ops::Range;
use teleport_wire::{Array, Buffer, DType, FromTree, IntoTree, Structure, Tree};

/// Calls every operation on whole trees. None may panic.
fn poke(tree: &Tree) {
    let _ = (tree.to_string(), tree.unstack(), tree.payload_bytes());
    for array in tree.leaves().filter_map(Tree::as_array) {
        let _ = (array.to_string(), array.strings(), array.byte_strings(), array.item::<f64>());
        let _ = (array.to_vec::<bool>(), array.to_vec::<f32>(), array.item::<bool>(), array.item::<u8>());
    }
}

/// Cuts `0..len` at `cuts` and returns every second piece. Some are empty.
fn every_second(mut cuts: Vec<usize>, len: usize) -> Vec<Range<usize>> {
    cuts.iter_mut().for_each(|cut| *cut %= len + 1);
    cuts.sort_unstable();
    cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect()
}

proptest! {
    #[test]
    fn dtype_names_read_back(dtype in dtypes()) {
        prop_assert_eq!(dtype.numpy().parse(), Ok(dtype));
        prop_assert_eq!(dtype.to_string().parse(), Ok(dtype));
    }

    #[test]
    fn any_text_is_a_dtype_or_an_error(text in "[<>|=]?[biufcSUMm]?[0-9]{0,3}(\\[[0-9a-z]{0,5}\\]?)?") {
        if let Ok(dtype) = text.parse::<DType>() {
            prop_assert_eq!(dtype.numpy().parse(), Ok(dtype));
        }
    }

    #[test]
    fn parts_hold_their_bytes_and_are_writable(len in 0..300usize, cuts in prop::collection::vec(any::<usize>(), 0..12)) {
        let ranges = every_second(cuts, len);
        let bytes: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let mut parts = Buffer::copy_from(&bytes).split(&ranges).unwrap();
        for (index, range) in ranges.iter().enumerate() {
            prop_assert_eq!(&*parts[index], &bytes[range.clone()]);
            parts[index].get_mut().unwrap().fill(0xEE);
            for (later, range) in ranges.iter().enumerate().skip(index + 1) {
                prop_assert_eq!(&*parts[later], &bytes[range.clone()]);
            }
        }
    }

    #[test]
    fn slices_match_slices_of_the_bytes(len in 0..300usize, cuts in prop::collection::vec(any::<usize>(), 2)) {
        let bytes: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let buffer = Buffer::from(bytes.clone());
        for range in every_second(cuts, len) {
            prop_assert_eq!(&*buffer.slice(range.clone()), &bytes[range]);
        }
    }

    #[test]
    fn rows_concatenate_to_the_array(array in arrays()) {
        let rows = array.shape().first().copied().unwrap_or(0);
        let bytes: Vec<u8> = (0..rows).flat_map(|index| array.row(index).as_bytes().to_vec()).collect();
        if array.rank() > 0 {
            prop_assert_eq!(bytes, array.as_bytes());
            let (head, tail) = (array.rows(..rows / 2), array.rows(rows / 2..));
            prop_assert_eq!([head.as_bytes(), tail.as_bytes()].concat(), array.as_bytes());
        }
        prop_assert_eq!(array.bytes() as u64, array.len() as u64 * array.dtype().item_bytes());
        prop_assert_eq!(array.detach(), array);
    }

    #[test]
    fn writing_never_changes_a_clone(tree in trees()) {
        let before = tree.to_string();
        let changed = tree.clone().map(|leaf| match leaf {
            Tree::Bytes(mut bytes) => {
                bytes.make_mut().fill(1);
                bytes.into()
            }
            Tree::Array(mut array) => {
                let _ = array.as_mut_slice::<u8>().map(|items| items.fill(1));
                array.into()
            }
            other => other,
        });
        prop_assert_eq!(before, tree.to_string());
        prop_assert_eq!(changed.payload_bytes(), tree.payload_bytes());
    }

    #[test]
    fn flatten_and_unflatten(tree in trees()) {
        let (leaves, structure): (Vec<Tree>, Structure) = tree.clone().flatten();
        prop_assert_eq!(leaves.len(), structure.leaf_count());
        prop_assert!(leaves.iter().zip(tree.leaves()).all(|(left, right)| left == right));
        prop_assert!(same_with_order(&structure.unflatten(leaves).unwrap(), &tree));
        prop_assert!(same_with_order(&tree.clone().map(|leaf| leaf), &tree));
        prop_assert!(same_with_order(&tree.clone().zip(tree.clone(), |_, right| right).unwrap(), &tree));
    }

    #[test]
    fn stack_and_unstack(tree in trees(), rows in 1..5usize, seed in any::<u64>()) {
        // Strings and bytes have no rows, so arrays replace them.
        let mut next = seed;
        let mut row = |tree: &Tree| tree.clone().map(|leaf| {
            next = next.wrapping_add(1);
            match leaf {
                Tree::Array(old) => array(old.dtype(), old.shape().to_vec(), next).into(),
                _ => array(DType::I16, vec![2], next).into(),
            }
        });
        let trees: Vec<Tree> = (0..rows).map(|_| row(&tree)).collect();
        let stacked = Tree::stack(&trees).unwrap();
        let unstacked = stacked.unstack_rows(rows).unwrap();
        prop_assert!(unstacked.iter().zip(&trees).all(|(left, right)| same_with_order(left, right)));
        prop_assert!(stacked.unstack_rows(rows + 1).is_err() || stacked.leaves().next().is_none());
        if stacked.leaves().next().is_some() {
            prop_assert_eq!(stacked.unstack().unwrap(), unstacked);
        }
    }

    #[test]
    fn no_tree_makes_an_operation_panic(left in trees(), right in trees()) {
        poke(&left);
        let _ = Tree::stack(&[left.clone(), right.clone()]);
        let _ = left.clone().zip(right.clone(), |left, right| Tree::List(vec![left, right]));
        let _ = (Vec::<f32>::from_tree(left.clone()), <(u8, String)>::from_tree(left), Vec::<Tree>::from_tree(right));
    }

    #[test]
    fn numbers_round_trip(number in any::<i64>(), float in any::<f64>(), items in any::<Vec<u16>>()) {
        prop_assert_eq!(i64::from_tree(number.into_tree()), Ok(number));
        prop_assert_eq!(u8::from_tree(number.into_tree()).ok(), u8::try_from(number).ok());
        prop_assert_eq!(f64::from_tree(float.into_tree()).map(f64::to_bits), Ok(float.to_bits()));
        prop_assert_eq!(Vec::<u16>::from_tree(items.clone().into_tree()), Ok(items));
    }

    #[test]
    fn reshaping_keeps_the_items(array in arrays(), shape in shapes()) {
        let fits = array.len() == shape.iter().product::<usize>();
        let reshaped: Option<Array> = array.clone().reshape(shape.clone()).ok();
        prop_assert_eq!(reshaped.is_some(), fits);
        prop_assert!(reshaped.is_none_or(|other| other.as_bytes() == array.as_bytes() && other.shape() == shape));
    }
}
