//! Operations on whole trees: flatten, map, zip, stack and their opposites.
//!
//! Leaves are arrays, strings and bytes. Nulls belong to the structure, as in JAX. Only `stack` copies the
//! bytes of arrays. The rows of `unstack` are views. Errors have the path to the part that does not fit.

use crate::model::tree::error::{TreeError, TreePath};
use crate::model::tree::{Dict, Tree, key::Key};
use crate::model::{array::Array, buffer::Buffer, shape::Shape};

impl Tree {
    /// Splits the tree into its leaves, depth first in the order of lists and dicts, and its structure, from
    /// which a tree of these or other leaves can be made.
    ///
    /// ```
    /// use teleport_wire::tree;
    ///
    /// let (leaves, structure) = tree!({"a": 1, "b": [null, "x"]}).flatten();
    /// assert_eq!(leaves, [tree!(1), tree!("x")]);
    /// assert_eq!(structure.unflatten(leaves)?, tree!({"a": 1, "b": [null, "x"]}));
    /// # Ok::<(), teleport_wire::TreeError>(())
    /// ```
    pub fn flatten(self) -> (Vec<Tree>, Structure) {
        let mut leaves = Vec::new();
        let root = flatten_into(self, &mut leaves);
        let structure = Structure { root, leaves: leaves.len() };
        (leaves, structure)
    }

    /// Replaces each leaf by the result of `change`.
    ///
    /// ```
    /// use teleport_wire::{tree, Tree};
    ///
    /// let tree = tree!({"a": vec![1u8, 2], "b": null}).map(|leaf| match leaf {
    ///     Tree::Array(array) => array.row(0).into(),
    ///     other => other,
    /// });
    /// assert_eq!(tree, tree!({"a": 1u8, "b": null}));
    /// ```
    pub fn map(self, change: impl FnMut(Tree) -> Tree) -> Tree {
        let (leaves, structure) = self.flatten();
        let tree = structure.unflatten(leaves.into_iter().map(change));
        tree.expect("there are as many leaves as before")
    }

    /// Joins two trees of the same structure, leaf by leaf.
    ///
    /// Dicts need the same keys, in any order. The result has the order of this tree. Leaves may be of
    /// different kinds or dtypes.
    ///
    /// # Errors
    /// Returns [`TreeError::Mismatch`], [`TreeError::Missing`] or [`TreeError::Length`] if the structures
    /// differ.
    ///
    /// ```
    /// use teleport_wire::tree;
    ///
    /// let pairs = tree!({"a": 1}).zip(tree!({"a": 2}), |a, b| tree!([a, b]))?;
    /// assert_eq!(pairs, tree!({"a": [1, 2]}));
    /// let error = tree!({"a": [1]}).zip(tree!({"a": 2}), |a, _| a).unwrap_err();
    /// assert_eq!(error.to_string(), "at a: the trees differ: a list of 1 items and an array int64[]");
    /// # Ok::<(), teleport_wire::TreeError>(())
    /// ```
    pub fn zip(self, other: Tree, mut join: impl FnMut(Tree, Tree) -> Tree) -> Result<Tree, TreeError> {
        zip_with(self, other, &mut join)
    }

    /// Copies the arrays of trees into arrays with a new first axis.
    ///
    /// The trees need the same structure, dtypes and shapes. Dicts need the same keys, in any order. The
    /// result has the order of the first tree. Nulls stay null.
    ///
    /// # Errors
    /// Returns [`TreeError::Empty`] if there are no trees, [`TreeError::Stack`] if arrays differ in dtype or
    /// shape, [`TreeError::NoRows`] for strings and bytes, and the errors of [`zip`](Tree::zip) if structures
    /// differ.
    ///
    /// ```
    /// use teleport_wire::{tree, Tree};
    ///
    /// let batch = Tree::stack(&[tree!({"step": 1}), tree!({"step": 2})])?;
    /// assert_eq!(batch, tree!({"step": vec![1i64, 2]}));
    /// assert_eq!(batch.unstack()?, [tree!({"step": 1}), tree!({"step": 2})]);
    /// # Ok::<(), teleport_wire::TreeError>(())
    /// ```
    pub fn stack(trees: &[Tree]) -> Result<Tree, TreeError> {
        stack_all(&trees.iter().collect::<Vec<_>>())
    }

