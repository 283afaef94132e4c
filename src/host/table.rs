//! The numbers of each channel, laid out beside the values that they apply to: a block of values and a block of each
//! number are read alike, whichever order the activation is in.

use super::order::Order;

/// Values that are computed together: a few of the widest registers, few enough that a processor reads ahead across
/// blocks, and a multiple of what fills a cache line of any storage type.
pub(super) const BLOCK: usize = 64;
/// Columns up to which rows of short runs are laid out as a whole: 64 KB of each number.
const MOST_COLUMNS: usize = 16 << 10;

/// `K` numbers per channel of an activation.
#[derive(Debug)]
pub(super) struct Numbers<'a, const K: usize> {
    of_channel: &'a [[f32; K]],
    /// The first of these channels.
    first: usize,
    /// Channels of the activation.
    channels: usize,
    /// Values of a channel that follow each other.
    len: usize,
    /// Where rows repeat: each number by column, and a block beyond the end as at the beginning.
    columns: Option<[Vec<f32>; K]>,
}

impl<'a, const K: usize> Numbers<'a, K> {
    /// The numbers of all channels of an activation.
    pub fn new(order: Order, of_channel: &'a [[f32; K]]) -> Self {
        let (channels, len) = (
            of_channel.len(),
            match order {
                Order::Planes(planes) => planes.len,
                Order::Columns(columns) => columns.repeat,
            },
        );
        let width = channels * len;
        let repeats = matches!(order, Order::Columns(columns) if columns.repeat == 1 || width <= MOST_COLUMNS);
        let column = |k: usize| (0..width + BLOCK).map(|column| of_channel[column % width / len][k]).collect();
        let columns = repeats.then(|| std::array::from_fn(column));
        Self { of_channel, first: 0, channels, len, columns }
    }

    /// The numbers of some neighbouring channels, `first` and on, of an activation of planes.
    pub fn of_planes(channels: usize, len: usize, first: usize, of_channel: &'a [[f32; K]]) -> Self {
        Self { of_channel, first, channels, len, columns: None }
    }

    /// For one task.
    pub fn table(&self) -> Table<'_, K> {
        Table { numbers: self, row: 0..0, blocks: [[0.0; BLOCK]; K] }
    }
}

/// [`Numbers`] as one task reads them.
pub(super) struct Table<'a, const K: usize> {
    numbers: &'a Numbers<'a, K>,
    /// The run whose channel fills `blocks`.
    row: std::ops::Range<usize>,
    blocks: [[f32; BLOCK]; K],
}

impl<const K: usize> Table<'_, K> {
    /// The numbers for the `n` ≤ [`BLOCK`] values from address `at` on; what follows them is of any channel.
    #[inline(always)]
    pub fn block(&mut self, at: usize, n: usize) -> [&[f32; BLOCK]; K] {
        match &self.numbers.columns {
            Some(columns) => {
                let column = at % (self.numbers.channels * self.numbers.len);
                // Always there: every number has a block beyond its last column.
                columns.each_ref().map(|numbers| numbers[column..].first_chunk().unwrap_or(&[0.0; BLOCK]))
            }
            None => {
                if at < self.row.start || at + n > self.row.end {
                    self.fill(at, n);
                }
                self.blocks.each_ref()
            }
        }
    }

    /// Fills the blocks run by run.
    #[inline(never)]
    fn fill(&mut self, at: usize, n: usize) {
        let Numbers { of_channel, first, channels, len, .. } = *self.numbers;
        let mut row = at / len;
        let start = row * len;
        if at + n <= start + len {
            for (block, number) in self.blocks.iter_mut().zip(of_channel[row % channels - first]) {
                block.fill(number);
            }
            self.row = start..start + len;
            return;
        }
        self.row = 0..0;
        let mut from = 0;
        while from < n {
            let end = n.min((row + 1) * len - at);
            for (block, number) in self.blocks.iter_mut().zip(of_channel[row % channels - first]) {
                block[from..end].fill(number);
            }
            (from, row) = (end, row + 1);
        }
    }
}
