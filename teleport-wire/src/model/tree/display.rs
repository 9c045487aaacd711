//! Trees as text, much like JSON.

use std::fmt;

use crate::model::{array::display::Inline, tree::Tree};

/// Longer bytes are shown by their length.
const MAX_INLINE_BYTES: usize = 32;

/// Writes one line, much like JSON: `{"result": 2, "image": uint8[64, 64, 3]}`. Arrays of few items show
/// them, separated by spaces: `[1 2 3]`.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Null => f.write_str("null"),
            Tree::Array(array) => write!(f, "{}", Inline(array)),
            Tree::String(text) => write!(f, "{text:?}"),
            Tree::Bytes(bytes) if bytes.len() <= MAX_INLINE_BYTES => {
                write!(f, "b\"{}\"", bytes.escape_ascii())
            }
            Tree::Bytes(bytes) => write!(f, "bytes[{}]", bytes.len()),
            Tree::List(list) => f.debug_list().entries(list).finish(),
            Tree::Dict(dict) => f.debug_map().entries(dict.iter()).finish(),
        }
    }
}

/// Writes the same as `Display`.
impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Array, Buffer, Tree, tree};

    #[test]
    fn prints_on_one_line() {
        let tree = tree!({
            "result": 2,
            "half": 0.5,
            "text": "a\"b",
            "bytes": Buffer::from(vec![0, 65]),
            "list": [null, true, []],
            "array": vec![1i64, 20],
            "matrix": Array::zeros::<u8>([2, 2]),
            "image": Array::zeros::<u8>([64, 64, 3]),
            "blob": Buffer::zeroed(100),
            "dict": {},
        });
        let text =
            r#"{"result": 2, "half": 0.5, "text": "a\"b", "bytes": b"\x00A", "list": [null, true, []], "#;
        let rest = r#""array": [1 20], "matrix": [[0 0] [0 0]], "image": uint8[64, 64, 3], "blob": bytes[100], "dict": {}}"#;
        assert_eq!(tree.to_string(), format!("{text}{rest}"));
        assert_eq!(format!("{:?}", Tree::Null), "null");
    }
}
