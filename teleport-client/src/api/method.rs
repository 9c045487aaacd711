//! What can be called: a name, or a name with types.

use teleport_transport::wire::{FromTree, IntoTree, Key, Rpc, Tree};

/// A method that takes `A`: a name, whose result is a [`Tree`], or an [`Rpc`], whose result has its type.
pub trait ToMethod<A> {
    /// What the call gives.
    type Reply: FromTree;

    /// The method's name.
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
