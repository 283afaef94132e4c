//! Ranges of runs of one channel: the smallest and the largest value, in lanes side by side.

use pulp::Simd;

use super::registers::{Kernel, Registers, run};

/// Values side by side: one of the widest registers.
const LANES: usize = 16;
/// Registers whose values are compared with each other before they are with those of before.
const GROUP: usize = 4;

/// The smallest and the largest of many values, and the bits of the largest magnitude, by which
/// those that are not finite are known.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Extremes {
    low: [f32; LANES],
    high: [f32; LANES],
    bits: [u32; LANES],
}

/// Bits of infinity: those of a NaN are above.
const INFINITY_BITS: u32 = 0x7f80_0000;
/// Bits of a magnitude.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

impl Extremes {
    pub const NONE: Self =
        Self { low: [f32::INFINITY; LANES], high: [f32::NEG_INFINITY; LANES], bits: [0; LANES] };

    /// Takes in the first `n` values of x. With `SYMMETRIC` the largest magnitude alone counts. It
    /// is fastest where as many more follow as a register holds.
    #[inline(always)]
    pub fn add<S: Simd, const SYMMETRIC: bool>(&mut self, simd: S, x: &[f32], n: usize) {
        if let Err(AddRun { to, .. }) = run(simd, AddRun::<SYMMETRIC> { to: self, x, n }) {
            to.add_portably::<SYMMETRIC>(&x[..n]);
        }
    }

    /// The same by comparisons of values, which LLVM makes vector code of. A NaN changes the bits
    /// alone, which tell it.
    #[inline(always)]
    fn add_portably<const SYMMETRIC: bool>(&mut self, x: &[f32]) {
        let Self { mut low, mut high, mut bits } = self.clone();
        let (xs, rest) = x.as_chunks::<LANES>();
        for x in xs {
            for i in 0..LANES {
                take::<SYMMETRIC>(x[i], &mut low[i], &mut high[i], &mut bits[i]);
            }
        }
        for (i, x) in rest.iter().enumerate() {
            take::<SYMMETRIC>(*x, &mut low[i], &mut high[i], &mut bits[i]);
        }
        *self = Self { low, high, bits };
    }

    /// The ends over all lanes; NaN where a value is not finite.
    #[inline(always)]
    pub fn ends<const SYMMETRIC: bool>(&self) -> [f32; 2] {
        let bits = self.bits.iter().copied().fold(0, u32::max);
        let low = self.low.iter().copied().fold(f32::INFINITY, f32::min);
        let high = self.high.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        ends::<SYMMETRIC>(low, high, bits)
    }
}

/// Compares a value with those before.
#[inline(always)]
pub(super) fn take<const SYMMETRIC: bool>(x: f32, low: &mut f32, high: &mut f32, bits: &mut u32) {
    *bits = (*bits).max(x.to_bits() & MAGNITUDE);
    if !SYMMETRIC {
        *low = if x < *low { x } else { *low };
        *high = if x > *high { x } else { *high };
    }
}

/// The ends of a range; NaN where a value is not finite.
#[inline(always)]
pub(super) fn ends<const SYMMETRIC: bool>(low: f32, high: f32, bits: u32) -> [f32; 2] {
    let largest = f32::from_bits(bits);
    match (bits >= INFINITY_BITS, SYMMETRIC) {
        (true, _) => [f32::NAN; 2],
        (false, true) => [-largest, largest],
        (false, false) => [low, high],
    }
}

/// Takes in a run.
struct AddRun<'a, const SYMMETRIC: bool> {
    to: &'a mut Extremes,
    x: &'a [f32],
    n: usize,
}