    /// Splits a tree into one for each row of its arrays, as views. The opposite of [`stack`](Tree::stack).
    ///
    /// # Errors
    /// Returns [`TreeError::Empty`] if there is no array, [`TreeError::Rows`] if their first axes differ in
    /// size, [`TreeError::Scalar`] for scalars, and [`TreeError::NoRows`] for strings and bytes.
    pub fn unstack(&self) -> Result<Vec<Tree>, TreeError> {
        let mut leaves = self.leaves().peekable();
        leaves.peek().ok_or(TreeError::Empty)?;
        let rows = leaves.find_map(|leaf| leaf.as_array()?.shape().first()).copied();
        // Any number finds the leaf without rows, if no array has any.
        self.unstack_rows(rows.unwrap_or(1))
    }

    /// Splits a tree into one for each of `rows` rows, as views. Copies a tree without arrays `rows` times.
    ///
    /// # Errors
    /// Returns [`TreeError::Rows`] if an array has another number of rows, [`TreeError::Scalar`] for scalars,
    /// and [`TreeError::NoRows`] for strings and bytes.
    pub fn unstack_rows(&self, rows: usize) -> Result<Vec<Tree>, TreeError> {
        check_rows(self, rows)?;
        Ok((0..rows).map(|index| row(self, index)).collect())
    }
}

/// The structure of a tree without its leaves: nulls, lists, and dicts with their keys in order.
///
/// Equal structures have the same number of leaves, in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    root: Node,
    /// Invariant: the number of `Node::Leaf` in `root`.
    leaves: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    Null,
    Leaf,
    List(Vec<Node>),
    Dict(Vec<(Key, Node)>),
}

impl Structure {
    /// Returns the number of leaves.
    pub fn leaf_count(&self) -> usize {
        self.leaves
    }

    /// Makes a tree of leaves in the order of [`Tree::flatten`]. They may be any trees.
    ///
    /// # Errors
    /// Returns [`TreeError::Leaves`] if the structure has another number of leaves.
    pub fn unflatten(&self, leaves: impl IntoIterator<Item = Tree>) -> Result<Tree, TreeError> {
        let leaves: Vec<Tree> = leaves.into_iter().collect();
        let (expected, found) = (self.leaves, leaves.len());
        if found != expected {
            return Err(TreeError::Leaves { expected, found });
        }
        Ok(unflatten_from(&self.root, &mut leaves.into_iter()))
    }
}

fn flatten_into(tree: Tree, leaves: &mut Vec<Tree>) -> Node {
    match tree {
        Tree::Null => Node::Null,
        Tree::List(list) => Node::List(list.into_iter().map(|tree| flatten_into(tree, leaves)).collect()),
        Tree::Dict(dict) => {
            Node::Dict(dict.into_iter().map(|(key, tree)| (key, flatten_into(tree, leaves))).collect())
        }
        leaf => {
            leaves.push(leaf);
            Node::Leaf
        }
    }
}

fn unflatten_from(node: &Node, leaves: &mut impl Iterator<Item = Tree>) -> Tree {
    match node {
        Node::Null => Tree::Null,
        Node::Leaf => leaves.next().expect("their number was checked"),
        Node::List(list) => Tree::List(list.iter().map(|node| unflatten_from(node, leaves)).collect()),
        Node::Dict(entries) => {
            let entry = |(key, node): &(Key, Node)| (key.clone(), unflatten_from(node, leaves));
            Tree::Dict(entries.iter().map(entry).collect())
        }
    }
}

