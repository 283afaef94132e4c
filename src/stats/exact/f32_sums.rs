//! Exact sums of f32. They are rounded only at the end, so order has no effect.
//!
//! Every f32 is an integer of 24 bits times 2^(s − 149). A sum is such an integer of 320 bits, in
//! ten parts of 32 bits with delayed carries (Kulisch's long accumulator).

use crate::error::ArgumentError;

/// Parts of a sum: the largest f32 has bits up to 277, and 2⁴² of them up to 319.
const PARTS: usize = 10;
/// Additions before carries are settled. Each changes a part by less than 2³².
const MOST_WAITING: u32 = 1 << 30;

const NAN: u8 = 1;
const INFINITE: u8 = 2;
const MINUS_INFINITE: u8 = 4;

/// One sum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sum {
    parts: [i64; PARTS],
    /// Kinds of values that were not finite, as bits.
    special: u8,
}

/// Exact sums of f32, for every element of a vector, independent of order. An example are gradients
/// of samples, which [`ProcessGroup::all_reduce_exact`](crate::ProcessGroup::all_reduce_exact) adds
/// up over ranks. Each sum is rounded once, when it is read.
///
/// They take 80 bytes for each element, and about five times the time of f32 additions.
///
/// ```
/// use syncbn::stats::ExactSums;
///
/// let mut sums = ExactSums::new(1);
/// for value in [1e30f32, 1.0, -1e30, 2f32.powi(-40)] {
///     sums.add(&[value])?;
/// }
/// assert_eq!(sums.to_f32(), [1.0 + 2f32.powi(-40)]);
/// # Ok::<(), syncbn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ExactSums {
    sums: Vec<Sum>,
    waiting: u32,
}

impl Sum {
    const ZERO: Self = Self { parts: [0; PARTS], special: 0 };

    fn add(&mut self, value: f32) {
        let bits = value.to_bits();
        let exponent = bits >> 23 & 0xff;
        let digits = bits & 0x7f_ffff;
        if exponent == 0xff {
            self.special |= match (digits, bits >> 31) {
                (0, 0) => INFINITE,
                (0, _) => MINUS_INFINITE,
                _ => NAN,
            };
            return;
        }
        // Subnormal numbers have the exponent of the smallest normal ones, and no hidden digit.
        let shift = exponent.saturating_sub(1) as usize;
        let digits = i64::from(if exponent == 0 { digits } else { digits | 1 << 23 });
        let moved = digits << (shift % 32);
        let sign = if bits >> 31 == 0 { 1 } else { -1 };
        self.parts[shift / 32] += sign * (moved & 0xffff_ffff);
        self.parts[shift / 32 + 1] += sign * (moved >> 32);
    }

    /// Carries the bits beyond 32 of each part but the last.
    fn settle(&mut self) {
        let mut carry = 0;
        for part in &mut self.parts[..PARTS - 1] {
            let all = *part + carry;
            *part = all & 0xffff_ffff;
            carry = all >> 32;
        }
        self.parts[PARTS - 1] = self.parts[PARTS - 1].wrapping_add(carry);
    }

    /// The nearest f32, ties to even.
    fn rounded(mut self) -> f32 {
        match self.special {
            0 => {}
            INFINITE => return f32::INFINITY,
            MINUS_INFINITE => return f32::NEG_INFINITY,
            _ => return f32::NAN,
        }
        self.settle();
        let is_negative = self.parts[PARTS - 1] < 0;
        if is_negative {
            self.parts.iter_mut().for_each(|part| *part = -*part);
            self.settle();
        }
        let Some(top) = (0..PARTS).rev().find(|&part| self.parts[part] != 0) else { return 0.0 };
        let highest = 32 * top as u32 + self.parts[top].ilog2();
        // The lowest of 24 digits, or the lowest digit of all.
        let lowest = highest.saturating_sub(23);
        let bit = |at: u32| self.parts[(at / 32) as usize] >> (at % 32) & 1;
        let kept = (lowest..=highest).rev().fold(0u64, |kept, at| kept << 1 | bit(at) as u64);
        let is_half = lowest > 0 && bit(lowest - 1) == 1;
        let is_more = is_half && (0..lowest - 1).any(|at| bit(at) == 1);
        let kept = kept + u64::from(is_half && (is_more || kept & 1 == 1));
        // Exact, or beyond the range: 24 digits times a power of two.
        let magnitude = kept as f64 * super::wide::power(lowest as i32 - 149);
        let magnitude = magnitude as f32;
        if is_negative { -magnitude } else { magnitude }
    }
}

