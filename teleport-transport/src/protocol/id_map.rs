//! Maps by the id of a call or connection.

use std::collections::HashMap;

use teleport_wire::QuickHash;

/// A map by id. Peers may choose ids, but cannot choose ids that collide.
pub type IdMap<V> = HashMap<u64, V, QuickHash>;
