//! `config.toml`.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = grasp_mirror::config::Config::from_toml(text, Path::new("config.toml")) {
        assert!(!error.to_string().is_empty());
    }
});