impl ExactSums {
    /// Sums of no value, for vectors of this length.
    pub fn new(len: usize) -> Self {
        Self { sums: vec![Sum::ZERO; len], waiting: 0 }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Adds a vector, element by element.
    ///
    /// # Errors
    /// [`ArgumentError::Length`] for another length. Nothing is added then.
    pub fn add(&mut self, values: &[f32]) -> Result<(), crate::Error> {
        self.check(values.len())?;
        self.sums.iter_mut().zip(values).for_each(|(sum, &value)| sum.add(value));
        self.wait(1);
        Ok(())
    }

    /// Adds other sums, element by element.
    ///
    /// # Errors
    /// [`ArgumentError::Length`] for another length. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), crate::Error> {
        self.check(other.len())?;
        for (sum, other) in self.sums.iter_mut().zip(&other.sums) {
            let mut other = *other;
            other.settle();
            sum.special |= other.special;
            let pairs = sum.parts.iter_mut().zip(other.parts);
            pairs.for_each(|(part, other)| *part = part.wrapping_add(other));
        }
        self.wait(1);
        Ok(())
    }

    /// The sums, each rounded once to the nearest f32, ties to even. Infinities of both signs, and
    /// a NaN, give NaN.
    pub fn to_f32(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| sum.rounded()).collect()
    }

    fn check(&self, found: usize) -> Result<(), ArgumentError> {
        let [found, expected] = [found as u64, self.len() as u64];
        let argument = "values";
        if found == expected {
            Ok(())
        } else {
            Err(ArgumentError::Length { argument, found, expected })
        }
    }

    fn wait(&mut self, additions: u32) {
        self.waiting += additions;
        if self.waiting >= MOST_WAITING {
            self.sums.iter_mut().for_each(Sum::settle);
            self.waiting = 0;
        }
    }

    /// The sums as bytes. Each has the kinds of values that were not finite, the index of the first
    /// part that is not 0, the number of parts, and these parts, the last one with its sign.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * 16);
        for sum in &self.sums {
            let mut sum = *sum;
            sum.settle();
            let first = sum.parts.iter().position(|&part| part != 0).unwrap_or(PARTS);
            let last = sum.parts[PARTS - 1];
            // Above the highest digit all parts repeat the sign, which the last one sent holds.
            let mut end = PARTS;
            if last == 0 || last == -1 {
                let repeated = last as u32;
                while end > first + 1
                    && sum.parts[end - 1] as u32 == repeated
                    && (sum.parts[end - 2] as u32 >> 31 == 1) == (repeated != 0)
                {
                    end -= 1;
                }
            }
            let end = end.max(first);
            out.extend([sum.special, first as u8, (end - first) as u8]);
            sum.parts[first..end].iter().for_each(|part| out.extend((*part as u32).to_le_bytes()));
        }
        out
    }

    /// Reads sums of `len` elements from any bytes.
    pub(crate) fn decode(len: usize, bytes: &[u8]) -> Result<Self, String> {
        let refuse = || format!("it does not carry {len} exact sum(s)");
        let mut rest = bytes;
        let mut sums = Vec::new();
        while let Some((&[special, first, count], after)) = rest.split_first_chunk() {
            let [first, count] = [first, count].map(usize::from);
            if sums.len() == len || first + count > PARTS || after.len() < 4 * count {
                return Err(refuse());
            }
            let (parts, after) = after.split_at(4 * count);
            rest = after;
            let mut sum = Sum { special, ..Sum::ZERO };
            let words = parts.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
            sum.parts[first..].iter_mut().zip(words).for_each(|(part, word)| *part = word.into());
            let is_negative = count > 0 && sum.parts[first + count - 1] >> 31 == 1;
            if is_negative {
                sum.parts[first + count..].fill(0xffff_ffff);
                sum.parts[PARTS - 1] |= !0xffff_ffff;
            }
            sums.push(sum);
        }
        if sums.len() == len && rest.is_empty() {
            Ok(Self { sums, waiting: 1 })
        } else {
            Err(refuse())
        }
    }
}

#[cfg(test)]
mod tests;
