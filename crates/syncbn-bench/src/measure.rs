//! Owns the measurement of one pass: the pass and the copy in turn, after a warm-up.

use std::error::Error;
use std::time::Instant;

use crate::copy::Copier;
use crate::devices::Machine;
use crate::inputs::Set;
use crate::layer::Layer;
use crate::timing::{Samples, Times};
use crate::workloads::Pass;

/// Times of a pass and of the copy beside it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Milliseconds.
    pub device: Samples,
    /// Milliseconds.
    pub wall: Samples,
    /// Milliseconds of the copy, on the device.
    pub copy: Samples,
    /// The copy's time over the pass's, of runs that followed each other.
    pub ratio: Samples,
    /// How the copy is done.
    pub copied_by: &'static str,
    /// Of a reproducible layer, where there is one.
    pub reproducible: Option<Reproducible>,
}

/// Times of a pass of a reproducible layer, measured in turn with the ordinary one.
#[derive(Clone, Copy, Debug)]
pub struct Reproducible {
    /// Milliseconds, on the device where it has a clock.
    pub device: Samples,
    /// Its time over the ordinary layer's, of runs that followed each other.
    pub ratio: Samples,
}

/// Runs over a set that is used again and again before any counts.
const WARM_UP: usize = 4;

/// The layers, their tensors and the copy.
pub struct Bench<'a> {
    pub machine: &'a Machine,
    /// The timed layer, and a reproducible one where it is timed too.
    pub layers: &'a mut [Layer],
    pub sets: &'a mut [Set],
    pub copier: &'a mut Copier,
    pub repeats: usize,
}

impl Bench<'_> {
    /// Measures a pass; `tick` is called after each repeat.
    pub fn pass(
        &mut self,
        pass: Pass,
        tensors: f64,
        tick: impl Fn(),
    ) -> Result<Measured, Box<dyn Error>> {
        self.copier.prepare(tensors);
        // Every set once: kernels are built and memory is touched.
        for index in 0..self.sets.len() {
            (0..self.layers.len()).try_for_each(|layer| self.ours(layer, pass, index).map(drop))?;
        }
        self.copier.run()?;
        let mut ours = [Vec::new(), Vec::new()];
        let mut copies = Vec::new();
        for index in 0..self.repeats {
            // In alternating order, so none always follows another.
            if index % 2 == 1 {
                copies.push(self.copy()?);
            }
            for turn in 0..self.layers.len() {
                let layer = if index % 2 == 0 { turn } else { self.layers.len() - 1 - turn };
                ours[layer].push(self.ours(layer, pass, index)?);
            }
            if index % 2 == 0 {
                copies.push(self.copy()?);
            }
            tick();
        }
        let [ordinary, reproducible] = &ours;
        Ok(self.measured([ordinary, reproducible], &copies))
    }

    /// Measures every pass over the first set, in the order of [`Pass::ALL`]: forward and backward
    /// in turn, evaluation, and the copies after them. `tensors` counts the tensors that a pass
    /// moves, as for [`pass`](Self::pass).
    pub fn reused(
        &mut self,
        tensors: impl Fn(Pass) -> f64,
        tick: impl Fn(),
    ) -> Result<[Measured; 3], Box<dyn Error>> {
        // Of every layer, by pass.
        let mut ours = [const { [const { Vec::new() }; 3] }; 2];
        let layers = self.layers.len();
        for interleaved in [&[Pass::Forward, Pass::Backward][..], &[Pass::Eval]] {
            for index in 0..WARM_UP + self.repeats {
                for (layer, ours) in ours.iter_mut().take(layers).enumerate() {
                    for &pass in interleaved {
                        let times = self.ours(layer, pass, 0)?;
                        if index >= WARM_UP {
                            ours[pass as usize].push(times);
                        }
                    }
                }
                (0..interleaved.len()).filter(|_| index >= WARM_UP).for_each(|_| tick());
            }
        }
        let mut measured = Vec::new();
        let [ordinary, reproducible] = &ours;
        let of_passes = Pass::ALL.into_iter().zip(ordinary).zip(reproducible);
        for ((pass, ordinary), reproducible) in of_passes {
            self.copier.prepare(tensors(pass));
            self.copier.run()?;
            let copies = (0..self.repeats).map(|_| self.copy()).collect::<Result<Vec<_>, _>>()?;
            measured.push(self.measured([ordinary, reproducible], &copies));
        }
        measured.try_into().map_err(|_| "a pass has not been measured".into())
    }

    /// The summary of as many runs of every layer as copies.
    fn measured(&self, [ours, reproducible]: [&[Times]; 2], copies: &[Times]) -> Measured {
        // One clock for all: the devices' own only where the layer's passes are timed by it too.
        let by_device = ours.iter().all(|times| times.device.is_some());
        let clock = |times: &Times| times.device.filter(|_| by_device).unwrap_or(times.wall);
        let ratio =
            ours.iter().zip(copies).map(|(ours, copy)| clock(copy).div_duration_f64(clock(ours)));
        let beside = ours.iter().zip(reproducible);
        let to_ordinary = beside.map(|(ours, other)| clock(other).div_duration_f64(clock(ours)));
        let reproducible = (!reproducible.is_empty()).then(|| Reproducible {
            device: Samples::of(reproducible.iter().map(clock)),
            ratio: Samples::of_numbers(to_ordinary),
        });
        Measured {
            device: Samples::of(ours.iter().map(clock)),
            wall: Samples::of(ours.iter().map(|times| times.wall)),
            copy: Samples::of(copies.iter().map(clock)),
            ratio: Samples::of_numbers(ratio),
            copied_by: self.copier.method(),
            reproducible,
        }
    }

    /// Copies once.
    fn copy(&mut self) -> Result<Times, Box<dyn Error>> {
        self.machine.awake.wake()?;
        self.copier.run()
    }

    /// Runs a pass of a layer over a set, over another one than the other layer in this turn.
    fn ours(&mut self, layer: usize, pass: Pass, index: usize) -> Result<Times, Box<dyn Error>> {
        let place = (index + layer * self.sets.len().div_ceil(2)) % self.sets.len();
        self.machine.awake.wake()?;
        let started = Instant::now();
        self.layers[layer].submit(pass, &mut self.sets[place])?;
        self.layers[layer].wait()?;
        let wall = started.elapsed();
        Ok(Times { device: self.machine.device_time()?, wall })
    }
}
