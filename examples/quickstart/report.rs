//! What the program prints. Every function returns finished text and computes nothing new.

mod table;

use std::ops::Range;
use std::time::Duration;

use syncbn::low_level::plan::CHANNEL_SUMS_BYTES;
use syncbn::{Device, low_level::Centering, stats::Moments};
use table::{Align, Table};

use crate::batch::{Batch, CHANNELS};
use crate::check::{Difference, MAX_ULPS, MAX_ULPS_BETWEEN};
use crate::devices::Devices;
use crate::pass::{Pass, Times};
use crate::photos::Photo;

/// Characters for the names of a device's photos before the rest is only counted, so that the table
/// fits a terminal.
const MAX_NAMES_WIDTH: usize = 48;

/// The batch and who holds which part of it.
pub fn devices(
    devices: &Devices,
    shards: &[Range<usize>],
    photos: &[Photo],
    batch: &Batch,
) -> String {
    let mut table =
        Table::new([("rank", Align::Right), ("device", Align::Left), ("photos", Align::Left)]);
    for (rank, (device, shard)) in devices.ranks.iter().zip(shards).enumerate() {
        table.row([rank.to_string(), device.name().to_owned(), names(&photos[shard.clone()])]);
    }
    let bytes = size(batch.bytes());
    format!(
        "Synchronized batch normalization of {} over {}\n\n\
         The batch is ({}) of f32, {bytes}, pixel values from 0 to 255. Its shards:\n\n{}",
        counted(photos.len(), "photo"),
        devices.summary(),
        batch.dims(photos.len()).map(|axis| axis.to_string()).join(", "),
        table.render(),
    )
}

/// Mean and variance of every channel, of each rank and of the group.
pub fn statistics(pass: &Pass) -> String {
    let mut table = Table::new([
        ("rank", Align::Right),
        ("values", Align::Right),
        ("R mean", Align::Right),
        ("variance", Align::Right),
        ("G mean", Align::Right),
        ("variance", Align::Right),
        ("B mean", Align::Right),
        ("variance", Align::Right),
    ]);
    for (rank, channels) in pass.local().iter().enumerate() {
        table.row(statistics_row(rank.to_string(), channels));
    }
    table.row(statistics_row(String::from("global"), pass.global()));
    format!(
        "\nMean and biased variance of each device's shard, and of the group:\n\n{}",
        table.render()
    )
}

/// How far the result is from the definition, and from that of one device which holds the whole
/// batch.
pub fn agreement(definition: &Difference, one_device: &Difference, device: &Device) -> String {
    let verdict = if one_device.y_ulps <= MAX_ULPS_BETWEEN {
        "the same numbers to rounding"
    } else {
        "OTHER NUMBERS"
    };
    format!(
        "\nLargest differences from the definition in f64:\n\n\
         \x20 y         {:<8} {:.1} ulp of the channel's largest |y|; the aim is at most {MAX_ULPS}\n\
         \x20 mean      {:<8} in pixel values\n\
         \x20 variance  {:<8} of itself\n\n\
         The whole batch as one shard on one device, {}, gives {verdict}:\n\
         the largest difference of y is {} ({:.1} ulp), of a mean {}, of a variance {} of itself.\n",
        scientific(definition.y),
        definition.y_ulps,
        scientific(definition.mean),
        scientific(definition.variance),
        device.name(),
        scientific(one_device.y),
        one_device.y_ulps,
        scientific(one_device.mean),
        scientific(one_device.variance),
    )
}

/// Time and bytes of each phase: in the first pass, which also builds the kernels, and in `later`
/// ones.
pub fn times(
    first: &Times,
    later: &[Times],
    batch: &Batch,
    shards: &[Range<usize>],
    devices: &[Device],
) -> String {
    let photos = size(batch.bytes());
    let gathered = size(exchanged_bytes(shards, devices, CHANNEL_SUMS_BYTES as usize));
    let sent = size(exchanged_bytes(shards, devices, size_of::<Centering>()));
    let median_header = format!("median of {}", later.len());
    let mut table = Table::new([
        ("phase", Align::Left),
        ("first pass", Align::Right),
        (&median_header, Align::Right),
        ("host <-> devices", Align::Right),
        ("on the devices", Align::Left),
    ]);
    let mut phase = |name: &str, time: fn(&Times) -> Duration, moved: &str, work: String| {
        let median = median(later.iter().map(time).collect());
        table.row([
            name.to_owned(),
            milliseconds(time(first)),
            milliseconds(median),
            moved.to_owned(),
            work,
        ]);
    };
    phase("upload", |t| t.upload, &photos, String::new());
    phase("statistics and readback", |t| t.statistics, &gathered, format!("{photos} read"));
    phase("merge", |t| t.merge, "", String::from("none: the host merges in f64"));
    phase("normalize", |t| t.normalize, &sent, format!("{photos} read, {photos} written"));
    phase("download", |t| t.download, &photos, String::new());
    format!(
        "\nTime of each phase until the last device has finished it, and the bytes it moves:\n\n{}",
        table.render()
    )
}

/// What as many GPUs as have photos exchange with the host per pass, with so many bytes per
/// channel.
fn exchanged_bytes(shards: &[Range<usize>], devices: &[Device], channel_bytes: usize) -> usize {
    let sends = |(shard, device): &(&Range<usize>, &Device)| !shard.is_empty() && !device.is_host();
    shards.iter().zip(devices).filter(sends).count() * CHANNELS * channel_bytes
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// "1 photo", "4 photos".
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Names of `photos` as long as they fit the table, and how many more there are.
fn names(photos: &[Photo]) -> String {
    let mut text = String::new();
    for (index, photo) in photos.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        if index > 0 && text.chars().count() + photo.name.chars().count() > MAX_NAMES_WIDTH {
            return format!("{text} and {} more", photos.len() - index);
        }
        text += &format!("{separator}{}", photo.name);
    }
    if text.is_empty() { String::from("none") } else { text }
}

fn statistics_row(name: String, channels: &[Moments]) -> Vec<String> {
    let count = channels.first().map_or(0, |channel| channel.count);
    let mut cells = vec![name, count.to_string()];
    for channel in channels {
        // An empty shard has no mean.
        let number = |value: f64, digits| {
            if count == 0 { String::from("-") } else { format!("{value:.digits$}") }
        };
        cells.extend([number(channel.mean, 4), number(channel.var_biased(), 3)]);
    }
    cells
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn size(bytes: usize) -> String {
    if bytes < 10_000 { format!("{bytes} B") } else { format!("{:.2} MB", bytes as f64 / 1e6) }
}

fn scientific(value: f64) -> String {
    if value == 0.0 { String::from("0") } else { format!("{value:.1e}") }
}
