//! What the program learns: it asks for a variable of its environment, and gets an answer that nobody has set.
//!
//! - `TELEPORT_COUNTERS`: all counters, as `name value name value ...`, system calls as `sys.name`; the places seen so far are forgotten.
//! - `TELEPORT_SENT_FROM_<address>_<length>`, both in hexadecimal: how many of these bytes were sent from where they lie.
//! - `TELEPORT_RECEIVED_INTO_<address>_<length>`: how many were received to where they lie.
//!
//! Each answer stays in memory for good, as those of the environment do: who asks, asks seldom.

use std::ffi::{CStr, CString, c_char};

use crate::next::next;
use crate::places::{Places, RECEIVED, SENT};
use crate::{Counter, calls, copies, heap};

/// Names of other variables go to the C library at once.
const PREFIX: &[u8] = b"TELEPORT_";

/// As the C library\'s, save for the names above.
#[unsafe(no_mangle)]
unsafe extern "C" fn getenv(name: *const c_char) -> *mut c_char {
    // SAFETY: the caller gives a string that ends with a zero and stays while this runs.
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

/// System calls have a mark before their names, so that they can be told from the rest.
const GROUPS: [(&str, &[(&str, &Counter)]); 3] =
    [("sys.", calls::COUNTERS), ("", copies::COUNTERS), ("", heap::COUNTERS)];

fn counters() -> String {
    SENT.clear();
    RECEIVED.clear();
    // Read first, since writing them down allocates and copies.
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
