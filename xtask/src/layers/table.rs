//! The tables that the step `layers` holds the code to. ARCHITECTURE.md gives the reasons.

/// The crates and paths that one published crate may use.
pub(super) struct Crate {
    pub(super) name: &'static str,
    /// The crates of this workspace that it may depend on.
    pub(super) below: &'static [&'static str],
    /// Which of [`SYSTEM`] it may depend on.
    pub(super) system: &'static [&'static str],
    /// Paths that its code never names.
    pub(super) unknown: &'static [&'static str],
}

/// Crates that reach into the operating system. Of these, `nix` and `libc` are named in the module `sys`
/// only.
pub(super) const SYSTEM: [&str; 3] = ["mio", "nix", "libc"];

pub(super) const FACADE: &str = "teleport";

/// A user who adds the facade builds fewer crates than this, the facade itself included.
pub(super) const MAX_FACADE_CRATES: usize = 40;

pub(super) const CRATES: [Crate; 7] = [
    // Runs in the compiler: it knows the other crates by name only.
    Crate {
        name: "teleport-derive",
        below: &[],
        system: &[],
        unknown: &[
            "std::net",
            "std::thread",
            "std::fs",
            "std::env",
            "std::os",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
    },
    Crate {
        name: "teleport-wire",
        below: &["teleport-derive"],
        system: &[],
        unknown: &[
            "std::net",
            "std::thread",
            "std::fs",
            "std::os",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
    },
    Crate {
        name: "teleport-transport",
        below: &["teleport-derive", "teleport-wire"],
        system: &["mio", "nix", "libc"],
        unknown: &[],
    },
    Crate {
        name: "teleport-server",
        below: &["teleport-derive", "teleport-wire", "teleport-transport", "teleport-proc"],
        system: &[],
        unknown: &["std::net", "std::os"],
    },
    Crate {
        name: "teleport-client",
        below: &["teleport-derive", "teleport-wire", "teleport-transport", "teleport-proc"],
        system: &[],
        unknown: &["std::net", "std::os"],
    },
    Crate { name: "teleport-proc", below: &[], system: &["nix", "libc"], unknown: &[] },
    Crate {
        name: FACADE,
        below: &[
            "teleport-derive",
            "teleport-wire",
            "teleport-transport",
            "teleport-server",
            "teleport-client",
            "teleport-proc",
        ],
        system: &[],
        unknown: &[],
    },
];

/// The rows of one crate: a folder or file of `src`, and the others that its code may use.
///
/// A file belongs to the row with the longest path that holds it. Nothing may use `lib.rs`, which may
/// use everything.
pub(super) type Folders = &'static [(&'static str, &'static str)];

pub(super) const FOLDERS: &[(&str, Folders)] = &[
    ("teleport-derive", DERIVE),
    ("teleport-wire", WIRE),
    ("teleport-transport", TRANSPORT),
    ("teleport-client", CLIENT),
    ("teleport-server", SERVER),
    ("teleport-proc", PROC),
];

const DERIVE: Folders = &[
    ("into_tree", "expand bounds input"),
    ("from_tree", "expand bounds input"),
    ("expand", "input"),
    ("bounds", "input"),
    ("input", ""),
];

const WIRE: Folders = &[("layout", "format model"), ("format", "model"), ("model", "")];

const TRANSPORT: Folders = &[
    ("link", "reactor protocol net memory config role sys"),
    ("reactor", "protocol net memory fork_guard sys"),
    ("protocol", "memory config role"),
    ("net", "fork_guard sys"),
    ("config", "memory role"),
    ("memory", "sys"),
    ("fork_guard", "sys"),
    ("role", ""),
    ("sys", ""),
];

const CLIENT: Folders = &[
    ("api", "engine calls connect error"),
    ("engine", "calls connect error"),
    ("calls", "connect error"),
    ("connect", "error"),
    ("error", ""),
];

const SERVER: Folders = &[
    ("api/server", "api/functions api/handle api connection dispatcher exec registry runtime threads"),
    ("api/handle", "api dispatcher runtime"),
    ("threads", "api batch call connection dispatcher exec queue registry runtime"),
    ("connection", "api batch call dispatcher exec runtime session"),
    ("dispatcher", "api batch call exec queue registry runtime session"),
    ("batch", "batch/plan api/functions api call exec queue registry"),
    ("registry", "api/functions api batch/plan call"),
    ("exec", "api/functions api call runtime"),
    ("api/functions", "api call"),
    ("call", "queue runtime session"),
    ("runtime", "api"),
    ("queue", ""),
    ("session", ""),
    ("api", "batch/plan"),
    ("batch/plan", ""),
];

const PROC: Folders = &[
    ("api", "supervise tree cancel error codec sys"),
    ("supervise", "tree cancel error failure codec sys"),
    ("tree", "sys"),
    ("cancel", "sys"),
    ("error", "failure codec sys"),
    ("failure", "codec"),
    ("codec", ""),
    ("sys", ""),
];
