//! A snapshot of all processes and their parents.

use std::collections::{BTreeMap, BTreeSet};

use crate::sys::{Entry, Id};

/// The name of zygotes and reapers, by which other processes of this crate recognise them.
pub(crate) const SUPERVISOR_NAME: &str = "teleport-guard";

/// Returns whether a process is a zygote or a reaper.
pub(crate) fn is_supervisor(entry: &Entry) -> bool {
    entry.name == SUPERVISOR_NAME
}

/// All processes, by process id and by parent.
pub(crate) struct Snapshot {
    entries: BTreeMap<i32, Entry>,
    children: BTreeMap<i32, Vec<i32>>,
}

impl Snapshot {
    pub(crate) fn new(processes: Vec<Entry>) -> Snapshot {
        let mut children = BTreeMap::<i32, Vec<i32>>::new();
        for entry in &processes {
            children.entry(entry.parent).or_default().push(entry.id.pid);
        }
        Snapshot { entries: processes.into_iter().map(|entry| (entry.id.pid, entry)).collect(), children }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Entry> {
        self.entries.get(&id.pid).filter(|entry| entry.id == id)
    }

    /// Visits each process below `starts` once, except for those of `spared` and what is below them.
    pub(crate) fn walk(&self, starts: Vec<i32>, spared: &BTreeSet<i32>, mut visit: impl FnMut(&Entry)) {
        let mut seen = spared.clone();
        let mut next = starts;
        while let Some(pid) = next.pop() {
            for child in self.children.get(&pid).into_iter().flatten().filter(|child| seen.insert(**child)) {
                visit(&self.entries[child]);
                next.push(*child);
            }
        }
    }

    /// Returns the processes of a tree that should get SIGTERM. These are all except for supervisors, which
    /// end with their owner, and what is below the supervisors of another of them, which that one ends in
    /// its own order.
    pub(crate) fn to_terminate(&self, in_tree: impl Fn(Id) -> bool) -> BTreeSet<Id> {
        let is_asked = |entry: &Entry| in_tree(entry.id) && !is_supervisor(entry);
        let asked = self.entries.values().filter(|entry| is_asked(entry));
        let mut asked: BTreeSet<Id> = asked.map(|entry| entry.id).collect();
        let is_owned =
            |entry: &&Entry| is_supervisor(entry) && self.entries.get(&entry.parent).is_some_and(is_asked);
        for supervisor in self.entries.values().filter(is_owned) {
            self.walk(vec![supervisor.id.pid], &BTreeSet::new(), |entry| {
                asked.remove(&entry.id);
            });
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, name: &str) -> Entry {
        Entry { id: Id { pid, started: 1 }, parent, name: name.to_owned() }
    }

    fn asked(processes: Vec<Entry>, tree: &[i32]) -> Vec<i32> {
        let asked = Snapshot::new(processes).to_terminate(|id| tree.contains(&id.pid));
        asked.into_iter().map(|id| id.pid).collect()
    }

    #[test]
    fn a_process_terminates_its_own_processes_itself() {
        // 1 (reaper) -> 2 -> 3, and 2 -> 4 (its zygote) -> 5 (reaper) -> 6
        let all = || {
            vec![
                entry(1, 0, SUPERVISOR_NAME),
                entry(2, 1, "worker"),
                entry(3, 2, "sh"),
                entry(4, 2, SUPERVISOR_NAME),
                entry(5, 4, SUPERVISOR_NAME),
                entry(6, 5, "nested"),
            ]
        };
        assert_eq!(asked(all(), &[2, 3, 4, 5, 6]), [2, 3]);
        // Here the owner of the zygote itself ends its processes, and is not among them.
        assert_eq!(asked(all(), &[4, 5, 6]), [6]);
    }

    #[test]
    fn a_walk_ends_where_parents_form_a_circle() {
        // Entries from different moments can show that.
        let snapshot = Snapshot::new(vec![entry(2, 3, "a"), entry(3, 2, "b")]);
        let mut seen = Vec::new();
        snapshot.walk(vec![2], &BTreeSet::new(), |entry| seen.push(entry.id.pid));
        assert_eq!(seen, [3, 2]);
    }
}
