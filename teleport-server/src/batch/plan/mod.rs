//! Which calls run together and when, decided without memory, threads or a clock.

pub(crate) mod estimate;
pub(crate) mod group;
pub(crate) mod ids;
pub(crate) mod scheduler;
pub(crate) mod seats;
pub(crate) mod select;
pub(crate) mod starvation;
#[cfg(test)]
mod tests;
