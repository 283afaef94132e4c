//! Checksums that show ranks with different settings, and the lists under the checksums. They are
//! no defence against an attacker.

use std::fmt::Display;
use std::sync::Arc;

/// FNV-1a over 64 bits (Fowler, Noll, Vo). 0 means "not given", so a hash of 0 becomes 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn add_u64(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    pub fn finish(self) -> u64 {
        self.0.max(1)
    }
}

/// Settings or state for comparison between ranks: lines `name = value`, which every program writes
/// alike (`docs/PROTOCOL.md`), and the checksum of that text.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The lines, each with a line feed behind it.
    pub text: Arc<str>,
    /// FNV-1a of the text.
    pub checksum: u64,
}

/// The lines of a [`Manifest`].
#[derive(Debug, Default)]
pub(crate) struct Listing(String);

impl Listing {
    pub fn add(&mut self, name: impl Display, value: impl Display) {
        self.0 += &format!("{name} = {value}\n");
    }

    pub fn finish(self) -> Manifest {
        let mut checksum = Checksum::new();
        checksum.add(self.0.as_bytes());
        Manifest { text: self.0.into(), checksum: checksum.finish() }
    }
}
