//! Photos, split into ranks by rows, and normalized in two ways: with each rank's own statistics,
//! and with those of all ranks.

use std::ops::Range;

use serde::Serialize;
use syncbn::stats::Moments;
use syncbn::{BatchNormConfig, Device, Error, Forward, SyncBatchNorm, Tensor};
use web_time::Instant;

/// Red, green and blue.
pub const CHANNELS: usize = 3;
/// Steps of brightness from one standard deviation to the next.
const STEPS_PER_DEVIATION: f32 = 51.0;
/// Brightness of the mean.
const MIDDLE: f32 = 127.5;

/// Photos of one width, one below the other: (3, rows, width), from 0 to 255.
#[derive(Clone, Debug)]
pub struct Picture {
    rows: usize,
    width: usize,
    values: Vec<f32>,
}

/// Why pixels are no picture.
#[derive(Debug, PartialEq, Eq)]
pub struct NotWholeRows {
    /// Bytes of the pixels, four each.
    pub bytes: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl std::fmt::Display for NotWholeRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, width } = self;
        write!(f, "{bytes} bytes are no whole number of rows of {width} pixels of 4 bytes")
    }
}

impl std::error::Error for NotWholeRows {}

impl Picture {
    /// A picture of pixels of red, green, blue and opacity, row by row; opacity is left out.
    ///
    /// # Errors
    /// [`NotWholeRows`] unless the pixels fill rows of `width`, of which there is at least one.
    pub fn from_rgba(rgba: &[u8], width: usize) -> Result<Self, NotWholeRows> {
        let row_bytes = 4 * width;
        if row_bytes == 0 || rgba.is_empty() || !rgba.len().is_multiple_of(row_bytes) {
            return Err(NotWholeRows { bytes: rgba.len(), width });
        }
        let plane = |channel| rgba.chunks(4).map(move |pixel| f32::from(pixel[channel]));
        let values = (0..CHANNELS).flat_map(plane).collect();
        Ok(Self { rows: rgba.len() / row_bytes, width, values })
    }

    /// Rows of all photos.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Some rows of every channel.
    fn part(&self, rows: &Range<usize>) -> Vec<f32> {
        let planes = self.values.chunks(self.rows * self.width);
        let of_plane =
            |plane: &[f32]| plane[rows.start * self.width..rows.end * self.width].to_vec();
        planes.flat_map(of_plane).collect()
    }

    /// The opposite of [`part`](Self::part), for all ranks.
    fn join(&self, ranges: &[Range<usize>], parts: &[Vec<f32>]) -> Vec<f32> {
        let mut joined = vec![0.0; self.values.len()];
        for (channel, plane) in joined.chunks_mut(self.rows * self.width).enumerate() {
            for (rows, part) in ranges.iter().zip(parts) {
                let size = rows.len() * self.width;
                let values = &part[channel * size..(channel + 1) * size];
                plane[rows.start * self.width..rows.end * self.width].copy_from_slice(values);
            }
        }
        joined
    }
}

/// Mean and deviation of the channels of a rank, or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Name of the device; of all ranks none.
    pub device: Option<String>,
    /// Values of a channel.
    pub count: u64,
    /// Means of red, green and blue.
    pub mean: Vec<f64>,
    /// Deviations of red, green and blue: roots of the biased variances.
    pub deviation: Vec<f64>,
}

impl Statistics {
    fn new(device: Option<String>, channels: &[Moments]) -> Self {
        let deviation = |moments: &Moments| (moments.m2 / moments.count.max(1) as f64).sqrt();
        Self {
            device,
            count: channels.first().map_or(0, |moments| moments.count),
            mean: channels.iter().map(|moments| moments.mean).collect(),
            deviation: channels.iter().map(deviation).collect(),
        }
    }
}

/// How long the steps of the synchronized pass took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Copying the photos to the devices.
    pub upload: f64,
    /// Sums of every channel on every device, until they are read back.
    pub local: f64,
    /// Merging over all ranks.
    pub synchronize: f64,
    /// Outputs, until they are submitted.
    pub apply: f64,
    /// Until the outputs have been read back, which waits for the devices.
    pub read: f64,
}

/// The photos, normalized in both ways.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// (3, rows, width) by the statistics of all ranks.
    pub synchronized: Vec<f32>,
    /// (3, rows, width), each rank by its own statistics.
    pub local: Vec<f32>,
    /// Of each rank.
    pub ranks: Vec<Statistics>,
    /// Of all ranks.
    pub all: Statistics,
    /// Of the synchronized pass.
    pub times: Times,
}

