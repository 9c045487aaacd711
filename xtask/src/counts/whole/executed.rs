//! What a process executed, as callgrind writes it: how often each instruction ran, and who called whom.
//!
//! Flow: the file of callgrind -> [`Executed::parse`], line by line. The file has addresses within each
//! object (program or library), no compression, and no lines of sources.

use std::collections::BTreeMap;
use std::path::Path;

/// The functions of the C library that allocate. Reallocations count, as in the other rows.
const ALLOCATE: [&str; 6] = ["malloc", "calloc", "realloc", "aligned_alloc", "memalign", "posix_memalign"];

/// An instruction: its object's path and its address in the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) object: String,
    pub(super) address: u64,
}

impl Place {
    /// Returns true for instructions of this program; others are of libraries.
    pub(super) fn is_of(&self, program: &Path) -> bool {
        Path::new(&self.object) == program
    }
}

/// How often an instruction ran.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    /// The symbol around the instruction.
    pub(super) symbol: String,
    pub(super) times: u64,
}

/// The calls that one instruction made into another object, most of them of the C library.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outside {
    pub(super) symbol: String,
    /// The function that was called.
    pub(super) callee: String,
    pub(super) calls: u64,
    /// The instructions of these calls, with all that they called in turn.
    pub(super) instructions: u64,
}

impl Outside {
    /// Returns true if the function allocates.
    pub(super) fn allocates(&self) -> bool {
        ALLOCATE.contains(&self.callee.as_str())
    }
}

/// What a process executed.
#[derive(Clone, Debug, Default)]
pub(super) struct Executed {
    pub(super) instructions: BTreeMap<Place, Times>,
    /// By the instruction that calls. One that calls several functions has an entry for each.
    pub(super) outside: Vec<(Place, Outside)>,
}

impl Executed {
    /// Parses a file of callgrind. Returns the line that has another form if there is one.
    pub(super) fn parse(text: &str) -> Result<Executed, String> {
        let mut executed = Executed::default();
        let (mut object, mut symbol, mut callee, mut outside, mut calls) = ("", "", "", false, None);
        for line in text.lines() {
            match line.split_once('=') {
                Some(("ob", name)) => object = name,
                Some(("fn", name)) => symbol = name,
                // Only if it is another object.
                Some(("cob", _)) => outside = true,
                Some(("cfn", name)) => callee = name,
                Some(("calls", values)) => calls = values.split(' ').next(),
                _ if line.starts_with("0x") => {
                    let bad = || format!("`{line}` is no cost of an instruction");
                    let (address, cost) = parse_cost(line).ok_or_else(bad)?;
                    let place = Place { object: object.to_owned(), address };
                    // The line after `calls` has the cost of the callee.
                    let Some(calls) = calls.take() else {
                        let new = || Times { symbol: symbol.to_owned(), times: 0 };
                        executed.instructions.entry(place).or_insert_with(new).times += cost;
                        continue;
                    };
                    if std::mem::take(&mut outside) {
                        let calls = calls.parse().map_err(|_| bad())?;
                        let (symbol, callee) = (symbol.to_owned(), callee.to_owned());
                        let call = Outside { symbol, callee, calls, instructions: cost };
                        executed.outside.push((place, call));
                    }
                }
                _ => {}
            }
        }
        Ok(executed)
    }

    /// Returns the number of instructions.
    pub(super) fn instructions(&self) -> u64 {
        self.instructions.values().map(|times| times.times).sum()
    }

    /// Returns the number of allocations. Those of the C library for itself do not count.
    pub(super) fn allocations(&self) -> u64 {
        self.outside.iter().filter(|(_, call)| call.allocates()).map(|(_, call)| call.calls).sum()
    }
}

/// Parses an address and a number.
fn parse_cost(line: &str) -> Option<(u64, u64)> {
    let (address, cost) = line.strip_prefix("0x")?.split_once(' ')?;
    // A cost of zero is left out.
    let cost = if cost.is_empty() { 0 } else { cost.parse().ok()? };
    Some((u64::from_str_radix(address, 16).ok()?, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1\npositions: instr\nevents: Ir\nob=/bin/a\nfl=a.rs\nfn=a::main\n0x10 5\n0x14 7\n\
        cob=/lib/c\ncfn=malloc\ncalls=3 0x99\n0x14 300\ncfn=free\ncalls=2 0x98\n0x18 20\n\nob=/lib/c\nfn=malloc\n0x99 3\n\n\
        ob=/bin/a\nfn=a::main\n0x10 1\n";

    fn place(object: &str, address: u64) -> Place {
        Place { object: object.into(), address }
    }

    #[test]
    fn instructions_are_summed_and_callees_are_not_counted_twice() {
        let executed = Executed::parse(FILE).expect("it is a file of callgrind");
        let times = |object, address| executed.instructions[&place(object, address)].times;
        assert_eq!((times("/bin/a", 0x10), times("/bin/a", 0x14), times("/lib/c", 0x99)), (6, 7, 3));
        assert_eq!(executed.instructions.len(), 3);
        assert_eq!((executed.instructions(), executed.allocations()), (16, 3));
        let call = Outside { symbol: "a::main".into(), callee: "malloc".into(), calls: 3, instructions: 300 };
        assert_eq!(executed.outside, [(place("/bin/a", 0x14), call)]);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        assert!(Executed::parse("0x10 +3 4\n").is_err_and(|problem| problem.contains("0x10 +3 4")));
    }
}
