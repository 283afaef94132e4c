//! Owns the copy on the host: all processors, from one block of memory to another.

use std::error::Error;
use std::io;
use std::time::Instant;

use memmap2::MmapMut;
use rayon::prelude::*;

use super::{Copies, parts};
use crate::timing::Times;

/// How a block is cut: into one piece per processor, for which the C library uses non-temporal
/// stores where pieces are large, or into pieces that stay in the caches.
const METHODS: [(&str, Option<usize>); 2] =
    [("memcpy per thread", None), ("memcpy of 256 KiB", Some(256 << 10))];

/// Copies from blocks to blocks.
pub struct HostCopies {
    tensor_bytes: u64,
    /// Source and destination.
    blocks: Vec<[MmapMut; 2]>,
    pieces: Option<usize>,
    parts: Vec<u64>,
    next: usize,
}

impl HostCopies {
    pub fn new(bytes: u64, count: usize) -> Result<Self, Box<dyn Error>> {
        let tensor_bytes = bytes.next_multiple_of(16);
        let length = usize::try_from(tensor_bytes)?;
        let pair = |_| Ok([block(length, 0x5a)?, block(length, 0xa5)?]);
        let blocks = (0..count).map(pair).collect::<io::Result<_>>()?;
        Ok(Self { tensor_bytes, blocks, pieces: None, parts: Vec::new(), next: 0 })
    }
}

/// Memory with large pages where the system has them, as tensors on the host are.
fn block(length: usize, byte: u8) -> io::Result<MmapMut> {
    let mut block = MmapMut::map_anon(length.max(1))?;
    // Advice that a system does not know, it refuses.
    #[cfg(target_os = "linux")]
    let _ = block.advise(memmap2::Advice::HugePage);
    block.fill(byte);
    Ok(block)
}

impl Copies for HostCopies {
    fn methods(&self) -> Vec<&'static str> {
        METHODS.iter().map(|(name, _)| *name).collect()
    }

    fn prepare(&mut self, method: usize, tensors: f64) {
        self.pieces = METHODS[method].1;
        self.parts = parts(self.tensor_bytes, tensors);
    }

    fn run(&mut self) -> Result<Times, Box<dyn Error>> {
        let started = Instant::now();
        for &bytes in &self.parts {
            let count = self.blocks.len();
            let [source, destination] = &mut self.blocks[self.next % count];
            let bytes = bytes as usize;
            let piece =
                self.pieces.unwrap_or_else(|| bytes.div_ceil(rayon::current_num_threads())).max(1);
            let pieces =
                source[..bytes].par_chunks(piece).zip(destination[..bytes].par_chunks_mut(piece));
            pieces.for_each(|(source, destination)| destination.copy_from_slice(source));
            self.next += 1;
        }
        Ok(Times { device: None, wall: started.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_copies_everything() {
        for (method, (name, _)) in METHODS.iter().enumerate() {
            let mut copies = HostCopies::new(1 << 20, 1).expect("memory");
            copies.prepare(method, 2.0);
            copies.run().expect("a copy");
            assert!(copies.blocks[0][1].iter().all(|&byte| byte == 0x5a), "{name}");
        }
    }
}
