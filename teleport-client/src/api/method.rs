//! The names of methods for calls: a string, or an [`Rpc`] with types.

use teleport_transport::wire::{FromTree, IntoTree, Key, Rpc, Tree};

/// A method that takes `A`: a name, which returns a [`Tree`], or an [`Rpc`], which returns its own type.
pub trait ToMethod<A> {
    /// The type of the result.
    type Reply: FromTree;

    /// Returns the method's name.
    fn into_name(self) -> Key;
}

impl<A: IntoTree> ToMethod<A> for &str {
    type Reply = Tree;

    fn into_name(self) -> Key {
        Key::from(self)
    }
}

impl<A: IntoTree> ToMethod<A> for &String {
    type Reply = Tree;

    fn into_name(self) -> Key {
        Key::from(self.as_str())
    }
}

impl<A: IntoTree> ToMethod<A> for String {
    type Reply = Tree;

    fn into_name(self) -> Key {
        Key::from(self)
    }
}

impl<A: IntoTree> ToMethod<A> for Key {
    type Reply = Tree;

    fn into_name(self) -> Key {
        self
    }
}

impl<A: IntoTree, R: FromTree> ToMethod<A> for Rpc<A, R> {
    type Reply = R;

    fn into_name(self) -> Key {
        Key::from_static(self.name())
    }
}
