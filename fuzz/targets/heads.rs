//! Feeds the target `heads` (src/fuzz.rs).

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::proxy::read_heads(data));
