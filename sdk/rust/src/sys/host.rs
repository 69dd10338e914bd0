//! A host for tests: the five imports over plain vectors, one host a thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::vec::Vec;

/// What one call was given and what it did.
#[derive(Default)]
pub struct Host {
    /// Pieces of input, with whether more of the record follows.
    pub input: VecDeque<(Vec<u8>, bool)>,
    /// Whether the end bit comes with the last piece or alone.
    pub late_end: bool,
    /// The call's parameters.
    pub arg: Vec<u8>,
    /// Whether `emit` refuses.
    pub refuse: bool,
    /// What was emitted, with the flags.
    pub output: Vec<(Vec<u8>, u32)>,
    /// What was handed to `fail`.
    pub failures: Vec<(i32, Vec<u8>)>,
    /// Lines logged.
    pub lines: Vec<(i32, Vec<u8>)>,
    /// How often `next` was called.
    pub nexts: usize,
    /// Whether the guest was told that its input ended.
    pub ended: bool,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// Runs `f` with `host` behind the imports and returns what became of it.
pub fn run(host: Host, f: impl FnOnce()) -> Host {
    HOST.with(|h| *h.borrow_mut() = host);
    f();
    HOST.with(|h| std::mem::take(&mut *h.borrow_mut()))
}

fn with<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with(|h| f(&mut h.borrow_mut()))
}

unsafe fn read(ptr: *const u8, len: u32) -> Vec<u8> {
    std::slice::from_raw_parts(ptr, len as usize).to_vec()
}

unsafe fn write(ptr: *mut u8, bytes: &[u8]) {
    std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len());
}

pub unsafe fn next(buf: *mut u8, cap: u32) -> i64 {
    with(|h| {
        h.nexts += 1;
        let (mut n, mut more) = (0, false);
        if let Some((piece, open)) = h.input.front_mut() {
            n = piece.len().min(cap as usize);
            write(buf, &piece[..n]);
            piece.drain(..n);
            more = *open || !piece.is_empty();
            if piece.is_empty() {
                h.input.pop_front();
            }
        }
        let end = h.input.is_empty() && !(h.late_end && n > 0);
        h.ended |= end;
        n as i64 | (end as i64) << 32 | (more as i64) << 33
    })
}

pub unsafe fn emit(ptr: *const u8, len: u32, flags: u32) -> i32 {
    let bytes = read(ptr, len);
    with(|h| {
        if h.refuse {
            return -1;
        }
        h.output.push((bytes, flags));
        0
    })
}

pub unsafe fn arg(buf: *mut u8, cap: u32) -> i32 {
    with(|h| {
        if h.arg.len() <= cap as usize {
            write(buf, &h.arg);
        }
        h.arg.len() as i32
    })
}

pub unsafe fn fail(code: i32, ptr: *const u8, len: u32) {
    let bytes = read(ptr, len);
    with(|h| h.failures.push((code, bytes)))
}

pub unsafe fn log(level: i32, ptr: *const u8, len: u32) {
    let bytes = read(ptr, len);
    with(|h| h.lines.push((level, bytes)))
}
