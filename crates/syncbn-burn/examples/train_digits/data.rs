//! The digits: 1,797 pictures of 8×8 pixels, a fifth of them kept for testing.

use std::io::Read;

use burn::tensor::{Device, Tensor, TensorData};
use flate2::read::GzDecoder;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::Failure;

const DIGITS: &[u8] = include_bytes!("../../data/digits.csv.gz");
/// Pixels of a picture, 8×8.
const PIXELS: usize = 64;
/// The darkest pixel.
const DARKEST: f32 = 16.0;
pub const CLASSES: usize = 10;

/// Pictures with their labels.
#[derive(Clone, Default)]
pub struct Digits {
    /// From 0 to 1, row by row.
    pixels: Vec<[f32; PIXELS]>,
    pub labels: Vec<usize>,
}

impl Digits {
    /// All of them, the same four fifths for training and fifth for testing in every run.
    pub fn load() -> Result<[Self; 2], Failure> {
        let mut text = String::new();
        GzDecoder::new(DIGITS).read_to_string(&mut text)?;
        let mut parts = [Self::default(), Self::default()];
        for (row, line) in text.lines().enumerate() {
            let values = line.split(',').map(str::parse).collect::<Result<Vec<f32>, _>>()?;
            let (&label, pixels) = values.split_last().ok_or("an empty row")?;
            let pixels: &[f32; PIXELS] = pixels.try_into()?;
            let part = &mut parts[usize::from(row % 5 == 4)];
            part.pixels.push(pixels.map(|pixel| pixel / DARKEST));
            part.labels.push(label as usize);
        }
        Ok(parts)
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Some of them as (N, 1, 8, 8), with their labels as 1 among zeros, (N, 10).
    pub fn batch(&self, indices: &[usize], device: &Device) -> (Tensor<4>, Tensor<2>) {
        let pixels: Vec<f32> = indices.iter().flat_map(|&index| self.pixels[index]).collect();
        let label =
            |index: usize| (0..CLASSES).map(move |class| f32::from(u8::from(class == index)));
        let labels: Vec<f32> =
            indices.iter().flat_map(|&index| label(self.labels[index])).collect();
        let pixels = Tensor::from_data(TensorData::new(pixels, [indices.len(), 1, 8, 8]), device);
        (pixels, Tensor::from_data(TensorData::new(labels, [indices.len(), CLASSES]), device))
    }
}

/// The order of training: batches of indices, shuffled anew for each epoch. What does not fill a
/// batch is left out.
pub fn schedule(samples: usize, batch: usize, epochs: usize, seed: u64) -> Vec<Vec<Vec<usize>>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..samples).collect();
    let mut epoch = || {
        order.shuffle(&mut random);
        order.chunks_exact(batch).map(<[usize]>::to_vec).collect()
    };
    (0..epochs).map(|_| epoch()).collect()
}
