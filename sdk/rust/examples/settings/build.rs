//! Tells the linker what a module should say: the most memory it may ever have, 16 MiB, which a host may
//! ask for. Its stack is small and lies first, so that one that overflows ends the call.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        for arg in ["--max-memory=16777216", "-zstack-size=131072", "--stack-first"] {
            println!("cargo:rustc-cdylib-link-arg={arg}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
}
