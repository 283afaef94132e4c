//! The parameters of each channel as SIMD kernels read them: one register for a whole run of
//! values, or a parameter beside each value.
//!
//! Owns the walk through a block by runs of one channel, so that one kernel serves every layout. It
//! does not know what the parameters mean: `apply` has affine and gradient coefficients.

use std::ops::Range;

use pulp::Simd;

use super::block_io::{BLOCK, SLACK};
use super::traversal::Traversal;

/// Columns up to which rows of short runs are laid out as a whole: 64 KB of each parameter.
const MOST_COLUMNS: usize = 16 << 10;

/// `K` parameters per channel of an activation.
#[derive(Debug)]
pub(super) struct ChannelParams<'a, const K: usize> {
    of_channel: &'a [[f32; K]],
    /// The first of these channels.
    first: usize,
    /// Channels of the activation.
    channels: usize,
    /// Values of a channel that follow each other.
    len: usize,
    /// Where rows repeat: each parameter by column, and as many beyond the end as a block may
    /// reach, as at the beginning.
    columns: Option<[Vec<f32>; K]>,
}

/// The parameters of neighbouring values, register by register.
pub(super) trait LaneParams<S: Simd, const K: usize>: Copy {
    /// Those of so many registers.
    fn cut(self, count: usize) -> Self;
    fn register(&self, i: usize) -> [S::f32s; K];
    /// Of one value.
    fn value(&self, i: usize) -> [f32; K];
}

/// The work on the values of a block. `part` is called from left to right, for neighbouring values
/// that have [`LaneParams`] of one kind. It may write up to [`SLACK`] values behind them, because
/// the next call computes those again.
pub(super) trait Pass<S: Simd, const K: usize> {
    fn part(&mut self, values: Range<usize>, params: impl LaneParams<S, K>);
}

/// The same parameters for every value: a run of one channel.
#[derive(Clone, Copy)]
struct Constant<S: Simd, const K: usize> {
    registers: [S::f32s; K],
    values: [f32; K],
}

impl<S: Simd, const K: usize> LaneParams<S, K> for Constant<S, K> {
    #[inline(always)]
    fn cut(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn register(&self, _: usize) -> [S::f32s; K] {
        self.registers
    }

    #[inline(always)]
    fn value(&self, _: usize) -> [f32; K] {
        self.values
    }
}

/// Parameters of its own for every value: rows in which each column is of another channel.
struct PerValue<'c, S: Simd, const K: usize> {
    registers: [&'c [S::f32s]; K],
    values: [&'c [f32]; K],
}

impl<S: Simd, const K: usize> Clone for PerValue<'_, S, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd, const K: usize> Copy for PerValue<'_, S, K> {}

impl<S: Simd, const K: usize> LaneParams<S, K> for PerValue<'_, S, K> {
    #[inline(always)]
    fn cut(mut self, count: usize) -> Self {
        for registers in &mut self.registers {
            *registers = &registers[..count];
        }
        self
    }

    #[inline(always)]
    fn register(&self, i: usize) -> [S::f32s; K] {
        // Loops and not closures here: only what is inlined is compiled for the processor's
        // instructions.
        let mut params = [self.registers[0][i]; K];
        for (param, registers) in params.iter_mut().zip(self.registers) {
            *param = registers[i];
        }
        params
    }

    #[inline(always)]
    fn value(&self, i: usize) -> [f32; K] {
        self.values.map(|values| values[i])
    }
}

impl<'a, const K: usize> ChannelParams<'a, K> {
    /// The parameters of all channels of an activation.
    pub fn new(traversal: Traversal<'_>, of_channel: &'a [[f32; K]]) -> Self {
        let channels = of_channel.len();
        let len = match traversal {
            Traversal::Planes(planes) => planes.len,
            Traversal::Columns(columns) => columns.repeat,
        };
        let is_laid_out = match traversal {
            Traversal::Planes(_) => false,
            Traversal::Columns(columns) => columns.repeat == 1 || channels * len <= MOST_COLUMNS,
        };
        let columns = is_laid_out.then(|| {
            std::array::from_fn(|k| by_column(of_channel.iter().map(|params| params[k]), len))
        });
        Self { of_channel, first: 0, channels, len, columns }
    }

    /// The parameters of some neighbouring channels, `first` and on, of an activation of planes.
    pub fn of_planes(
        channels: usize,
        len: usize,
        first: usize,
        of_channel: &'a [[f32; K]],
    ) -> Self {
        Self { of_channel, first, channels, len, columns: None }
    }

    /// Goes through the `n` ≤ [`BLOCK`] values from address `at` on.
    ///
    /// ```text
    /// if the parameters are laid out by column:
    ///     one part: all of the block, with the parameters beside its values
    /// else for run of one channel in the block:
    ///     one part: the run, with the channel's parameters in registers
    /// ```
    ///
    /// 1. In registers, parameters cost nothing per value. Runs of planes are 32 values and more.
    /// 2. By column they cost a load each, from a first or second cache: a whole row of parameters
    ///    is laid out once per call, and rows share it.
    /// 3. `part` gets a type for each case, so that LLVM compiles its loop twice, without a choice
    ///    per value in either.
    #[inline(always)]
    pub fn each<S: Simd>(&self, simd: S, at: usize, n: usize, pass: &mut impl Pass<S, K>) {
        if let Some(columns) = &self.columns {
            let column = at % (self.channels * self.len);
            let mut values: [&[f32]; K] = [&[]; K];
            let mut registers: [&[S::f32s]; K] = [&[]; K];
            for ((values, registers), columns) in values.iter_mut().zip(&mut registers).zip(columns)
            {
                *values = &columns[column..];
                *registers = S::as_simd_f32s(values).0;
            }
            return pass.part(0..n, PerValue { registers, values });
        }
        let row = at / self.len;
        let mut channel = row % self.channels;
        let mut start = 0;
        let mut end = (row + 1) * self.len - at;
        while start < n {
            let values = self.of_channel[channel - self.first];
            let mut registers = [simd.splat_f32s(values[0]); K];
            for (register, value) in registers.iter_mut().zip(values) {
                *register = simd.splat_f32s(value);
            }
            pass.part(start..end.min(n), Constant { registers, values });
            channel = if channel + 1 == self.channels { 0 } else { channel + 1 };
            start = end;
            end += self.len;
        }
    }
}

/// A parameter for each of `len` columns per channel, from the left again behind the end.
fn by_column(of_channel: impl ExactSizeIterator<Item = f32>, len: usize) -> Vec<f32> {
    let width = of_channel.len() * len;
    let all = width + BLOCK + SLACK;
    let mut columns = Vec::with_capacity(all);
    repeat_each(of_channel, len, &mut columns);
    while columns.len() < all {
        // Whole rows have been laid out so far.
        columns.extend_from_within(..columns.len().min(all - columns.len()));
    }
    columns
}

/// Each parameter so many times, one after the other.
pub(super) fn repeat_each(params: impl Iterator<Item = f32>, times: usize, to: &mut Vec<f32>) {
    if times == 1 {
        return to.extend(params);
    }
    for param in params {
        to.extend(std::iter::repeat_n(param, times));
    }
}
