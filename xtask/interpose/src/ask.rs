//! Answers to the program, which asks by reading environment variables.
//!
//! - `TELEPORT_COUNTERS`: all counters, as `name value name value ...`; system calls have the prefix `sys.`.
//!   Reading it forgets all places.
//! - `TELEPORT_SENT_FROM_<address>_<length>`, both in hexadecimal: how many of these bytes were sent from
//!   this memory.
//! - `TELEPORT_RECEIVED_INTO_<address>_<length>`: how many of these bytes were received into this memory.
//!
//! Answers are never freed, like those of the environment. The program asks rarely.

use std::ffi::{CStr, CString, c_char};

use crate::next::next;
use crate::places::{Places, RECEIVED, SENT};
use crate::{Counter, calls, copies, heap};

/// Other variables go to the C library at once.
const PREFIX: &[u8] = b"TELEPORT_";

/// Like the C library's function, except for the names above.
#[unsafe(no_mangle)]
unsafe extern "C" fn getenv(name: *const c_char) -> *mut c_char {
    // SAFETY: the caller passes a string that ends with a zero and stays valid while this runs.
    let asked = unsafe { CStr::from_ptr(name) };
    match answer(asked) {
        Some(text) => CString::new(text).unwrap_or_default().into_raw(),
        None => next!(c"getenv" as unsafe extern "C" fn(*const c_char) -> *mut c_char, name),
    }
}

fn answer(asked: &CStr) -> Option<String> {
    if !asked.to_bytes().starts_with(PREFIX) {
        return None;
    }
    let name = asked.to_str().ok()?;
    if name == "TELEPORT_COUNTERS" {
        return Some(counters());
    }
    let covered = |places: &Places, range: &str| {
        let (start, length) = range.split_once('_')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some(places.covered_bytes(number(start)?, number(length)?).to_string())
    };
    match name.strip_prefix("TELEPORT_SENT_FROM_") {
        Some(range) => covered(&SENT, range),
        None => covered(&RECEIVED, name.strip_prefix("TELEPORT_RECEIVED_INTO_")?),
    }
}

/// The groups of counters, with the prefix of their names.
const GROUPS: [(&str, &[(&str, &Counter)]); 3] =
    [("sys.", calls::COUNTERS), ("", copies::COUNTERS), ("", heap::COUNTERS)];

fn counters() -> String {
    SENT.clear();
    RECEIVED.clear();
    // The values are read first, because formatting them allocates and copies.
    let all =
        GROUPS.map(|(mark, group)| (mark, group, group.iter().map(|(_, c)| c.value()).collect::<Vec<_>>()));
    let mut text = String::new();
    for (mark, group, values) in all {
        for ((name, _), value) in group.iter().zip(values) {
            text.push_str(&format!("{mark}{name} {value} "));
        }
    }
    text
}
