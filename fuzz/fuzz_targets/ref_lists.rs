//! Lists of refs: pkt-lines, `info/refs` in v0 and v2, `ls-refs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grasp_mirror::fuzzing::ref_lists(bytes));
