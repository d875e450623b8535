//! libFuzzer calls the body; `src/registry.rs` says what it checks. Limits: 5 s for an input, 512 MiB for
//! the process, 64 MiB for one allocation (`cargo xtask fuzz --minutes N --target registry`).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| annals_fuzz::registry::registry(bytes));
