//! Owns the yardstick: a copy that reads and writes as many bytes as a pass, on the same devices.
//!
//! Half of the bytes are read and half written, from buffers that rotate as the tensors of the
//! passes do. There are several ways to copy. Passes are compared with the fastest one on the
//! workload.

mod gpu;
mod host;

use std::error::Error;

use crate::devices::Machine;
use crate::timing::{Samples, Times};

/// Ways to copy on one kind of machine.
trait Copies {
    /// Names of the ways.
    fn methods(&self) -> Vec<&'static str>;
    /// Prepares to read and write `tensors` times a tensor's bytes in all, by one method.
    fn prepare(&mut self, method: usize, tensors: f64);
    /// Copies once, with the next buffers, and waits until it is done.
    fn run(&mut self) -> Result<Times, Box<dyn Error>>;
}

/// Copies in the way that proved fastest.
pub struct Copier {
    copies: Box<dyn Copies>,
    method: usize,
}

/// Trials of each way to copy, after one that is not counted.
const TRIALS: usize = 3;

impl Copier {
    /// Makes `count` pairs of buffers of the size of x, of which `shares` are the bytes on each
    /// GPU, and finds the fastest way.
    pub fn new(machine: &Machine, shares: &[u64], count: usize) -> Result<Self, Box<dyn Error>> {
        let copies: Box<dyn Copies> = if machine.gpus.is_empty() {
            Box::new(host::HostCopies::new(shares.iter().sum(), count)?)
        } else {
            Box::new(gpu::GpuCopies::new(&machine.gpus, shares, count))
        };
        let mut copier = Self { copies, method: 0 };
        // Every buffer is written once before anything counts: memory is given at the first touch.
        copier.copies.prepare(0, 2.0);
        for _ in 0..count {
            copier.copies.run()?;
        }
        let mut fastest = f64::INFINITY;
        for method in 0..copier.copies.methods().len() {
            copier.copies.prepare(method, 2.0);
            copier.copies.run()?;
            let trial = |_| {
                machine.awake.wake()?;
                copier.copies.run()
            };
            let trials = (0..TRIALS).map(trial).collect::<Result<Vec<_>, _>>()?;
            let median =
                Samples::of(trials.iter().map(|times| times.device.unwrap_or(times.wall))).median;
            if median < fastest {
                (copier.method, fastest) = (method, median);
            }
        }
        Ok(copier)
    }

    /// The way it copies.
    pub fn method(&self) -> &'static str {
        self.copies.methods()[self.method]
    }

    /// From now on, each copy reads and writes `tensors` times the bytes of x in all.
    pub fn prepare(&mut self, tensors: f64) {
        self.copies.prepare(self.method, tensors);
    }

    /// Copies once.
    pub fn run(&mut self) -> Result<Times, Box<dyn Error>> {
        self.copies.run()
    }
}

/// The bytes that each part of a copy reads, and writes again: whole tensors, then what is left of
/// half of the bytes to move.
fn parts(tensor_bytes: u64, tensors: f64) -> Vec<u64> {
    let halves = tensors / 2.0;
    let mut parts = vec![tensor_bytes; halves.floor() as usize];
    // In whole elements of the widest kernel, 16 bytes.
    let rest =
        ((halves.fract() * tensor_bytes as f64) as u64).next_multiple_of(16).min(tensor_bytes);
    if rest > 0 {
        parts.push(rest);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_reads_half_of_the_bytes_of_the_pass() {
        assert_eq!(parts(64, 2.0), [64]);
        assert_eq!(parts(64, 3.0), [64, 32]);
        assert_eq!(parts(48, 5.0), [48, 48, 32]);
        assert_eq!(parts(1024, 4.0 + 1.0 / 32.0), [1024, 1024, 16]);
    }
}
