//! Message-signalled interrupts (PCI Local Bus 3.0, section 6.8.2): the table a guest writes messages into, and the
//! vectors a device sends.
//!
//! Guests write a whole table while it is masked, more than once during boot. Nothing of that reaches the machine: an
//! interrupt is routed when its entry is unmasked with a message it did not have before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Wiring;

/// Bytes of one table entry: address, data, control.
pub const ENTRY_SIZE: usize = 16;
/// Bits of an entry's control word and of the capability's control register's high byte.
const ENTRY_MASKED: u8 = 1;
const ENABLE: u8 = 1 << 7;
const FUNCTION_MASK: u8 = 1 << 6;
/// The bits of the capability's control register that a guest may write.
pub const CONTROL_WRITABLE: [u8; 2] = [0, ENABLE | FUNCTION_MASK];

/// A memory write that is an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// Where to.
    pub address: u64,
    /// What.
    pub data: u32,
}

#[derive(Debug)]
struct Vector {
    /// A message sent now reaches the guest.
    open: AtomicBool,
    /// A message waits for its entry to be unmasked.
    pending: AtomicBool,
    line: EventFd,
}

impl Vector {
    fn deliver(&self) {
        // Whoever takes the mark away delivers; both sides set theirs before they look at the other's.
        if self.open.load(Ordering::SeqCst) && self.pending.swap(false, Ordering::SeqCst) {
            // The counter can only refuse when it is full, and then an interrupt is on its way.
            let _ = self.line.write(1);
        }
    }
}

/// A function's vectors, shared by its device (event loop) and its table (vCPU threads).
#[derive(Debug)]
pub struct Vectors {
    vectors: Box<[Vector]>,
    enabled: AtomicBool,
}

impl Vectors {
    /// `count` vectors at rest.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new(count: u16) -> io::Result<Arc<Self>> {
        let vectors = (0..count)
            .map(|_| {
                Ok(Vector {
                    open: AtomicBool::new(false),
                    pending: AtomicBool::new(false),
                    line: EventFd::new(EFD_NONBLOCK)?,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self {
            vectors,
            enabled: AtomicBool::new(false),
        }))
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.vectors.len()
    }

    /// Sends one now or, while it is masked, later; without MSI-X there is nothing to send.
    pub fn send(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector))
            && self.enabled.load(Ordering::SeqCst)
        {
            vector.pending.store(true, Ordering::SeqCst);
            vector.deliver();
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: [u8; ENTRY_SIZE],
    /// What the machine sends for it now; `None` before the first time.
    routed: Option<Message>,
}

impl Entry {
    /// Masked, as after power-on.
    const fn new() -> Self {
        let mut bytes = [0; ENTRY_SIZE];
        bytes[12] = ENTRY_MASKED;
        Self {
            bytes,
            routed: None,
        }
    }

    const fn is_masked(&self) -> bool {
        self.bytes[12] & ENTRY_MASKED != 0
    }

    fn message(&self) -> Message {
        let low = u128::from_le_bytes(self.bytes);
        Message {
            address: low as u64 & !3,
            data: (low >> 64) as u32,
        }
    }
}

/// The guest's side: table, pending bits, and the capability's control register.
#[derive(Debug)]
pub struct Msix {
    vectors: Arc<Vectors>,
    entries: Vec<Entry>,
    wiring: Arc<dyn Wiring>,
    /// The interrupt of vector 0; the others follow.
    first_gsi: u32,
    enabled: bool,
    function_masked: bool,
}

impl Msix {
    /// A table of masked entries, MSI-X off. The interrupts from `first_gsi` on are this function's.
    #[must_use]
    pub fn new(vectors: Arc<Vectors>, wiring: Arc<dyn Wiring>, first_gsi: u32) -> Self {
        Self {
            entries: vec![Entry::new(); vectors.count()],
            vectors,
            wiring,
            first_gsi,
            enabled: false,
            function_masked: false,
        }
    }

    /// The capability's control register as it reads at first: the table's size less one.
    #[must_use]
    pub fn control(&self) -> [u8; 2] {
        (self.entries.len().saturating_sub(1) as u16 & 0x7ff).to_le_bytes()
    }

