//! The locked instructions of a program or library: those with a prefix `lock`, and `xchg` with memory, which
//! locks without one.
//!
//! Flow: `objdump` -> addresses, kept for each object.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use super::executed::Place;
use crate::failure::Failure;
use crate::shell;

/// The locked instructions of the objects that were asked for.
#[derive(Debug, Default)]
pub(super) struct Locked {
    objects: HashMap<String, HashSet<u64>>,
}

impl Locked {
    /// Returns true if the instruction is locked. The first question about an object disassembles it.
    pub(super) fn contains(&mut self, place: &Place) -> Result<bool, Failure> {
        if !self.objects.contains_key(&place.object) {
            self.objects.insert(place.object.clone(), disassemble(&place.object)?);
        }
        Ok(self.objects[&place.object].contains(&place.address))
    }
}

fn disassemble(object: &str) -> Result<HashSet<u64>, Failure> {
    // Code without a file, such as the kernel's clock functions, locks nothing.
    if !Path::new(object).is_file() {
        return Ok(HashSet::new());
    }
    let text = shell::output(Command::new("objdump").args(["-d", "--no-show-raw-insn", object]))?;
    Ok(text.lines().filter_map(address_if_locked).collect())
}

/// Parses a line `  1136:\tlock addl $0x1,-0x4(%rsp)`. Returns the address of a locked instruction.
fn address_if_locked(line: &str) -> Option<u64> {
    let (address, instruction) = line.split_once(":\t")?;
    let mut words = instruction.split_whitespace();
    let locked = match words.find(|word| !matches!(*word, "xacquire" | "xrelease" | "data16"))? {
        "lock" => true,
        name if name.starts_with("xchg") => words.next()?.contains(['(', ':']),
        _ => false,
    };
    locked.then(|| u64::from_str_radix(address.trim(), 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_instructions_are_recognised() {
        assert_eq!(address_if_locked("  1136:\tlock addl $0x1,-0x4(%rsp)"), Some(0x1136));
        assert_eq!(address_if_locked("  10:\tlock cmpxchg %ecx,(%rdi)"), Some(0x10));
        assert_eq!(address_if_locked("  11:\txchg   %eax,0x10(%rdi)"), Some(0x11));
        assert_eq!(address_if_locked("  12:\txchg   %al,%fs:0x18"), Some(0x12));
        assert_eq!(address_if_locked("  13:\txchg   %ax,%ax"), None);
        assert_eq!(address_if_locked("  14:\tmov    %eax,(%rdi)"), None);
        assert_eq!(address_if_locked("0000000000001129 <lock>:"), None);
    }
}
