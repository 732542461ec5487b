//! The program that the kernel runs for each packet of a partition's sockets: it adds the packet's bytes to what the
//! partition's group has sent or received. Instructions are of linux/bpf.h and the kernel's instruction-set.rst.

use super::bpf::Direction;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the map has of a group: bytes received, bytes sent.
pub type Value = [u64; 2];

/// What it has of a group whose instance is gone: nothing goes through what sockets of it there still are.
pub const GONE: Value = [u64::MAX; 2];

/// As the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// The register that it reads, and in the lower half the one that it writes.
    registers: u8,
    offset: i16,
    number: i32,
}

/// Groups deeper than this below the root of the machine's are not found. systemd in a container in a pod has 6.
const DEEPEST: i32 = 24;

// Places in `struct __sk_buff`.
const LENGTH: i16 = 0;
const LINK: i16 = 40;
/// The loopback is the first link of each network namespace.
const LOOPBACK: i32 = 1;

// Functions of the kernel.
const LOOK_UP: i32 = 1;
const UPDATE: i32 = 2;
const ANCESTOR_GROUP: i32 = 83;

/// Says to an update that what is there already stays.
const NO_EXIST: i32 = 1;

// On the stack: the key, and a value of zeros.
const KEY: i16 = -8;
const ZEROS: i16 = -24;

/// Adds to `map` what goes in this direction through sockets of groups below the one that has the number `base`; each of its
/// children, with all that is below it, is counted as one. What goes by a loopback is not counted. All packets pass but those of
/// groups that are [`GONE`]: a socket that was handed to somebody else would be on nobody's bill.
pub fn counting(map: BorrowedFd<'_>, base: u64, direction: Direction) -> Vec<Instruction> {
    let mut code = Code::default();
    code.add(COPY, 6, 1, 0, 0).add(LOAD_32, 7, 1, LENGTH, 0).add(LOAD_32, 8, 1, LINK, 0);
    code.jump(IF_EQUAL, 8, LOOPBACK, Label::Out);
    // How deep the base is depends on what this machine runs in.
    code.constant(8, base);
    for level in 0..DEEPEST {
        code.ancestor_at(level).add(SET, 9, 0, 0, level + 1);
        code.jump_same(0, 8, Label::Found);
    }
    code.jump(ALWAYS, 0, 0, Label::Out);
    code.place(Label::Found);
    code.add(COPY, 1, 6, 0, 0).add(COPY, 2, 9, 0, 0).call(ANCESTOR_GROUP);
    // A socket of the base itself.
    code.jump(IF_EQUAL, 0, 0, Label::Out);
    code.add(STORE_64, 10, 0, KEY, 0);
    code.look_up(map).jump(IF_OTHER, 0, 0, Label::Add);
    // The group's first packet. Another processor may have seen one too.
    code.add(SET, 1, 0, 0, 0).add(STORE_64, 10, 1, ZEROS, 0).add(STORE_64, 10, 1, ZEROS + 8, 0);
    code.map_and_key(map).add(COPY, 3, 10, 0, 0).add(PLUS, 3, 0, 0, i32::from(ZEROS));
    code.add(SET, 4, 0, 0, NO_EXIST).call(UPDATE);
    code.look_up(map).jump(IF_EQUAL, 0, 0, Label::Out);
    code.place(Label::Add);
    code.add(LOAD_64, 1, 0, 0, 0).jump(IF_EQUAL, 1, -1, Label::Drop);
    code.add(ADD_TO_64, 0, 7, 8 * direction as i16, 0);
    code.place(Label::Out);
    code.add(SET, 0, 0, 0, 1).add(END, 0, 0, 0, 0);
    code.place(Label::Drop);
    code.add(SET, 0, 0, 0, 0).add(END, 0, 0, 0, 0);
    code.finish()
}

const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const PLUS: u8 = 0x07;
const LOAD_32: u8 = 0x61;
const LOAD_64: u8 = 0x79;
const STORE_64: u8 = 0x7b;
const ADD_TO_64: u8 = 0xdb;
const CONSTANT: u8 = 0x18;
const CALL: u8 = 0x85;
const END: u8 = 0x95;
const ALWAYS: u8 = 0x05;
const IF_EQUAL: u8 = 0x15;
const IF_OTHER: u8 = 0x55;
const IF_SAME: u8 = 0x1d;

/// A register that is read as: the number is that of a file, and means its map.
const MAP: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Found,
    Add,
    Out,
    Drop,
}

#[derive(Default)]
struct Code {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

impl Code {
    fn add(&mut self, code: u8, written: u8, read: u8, offset: i16, number: i32) -> &mut Self {
        self.instructions.push(Instruction { code, registers: read << 4 | written, offset, number });
        self
    }

    /// Of 64 bits: it takes two.
    fn constant(&mut self, register: u8, number: u64) -> &mut Self {
        self.add(CONSTANT, register, 0, 0, number as i32).add(0, 0, 0, 0, (number >> 32) as i32)
    }

    fn call(&mut self, function: i32) -> &mut Self {
        self.add(CALL, 0, 0, 0, function)
    }

    /// The group of the packet's socket at this depth: register 0.
    fn ancestor_at(&mut self, level: i32) -> &mut Self {
        self.add(COPY, 1, 6, 0, 0).add(SET, 2, 0, 0, level).call(ANCESTOR_GROUP)
    }

    fn map_and_key(&mut self, map: BorrowedFd<'_>) -> &mut Self {
        self.add(CONSTANT, 1, MAP, 0, map.as_raw_fd()).add(0, 0, 0, 0, 0);
        self.add(COPY, 2, 10, 0, 0).add(PLUS, 2, 0, 0, i32::from(KEY))
    }

    fn look_up(&mut self, map: BorrowedFd<'_>) -> &mut Self {
        self.map_and_key(map).call(LOOK_UP)
    }

    /// If `register` compares so with `number`.
    fn jump(&mut self, how: u8, register: u8, number: i32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.add(how, register, 0, 0, number);
    }

    fn jump_same(&mut self, one: u8, other: u8, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.add(IF_SAME, one, other, 0, 0);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.instructions.len()));
    }

    /// A jump is told how many instructions it passes over.
    fn finish(mut self) -> Vec<Instruction> {
        for (from, label) in self.jumps {
            let to = self.places.iter().find(|(placed, _)| *placed == label).map_or(from, |(_, to)| *to);
            self.instructions[from].offset = (to - from) as i16 - 1;
        }
        self.instructions
    }
}