fn zip_with(left: Tree, right: Tree, join: &mut impl FnMut(Tree, Tree) -> Tree) -> Result<Tree, TreeError> {
    let is_leaf = |tree: &Tree| matches!(tree, Tree::Array(_) | Tree::String(_) | Tree::Bytes(_));
    match (left, right) {
        (Tree::Null, Tree::Null) => Ok(Tree::Null),
        (Tree::List(left), Tree::List(right)) => {
            check_lengths(left.len(), right.len())?;
            let mut zip =
                |(index, (left, right))| zip_with(left, right, join).map_err(|error| error.within(index));
            let pairs = left.into_iter().zip(right).enumerate();
            Ok(Tree::List(pairs.map(&mut zip).collect::<Result<_, _>>()?))
        }
        (Tree::Dict(left), Tree::Dict(mut right)) => {
            check_keys(&left, &right)?;
            let zip = |(key, left): (Key, Tree)| {
                let right = right.get_mut(&key).map(std::mem::take).unwrap_or_default();
                let joined = zip_with(left, right, join).map_err(|error| error.within(&key))?;
                Ok((key, joined))
            };
            left.into_iter().map(zip).collect::<Result<_, _>>().map(Tree::Dict)
        }
        (left, right) if is_leaf(&left) && is_leaf(&right) => Ok(join(left, right)),
        (left, right) => Err(mismatch(&left, &right)),
    }
}

fn mismatch(left: &Tree, right: &Tree) -> TreeError {
    TreeError::Mismatch { path: TreePath::ROOT, left: left.describe(), right: right.describe() }
}

fn check_lengths(expected: usize, found: usize) -> Result<(), TreeError> {
    if expected == found { Ok(()) } else { Err(TreeError::length(expected, found)) }
}

/// Checks that both dicts have the same keys. The error names a key that one has and the other lacks.
fn check_keys(left: &Dict, right: &Dict) -> Result<(), TreeError> {
    let lacking = |from: &Dict, other: &Dict| {
        let key = from.keys().find(|key| !other.contains_key(key))?;
        Some(TreeError::missing(key, other.keys()))
    };
    match lacking(left, right).or_else(|| lacking(right, left)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn stack_all(trees: &[&Tree]) -> Result<Tree, TreeError> {
    let Some((&first, others)) = trees.split_first() else { return Err(TreeError::Empty) };
    let kind = std::mem::discriminant(first);
    if let Some(other) = others.iter().find(|other| std::mem::discriminant(**other) != kind) {
        return Err(mismatch(first, other));
    }
    match first {
        Tree::Null => Ok(Tree::Null),
        Tree::String(_) | Tree::Bytes(_) => Err(no_rows(first)),
        Tree::Array(_) => stack_arrays(&parts(trees, Tree::as_array)).map(Tree::Array),
        Tree::List(_) => stack_lists(&parts(trees, Tree::as_list)).map(Tree::List),
        Tree::Dict(_) => stack_dicts(&parts(trees, Tree::as_dict)).map(Tree::Dict),
    }
}

fn parts<'a, T: ?Sized>(trees: &[&'a Tree], part: impl Fn(&'a Tree) -> Option<&'a T>) -> Vec<&'a T> {
    trees.iter().filter_map(|tree| part(tree)).collect()
}

fn stack_lists(lists: &[&[Tree]]) -> Result<Vec<Tree>, TreeError> {
    let len = lists[0].len();
    lists.iter().try_for_each(|list| check_lengths(len, list.len()))?;
    let stack_at = |index| {
        let trees: Vec<&Tree> = lists.iter().map(|list| &list[index]).collect();
        stack_all(&trees).map_err(|error| error.within(index))
    };
    (0..len).map(stack_at).collect()
}

fn stack_dicts(dicts: &[&Dict]) -> Result<Dict, TreeError> {
    dicts.iter().try_for_each(|dict| check_keys(dicts[0], dict))?;
    let stack_at = |key: &Key| {
        let trees: Vec<&Tree> = dicts.iter().filter_map(|dict| dict.get(key)).collect();
        let stacked = stack_all(&trees).map_err(|error| error.within(key))?;
        Ok((key.clone(), stacked))
    };
    dicts[0].keys().map(stack_at).collect()
}