    /// The guest has written the control register; this is its high byte.
    pub fn set_control(&mut self, high: u8) {
        let (enabled, masked) = (high & ENABLE != 0, high & FUNCTION_MASK != 0);
        if (enabled, masked) == (self.enabled, self.function_masked) {
            return;
        }
        (self.enabled, self.function_masked) = (enabled, masked);
        self.vectors.enabled.store(enabled, Ordering::SeqCst);
        for index in 0..self.entries.len() {
            self.refresh(index);
            if !enabled {
                self.vectors.vectors[index]
                    .pending
                    .store(false, Ordering::SeqCst);
            }
        }
    }

    /// The table, and a byte for each vector that says whether it waits.
    #[must_use]
    pub fn save(&self) -> (Vec<u8>, Vec<u8>) {
        let table = self.entries.iter().flat_map(|entry| entry.bytes).collect();
        let pending = |vector: &Vector| u8::from(vector.pending.load(Ordering::SeqCst));
        (table, self.vectors.vectors.iter().map(pending).collect())
    }

    /// Has vectors wait that did before; those that are open are sent.
    pub fn set_pending(&mut self, pending: &[u8]) {
        for (vector, pending) in self.vectors.vectors.iter().zip(pending) {
            vector.pending.store(*pending != 0, Ordering::SeqCst);
            vector.deliver();
        }
    }

    /// A read of the table; zeros behind its end.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset as usize..) {
            *byte = self
                .entries
                .get(at / ENTRY_SIZE)
                .map_or(0, |entry| entry.bytes[at % ENTRY_SIZE]);
        }
    }

    /// A write to the table. (The specification asks for aligned words; anything else only changes bytes.)
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let mut changed = None;
        for (value, at) in data.iter().zip(offset as usize..) {
            let index = at / ENTRY_SIZE;
            let Some(entry) = self.entries.get_mut(index) else {
                break;
            };
            // Of the control word only the mask can be written.
            entry.bytes[at % ENTRY_SIZE] = match at % ENTRY_SIZE {
                12 => value & ENTRY_MASKED,
                13.. => 0,
                _ => *value,
            };
            if let Some(before) = changed.replace(index)
                && before != index
            {
                self.refresh(before);
            }
        }
        if let Some(index) = changed {
            self.refresh(index);
        }
    }

    /// A read of the pending bits, one for each vector.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset as usize..) {
            let vectors = self.vectors.vectors.iter().skip(at.saturating_mul(8));
            *byte = vectors.take(8).enumerate().fold(0, |bits, (bit, vector)| {
                bits | u8::from(vector.pending.load(Ordering::SeqCst)) << bit
            });
        }
    }

    /// Brings a vector into line with its entry.
    fn refresh(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        let vector = &self.vectors.vectors[index];
        let mut open = self.enabled && !self.function_masked && !entry.is_masked();
        let message = entry.message();
        if open && entry.routed != Some(message) {
            let gsi = self.first_gsi + index as u32;
            let routed = self
                .wiring
                .route(gsi, message)
                .and_then(|()| match entry.routed {
                    Some(_) => Ok(()),
                    None => self.wiring.connect_line(&vector.line, gsi),
                });
            match routed {
                Ok(()) => entry.routed = Some(message),
                Err(error) => {
                    tracing::debug!(%error, gsi, ?message, "an interrupt message is refused");
                    open = false;
                }
            }
        }
        vector.open.store(open, Ordering::SeqCst);
        vector.deliver();
    }
}

