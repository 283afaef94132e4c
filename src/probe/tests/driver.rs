//! A sound driver, or one with one fault, and its answers.

use half::f16;

use super::super::subgroups::WORKGROUPS;
use super::super::{Answer, Question};

/// A device that follows the source of the kernels, except for the faults that are set.
#[derive(Clone, Copy, Default)]
pub struct Driver {
    pub subgroup_size: Option<u32>,
    pub contracts: bool,
    /// By pass: forward, backward.
    pub contracts_settled: [bool; 2],
    pub reassociates: bool,
    pub flushes: bool,
    pub misses_nan: bool,
    pub flushes_f16: bool,
    pub loses_payload: bool,
    pub truncates_f16: bool,
}

impl Driver {
    pub fn answers(&self) -> Vec<(Question, Answer)> {
        Question::ALL.into_iter().map(|question| (question, Ok(self.answer(question)))).collect()
    }

    pub fn answer(&self, question: Question) -> Vec<u32> {
        match question {
            Question::Subgroups => subgroups(self.subgroup_size.unwrap_or(8), |number| number),
            Question::NativeF16 => self.halves(),
            Question::Rounding => self.rounded(),
            Question::Forward => {
                self.each_value(|_, v| vec![if v > 0.0 { v } else { 0.25 * v }], 0)
            }
            Question::Backward => {
                self.each_value(|g, v| vec![if v > 0.0 { g } else { 0.25 * g }, 0.0], 1)
            }
            Question::Arithmetic => self.arithmetic(),
        }
    }

    pub fn halves(&self) -> Vec<u32> {
        let read = |half: u32| {
            let half = f16::from_bits(half as u16);
            let is_subnormal = half != f16::ZERO && half.is_finite() && !half.is_normal();
            if self.flushes_f16 && is_subnormal {
                return 0;
            }
            if self.loses_payload && half.is_nan() {
                return 0x7fff_ffff;
            }
            half.to_f32().to_bits()
        };
        let [words, ..] = Question::NativeF16.inputs();
        words
            .iter()
            .flat_map(|word| [word & 0xffff, word >> 16])
            .flat_map(|half| [read(half); 2])
            .collect()
    }

    pub fn rounded(&self) -> Vec<u32> {
        let round = |word: u32| {
            let value = f32::from_bits(word);
            let half = f16::from_f32(value);
            let is_beyond = half.to_f32().abs() > value.abs();
            u32::from(half.to_bits()) - u32::from(self.truncates_f16 && is_beyond)
        };
        let [exact, halfway, ..] = Question::Rounding.inputs();
        let pairs = exact.iter().zip(&halfway);
        pairs
            .flat_map(|(&exact, &tie)| [[exact, tie], [tie - 1, tie + 1]])
            .map(|[low, high]| round(low) | (round(high) << 16))
            .collect()
    }

    fn each_value(&self, write: impl Fn(f32, f32) -> Vec<f32>, pass: usize) -> Vec<u32> {
        let [centering, values, weight, bias] = Question::Forward.inputs().map(floats);
        let mut answer = Vec::new();
        for (channel, values) in values.chunks_exact(12).enumerate() {
            let [pivot, rest, inv_std, unit] =
                [0, 1, 2, 3].map(|index| centering[4 * channel + index]);
            let scale = inv_std * weight[channel];
            let shift = -rest * scale + bias[channel];
            for value in values.chunks_exact(3) {
                let from_pivot = value[0] * unit - pivot;
                let affine = match self.contracts_settled[pass] {
                    true => from_pivot.mul_add(scale, shift),
                    false => from_pivot * scale + shift,
                };
                answer.extend(write(value[2], affine + value[1]).into_iter().map(f32::to_bits));
            }
        }
        answer
    }

    pub fn arithmetic(&self) -> Vec<u32> {
        let [products, values, ..] = Question::Arithmetic.inputs().map(floats);
        let flushed = |value: f32| if self.flushes { 0.0 } else { value };
        let words =
            products.chunks_exact(4).zip(values.chunks_exact(4)).flat_map(|(product, value)| {
                let contracted = |is: bool| {
                    if is {
                        product[0].mul_add(product[1], product[2])
                    } else {
                        product[0] * product[1] + product[2]
                    }
                };
                let regrouped =
                    if self.reassociates { -value[1] } else { value[0] - (value[0] + value[1]) };
                let floats = [
                    contracted(self.contracts),
                    regrouped,
                    contracted(self.contracts_settled[0]),
                    0.0,
                ];
                let small = [flushed(value[2] * 0.5), flushed(product[3] + product[3])];
                let mut words: Vec<u32> =
                    floats.into_iter().chain(small).map(f32::to_bits).collect();
                words.push(u32::from(!self.misses_nan));
                words
            });
        words.collect()
    }
}

fn floats(words: Vec<u32>) -> Vec<f32> {
    words.into_iter().map(f32::from_bits).collect()
}

/// Answers of workgroups cut into subgroups of a size, in which the invocation of a number has the
/// local index that `index_of` says.
pub fn subgroups(size: u32, index_of: impl Fn(u32) -> u32) -> Vec<u32> {
    let mut workgroup = vec![[0; 16]; 256];
    for number in 0..256 {
        let index = index_of(number);
        let exchanged =
            [1, 2, 3].map(|distance| [0, 256, 512, 768].map(|step| (number ^ distance) + step));
        let own = [number, size, number % size, index];
        let words: Vec<u32> = own.into_iter().chain(exchanged.into_iter().flatten()).collect();
        workgroup[index as usize].copy_from_slice(&words);
    }
    vec![workgroup; WORKGROUPS].into_iter().flatten().flatten().collect()
}
