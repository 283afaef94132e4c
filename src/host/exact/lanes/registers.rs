//! Sums of runs of one channel in registers.

use super::{DEPTH, LANES, Sums};
use crate::host::exact::registers::{Kernel, Registers};
use crate::host::exact::terms::{MOMENTS, RESTS};

/// Registers whose integers an i32 adds up: |Σ| ≤ 4·(2²⁹ − 32).
const GROUP: usize = 4;
/// Values of the largest group.
const GROUP_VALUES: usize = GROUP * LANES;
/// Groups after which `near` is settled. Then it is off by less than 2²⁷ in every lane.
const MOST_GROUPS: usize = 1024;
/// Values of a run that are added at once.
const RUN_VALUES: usize = 1024;

/// Sums that registers carry from one run to the next.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Waiting {
    /// The first sum modulo 2³².
    low: [i32; LANES],
    /// The first sum, rounded.
    near: [f32; LANES],
    second: [i64; LANES / 2],
    third: [i64; LANES / 2],
    /// Groups in `near`.
    groups: usize,
    /// Registers in `second`.
    registers: usize,
}

impl Waiting {
    pub const NONE: Self = Self {
        low: [0; LANES],
        near: [0.0; LANES],
        second: [0; LANES / 2],
        third: [0; LANES / 2],
        groups: 0,
        registers: 0,
    };
}

impl Sums {
    /// Adds what waits to the sums.
    ///
    /// The first sum over all lanes is known modulo 2³², and `near` tells the rest: n groups add
    /// n·(n + 3)·2⁶ of rounding to a lane at most, 16 lanes of 1024 groups less than 2³¹.
    #[inline(always)]
    pub(super) fn hand_over(&mut self) {
        let Waiting { low, near, .. } = &self.waiting;
        let low = low.iter().fold(0i32, |sum, lane| sum.wrapping_add(*lane));
        let near: f64 = near.iter().map(|lane| f64::from(*lane)).sum();
        let low = i64::from(low);
        let turns =
            ((near - low as f64) / f64::from(1 << 16) / f64::from(1 << 16)).round_ties_even();
        self.first[0] += low.wrapping_add((turns as i64) << 32);
        for (i, second) in self.waiting.second.into_iter().enumerate() {
            self.low[i] += second & 0xffff_ffff;
            self.high[i] += second >> 32;
            self.third[i] = self.third[i].wrapping_add(self.waiting.third[i]);
        }
        self.waiting = Waiting::NONE;
    }
}

/// Adds a run to the sums of its channel.
pub(super) struct AddRun<'a, const OP: u8> {
    pub sums: &'a mut Sums,
    pub x: &'a [f32],
    pub g: &'a [f32],
    /// Values of the run. More may follow.
    pub n: usize,
    pub grids: [[f32; 2]; 2],
}

impl<const OP: u8> Kernel for AddRun<'_, OP> {
    #[inline(always)]
    fn run<R: Registers>(self, registers: R) {
        let Self { sums, mut x, mut g, mut n, grids } = self;
        let run = Run::<R, OP>::new(registers, grids);
        while n > RUN_VALUES {
            run.add(sums, x, g, RUN_VALUES);
            x = &x[RUN_VALUES..];
            g = &g[RUN_VALUES..];
            n -= RUN_VALUES;
        }
        run.add(sums, x, g, n);
    }
}

/// The constants of a run in registers.
#[derive(Clone, Copy)]
struct Run<R: Registers, const OP: u8> {
    registers: R,
    of_x: [R::f32s; 2],
    of_g: R::f32s,
}

/// The integers of a register of values.
struct Integers<R: Registers> {
    first: R::i32s,
    second: R::i64s,
    third: R::i64s,
}

impl<R: Registers, const OP: u8> Run<R, OP> {
    /// Values of a group.
    const GROUP_VALUES: usize = GROUP * R::F32_LANES;

    #[inline(always)]
    fn new(registers: R, [[scale, offset], [of_g, _]]: [[f32; 2]; 2]) -> Self {
        let of_x = [registers.splat_f32s(scale), registers.splat_f32s(offset)];
        Self { registers, of_x, of_g: registers.splat_f32s(of_g) }
    }

    /// Adds the integers of at most [`RUN_VALUES`].
    ///
    /// ```text
    /// for four registers, 64 values of AVX-512:
    ///     if 8 products more would not fit:  low += second mod 2³²;  high += second / 2³²
    ///     for each register:
    ///         t = x·scale + offset;  q = round(t)
    ///         group += q;            second += q·q (or q·w), even lanes, then odd ones
    ///     waiting += group, modulo 2³²;  near += f32(group)
    /// ```
    ///
    /// 1. Nine operations for a register, and none waits for the one before: additions to a sum of
    ///    integers take a cycle.
    /// 2. The first sum has 32 bits, and a f32 sum beside it says how often it wrapped. Integers of
    ///    64 bits would add the even and odd lanes of every group separately.
    /// 3. Lanes behind the end of a run have the integer 0. They read the values that follow, or a
    ///    copy where none follow.
    #[inline(always)]
    fn add(self, sums: &mut Sums, x: &[f32], g: &[f32], n: usize) {
        let registers = self.registers;
        let groups = n.div_ceil(Self::GROUP_VALUES);
        if sums.waiting.groups + groups > MOST_GROUPS {
            sums.hand_over();
        }
        sums.waiting.groups += groups;
        let mut state = State::<R>::load(&sums.waiting);
        let mut taken = sums.waiting.registers;
        let xs = R::as_simd_f32s(&x[..n]).0.as_chunks::<GROUP>().0;
        let gs = R::as_simd_f32s(&g[..n]).0.as_chunks::<GROUP>().0;
        for (x, g) in xs.iter().zip(gs) {
            if taken + GROUP > DEPTH {
                state.fold(registers, &mut sums.low, &mut sums.high);
                taken = 0;
            }
            taken += GROUP;
            let mut group = registers.splat_i32s(0);
            for i in 0..GROUP {
                let of = self.integers(x[i], g[i], None);
                group = registers.add_i32s(group, of.first);
                state.take::<OP>(registers, of);
            }
            state.take_group(registers, group);
        }
        let summed = n / Self::GROUP_VALUES * Self::GROUP_VALUES;
        if summed < n {
            if taken + GROUP > DEPTH {
                state.fold(registers, &mut sums.low, &mut sums.high);
                taken = 0;
            }
            taken += GROUP;
            self.add_rest(&mut state, &x[summed..], &g[summed..], n - summed);
        }
        sums.waiting.registers = taken;
        state.store::<OP>(&mut sums.waiting);
    }

