//! Many lists in one piece of memory, whose nodes go from one to the other and leave from anywhere.
//!
//! Flow: `add` gives a node, which is in no list -> `link_last` or `link_first` -> `unlink` -> `take` gives its value back.
//! Each is a few writes: nothing is moved or searched, and memory is asked for only when there are more nodes than ever
//! before. Bound: as many nodes as there were at most at once.

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// The nodes of many lists. A node's number stays the same until its value is taken.
#[derive(Debug)]
pub(crate) struct Lists<V> {
    nodes: Vec<Node<V>>,
    /// The first of those without a value.
    free: u32,
}

#[derive(Debug)]
struct Node<V> {
    value: Option<V>,
    before: u32,
    after: u32,
}

/// The ends of one list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { first: NONE, last: NONE };

    pub(crate) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Whether it has one node at most.
    pub(crate) fn is_short(&self) -> bool {
        self.first == self.last
    }
}

impl<V> Lists<V> {
    pub(crate) const fn new() -> Lists<V> {
        Lists { nodes: Vec::new(), free: NONE }
    }

    /// A node with this value, in no list.
    pub(crate) fn add(&mut self, value: V) -> u32 {
        let node = Node { value: Some(value), before: NONE, after: NONE };
        if self.free == NONE {
            self.nodes.push(node);
            return self.nodes.len() as u32 - 1;
        }
        let at = self.free;
        self.free = std::mem::replace(&mut self.nodes[at as usize], node).after;
        at
    }

    /// Ends a node that is in no list.
    pub(crate) fn take(&mut self, at: u32) -> V {
        let node = &mut self.nodes[at as usize];
        node.after = std::mem::replace(&mut self.free, at);
        node.value.take().expect("a node has its value until it is taken")
    }

    pub(crate) fn get(&self, at: u32) -> &V {
        self.nodes[at as usize].value.as_ref().expect("a node has its value until it is taken")
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> &mut V {
        self.nodes[at as usize].value.as_mut().expect("a node has its value until it is taken")
    }

    /// Nodes that there is memory for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &V)> {
        let numbered = (0..).zip(&self.nodes);
        numbered.filter_map(|(at, node)| node.value.as_ref().map(|value| (at, value)))
    }

    pub(crate) fn link_last(&mut self, list: &mut List, at: u32) {
        let node = &mut self.nodes[at as usize];
        (node.before, node.after) = (list.last, NONE);
        match list.last {
            NONE => list.first = at,
            last => self.nodes[last as usize].after = at,
        }
        list.last = at;
    }

    pub(crate) fn link_first(&mut self, list: &mut List, at: u32) {
        let node = &mut self.nodes[at as usize];
        (node.before, node.after) = (NONE, list.first);
        match list.first {
            NONE => list.last = at,
            first => self.nodes[first as usize].before = at,
        }
        list.first = at;
    }

    /// Takes a node out of the list that it is in.
    pub(crate) fn unlink(&mut self, list: &mut List, at: u32) {
        let Node { before, after, .. } = self.nodes[at as usize];
        match before {
            NONE => list.first = after,
            before => self.nodes[before as usize].after = after,
        }
        match after {
            NONE => list.last = before,
            after => self.nodes[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn values(lists: &Lists<u32>, list: &List) -> Vec<u32> {
        let mut next = list.first;
        let mut values = Vec::new();
        while next != NONE {
            values.push(*lists.get(next));
            next = lists.nodes[next as usize].after;
        }
        values
    }

    #[test]
    fn nodes_leave_from_anywhere_and_are_used_again() {
        let (mut lists, mut list, mut other) = (Lists::new(), List::EMPTY, List::EMPTY);
        let at: Vec<u32> = (0..5).map(|value| lists.add(value)).collect();
        at.iter().for_each(|at| lists.link_last(&mut list, *at));
        for gone in [2, 0, 4] {
            lists.unlink(&mut list, at[gone]);
            lists.link_first(&mut other, at[gone]);
        }
        assert_eq!((values(&lists, &list), values(&lists, &other)), (vec![1, 3], vec![4, 0, 2]));
        lists.unlink(&mut other, at[0]);
        assert_eq!((lists.take(at[0]), lists.add(7), lists.len()), (0, at[0], 5));
        for gone in [1, 3] {
            lists.unlink(&mut list, at[gone]);
        }
        assert!(list.is_empty() && list.last == NONE);
    }

    #[test]
    fn they_are_what_deques_are() {
        let mut random = 12345_u32;
        let (mut lists, mut list, mut deque) = (Lists::new(), List::EMPTY, VecDeque::new());
        for value in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let choice = random >> 16;
            if choice % 5 < 3 && !deque.is_empty() {
                let (at, value) = deque.remove((choice / 5) as usize % deque.len()).unwrap();
                lists.unlink(&mut list, at);
                assert_eq!(lists.take(at), value);
            } else {
                let at = lists.add(value);
                if choice & 1 == 0 {
                    lists.link_last(&mut list, at);
                    deque.push_back((at, value));
                } else {
                    lists.link_first(&mut list, at);
                    deque.push_front((at, value));
                }
            }
            assert_eq!(list.is_empty(), deque.is_empty());
        }
        assert_eq!(values(&lists, &list), deque.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    }
}
