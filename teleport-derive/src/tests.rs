//! Tests of what is refused, and of the error texts. The tests of `teleport-wire` run derived code.

use super::*;

/// Returns the errors of a type, in order.
fn errors(code: &str) -> Vec<String> {
    let input = syn::parse_str(code).unwrap();
    let error = Input::check(input, "::teleport_wire").err().expect("it is refused");
    error.into_iter().map(|error| error.to_string()).collect()
}

fn check_error(code: &str, text: &str) {
    assert_eq!(errors(code), [text], "{code}");
}

/// Returns the header of the implementation, without spaces.
fn header(code: &str, expand: fn(Input) -> TokenStream) -> String {
    let text = derive(code.parse().unwrap(), "::teleport_wire", expand).to_string().replace(' ', "");
    let start = text.find("impl").unwrap();
    let end = start + text[start..].find('{').unwrap();
    text[start..end].replace("::teleport_wire::", "")
}

#[test]
fn types_that_cannot_be_sent_are_refused() {
    check_error("enum Move { Stay, Walk { meters: f32 } }", {
        "the variant `Walk` has fields: only enums without fields can be sent, each variant as the string of its name; \
         send a struct with an `Option` for each alternative instead"
    });
    check_error("enum Never {}", "an enum without variants has no values to send");
    check_error(
        "union Bits { float: f32, int: u32 }",
        "a union does not tell which of its fields is set: only structs and enums can be sent",
    );
}

#[test]
fn keys_are_distinct() {
    check_error(
        r#"struct Obs { image: u8, #[teleport(rename = "image")] other: u8 }"#,
        r#"another one already has the key "image": give this one another by `rename`"#,
    );
    check_error(
        r#"enum Move { Left, #[teleport(rename = "Left")] Right }"#,
        r#"another one already has the key "Left": give this one another by `rename`"#,
    );
}

#[test]
fn options_have_their_places() {
    let no_option = |rest| format!("there is no such option here: {rest}");
    check_error(
        r#"struct Obs { #[teleport(skip)] image: u8 }"#,
        &no_option("a field takes `rename = \"…\"` and `default`"),
    );
    check_error(
        r#"struct Meters(#[teleport(rename = "m")] f32);"#,
        &no_option("a field without a name takes none, since its position identifies it"),
    );
    check_error(r#"enum Move { #[teleport(default)] Left }"#, &no_option("a variant takes `rename = \"…\"`"));
    check_error(r#"#[teleport(rename = "obs")] struct Obs;"#, &no_option("a type takes `crate = \"…\"`"));
    check_error(
        r#"struct Obs { #[teleport(rename = "a", rename = "b")] image: u8 }"#,
        "this option is given twice",
    );
    check_error(
        r#"struct Obs { #[teleport(default = "new")] image: u8 }"#,
        "`default` takes no value: it uses the default of the field's type",
    );
    check_error(r#"struct Obs { #[teleport(rename)] image: u8 }"#, "expected `=`");
}

#[test]
fn all_errors_are_reported_together() {
    let errors = errors("#[teleport(x)] struct Obs { #[teleport(y)] a: u8, b: u8, #[teleport(z)] c: u8 }");
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn bounds_are_what_the_fields_need() {
    let into = |code| header(code, into_tree::expand);
    assert_eq!(into("struct A<T> { a: T, b: Vec<T> }"), "impl<T>IntoTreeforA<T>whereT:IntoTree");
    assert_eq!(
        into("struct A<T, U>([T; 2], (u8, U));"),
        "impl<T,U>IntoTreeforA<T,U>whereT:IntoTree,U:IntoTree"
    );
    assert_eq!(into("struct A<'t, t> { a: &'t str }"), "impl<'t,t>IntoTreeforA<'t,t>");
    assert_eq!(
        into("struct A<E: Env> where E: Sync { a: E::Image, b: Vec<<E as Env>::Reward> }"),
        "impl<E:Env>IntoTreeforA<E>whereE:Sync,E::Image:IntoTree,Vec<<EasEnv>::Reward>:IntoTree"
    );
    let from = header("struct A<T> { #[teleport(default)] a: Vec<T>, b: u8 }", from_tree::expand);
    assert_eq!(from, "impl<T>FromTreeforA<T>whereT:FromTree,Vec<T>:::core::default::Default");
}

#[test]
fn the_path_can_be_another() {
    let code = r#"#[teleport(crate = "crate::rpc")] struct Reset;"#;
    let text = derive(code.parse().unwrap(), "::teleport_wire", into_tree::expand).to_string();
    assert!(text.contains("impl crate :: rpc :: IntoTree for Reset"), "{text}");
}
