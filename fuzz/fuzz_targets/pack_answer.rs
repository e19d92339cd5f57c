//! The answer to a fetch: sections, sidebands, the pack in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grasp_mirror::fuzzing::pack_answer(bytes));
