//! Code as users write it: conversions infer their types, errors propagate, and all types are `Send` and
//! `Sync`.

use teleport_wire::{
    Array, ArrayError, Buffer, Complex, DType, Dict, Element, FromTree, IntoTree, Key, ParseDTypeError,
    Shape, Step, Structure, Text, TimeBase, TimeUnit, Tree, TreeError, TreePath, tree,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn call<A: FromTree, R: IntoTree>(
    function: impl Fn(A) -> R,
    arguments: impl IntoTree,
) -> Result<Tree, TreeError> {
    Ok(function(A::from_tree(arguments.into_tree())?).into_tree())
}

#[test]
fn functions_take_and_give_plain_values() -> Result<(), BoxError> {
    assert_eq!(call(|x: Tree| x, (1u8, "x"))?.to_string(), r#"[1, "x"]"#);
    assert_eq!(call(|text: String| text.len(), "four")?, tree!(4u64));
    let scale = |(factor, items): (f32, Vec<f32>)| items.iter().map(|item| item * factor).collect::<Vec<_>>();
    assert_eq!(call(scale, tree!([2, vec![1.0f32, 2.0]]))?, vec![2.0f32, 4.0].into_tree());
    assert_eq!(call(|_: Tree| (), ())?, Tree::Null);
    let error = call(|x: i64| x, "one").unwrap_err();
    assert_eq!(error.to_string(), "expected a number, found a string of 3 bytes");
    Ok(())
}

#[test]
fn fields_convert_by_annotation_or_inference() -> Result<(), BoxError> {
    let x = tree!({"foo": 1, "bar": 1, "msg": "Hello"});
    let sum = tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?});
    assert_eq!(sum.to_string(), r#"{"result": 2}"#);
    assert_eq!(x.field("msg").map(|message: String| message.len()), Ok(5));
    let key = String::from("foo");
    assert_eq!(x.field::<u8>(&key)?, 1);
    assert_eq!(x.field::<u8>(&Key::from("foo"))?, 1);
    let replies: Vec<Tree> = (0..3).map(|i| tree!(i)).collect();
    assert_eq!(replies, [tree!(0i32), tree!(1i32), tree!(2i32)]);
    Ok(())
}

#[test]
fn a_batched_function_writes_its_result_in_place() -> Result<(), BoxError> {
    let mut x = tree!({"image": Array::from_vec(vec![3u8; 8], [2, 4])?});
    let image: Array = x.take("image")?;
    let mut action = Array::zeros::<f32>([image.shape()[0], 7]);
    action.as_mut_slice::<f32>()?[0] = image.as_slice::<u8>()?[0].into();
    let reply = tree!({"action": action});
    assert_eq!(reply.unstack()?.len(), 2);
    Ok(())
}

#[test]
fn every_type_goes_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<(Array, Buffer, Shape, DType, TimeUnit, TimeBase, Complex<f64>)>();
    check::<(Tree, Dict, Key, Text, Structure, Step<'static>, TreePath)>();
    check::<(ArrayError, TreeError, ParseDTypeError)>();
    assert_eq!(<bool as Element>::DTYPE, DType::Bool);
}

#[test]
fn a_node_of_a_tree_is_small() {
    assert!(size_of::<Tree>() <= 80, "{} bytes", size_of::<Tree>());
    assert!(size_of::<Buffer>() <= 24, "{} bytes", size_of::<Buffer>());
}
