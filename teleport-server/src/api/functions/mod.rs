//! Functions of every form, the names that they are registered under, and their context.

pub(crate) mod context;
pub(crate) mod list;
pub(crate) mod method;
pub(crate) mod methods;
pub(crate) mod name;
