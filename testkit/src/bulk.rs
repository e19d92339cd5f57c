//! Repositories of many megabytes, the same on every machine with the same crates.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::Work;

/// Real source text is at most this much of a bulky repository, before compression.
const TEXT_LIMIT: u64 = 80 << 20;
const BLOB: usize = 512 << 10;
/// What is text, by its name.
const TEXT: [&str; 7] = ["rs", "c", "h", "S", "md", "toml", "txt"];

impl Work {
    /// Commits files until everything here makes a pack of at least `pack_bytes`, and packs it.
    ///
    /// Source text out of cargo's registry (what people put into repositories), and on top noise, which
    /// does not compress.
    ///
    /// # Panics
    ///
    /// When files cannot be written.
    pub fn fill(&self, pack_bytes: u64) {
        let mut text_bytes = 0;
        let rust = sources().into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
        for (number, source) in rust.enumerate() {
            if text_bytes > TEXT_LIMIT {
                break;
            }
            let Ok(content) = fs::read(&source) else { continue };
            text_bytes += content.len() as u64;
            self.write(&format!("text/{}/{number}.rs", number % 64), &content);
        }
        self.commit_all("Add text");
        let mut noise = Noise::default();
        let mut number = 0;
        while self.packed_bytes() < pack_bytes {
            for _ in 0..16 {
                self.write(&format!("noise/{number}.bin"), &noise.bytes(BLOB));
                number += 1;
            }
            self.commit_all("Add noise");
        }
    }

    fn write(&self, file: &str, content: &[u8]) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit_all(&self, message: &str) {
        self.git(&["-c", "core.compression=1", "add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    /// Packs all objects; returns the size of the pack.
    fn packed_bytes(&self) -> u64 {
        self.git(&["repack", "-a", "-d", "-q", "--window=0", "--depth=0"]);
        let packs = fs::read_dir(self.path().join(".git/objects/pack")).unwrap();
        packs.map(|entry| entry.unwrap()).map(|entry| entry.metadata().unwrap().len()).sum()
    }
}

/// xorshift64: the same bytes everywhere, and no compressor finds anything in them.
#[derive(Debug)]
pub struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Noise {
    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Text files of the crates that cargo has unpacked, in a fixed order.
#[must_use]
pub fn sources() -> Vec<PathBuf> {
    let cargo =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let mut found = Vec::new();
    if let Some(cargo) = cargo {
        walk(&cargo.join("registry/src"), &mut found);
    }
    found.sort();
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| TEXT.iter().any(|text| extension == *text)) {
            found.push(path);
        }
    }
}
/// Text that zlib can hardly shorten, the same every time.
#[must_use]
pub fn noise_text(bytes: usize) -> String {
    let noise = Noise(2_463_534_242).bytes(bytes);
    noise.into_iter().map(|byte| char::from(b' ' + byte % 94)).collect()
}
