//! The messages that are not whole, by id.
//!
//! The message that began last lies apart: the payload of most small messages follows at once, so they cost neither an
//! allocation nor a look-up. The others are boxed, since an idle connection keeps their table. Bound: the owner's.

use super::message::Incoming;
use crate::protocol::id_table::IdTable;

#[derive(Debug, Default)]
pub(super) struct Messages {
    last: Option<(u64, Incoming)>,
    /// Invariant: without the id of `last`.
    others: IdTable<Box<Incoming>>,
}

impl Messages {
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.last.is_some())
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Incoming> {
        match &self.last {
            Some((last, message)) if *last == id => Some(message),
            _ => self.others.get(id).map(|message| &**message),
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Incoming> {
        match &mut self.last {
            Some((last, message)) if *last == id => Some(message),
            _ => self.others.get_mut(id).map(|message| &mut **message),
        }
    }

    /// Adds a message, in the place of one with the same id.
    pub(super) fn insert(&mut self, id: u64, message: Incoming) {
        self.remove(id);
        if let Some((before, message)) = self.last.replace((id, message)) {
            self.others.insert(before, Box::new(message));
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Incoming> {
        match self.last.take_if(|(last, _)| *last == id) {
            Some((_, message)) => Some(message),
            None => self.others.remove(id).map(|message| *message),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Incoming> {
        self.last.iter().map(|(_, message)| message).chain(self.others.iter().map(|(_, message)| &**message))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Incoming)> {
        let last = self.last.iter_mut().map(|(id, message)| (*id, message));
        last.chain(self.others.iter_mut().map(|(id, message)| (id, &mut **message)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use teleport_wire::{Limits, Message, Order, ResultMetadata, Signature, tree};

    use super::*;
    use crate::protocol::receive::message::{Head, HeadKind};

    /// Makes a message that is told from others by its size.
    fn message(bytes: usize) -> Incoming {
        let message = Message::result(&tree!(vec![0u8; bytes]), &Limits::default()).unwrap();
        let metadata = ResultMetadata::decode(&message.metadata).unwrap();
        let signature = Arc::new(Signature::decode(metadata.signature, &Limits::default()).unwrap());
        Incoming::new(Head { kind: HeadKind::Result, signature, order: Order::sorted() })
    }

    fn sizes(messages: &Messages) -> Vec<u64> {
        let mut sizes: Vec<u64> = messages.iter().map(Incoming::payload_bytes).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn every_message_is_found() {
        let mut messages = Messages::default();
        for id in [3, 1, 2] {
            messages.insert(id, message(id as usize));
        }
        assert_eq!((messages.len(), sizes(&messages)), (3, vec![1, 2, 3]));
        for id in [1, 2, 3] {
            assert!(messages.contains(id));
            assert_eq!(messages.get_mut(id).map(|message| message.payload_bytes()), Some(id));
        }
        let mut ids: Vec<u64> = messages.iter_mut().map(|(id, _)| id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
        for id in [2, 1, 3] {
            assert_eq!(messages.remove(id).map(|message| message.payload_bytes()), Some(id));
            assert!(messages.remove(id).is_none() && !messages.contains(id));
        }
        assert_eq!(messages.len(), 0);
    }

    #[test]
    fn an_id_is_in_the_table_once() {
        let mut messages = Messages::default();
        for bytes in [1, 2] {
            messages.insert(7, message(bytes));
        }
        messages.insert(8, message(3));
        messages.insert(7, message(4));
        assert_eq!((messages.len(), sizes(&messages)), (2, vec![3, 4]));
    }
}
