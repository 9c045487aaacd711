//! Memory that connections share: warm buffers, a budget of bytes, and rows of batches.

pub(crate) mod budget;
pub(crate) mod deferred_drop;
pub(crate) mod machine;
pub(crate) mod pool;
pub(crate) mod rows;
mod size_class;
pub(crate) mod user_held;
