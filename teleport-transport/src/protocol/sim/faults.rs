//! The faults: bytes that are delayed, lost or changed, connections that are cut, and servers that die.

use std::time::Duration;

use super::audit::Way;
use super::world::World;

impl World {
    /// Starts or ends one fault.
    pub(super) fn fault(&mut self) {
        let random = &mut self.ledger.random;
        let keys: Vec<u64> = self.links.keys().copied().collect();
        let Some(key) = random.pick(&keys) else { return };
        let (way, bytes) = (random.index(2), random.index(60_000));
        let kind = random.below(20);
        let Some(link) = self.links.get_mut(&key) else { return };
        let pipe = &mut link.pipes[way];
        match kind {
            0..6 => {
                pipe.is_stalled = !pipe.is_stalled;
                link.was_disturbed = true;
            }
            6..9 => {
                pipe.cut_after = Some(bytes);
                link.was_disturbed = true;
            }
            9 | 10 => self.cut(key),
            11 | 12 => {
                pipe.swallows = true;
                link.was_disturbed = true;
            }
            13..18 => pipe.changes = true,
            18 => self.server.forget_sessions(),
            _ if self.ledger.random.one_in(3) => self.restart(),
            _ => {}
        }
    }

    /// Cuts the connection. The last bytes on their way are lost. Each side learns of the cut at a time
    /// of its own, or never.
    pub(super) fn cut(&mut self, key: u64) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let random = &mut self.ledger.random;
        self.ledger.seen.cut += 1;
        link.was_disturbed = true;
        for way in Way::BOTH {
            let pipe = &mut link.pipes[way as usize];
            let lost = if random.one_in(2) { 0 } else { random.index(pipe.length() + 1) };
            let after = Duration::from_micros(random.below(200_000));
            pipe.end(lost, (!random.one_in(4)).then_some(self.ledger.now + after));
        }
    }

    /// Replaces the server with a new one, as after a crash. Its clients find their connections cut.
    fn restart(&mut self) {
        for key in self.links.keys().copied().collect::<Vec<_>>() {
            self.cut(key);
        }
        self.server.restart(&mut self.links);
        self.links.retain(|_, link| !link.is_gone());
    }

    /// Ends all faults. Stalled bytes flow again. Bytes that were cut or swallowed stay lost.
    pub(super) fn calm(&mut self) {
        for link in self.links.values_mut() {
            for pipe in &mut link.pipes {
                (pipe.is_stalled, pipe.changes, pipe.cut_after) = (false, false, None);
            }
        }
    }
}