    /// Adds less than a group.
    #[inline(always)]
    fn add_rest(self, state: &mut State<R>, x: &[f32], g: &[f32], n: usize) {
        let registers = self.registers;
        let mut copies;
        let [x, g] = if x.len().min(g.len()) >= n.next_multiple_of(R::F32_LANES) {
            [x, g]
        } else {
            copies = [[0.0; GROUP_VALUES]; 2];
            copies[0][..n].copy_from_slice(&x[..n]);
            copies[1][..n].copy_from_slice(&g[..n]);
            [&copies[0][..], &copies[1][..]]
        };
        let xs = R::as_simd_f32s(x).0;
        let gs = R::as_simd_f32s(g).0;
        let mut group = registers.splat_i32s(0);
        for i in 0..GROUP {
            let start = i * R::F32_LANES;
            if start < n {
                let of = self.integers(xs[i], gs[i], Some(registers.within(n - start)));
                group = registers.add_i32s(group, of.first);
                state.take::<OP>(registers, of);
            }
        }
        state.take_group(registers, group);
    }

    /// The integers of a register, or of its lanes `within`.
    #[inline(always)]
    fn integers(self, x: R::f32s, g: R::f32s, within: Option<R::m32s>) -> Integers<R> {
        let registers = self.registers;
        let kept = |integers: R::i32s| match within {
            Some(within) => registers.select_i32s(within, integers, registers.splat_i32s(0)),
            None => integers,
        };
        let t = registers.fused(x, self.of_x[0], self.of_x[1]);
        let q = kept(registers.rounded(t));
        let zero = registers.splat_i64s(0);
        match OP {
            MOMENTS => Integers { first: q, second: self.product(q, q), third: zero },
            RESTS => {
                // Exact: t has 24 digits, and the nearest integer is next to it.
                let taken = registers.sub_f32s(t, registers.near(q));
                let finer = registers.splat_f32s((1 << 24) as f32);
                let r = kept(registers.rounded(registers.mul_f32s(taken, finer)));
                Integers { first: r, second: self.product(q, r), third: self.product(r, r) }
            }
            _ => {
                let w = kept(registers.rounded(registers.mul_f32s(g, self.of_g)));
                Integers { first: w, second: self.product(q, w), third: zero }
            }
        }
    }

    /// a·b + a·b of every two lanes.
    #[inline(always)]
    fn product(self, a: R::i32s, b: R::i32s) -> R::i64s {
        let [half, other] = self.registers.products(a, b);
        self.registers.add_i64s(half, other)
    }
}

/// [`Waiting`] in a register each.
struct State<R: Registers> {
    low: R::i32s,
    near: R::f32s,
    second: R::i64s,
    third: R::i64s,
}

impl<R: Registers> State<R> {
    #[inline(always)]
    fn load(waiting: &Waiting) -> Self {
        Self {
            low: R::as_simd_i32s(&waiting.low).0[0],
            near: R::as_simd_f32s(&waiting.near).0[0],
            second: R::as_simd_i64s(&waiting.second).0[0],
            third: R::as_simd_i64s(&waiting.third).0[0],
        }
    }

    #[inline(always)]
    fn store<const OP: u8>(&self, waiting: &mut Waiting) {
        R::as_mut_simd_i32s(&mut waiting.low).0[0] = self.low;
        R::as_mut_simd_f32s(&mut waiting.near).0[0] = self.near;
        R::as_mut_simd_i64s(&mut waiting.second).0[0] = self.second;
        if OP == RESTS {
            R::as_mut_simd_i64s(&mut waiting.third).0[0] = self.third;
        }
    }

    #[inline(always)]
    fn take<const OP: u8>(&mut self, registers: R, of: Integers<R>) {
        self.second = registers.add_i64s(self.second, of.second);
        if OP == RESTS {
            self.third = registers.add_i64s(self.third, of.third);
        }
    }

    #[inline(always)]
    fn take_group(&mut self, registers: R, group: R::i32s) {
        self.low = registers.add_i32s(self.low, group);
        self.near = registers.add_f32s(self.near, registers.near(group));
    }

    /// Adds `second` to the sums of both halves of it.
    #[inline(always)]
    fn fold(&mut self, registers: R, low: &mut [i64; LANES], high: &mut [i64; LANES]) {
        let low = &mut R::as_mut_simd_i64s(low).0[0];
        let high = &mut R::as_mut_simd_i64s(high).0[0];
        let lower = registers.and_i64s(self.second, registers.splat_i64s(0xffff_ffff));
        *low = registers.add_i64s(*low, lower);
        *high = registers.add_i64s(*high, registers.high(self.second));
        self.second = registers.splat_i64s(0);
    }
}
