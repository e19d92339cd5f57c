//! Packs, as bytes and made of entries that inflate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grasp_mirror::fuzzing::index_pack(bytes));
