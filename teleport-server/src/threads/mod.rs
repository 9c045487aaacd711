//! The threads of a server: workers, the done thread, and the supervisor that ends them all.

pub(crate) mod supervisor;
pub(crate) mod worker;
