//! What anyone may say to the bot by direct message.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &str| {
    if let Err(error) = grasp_mirror_commands::parse(message) {
        // The answer to a bad message is text for a person, and no echo of whatever was sent.
        assert!(error.to_string().len() < 4_000);
    }
});
