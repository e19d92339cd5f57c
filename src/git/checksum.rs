//! The SHA-1 at the end of packs and their indexes (`gitformat-pack(5)`).
//!
//! It is there against damage. Collisions are not looked for in it, which takes several times as long (git leaves that out,
//! too, where it is built with `OPENSSL_SHA1_UNSAFE`). They are where a hash names an object.

use sha1::{Digest, Sha1};

use crate::model::refs::ObjectId;

/// A checksum that is being made.
#[derive(Default)]
pub(super) struct Checksum(Sha1);

impl Checksum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> ObjectId {
        ObjectId::Sha1(self.0.finalize().into())
    }
}
