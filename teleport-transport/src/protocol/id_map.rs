//! Maps by the id of a call or connection.

use std::collections::HashMap;

use teleport_wire::QuickHash;

/// A map by id. Ids come from peers, who cannot choose such as meet in one place.
pub type IdMap<V> = HashMap<u64, V, QuickHash>;
