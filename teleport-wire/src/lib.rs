//! teleport-wire
