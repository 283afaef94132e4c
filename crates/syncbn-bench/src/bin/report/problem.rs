//! Owns the problem for a layer: the values of every rank and the settings of the layer, and
//! smaller parts of both.

use serde::Serialize;
use syncbn::{DType, Layout, low_level::Epilogue};

use syncbn_bench::inputs::Form;
use syncbn_bench::names::{DTYPES, LAYOUTS, name_of};

/// One forward and one backward call of a layer over all ranks.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(serialize_with = "named_dtype")]
    pub dtype: DType,
    #[serde(serialize_with = "named_layout")]
    pub layout: Layout,
    #[serde(serialize_with = "named_epilogue")]
    pub epilogue: Epilogue,
    pub eps: f64,
    /// (C).
    pub weight: Vec<f32>,
    /// (C).
    pub bias: Vec<f32>,
    pub ranks: Vec<Shard>,
}

/// Values of one rank, channels first in every layout. All values are numbers of the storage type.
#[derive(Clone, Debug, Serialize)]
pub struct Shard {
    /// (N, C, L).
    pub dims: [usize; 3],
    pub x: Vec<f32>,
    pub grad_output: Vec<f32>,
    /// Where the epilogue adds one.
    pub residual: Option<Vec<f32>>,
}

impl Problem {
    /// C.
    pub fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Values of x on all ranks.
    pub fn values(&self) -> usize {
        self.ranks.iter().map(|shard| shard.x.len()).sum()
    }

    /// As the bench tool names it.
    pub fn form(&self) -> Form {
        Form { dtype: self.dtype, layout: self.layout, epilogue: self.epilogue, mask: false }
    }

    /// With some of the channels alone.
    pub fn with_channels(&self, channels: &[usize]) -> Self {
        let of = |values: &[f32]| channels.iter().map(|&channel| values[channel]).collect();
        let shard = |shard: &Shard| {
            let [samples, _, positions] = shard.dims.map(|size| (0..size).collect::<Vec<_>>());
            shard.select(&samples, channels, &positions)
        };
        let ranks = self.ranks.iter().map(shard).collect();
        Self { weight: of(&self.weight), bias: of(&self.bias), ranks, ..self.clone() }
    }

    /// With some of the ranks alone.
    pub fn with_ranks(&self, ranks: &[usize]) -> Self {
        Self { ranks: ranks.iter().map(|&rank| self.ranks[rank].clone()).collect(), ..self.clone() }
    }

    /// With some of the samples of one rank alone.
    pub fn with_samples(&self, rank: usize, samples: &[usize]) -> Self {
        let [_, channels, positions] =
            self.ranks[rank].dims.map(|size| (0..size).collect::<Vec<_>>());
        self.with_shard(rank, self.ranks[rank].select(samples, &channels, &positions))
    }

    /// With some of the positions of one rank alone.
    pub fn with_positions(&self, rank: usize, positions: &[usize]) -> Self {
        let [samples, channels, _] =
            self.ranks[rank].dims.map(|size| (0..size).collect::<Vec<_>>());
        self.with_shard(rank, self.ranks[rank].select(&samples, &channels, positions))
    }

    fn with_shard(&self, rank: usize, shard: Shard) -> Self {
        let mut smaller = self.clone();
        smaller.ranks[rank] = shard;
        smaller
    }
}

impl Shard {
    fn select(&self, samples: &[usize], channels: &[usize], positions: &[usize]) -> Self {
        let [_, of_channels, of_positions] = self.dims;
        let pick = |values: &[f32]| {
            let mut picked = Vec::with_capacity(samples.len() * channels.len() * positions.len());
            for sample in samples {
                for channel in channels {
                    let row = (sample * of_channels + channel) * of_positions;
                    picked.extend(positions.iter().map(|position| values[row + position]));
                }
            }
            picked
        };
        Self {
            dims: [samples.len(), channels.len(), positions.len()],
            x: pick(&self.x),
            grad_output: pick(&self.grad_output),
            residual: self.residual.as_deref().map(pick),
        }
    }
}

/// The values (N, C, L) in the order of a layout.
pub fn stored<T: Copy>(
    values: &[T],
    [samples, channels, positions]: [usize; 3],
    layout: Layout,
) -> Vec<T> {
    match layout {
        Layout::ChannelsFirst => values.to_vec(),
        Layout::ChannelsLast => transposed(values, [samples, channels, positions]),
    }
}

/// Values in the order of a layout as (N, C, L).
pub fn channels_first<T: Copy>(
    values: &[T],
    [samples, channels, positions]: [usize; 3],
    layout: Layout,
) -> Vec<T> {
    match layout {
        Layout::ChannelsFirst => values.to_vec(),
        Layout::ChannelsLast => transposed(values, [samples, positions, channels]),
    }
}

/// Every sample's matrix of these rows and columns, transposed.
fn transposed<T: Copy>(values: &[T], [samples, rows, columns]: [usize; 3]) -> Vec<T> {
    let mut transposed = Vec::with_capacity(values.len());
    for sample in 0..samples {
        for column in 0..columns {
            transposed
                .extend((0..rows).map(|row| values[(sample * rows + row) * columns + column]));
        }
    }
    transposed
}

/// The epilogue's name in the report.
pub fn epilogue_name(epilogue: Epilogue) -> &'static str {
    match epilogue {
        Epilogue::NONE => "none",
        Epilogue::RELU => "relu",
        Epilogue::ADD => "add",
        Epilogue::ADD_RELU => "add_relu",
        _ => "unnamed",
    }
}

fn named_dtype<S: serde::Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name_of(&DTYPES, dtype))
}

fn named_layout<S: serde::Serializer>(layout: &Layout, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name_of(&LAYOUTS, layout))
}

fn named_epilogue<S: serde::Serializer>(
    epilogue: &Epilogue,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(epilogue_name(*epilogue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_its_values_at_their_places() {
        let x: Vec<f32> = (0..12).map(|index| index as f32).collect();
        let shard = Shard { dims: [2, 3, 2], grad_output: x.clone(), residual: Some(x.clone()), x };
        let part = shard.select(&[1], &[0, 2], &[1]);
        assert_eq!((part.dims, &part.x[..]), ([1, 2, 1], &[7.0, 11.0][..]));
        assert_eq!(part.residual, Some(part.grad_output));
    }

    #[test]
    fn channels_last_and_back_is_the_same() {
        let dims = [2, 3, 4];
        let values: Vec<usize> = (0..24).collect();
        let last = stored(&values, dims, Layout::ChannelsLast);
        assert_eq!(last[..4], [0, 4, 8, 1]);
        assert_eq!(channels_first(&last, dims, Layout::ChannelsLast), values);
    }
}
