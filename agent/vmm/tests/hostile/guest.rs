//! The guest: bare metal, without interrupts or exceptions, it carries out a list of steps from its memory.
//!
//! A step is four words: what to do and how wide, an address or port, a value, a mask or count. A case begins with
//! [`Script::case`] and ends with [`Script::verdict`], which writes to COM1 between `<` and `>`: the case's number, `K` if every
//! check held or `F` and the number of the step after the first whose check did not, and the status register it noted, all
//! in hexadecimal.

use std::arch::global_asm;

use crate::support::LOAD;

/// Where the steps are.
pub const STEPS: u64 = 0x100_0000;
/// Bytes of one.
const STEP: usize = 32;

// r15: the next step. r14: the first step that failed, or 0. r13: the case. r12: the status noted.
// A port that reads without effect (0x601, the sleep status) lets the host have its turn while the guest waits.
global_asm!(
    ".pushsection .rodata.hostile_guest, \"a\"",
    ".globl hostile_guest_start",
    "hostile_guest_start:",
    "   mov r15d, 0x1000000",
    "   xor r14d, r14d",
    "   xor r12d, r12d",
    "2: movzx eax, byte ptr [r15]",
    "   movzx ecx, byte ptr [r15 + 1]",
    "   mov rdi, [r15 + 8]",
    "   mov rsi, [r15 + 16]",
    "   mov rbx, [r15 + 24]",
    "   add r15, 32",
    "   cmp eax, 1",
    "   je 10f",
    "   cmp eax, 2",
    "   je 20f",
    "   cmp eax, 3",
    "   je 30f",
    "   cmp eax, 4",
    "   je 40f",
    "   cmp eax, 5",
    "   je 50f",
    "   cmp eax, 6",
    "   je 60f",
    "   cmp eax, 7",
    "   je 70f",
    "   cmp eax, 8",
    "   je 80f",
    "   cmp eax, 9",
    "   je 90f",
    "   cmp eax, 10",
    "   je 100f",
    "   cmp eax, 11",
    "   je 110f",
    "   cmp eax, 12",
    "   je 120f",
    // Anything else is the end: power off.
    "   mov dx, 0x600",
    "   mov al, 0x34",
    "   out dx, al",
    "3: hlt",
    "   jmp 3b",
    // 1: store.
    "10: cmp ecx, 1",
    "   jne 11f",
    "   mov [rdi], sil",
    "   jmp 2b",
    "11: cmp ecx, 2",
    "   jne 12f",
    "   mov [rdi], si",
    "   jmp 2b",
    "12: cmp ecx, 4",
    "   jne 13f",
    "   mov [rdi], esi",
    "   jmp 2b",
    "13: mov [rdi], rsi",
    "   jmp 2b",
    // 2: load, mask, compare.
    "20: call 200f",
    "   and rax, rbx",
    "   cmp rax, rsi",
    "   je 2b",
    "21: test r14, r14",
    "   jnz 2b",
    "   mov r14, r15",
    "   jmp 2b",
    // 3: write to a port.
    "30: mov edx, edi",
    "   mov eax, esi",
    "   cmp ecx, 1",
    "   jne 31f",
    "   out dx, al",
    "   jmp 2b",
    "31: cmp ecx, 2",
    "   jne 32f",
    "   out dx, ax",
    "   jmp 2b",
    "32: out dx, eax",
    "   jmp 2b",
    // 4: read from a port, mask, compare.
    "40: mov edx, edi",
    "   xor eax, eax",
    "   cmp ecx, 1",
    "   jne 41f",
    "   in al, dx",
    "   jmp 43f",
    "41: cmp ecx, 2",
    "   jne 42f",
    "   in ax, dx",
    "   jmp 43f",
    "42: in eax, dx",
    "43: and rax, rbx",
    "   cmp rax, rsi",
    "   jne 21b",
    "   jmp 2b",
    // 5: wait until a word has a value, at most so many turns.
    "50: cmp word ptr [rdi], si",
    "   je 2b",
    "   mov dx, 0x601",
    "   in al, dx",
    "   dec rbx",
    "   jnz 50b",
    "   jmp 21b",
    // 6: wait until a word is not zero, at most so many turns.
    "60: cmp word ptr [rdi], 0",
    "   jne 2b",
    "   mov dx, 0x601",
    "   in al, dx",
    "   dec rbx",
    "   jnz 60b",
    "   jmp 2b",
    // 7: begin a case.
    "70: mov r13, rsi",
    "   xor r14d, r14d",
    "   xor r12d, r12d",
    "   jmp 2b",
    // 8: its verdict.
    "80: mov al, 0x3c",
    "   mov dx, 0x3f8",
    "   out dx, al",
    "   mov r8, r13",
    "   mov r9d, 16",
    "   call 210f",
    "   mov al, 0x4b",
    "   test r14, r14",
    "   jz 81f",
    "   mov al, 0x46",
    "81: mov dx, 0x3f8",
    "   out dx, al",
    "   mov r8, r14",
    "   sub r8, 0x1000000",
    "   shr r8, 5",
    "   mov r9d, 24",
    "   call 210f",
    "   mov r8, r12",
    "   mov r9d, 8",
    "   call 210f",
    "   mov al, 0x3e",
    "   mov dx, 0x3f8",
    "   out dx, al",
    "   jmp 2b",
    // 9: note a register.
    "90: call 200f",
    "   mov r12, rax",
    "   jmp 2b",
    // 10: wait until a register has these bits: the count is in the upper half of the mask.
    "100: mov r10, rbx",
    "   shr r10, 32",
    "   mov ebx, ebx",
    "101: call 200f",
    "   and rax, rbx",
    "   cmp rax, rsi",
    "   je 2b",
    "   dec r10",
    "   jnz 101b",
    "   jmp 21b",
    // 11: fill words of eight bytes.
    "110: mov rax, rsi",
    "   mov rcx, rbx",
    "   rep stosq",
    "   jmp 2b",
    // 12: go there.
    "120: jmp rdi",
    // Loads ecx bytes from [rdi] into rax.
    "200: cmp ecx, 1",
    "   jne 201f",
    "   movzx eax, byte ptr [rdi]",
    "   ret",
    "201: cmp ecx, 2",
    "   jne 202f",
    "   movzx eax, word ptr [rdi]",
    "   ret",
    "202: cmp ecx, 4",
    "   jne 203f",
    "   mov eax, [rdi]",
    "   ret",
    "203: mov rax, [rdi]",
    "   ret",
    // Writes the low r9 bits of r8 in hexadecimal.
    "210: sub r9d, 4",
    "   mov ecx, r9d",
    "   mov rax, r8",
    "   shr rax, cl",
    "   and eax, 15",
    "   add eax, 0x30",
    "   cmp eax, 0x3a",
    "   jb 211f",
    "   add eax, 0x27",
    "211: mov dx, 0x3f8",
    "   out dx, al",
    "   test r9d, r9d",
    "   jnz 210b",
    "   ret",
    ".globl hostile_guest_end",
    "hostile_guest_end:",
    ".popsection",
);

