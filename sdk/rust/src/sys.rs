//! The border to the host: the only unsafe code of a guest.
//!
//! Three things need it. The imports are foreign functions that are handed an address and a length;
//! each wrapper derives both from one slice, and the host neither keeps the address nor calls back
//! into the guest (ABI.md, "Ownership"). A guest's buffers are static, because there need be no
//! allocator; [`Scratch`] lends one out to one borrower at a time. And a panic must end in a trap.

#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "wasm32")]
mod host {
    #[link(wasm_import_module = "torpor_v1")]
    extern "C" {
        pub fn next(buf: *mut u8, cap: u32) -> i64;
        pub fn emit(ptr: *const u8, len: u32, flags: u32) -> i32;
        pub fn arg(buf: *mut u8, cap: u32) -> i32;
        pub fn fail(code: i32, ptr: *const u8, len: u32);
        pub fn log(level: i32, ptr: *const u8, len: u32);
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host;

/// Asks for input; see ABI.md for the bits of the result.
pub(crate) fn next(buf: &mut [u8]) -> i64 {
    // SAFETY: the host writes at most `cap` bytes at `buf`, which is what the slice may hold.
    unsafe { host::next(buf.as_mut_ptr(), buf.len() as u32) }
}

/// Hands over output. True means that the host took it.
pub(crate) fn emit(bytes: &[u8], more: bool) -> bool {
    // SAFETY: the host reads `len` bytes at `ptr`, which is the slice, and keeps nothing.
    unsafe { host::emit(bytes.as_ptr(), bytes.len() as u32, more as u32) == 0 }
}

/// Copies the call's parameters into `buf` if they fit, and returns how long they are.
pub(crate) fn arg(buf: &mut [u8]) -> usize {
    // SAFETY: the host writes at most `cap` bytes at `buf`, which is what the slice may hold.
    unsafe { host::arg(buf.as_mut_ptr(), buf.len() as u32) as u32 as usize }
}

/// Reports an error.
pub(crate) fn fail(code: i32, failure: &[u8]) {
    // SAFETY: the host reads `len` bytes at `ptr`, which is the slice, and keeps nothing.
    unsafe { host::fail(code, failure.as_ptr(), failure.len() as u32) }
}

/// Logs a line.
pub(crate) fn log(level: i32, line: &str) {
    // SAFETY: the host reads `len` bytes at `ptr`, which is the string, and keeps nothing.
    unsafe { host::log(level, line.as_ptr(), line.len() as u32) }
}

/// Ends the call by a trap.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("trap");
}

/// Static memory that is lent out to one borrower at a time.
pub struct Scratch<T> {
    lent: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `with` makes a reference to the value only while it holds `lent`, so that one thread at a
// time has it, which is what T: Send allows. (A guest has one thread and this costs it nothing.)
unsafe impl<T: Send> Sync for Scratch<T> {}

impl<T> Scratch<T> {
    /// Memory that holds `value`.
    pub const fn new(value: T) -> Scratch<T> {
        Scratch { lent: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Lends the memory to `f`, as the last borrower left it. Panics if it is lent out already.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        assert!(!self.lent.swap(true, Ordering::Acquire), "the memory is lent out already");
        // SAFETY: `lent` was false, so no other reference exists, and while it is true none is made.
        let r = f(unsafe { &mut *self.value.get() });
        self.lent.store(false, Ordering::Release);
        r
    }
}
