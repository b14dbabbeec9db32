//! Feeds the target `spool` (src/fuzz.rs).

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flowtap::fuzz::segment(data));