/// The rows of each rank, which end at `ends`; the last rank has the rest.
pub fn ranges(rows: usize, ends: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut ranges = Vec::with_capacity(ends.len() + 1);
    for &end in ends.iter().chain([&rows]) {
        let end = end.clamp(start, rows);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Normalizes the picture with a rank for each device; the rows of a rank end at one of `ends`, and
/// those of the last with the picture.
///
/// # Errors
/// Errors of the layer or a device.
pub async fn normalize(
    devices: &[Device],
    picture: &Picture,
    ends: &[usize],
) -> Result<Normalized, Error> {
    let ranges = ranges(picture.rows, ends);
    let started = Instant::now();
    let mut x = Vec::with_capacity(ranges.len());
    for (device, rows) in devices.iter().zip(&ranges) {
        let dims = [1, CHANNELS, rows.len(), picture.width];
        x.push(device.upload(&dims, &picture.part(rows))?);
    }
    let uploaded = Instant::now();
    let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices.iter().cloned())?;
    let forward = layer.forward_train(Forward::of(&x).untracked()).await?;
    let submitted = Instant::now();
    let synchronized = picture.join(&ranges, &read(&forward.output).await?);
    let read_back = Instant::now();
    let local = picture.join(&ranges, &each_by_itself(devices, &x).await?);

    let ms = |duration: web_time::Duration| duration.as_secs_f64() * 1e3;
    let mut times = Times {
        upload: ms(uploaded - started),
        local: 0.0,
        synchronize: 0.0,
        apply: 0.0,
        read: ms(read_back - submitted),
    };
    let mut ranks = Vec::new();
    if let Some(report) = forward.saved.report() {
        times.local = ms(report.times.local);
        times.synchronize = ms(report.times.synchronize);
        times.apply = ms(report.times.apply);
        let named = devices.iter().map(|device| Some(device.name().to_owned()));
        let of_ranks = named.zip(report.local.ranks());
        ranks = of_ranks.map(|(device, channels)| Statistics::new(device, channels)).collect();
    }
    let channels = forward.saved.statistics().map_or(&[][..], |all| all.channels());
    let all = Statistics::new(None, channels);
    Ok(Normalized { synchronized, local, ranks, all, times })
}

/// y of every rank, by layers that know of no other.
async fn each_by_itself(devices: &[Device], x: &[Tensor]) -> Result<Vec<Vec<f32>>, Error> {
    let mut parts = Vec::with_capacity(x.len());
    for (device, x) in devices.iter().zip(x) {
        let layer = SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), [device.clone()])?;
        parts.push(layer.forward_train(x).await?.output.to_vec().await?);
    }
    Ok(parts)
}

async fn read(tensors: &[Tensor]) -> Result<Vec<Vec<f32>>, Error> {
    let mut values = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        values.push(tensor.to_vec().await?);
    }
    Ok(values)
}

/// Normalized values as pixels: the mean is grey, two and a half deviations are black and white.
pub fn to_rgba(y: &[f32]) -> Vec<u8> {
    let pixels = y.len() / CHANNELS;
    let byte = |y: f32| (MIDDLE + STEPS_PER_DEVIATION * y).round().clamp(0.0, 255.0) as u8;
    let pixel = |i| [byte(y[i]), byte(y[pixels + i]), byte(y[2 * pixels + i]), u8::MAX];
    (0..pixels).flat_map(pixel).collect()
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    /// 5 rows of 2 pixels, whose values differ.
    fn picture() -> Picture {
        let rgba: Vec<u8> = (0..5 * 2 * 4).map(|i| (i * 37 % 251) as u8).collect();
        Picture::from_rgba(&rgba, 2).unwrap()
    }

    #[test]
    fn pixels_that_fill_no_row_are_refused() {
        let error = Picture::from_rgba(&[0; 12], 2).unwrap_err();
        assert_eq!(error, NotWholeRows { bytes: 12, width: 2 });
        assert!(Picture::from_rgba(&[], 2).is_err() && Picture::from_rgba(&[0; 8], 0).is_err());
    }

    #[test]
    fn ranges_cover_all_rows_whatever_the_ends_are() {
        assert_eq!(ranges(10, &[]), [0..10]);
        assert_eq!(ranges(10, &[3, 3, 20]), [0..3, 3..3, 3..10, 10..10]);
        assert_eq!(ranges(10, &[7, 2]), [0..7, 7..7, 7..10]);
    }

    #[test]
    fn parts_joined_are_the_picture() {
        let picture = picture();
        let ranges = ranges(picture.rows(), &[2, 2]);
        let parts: Vec<_> = ranges.iter().map(|rows| picture.part(rows)).collect();
        assert_eq!(picture.join(&ranges, &parts), picture.values);
    }

    #[test]
    fn the_cut_changes_what_ranks_make_alone_and_not_what_they_make_together() {
        let picture = picture();
        let normalized = |ends: &[usize]| {
            let devices = vec![Device::host(); ends.len() + 1];
            pollster::block_on(normalize(&devices, &picture, ends)).unwrap()
        };
        let whole = normalized(&[]);
        let even = normalized(&[2]);
        let uneven = normalized(&[1, 4]);
        let far =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(whole.local, whole.synchronized);
        for cut in [&even, &uneven] {
            // Sums of 10 values in another order: within a few ulp of values of at most 2.
            assert!(far(&cut.synchronized, &whole.synchronized) < 2e-6);
            assert!(far(&cut.local, &whole.local) > 0.1);
        }
        assert_eq!(uneven.ranks.iter().map(|rank| rank.count).collect::<Vec<_>>(), [2, 6, 2]);
        assert_eq!(uneven.all.count, 10);
    }

    #[test]
    fn the_mean_is_grey() {
        assert_eq!(to_rgba(&[0.0, 9.0, -9.0]), [128, 255, 0, 255]);
    }
}
