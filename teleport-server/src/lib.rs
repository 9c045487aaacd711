//! teleport-server
