//! x and g as functions of the index, written into buffers, and results read in samples.

use pollster::block_on;
use syncbn::{Device, Layout};

use super::common::Random;

/// Values made and sent at a time, each half by a thread of its own.
const CHUNK: usize = 16 << 20;
/// Values read at a time: enough for the alignment of a slice.
const SAMPLE: usize = 1024;

/// Factors of the noise of x and of g.
const OF_X: u64 = 0x9e37_79b9_7f4a_7c15;
const OF_G: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// A number in −1 … 1 of 24 bits that follows from an index alone, by multiplicative hashing: exact
/// in f32. Each odd factor has numbers of its own.
#[inline]
fn noise(index: usize, factor: u64) -> f64 {
    let mixed = (index as u64).wrapping_mul(factor).wrapping_add(factor >> 7);
    ((mixed >> 24) & 0xff_ffff) as f64 / 8_388_608.0 - 1.0
}

/// Two sums of a channel.
pub type Sums = [f64; 2];

#[inline]
fn add(to: &mut Sums, terms: Sums) {
    to[0] += terms[0];
    to[1] += terms[1];
}

/// A tensor's shape and layout, with its x and its upstream gradient.
pub struct Problem {
    pub dims: Vec<usize>,
    pub layout: Layout,
    pub channels: usize,
    inner: usize,
}

impl Problem {
    /// (N, C, L) in one of the layouts.
    pub fn new([batch, channels, inner]: [usize; 3], layout: Layout) -> Self {
        let dims = match layout {
            Layout::ChannelsFirst => vec![batch, channels, inner],
            Layout::ChannelsLast => vec![batch, inner, channels],
        };
        Self { dims, layout, channels, inner }
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn channel(&self, index: usize) -> usize {
        match self.layout {
            Layout::ChannelsFirst => index / self.inner % self.channels,
            Layout::ChannelsLast => index % self.channels,
        }
    }

    /// Writes values into a buffer. `value` gives one and its terms of two sums, by index and
    /// channel. Returns the sums of every channel.
    pub fn fill(
        &self,
        device: &Device,
        to: &wgpu::Buffer,
        value: impl Fn(usize, usize) -> (f32, Sums) + Sync,
    ) -> Vec<Sums> {
        let (_, queue) = device.wgpu().unwrap();
        let value = &value;
        let mut sums = vec![Sums::default(); self.channels];
        let mut values = vec![0f32; CHUNK.min(self.elements())];
        for start in (0..self.elements()).step_by(CHUNK) {
            let len = CHUNK.min(self.elements() - start);
            let values = &mut values[..len];
            let made = std::thread::scope(|scope| {
                let parts = (start..).step_by(CHUNK / 2).zip(values.chunks_mut(CHUNK / 2));
                let threads: Vec<_> = parts
                    .map(|(start, part)| scope.spawn(move || self.make(start, part, value)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            for of_thread in made {
                sums.iter_mut().zip(of_thread).for_each(|(sums, terms)| add(sums, terms));
            }
            queue.write_buffer(to, 4 * start as u64, bytemuck::cast_slice(values));
            queue.submit([]);
            block_on(device.wait()).unwrap();
        }
        sums
    }

    /// Makes the values from `start` on, and sums of every channel. The channel is carried along
    /// from value to value: to find it takes divisions, which last longer than all else here.
    fn make(
        &self,
        mut start: usize,
        values: &mut [f32],
        value: &impl Fn(usize, usize) -> (f32, Sums),
    ) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); self.channels];
        let mut channel = self.channel(start);
        let behind = |channel: usize| if channel + 1 == self.channels { 0 } else { channel + 1 };
        if self.layout == Layout::ChannelsLast {
            for (index, to) in (start..).zip(values) {
                let (made, terms) = value(index, channel);
                *to = made;
                add(&mut sums[channel], terms);
                channel = behind(channel);
            }
            return sums;
        }
        let mut rest = values;
        // The values may begin inside a run of one channel.
        let mut run = self.inner - start % self.inner;
        while !rest.is_empty() {
            run = run.min(rest.len());
            let (of_channel, next) = rest.split_at_mut(run);
            let mut sum = Sums::default();
            for (index, to) in (start..).zip(of_channel) {
                let (made, terms) = value(index, channel);
                *to = made;
                add(&mut sum, terms);
            }
            add(&mut sums[channel], sum);
            channel = behind(channel);
            start += run;
            run = self.inner;
            rest = next;
        }
        sums
    }

    /// x with a mean of its own per channel, in eighths: exact in f32 to 21 bits, which the test
    /// takes as x.
    #[inline]
    pub fn x(&self, index: usize, channel: usize) -> f32 {
        (noise(index, OF_X) + (channel % 64) as f64 / 8.0) as f32
    }

    /// g with a mean, and a part that follows x, so that no sum is near 0.
    #[inline]
    pub fn g(&self, index: usize) -> f32 {
        (noise(index, OF_G) + 0.25 + 0.5 * noise(index, OF_X)) as f32
    }

    /// Where results are looked at: first elements of samples.
    fn places(&self) -> Vec<usize> {
        let binding = (128 << 20) / 4;
        let last = (self.elements() - SAMPLE) / SAMPLE * SAMPLE;
        let edges = (0..=self.elements() / binding)
            .flat_map(|n| [(n * binding).saturating_sub(SAMPLE), n * binding]);
        let mut random = Random::new(9);
        let inside = std::iter::repeat_with(move || random.below(last / SAMPLE) * SAMPLE).take(64);
        edges.chain(inside).map(|at| at.min(last)).chain([last]).collect()
    }

    /// Checks samples of a result: `expected` gives the value at an index and how far off it may
    /// be.
    pub fn check(
        &self,
        device: &Device,
        found: &wgpu::Buffer,
        what: &str,
        expected: impl Fn(usize) -> (f64, f64),
    ) {
        for start in self.places() {
            let part = device.wrap(found.clone(), 4 * start as u64, &[1, SAMPLE]).unwrap();
            for (index, found) in (start..).zip(block_on(part.to_vec()).unwrap()) {
                let (expected, allowed) = expected(index);
                let error = (f64::from(found) - expected).abs();
                assert!(
                    error <= allowed,
                    "{what}[{index}] of {:?} is {found}, expected {expected} ± {allowed:e}",
                    self.dims
                );
            }
        }
    }
}
