//! teleport
