//! A guest of a few hundred bytes whose whole life shows in what it prints: for every byte that is typed, a line.
//!
//! A line has seven numbers in hexadecimal: what has been typed, folded into a general register; the sum of those, in a
//! vector register; the sum of those, in memory; eight bytes that the entropy source has just given; the first half of
//! the generation identifier; how many events the vsock device has told; which of 32 interrupts from [`VECTOR`] on wait in
//! its local APIC, for it takes none. After a `q` it powers off.

use std::arch::global_asm;

use crn_protocol::control::Transport;

/// Where the list of stores is with which the guest sets its devices up.
pub const STORES: u64 = 0x28_0000;
/// The first of the interrupts that PCI devices send: eight a device, of which the first is for its configuration and the
/// others are for its queues.
pub const VECTOR: u64 = 0x40;
/// Where the address of the entropy source's doorbell is.
pub const DOORBELL: u64 = 0x27_f000;

// Vector instructions are moves only: a KVM that emulates has no others. r12, xmm0 and 0x300000: the sums. r13w: requests made. r15: the byte. Rings: 0x400000 entropy, 0x410000 events.
// A port that reads without effect (0x601, the sleep status) lets the host have its turn while the guest waits.
global_asm!(
    ".pushsection .rodata.snapshot_guest, \"a\"",
    ".globl snapshot_guest_start",
    "snapshot_guest_start:",
    // Vector registers on.
    "   mov rax, cr0",
    "   and eax, 0xfffffffb",
    "   or eax, 2",
    "   mov cr0, rax",
    "   mov rax, cr4",
    "   or eax, 0x600",
    "   mov cr4, rax",
    "   mov ebx, 0x280000",
    "2: mov rdi, [rbx]",
    "   mov rsi, [rbx + 8]",
    "   mov rcx, [rbx + 16]",
    "   add rbx, 24",
    "   test rcx, rcx",
    "   jz 6f",
    "   cmp ecx, 1",
    "   jne 3f",
    "   mov [rdi], sil",
    "   jmp 2b",
    "3: cmp ecx, 2",
    "   jne 4f",
    "   mov [rdi], si",
    "   jmp 2b",
    "4: mov [rdi], esi",
    "   jmp 2b",
    "6: xor r12d, r12d",
    "   mov ebx, 0x301000",
    "   movups xmm0, [rbx]",
    "   call 90f",
    // The next byte.
    "10: mov dx, 0x3fd",
    "   in al, dx",
    "   test al, 1",
    "   jz 10b",
    "   mov dx, 0x3f8",
    "   in al, dx",
    "   movzx eax, al",
    "   mov r15d, eax",
    "   imul r12, r12, 31",
    "   add r12, rax",
    // The sum is nowhere but in the vector register between two lines.
    "   mov ebx, 0x301000",
    "   movups [rbx], xmm0",
    "   add [rbx], r12",
    "   movups xmm0, [rbx]",
    "   mov rax, [rbx]",
    "   mov qword ptr [rbx], 0",
    "   mov ebx, 0x300000",
    "   add [rbx], rax",
    // A request to the entropy source: descriptor 0 once more.
    "   mov edi, 0x401000",
    "   movzx eax, word ptr [rdi + 2]",
    "   mov ecx, eax",
    "   and ecx, 15",
    "   mov word ptr [rdi + rcx * 2 + 4], 0",
    "   inc eax",
    "   mov word ptr [rdi + 2], ax",
    "   mov r13d, eax",
    "   mov ebx, 0x27f000",
    "   mov rdi, [rbx]",
    "   mov dword ptr [rdi], 0",
    "   mov edi, 0x402002",
    "11: mov dx, 0x601",
    "   in al, dx",
    "   cmp word ptr [rdi], r13w",
    "   jne 11b",
    // The line.
    "   mov r8, r12",
    "   call 80f",
    "   mov ebx, 0x301000",
    "   movups [rbx], xmm0",
    "   mov r8, [rbx]",
    "   mov qword ptr [rbx], 0",
    "   call 80f",
    "   mov ebx, 0x300000",
    "   mov r8, [rbx]",
    "   call 80f",
    "   mov ebx, 0x403000",
    "   mov r8, [rbx]",
    "   call 80f",
    "   mov ebx, 0xff000",
    "   mov r8, [rbx]",
    "   call 80f",
    "   mov ebx, 0x412002",
    "   movzx r8d, word ptr [rbx]",
    "   call 80f",
    "   mov ebx, 0xfee00220",
    "   mov r8d, dword ptr [rbx]",
    "   call 80f",
    "   call 90f",
    "   cmp r15d, 0x71",
    "   jne 10b",
    "   mov dx, 0x600",
    "   mov al, 0x34",
    "   out dx, al",
    "12: hlt",
    "   jmp 12b",
    // Writes r8 in hexadecimal and a space.
    "80: mov r9d, 64",
    "81: sub r9d, 4",
    "   mov ecx, r9d",
    "   mov rax, r8",
    "   shr rax, cl",
    "   and eax, 15",
    "   add eax, 0x30",
    "   cmp eax, 0x3a",
    "   jb 82f",
    "   add eax, 0x27",
    "82: mov dx, 0x3f8",
    "   out dx, al",
    "   test r9d, r9d",
    "   jnz 81b",
    "   mov al, 0x20",
    "   out dx, al",
    "   ret",
    // Ends a line.
    "90: mov dx, 0x3f8",
    "   mov al, 10",
    "   out dx, al",
    "   ret",
    ".globl snapshot_guest_end",
    "snapshot_guest_end:",
    ".popsection",
);