unsafe extern "C" {
    static hostile_guest_start: u8;
    static hostile_guest_end: u8;
}

/// The guest's instructions, to be loaded and entered at [`LOAD`] (or anywhere: they do not know where they are).
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const hostile_guest_start, &raw const hostile_guest_end);
    assert!((end as usize - start as usize) < (STEPS - LOAD) as usize);
    // SAFETY: both are symbols of one section, in this order, with the instructions between them.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Turns of waiting for what has to happen: seconds.
const PATIENCE: u64 = 100_000;
/// Reads of a register until it has to say what is waited for.
const TURNS: u64 = 5_000;
/// Turns of waiting for what may happen.
const SETTLE: u64 = 12;

/// The steps of a machine's whole life.
#[derive(Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
    /// Of every case, in order.
    pub names: Vec<String>,
}

impl Script {
    fn step(&mut self, what: u8, width: u8, address: u64, value: u64, extra: u64) {
        self.bytes.extend([what, width, 0, 0, 0, 0, 0, 0]);
        for word in [address, value, extra] {
            self.bytes.extend(word.to_le_bytes());
        }
    }

    pub fn store(&mut self, width: u8, address: u64, value: u64) {
        self.step(1, width, address, value, 0);
    }

    /// A read whose value does not matter.
    pub fn load(&mut self, width: u8, address: u64) {
        self.step(2, width, address, 0, 0);
    }

    pub fn check(&mut self, width: u8, address: u64, mask: u64, value: u64) {
        self.step(2, width, address, value, mask);
    }

    pub fn output(&mut self, width: u8, port: u16, value: u32) {
        self.step(3, width, port.into(), value.into(), 0);
    }

    pub fn input(&mut self, width: u8, port: u16) {
        self.step(4, width, port.into(), 0, 0);
    }

    pub fn check_input(&mut self, width: u8, port: u16, mask: u32, value: u32) {
        self.step(4, width, port.into(), value.into(), mask.into());
    }

    /// Until 16 bits have this value; never is a failure.
    pub fn wait(&mut self, address: u64, value: u16) {
        self.step(5, 2, address, value.into(), PATIENCE);
    }

    /// Until 16 bits are not zero, or for a moment.
    pub fn settle(&mut self, address: u64) {
        self.step(6, 2, address, 0, SETTLE);
    }

    /// Until a register, at most 4 bytes wide, has these bits under this mask; never is a failure.
    pub fn await_bits(&mut self, width: u8, address: u64, mask: u32, value: u32) {
        let extra = u64::from(mask) | TURNS << 32;
        self.step(10, width, address, value.into(), extra);
    }

    pub fn note(&mut self, width: u8, address: u64) {
        self.step(9, width, address, 0, 0);
    }

    pub fn fill(&mut self, address: u64, value: u64, words: u64) {
        self.step(11, 8, address, value, words);
    }

    pub fn jump(&mut self, address: u64) {
        self.step(12, 8, address, 0, 0);
    }

    pub fn case(&mut self, name: String) {
        self.step(7, 0, 0, self.names.len() as u64, 0);
        self.names.push(name);
    }

    pub fn verdict(&mut self) {
        self.step(8, 0, 0, 0, 0);
    }

    /// All steps, power off at the end.
    pub fn bytes(&self) -> Vec<u8> {
        [self.bytes.as_slice(), &[0; STEP]].concat()
    }
}
