//! teleport-transport
