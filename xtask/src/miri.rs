//! Miri: the tests of unsafe code, interpreted, so that each access to memory is checked.
//!
//! Miri finds undefined behavior that no ordinary test can see: uses of freed memory, data races, references
//! that alias, values that are invalid. It is 100 to 1,000 times slower than the processor, and knows only
//! some system calls. So it runs the tests of the modules with unsafe code, and of what is built directly on
//! them. What reaches the kernel (sockets, pollers, processes) is left to ThreadSanitizer and other tests.

use crate::ci::{Count, Extent};
use crate::failure::Failure;
use crate::nightly::{self, Nightly};
use crate::shell;

/// The tests of one crate.
struct Tests {
    package: &'static str,
    /// The modules with unsafe code, and those that use it most directly; always checked.
    always: &'static [&'static str],
    /// More modules, for `--long`.
    long: &'static [&'static str],
}

/// All crates that do not forbid unsafe code.
const TESTS: [Tests; 3] = [
    Tests {
        package: "teleport-wire",
        // Casts, text without a check, buffers and their owners, lists on them; the processor's own CRC
        // instruction.
        always: &[
            "model::buffer::",
            "model::element::",
            "model::text::",
            "model::convert::",
            "format::checksum::",
        ],
        long: &["model::", "format::"],
    },
    Tests {
        package: "teleport-transport",
        // Rows and their slab, the pool's mappings and blocks.
        always: &["memory::rows::", "sys::memory::"],
        long: &["memory::pool::", "memory::deferred_drop::", "memory::user_held::", "memory::size_class::"],
    },
    Tests {
        package: "teleport-proc",
        // Functions from their distances.
        always: &["supervise::program::"],
        long: &["codec::"],
    },
];

/// A random test takes this number of cases. It runs them all in the step `test`.
const CASES: &str = "2";
const LONG_CASES: &str = "16";

/// Runs the tests. The detail for CI's table is their number, or says that they did not run.
pub(crate) fn check(extent: Extent) -> Result<String, Failure> {
    let nightly = match Nightly::find() {
        Ok(nightly) => nightly,
        Err(reason) => return Ok(nightly::not_run("MIRI", &reason)),
    };
    let mut passed = 0;
    for tests in &TESTS {
        passed += run(&nightly, tests, extent)?;
    }
    Ok(format!("{passed} passed, of {} crates", TESTS.len()))
}

/// Returns the number of tests that passed.
fn run(nightly: &Nightly, tests: &Tests, extent: Extent) -> Result<u64, Failure> {
    let Tests { package, always, long } = tests;
    let mut command = nightly.cargo(&format!("miri test --lib -p {package} --"), "miri")?;
    command.args(*always);
    if extent == Extent::Complete {
        command.args(*long);
    }
    // Miri builds the standard library, and keeps it here instead of in the user's home.
    command.env("XDG_CACHE_HOME", shell::target().join("miri/cache"));
    // The processor's CRC instruction is used only where it is known to be there.
    #[cfg(target_arch = "x86_64")]
    command.env("RUSTFLAGS", "-Ctarget-feature=+sse4.2");
    // Tests read files, clocks and the environment. Locks of `parking_lot` turn addresses into numbers and
    // back.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-permissive-provenance");
    command.env("PROPTEST_CASES", if extent == Extent::Complete { LONG_CASES } else { CASES });
    let mut count = Count::default();
    shell::watched(&mut command, |line| count.read(line))?;
    match count.passed {
        0 => Err(Failure::NoTests { filter: always.join(" ") }),
        passed => Ok(passed),
    }
}