unsafe extern "C" {
    static snapshot_guest_start: u8;
    static snapshot_guest_end: u8;
}

/// The guest's instructions.
pub fn code() -> &'static [u8] {
    let (start, end) = (
        &raw const snapshot_guest_start,
        &raw const snapshot_guest_end,
    );
    // SAFETY: both are symbols of one section, in this order, with the instructions between them.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// A list of stores.
#[derive(Default)]
struct Stores(Vec<u8>);

impl Stores {
    fn store(&mut self, address: u64, value: u64, width: u64) {
        for word in [address, value, width] {
            self.0.extend(word.to_le_bytes());
        }
    }

    /// Rings of a queue of sixteen entries, a page each from here on, whose first descriptor is a buffer of so many bytes.
    fn rings(&mut self, rings: u64, bytes: u64, offered: u64) {
        self.store(rings, rings + 0x3000, 4);
        self.store(rings + 8, bytes, 4);
        self.store(rings + 12, 2, 2);
        self.store(rings + 0x1002, offered, 2);
    }
}

/// Where a device's registers are (`plan::layout`), by its index.
pub fn window(transport: Transport, index: u64) -> u64 {
    match transport {
        Transport::Mmio => 0xd000_0000 + 0x1000 * index,
        Transport::Pci => 0xd800_0000 + 0x8000 * (index + 1),
    }
}

/// Where a queue's doorbell is.
pub fn doorbell(transport: Transport, index: u64, queue: u64) -> u64 {
    match transport {
        Transport::Mmio => window(transport, index) + 0x50,
        Transport::Pci => window(transport, index) + 0x3000 + 4 * queue,
    }
}

/// Sets a device up with queues that have their rings at these places.
fn set_up(stores: &mut Stores, transport: Transport, index: u64, queues: &[u64]) {
    let base = window(transport, index);
    let pci = transport == Transport::Pci;
    if pci {
        let registers = 0xe000_0000 + 0x8000 * (index + 1);
        // Its window and its way to memory, and interrupts that are messages.
        stores.store(registers + 4, 6, 2);
        stores.store(registers + 0x43, 0x80, 1);
        for entry in 0..=queues.len() as u64 {
            let words = [0xfee0_0000, 0, VECTOR + 8 * index + entry, 0];
            for (word, at) in words.into_iter().zip(0..) {
                stores.store(base + 0x4000 + 16 * entry + 4 * at, word, 4);
            }
        }
    }
    // Offsets and widths of: features and their selector, queue selector, size, state, three addresses, status.
    let [
        features,
        which,
        select,
        size,
        ready,
        table,
        available,
        used,
        status,
    ] = if pci {
        [0x0c, 0x08, 0x16, 0x18, 0x1c, 0x20, 0x28, 0x30, 0x14]
    } else {
        [0x20, 0x24, 0x30, 0x38, 0x44, 0x80, 0x90, 0xa0, 0x70]
    };
    let (half, byte) = if pci { (2, 1) } else { (4, 4) };
    for value in [0, 1, 3] {
        stores.store(base + status, value, byte);
    }
    // Version 1 and nothing else.
    stores.store(base + which, 1, 4);
    stores.store(base + features, 1, 4);
    stores.store(base + status, 0xb, byte);
    if pci {
        stores.store(base + 0x10, 0, 2);
    }
    for (rings, queue) in queues.iter().zip(0..) {
        stores.store(base + select, queue, half);
        if pci {
            stores.store(base + 0x1a, queue + 1, 2);
        }
        stores.store(base + size, 16, half);
        stores.store(base + table, *rings, 4);
        stores.store(base + available, rings + 0x1000, 4);
        stores.store(base + used, rings + 0x2000, 4);
        stores.store(base + ready, 1, half);
    }
    stores.store(base + status, 0xf, byte);
}

/// What the guest does first, with vsock as device 0 and the entropy source as device 1.
pub fn stores(transport: Transport) -> Vec<u8> {
    let mut stores = Stores::default();
    // The local APIC takes interrupts.
    stores.store(0xfee0_00f0, 0x1ff, 4);
    stores.rings(0x40_0000, 8, 0);
    stores.rings(0x41_0000, 4, 2);
    set_up(&mut stores, transport, 1, &[0x40_0000]);
    set_up(
        &mut stores,
        transport,
        0,
        &[0x42_0000, 0x43_0000, 0x41_0000],
    );
    stores.store(0, 0, 0);
    stores.0
}