fn stack_arrays(arrays: &[&Array]) -> Result<Array, TreeError> {
    let (dtype, shape) = (arrays[0].dtype(), arrays[0].shape());
    if let Some(other) = arrays.iter().find(|other| other.dtype() != dtype || other.shape() != shape) {
        let (shape, found_shape) = (shape.into(), other.shape().into());
        return Err(TreeError::Stack {
            path: TreePath::ROOT,
            dtype,
            shape,
            found_dtype: other.dtype(),
            found_shape,
        });
    }
    let stacked = Shape::from(shape).with_first(arrays.len());
    // Each array is as large as the first, so this is the size of `stacked`, unless that overflows.
    let bytes = dtype.array_bytes(&stacked).unwrap_or(0);
    let mut buffer = Buffer::zeroed(bytes);
    let rows = buffer.make_mut().chunks_exact_mut(arrays[0].bytes().max(1));
    for (row, array) in rows.zip(arrays) {
        row.copy_from_slice(array.as_bytes());
    }
    Ok(Array::from_buffer(dtype, stacked, buffer)?)
}

fn no_rows(tree: &Tree) -> TreeError {
    TreeError::NoRows { path: TreePath::ROOT, found: tree.describe() }
}

/// Checks that every array has `expected` rows, and that there are no strings and bytes.
pub(crate) fn check_rows(tree: &Tree, expected: usize) -> Result<(), TreeError> {
    let path = TreePath::ROOT;
    match tree {
        Tree::Null => Ok(()),
        Tree::String(_) | Tree::Bytes(_) => Err(no_rows(tree)),
        Tree::Array(array) => match array.shape().first() {
            None => Err(TreeError::Scalar { path, expected, dtype: array.dtype() }),
            Some(&found) if found == expected => Ok(()),
            Some(_) => Err(TreeError::Rows { path, expected, shape: array.shape().into() }),
        },
        Tree::List(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, tree)| check_rows(tree, expected).map_err(|error| error.within(index))),
        Tree::Dict(dict) => dict
            .iter()
            .try_for_each(|(key, tree)| check_rows(tree, expected).map_err(|error| error.within(key))),
    }
}

