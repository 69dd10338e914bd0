//! Write a Torpor serializer in Rust: a WebAssembly module that turns a service's native state into
//! records and back, without crates, without an allocator, and without unsafe code of your own.
//!
//! Implement [`Serializer`] and export it with [`serializer!`]. [`Input`] streams the input in, as
//! checked records ([`Input::record`]), as lines ([`Input::until`]) or as a window of bytes;
//! [`Output`] streams records or native state out. Memory stays at the two buffers, whatever the size
//! of the state. README.md beside this crate has the shortest complete serializer; the serializers in
//! `modules/` are longer ones; `host/abi/ABI.md` is the specification.
//!
//! The crate is `no_std` and compiles with Rust 1.63 and later. A guest that wants `Vec` or `HashMap`
//! uses std beside it: [`panic_hook!`] instead of [`panic_handler!`] is the only difference.
//!
//! On any other target than WebAssembly, `testing` is there, which runs a serializer on the machine
//! itself: for `cargo test`.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![deny(unsafe_code, missing_docs)]

mod call;
pub mod cbor;
pub mod cut;
mod error;
mod guest;
mod input;
mod output;
mod record;
mod summary;
mod sys;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod text;
mod walk;

pub use call::{Call, Descriptor};
pub use error::{Code, Error, Result};
pub use guest::{log, pause, report_panic, Buffers, Level, Serializer, MAX_ARG_BYTES};
pub use input::Input;
pub use output::Output;
pub use record::{Checker, Key, Record, MAX_KEY_BYTES, MAX_PARTITION_BYTES, MIN_BUFFER, RECORD_HEAD};
pub use summary::Summary;
pub use sys::{trap, Scratch};
pub use text::{Text, TEXT_BYTES};
pub use walk::{migrate_none, walk, Pass, Visitor};

/// Exports a [`Serializer`] as this module's.
///
/// `input` and `output` are the sizes of the buffers in bytes; 131,072 and 65,536 unless told. The
/// input buffer bounds the longest record that [`Input::record`] can give; the output buffer bounds
/// nothing.
#[macro_export]
macro_rules! serializer {
    ($t:ty) => {
        $crate::serializer!($t, input = 131_072, output = 65_536);
    };
    ($t:ty, input = $input:expr, output = $output:expr) => {
        mod torpor_exports {
            use super::*;

            static BUFFERS: $crate::Scratch<$crate::Buffers<{ $input }, { $output }>> =
                $crate::Scratch::new($crate::Buffers::new());

            #[no_mangle]
            pub extern "C" fn torpor_describe() -> i32 {
                use $crate::Serializer;
                BUFFERS.with(|b| b.describe(&<$t>::DESCRIPTOR, <$t>::NESTING))
            }

            #[no_mangle]
            pub extern "C" fn torpor_save() -> i32 {
                BUFFERS.with(|b| b.run(<$t as $crate::Serializer>::save))
            }

            #[no_mangle]
            pub extern "C" fn torpor_load() -> i32 {
                BUFFERS.with(|b| b.run(<$t as $crate::Serializer>::load))
            }

            #[no_mangle]
            pub extern "C" fn torpor_migrate() -> i32 {
                BUFFERS.with(|b| b.run(<$t as $crate::Serializer>::migrate))
            }

            #[no_mangle]
            pub extern "C" fn torpor_inspect() -> i32 {
                BUFFERS.with(|b| b.run(<$t as $crate::Serializer>::inspect))
            }
        }
    };
}

/// Makes a panic in a `no_std` guest an error that names the place, and a trap.
#[macro_export]
macro_rules! panic_handler {
    () => {
        #[cfg(target_arch = "wasm32")] // elsewhere, in tests, std has one
        #[panic_handler]
        fn torpor_panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::report_panic(info.location().map(|l| (l.file(), l.line())));
            $crate::trap()
        }
    };
}

/// Makes a panic in a guest that uses std an error that names the place. The trap is std's.
#[macro_export]
macro_rules! panic_hook {
    () => {
        #[no_mangle]
        pub extern "C" fn _initialize() {
            std::panic::set_hook(std::boxed::Box::new(|info| {
                $crate::report_panic(info.location().map(|l| (l.file(), l.line())));
            }));
        }
    };
}
