//! teleport-client