impl<const SYMMETRIC: bool> Kernel for AddRun<'_, SYMMETRIC> {
    /// ```text
    /// for 64 values, four registers of AVX-512:
    ///     low = min(low, min of the four);  high = max(high, max of the four)
    ///     for each:  flag += x·0                              NaN if x is not finite
    /// ```
    ///
    /// 1. Three operations for a register of x: the flag takes one where bits take two. A range
    ///    that is symmetric has the bits alone, two operations.
    /// 2. The four of a group are compared with each other first, and have flags of their own, so
    ///    that no comparison waits for the one before.
    /// 3. min(x, low) is `low` where x is NaN, or NaN on Arm. The flag tells it either way.
    #[inline(always)]
    fn run<R: Registers>(self, registers: R) {
        let Self { to, x, n } = self;
        let mut state = State::<R, SYMMETRIC>::new(registers);
        let (groups, rest) = R::as_simd_f32s(&x[..n]).0.as_chunks::<GROUP>();
        for group in groups {
            state.take(*group);
        }
        for part in rest {
            state.take_one(*part);
        }
        let taken = n / R::F32_LANES * R::F32_LANES;
        if taken < n {
            let mut copy = [0.0; LANES];
            let last = if x.len() >= taken + R::F32_LANES {
                &x[taken..]
            } else {
                copy[..n - taken].copy_from_slice(&x[taken..n]);
                &copy
            };
            // Lanes behind the end repeat a value.
            let within = registers.within(n - taken);
            let value = registers.splat_f32s(last[0]);
            state.take_one(registers.select_f32s(within, R::as_simd_f32s(last).0[0], value));
        }
        state.store(to);
    }
}

/// The extremes of a run in registers.
struct State<R: Registers, const SYMMETRIC: bool> {
    registers: R,
    low: R::f32s,
    high: R::f32s,
    /// The largest bits of each, or flags.
    bits: [R::u32s; GROUP],
    flags: [R::f32s; GROUP],
}

impl<R: Registers, const SYMMETRIC: bool> State<R, SYMMETRIC> {
    #[inline(always)]
    fn new(registers: R) -> Self {
        Self {
            registers,
            low: registers.splat_f32s(f32::INFINITY),
            high: registers.splat_f32s(f32::NEG_INFINITY),
            bits: [registers.splat_u32s(0); GROUP],
            flags: [registers.splat_f32s(0.0); GROUP],
        }
    }

    #[inline(always)]
    fn take(&mut self, [a, b, c, d]: [R::f32s; GROUP]) {
        let of = self.registers;
        if !SYMMETRIC {
            let low = of.min_f32s(of.min_f32s(a, b), of.min_f32s(c, d));
            let high = of.max_f32s(of.max_f32s(a, b), of.max_f32s(c, d));
            self.low = of.min_f32s(low, self.low);
            self.high = of.max_f32s(high, self.high);
        }
        for (i, x) in [a, b, c, d].into_iter().enumerate() {
            self.flag(i, x);
        }
    }

    #[inline(always)]
    fn take_one(&mut self, x: R::f32s) {
        if !SYMMETRIC {
            self.low = self.registers.min_f32s(x, self.low);
            self.high = self.registers.max_f32s(x, self.high);
        }
        self.flag(0, x);
    }

    #[inline(always)]
    fn flag(&mut self, i: usize, x: R::f32s) {
        let of = self.registers;
        if SYMMETRIC {
            let magnitude = of.and_u32s(of.transmute_u32s_f32s(x), of.splat_u32s(MAGNITUDE));
            self.bits[i] = of.max_u32s(self.bits[i], magnitude);
        } else {
            self.flags[i] = of.fused(x, of.splat_f32s(0.0), self.flags[i]);
        }
    }

    /// Adds what the run has to what was before: lanes by lanes, the same for any width.
    #[inline(always)]
    fn store(self, to: &mut Extremes) {
        let of = self.registers;
        let [a, b, c, d] = self.flags;
        let flags = of.add_f32s(of.add_f32s(a, b), of.add_f32s(c, d));
        let [a, b, c, d] = self.bits;
        let bits = of.max_u32s(of.max_u32s(a, b), of.max_u32s(c, d));
        let flags = of.and_u32s(of.transmute_u32s_f32s(flags), of.splat_u32s(MAGNITUDE));
        let to_bits = &mut R::as_mut_simd_u32s(&mut to.bits).0[0];
        *to_bits = of.max_u32s(of.max_u32s(bits, flags), *to_bits);
        if !SYMMETRIC {
            let to_low = &mut R::as_mut_simd_f32s(&mut to.low).0[0];
            *to_low = of.min_f32s(self.low, *to_low);
            let to_high = &mut R::as_mut_simd_f32s(&mut to.high).0[0];
            *to_high = of.max_f32s(self.high, *to_high);
        }
    }
}
