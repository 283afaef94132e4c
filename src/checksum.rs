//! A checksum by which ranks notice that they were set up differently. Not a defence against
//! anyone.

/// FNV-1a over 64 bits (Fowler, Noll, Vo), never 0, which stands for "not given".
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
