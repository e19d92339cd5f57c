//! The answer to a push: report-status, with and without sidebands.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| grasp_mirror::fuzzing::push_answer(bytes));