/// Returns one row of a tree that `check_rows` accepted.
pub(crate) fn row(tree: &Tree, index: usize) -> Tree {
    match tree {
        Tree::Array(array) => array.row(index).into(),
        Tree::List(list) => Tree::List(list.iter().map(|tree| row(tree, index)).collect()),
        Tree::Dict(dict) => Tree::Dict(dict.iter().map(|(key, tree)| (key, row(tree, index))).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    fn check_stack(trees: &[Tree], text: &str) {
        assert_eq!(Tree::stack(trees).unwrap_err().to_string(), text);
    }

    #[test]
    fn unflatten_counts_its_leaves() {
        let (leaves, structure) = tree!([1, [2, null]]).flatten();
        assert_eq!(structure.leaf_count(), 2);
        let error = structure.unflatten(leaves[..1].to_vec()).unwrap_err();
        assert_eq!(error, TreeError::Leaves { expected: 2, found: 1 });
        let error = structure.unflatten([leaves.clone(), leaves].concat()).unwrap_err();
        assert_eq!(error.to_string(), "the structure has 2 leaves, but 4 were given");
    }

    #[test]
    fn structures_differ_in_order_and_nulls() {
        let structure = |tree: Tree| tree.flatten().1;
        assert_eq!(structure(tree!({"a": 1, "b": [2]})), structure(tree!({"a": "x", "b": ["y"]})));
        assert_ne!(structure(tree!({"a": 1, "b": 2})), structure(tree!({"b": 1, "a": 2})));
        assert_ne!(structure(tree!([1, null])), structure(tree!([null, 1])));
    }

    #[test]
    fn zip_joins_by_key() {
        let pairs =
            tree!({"a": 1, "b": "x"}).zip(tree!({"b": 2, "a": 3}), |left, right| tree!([left, right]));
        assert_eq!(pairs.unwrap().to_string(), r#"{"a": [1, 3], "b": ["x", 2]}"#);
        let error = tree!({"a": [1, {"b": 1}]}).zip(tree!({"a": [1, {"c": 1}]}), |left, _| left).unwrap_err();
        assert_eq!(error.to_string(), r#"at a[1]: there is no "b"; the dict has "c""#);
        let error = tree!([1, 2]).zip(tree!([1]), |left, _| left).unwrap_err();
        assert_eq!(error.to_string(), "expected a list of 2 items, found 1");
        assert!(tree!({"a": 1}).zip(tree!({"a": 1, "b": 2}), |left, _| left).is_err());
    }

    #[test]
    fn stacks_along_a_new_axis() {
        let part = |step: i64| tree!({"image": vec![step as u8; 6], "deep": [step, null]});
        let stacked = Tree::stack(&[part(1), part(2), part(3)]).unwrap();
        let image: Array = stacked.field("image").unwrap();
        assert_eq!((image.shape(), image.as_bytes()[5..7].to_vec()), (&[3, 6][..], vec![1, 2]));
        assert_eq!(stacked.at("deep").unwrap().to_string(), "[[1 2 3], null]");
        let rows = stacked.unstack().unwrap();
        assert_eq!(rows, [part(1), part(2), part(3)]);
        let row: Array = rows[2].field("image").unwrap();
        assert_eq!(row.as_bytes().as_ptr(), image.as_bytes()[12..].as_ptr(), "rows are views");
    }

    #[test]
    fn errors_of_stack_name_the_difference() {
        check_stack(&[], "no trees to stack, or no arrays to cut into rows");
        let text = "at a: cannot stack float32[2] on float32[3]: arrays are stacked with the same dtype and shape only";
        check_stack(&[tree!({"a": vec![0f32; 3]}), tree!({"a": vec![0f32; 2]})], text);
        check_stack(
            &[tree!([1]), tree!([1.0])],
            "at [0]: cannot stack float64[] on int64[]: arrays are stacked with \
            the same dtype and shape only",
        );
        check_stack(
            &[tree!({"a": 1}), tree!({"a": null})],
            "at a: the trees differ: an array int64[] and null",
        );
        check_stack(&[tree!({"a": 1}), tree!({})], r#"there is no "a"; the dict has no keys"#);
        check_stack(&[tree!([1]), tree!([1, 2])], "expected a list of 1 items, found 2");
        let text = "at a: a string of 1 bytes cannot be stacked or cut into rows: send strings as arrays of fixed width, \
            and bytes as arrays of u8; or let the method take its calls one by one, in a list (`Method::listed`)";
        check_stack(&[tree!({"a": "x"})], text);
    }

    #[test]
    fn empty_arrays_stack() {
        let stacked =
            Tree::stack(&[Array::zeros::<f32>([0, 2]).into(), Array::zeros::<f32>([0, 2]).into()]).unwrap();
        assert_eq!(stacked.as_array().unwrap().shape(), [2, 0, 2]);
        assert_eq!(stacked.unstack().unwrap().len(), 2);
    }

    #[test]
    fn unstack_checks_every_leaf() {
        let tree = tree!({"a": vec![1, 2], "b": [vec![1]]});
        let text = "at b[0]: expected an array whose first axis has size 2, found shape [1]";
        assert_eq!(tree.unstack().unwrap_err().to_string(), text);
        let text =
            "at a: expected an array whose first axis has size 2, found a scalar int64, which has no axis";
        assert_eq!(tree!({"a": 1, "b": vec![1, 2]}).unstack().unwrap_err().to_string(), text);
        assert!(matches!(tree!({"a": 1}).unstack(), Err(TreeError::Scalar { .. })));
        assert!(matches!(tree!([vec![1, 2], "x"]).unstack(), Err(TreeError::NoRows { .. })));
        assert_eq!(tree!([null]).unstack(), Err(TreeError::Empty));
        assert_eq!(tree!([null]).unstack_rows(2).unwrap(), [tree!([null]), tree!([null])]);
        assert_eq!(Tree::from(Array::zeros::<u8>([0, 3])).unstack(), Ok(vec![]));
    }
}