impl Drop for Msix {
    fn drop(&mut self) {
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.routed.is_some() {
                let line = &self.vectors.vectors[index].line;
                self.wiring
                    .disconnect_line(line, self.first_gsi + index as u32);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A machine that notes what it is asked for.

    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    pub(crate) struct Notes {
        pub(crate) routes: Mutex<Vec<(u32, Message)>>,
        pub(crate) lines: Mutex<Vec<u32>>,
        pub(crate) doorbells: Mutex<Vec<u64>>,
    }

    impl Wiring for Notes {
        fn route(&self, gsi: u32, message: Message) -> io::Result<()> {
            self.routes.lock().unwrap().push((gsi, message));
            Ok(())
        }

        fn connect_line(&self, _line: &EventFd, gsi: u32) -> io::Result<()> {
            let mut lines = self.lines.lock().unwrap();
            assert!(!lines.contains(&gsi));
            lines.push(gsi);
            Ok(())
        }

        fn disconnect_line(&self, _line: &EventFd, gsi: u32) {
            self.lines.lock().unwrap().retain(|line| *line != gsi);
        }

        fn connect_doorbell(&self, _doorbell: &EventFd, address: u64) -> io::Result<()> {
            let mut doorbells = self.doorbells.lock().unwrap();
            if doorbells.contains(&address) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            doorbells.push(address);
            Ok(())
        }

        fn disconnect_doorbell(&self, _doorbell: &EventFd, address: u64) {
            self.doorbells
                .lock()
                .unwrap()
                .retain(|doorbell| *doorbell != address);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::Notes;
    use super::*;

    const GSI: u32 = 100;

    fn msix() -> (Msix, Arc<Vectors>, Arc<Notes>) {
        let (vectors, notes) = (Vectors::new(3).unwrap(), Arc::new(Notes::default()));
        let wiring: Arc<dyn Wiring> = Arc::<Notes>::clone(&notes);
        (Msix::new(Arc::clone(&vectors), wiring, GSI), vectors, notes)
    }

    fn describe(msix: &mut Msix, index: u64, data: u32, control: u32) {
        msix.write_table(index * 16, &0xfee0_0000u64.to_le_bytes());
        msix.write_table(index * 16 + 8, &data.to_le_bytes());
        msix.write_table(index * 16 + 12, &control.to_le_bytes());
    }

    fn arrived(vectors: &Vectors, index: usize) -> bool {
        vectors.vectors[index].line.read().is_ok()
    }

    #[test]
    fn a_message_is_routed_when_it_is_unmasked_and_only_if_it_is_new() {
        let (mut msix, vectors, notes) = msix();
        assert_eq!(msix.control(), [2, 0]);
        msix.set_control(ENABLE | FUNCTION_MASK);
        for data in 0..10 {
            describe(&mut msix, 1, data, 1);
        }
        describe(&mut msix, 1, 9, 0);
        assert!(notes.routes.lock().unwrap().is_empty(), "all masked");
        msix.set_control(ENABLE);
        let message = Message {
            address: 0xfee0_0000,
            data: 9,
        };
        assert_eq!(*notes.routes.lock().unwrap(), [(GSI + 1, message)]);
        for control in [1, 0, 1, 0] {
            msix.write_table(28, &u32::to_le_bytes(control));
        }
        assert_eq!(notes.routes.lock().unwrap().len(), 1);
        vectors.send(1);
        assert!(arrived(&vectors, 1));
        drop(msix);
        assert!(notes.lines.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_sent_while_masked_waits_and_shows_in_the_pending_bits() {
        let (mut msix, vectors, _) = msix();
        vectors.send(0);
        msix.set_control(ENABLE);
        describe(&mut msix, 0, 7, 1);
        assert!(!arrived(&vectors, 0), "sent before MSI-X was on");
        vectors.send(0);
        vectors.send(2);
        let mut pending = [0xff; 8];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [0b101, 0, 0, 0, 0, 0, 0, 0]);
        describe(&mut msix, 0, 7, 0);
        assert!(arrived(&vectors, 0) && !arrived(&vectors, 2));
        msix.read_pending(0, &mut pending);
        assert_eq!(pending[0], 0b100);
        msix.set_control(0);
        msix.read_pending(0, &mut pending);
        assert_eq!(pending[0], 0);
    }

    #[test]
    fn vectors_that_are_not_there_send_nothing() {
        let (mut msix, vectors, _) = msix();
        msix.set_control(ENABLE);
        vectors.send(3);
        vectors.send(0xffff);
    }

    proptest! {
        #[test]
        fn any_access_is_safe_and_no_line_is_connected_twice(
            accesses in prop::collection::vec((0u64..80, prop::collection::vec(any::<u8>(), 0..=8), any::<u8>()), 0..100)
        ) {
            let (mut msix, vectors, notes) = msix();
            for (offset, mut data, control) in accesses {
                msix.write_table(offset, &data);
                msix.set_control(control);
                vectors.send(u16::from(control % 4));
                msix.read_table(offset, &mut data);
                msix.read_pending(offset, &mut data);
            }
            prop_assert!(notes.lines.lock().unwrap().len() <= 3);
            for (gsi, message) in notes.routes.lock().unwrap().iter() {
                prop_assert!((GSI..GSI + 3).contains(gsi) && message.address % 4 == 0);
            }
        }
    }
}
