//! Synchronized batch normalization on real input: photos of different brightness, each shard of
//! the batch on its own device.
//!
//! `cargo run --release --example quickstart -- --help` says what it does and which options there
//! are. The way through:
//!
//! ```text
//! photos  ->  batch  ->  shards on devices  ->  pass  ->  check against the definition, and against one device
//!                                                    ->  report on the terminal
//!                                                    ->  comparison  ->  picture
//! ```

mod batch;
mod check;
mod cli;
mod comparison;
mod devices;
mod pass;
mod photos;
mod picture;
mod report;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use image::{ImageFormat, RgbImage};
use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

use batch::{Batch, CHANNELS};
use check::{Difference, MAX_ULPS, MAX_ULPS_BETWEEN, Outcome};
use cli::Args;
use comparison::{Comparison, Normalized};
use pass::Pass;
use photos::Photo;
use picture::MAX_COLUMNS;

/// Passes after the first, for times without the building of kernels.
const LATER_PASSES: usize = 5;

/// What can go wrong here and not in a module of its own.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("the batch could not be normalized {how}")]
    Batch { how: &'static str, source: syncbn::Error },
    #[error("the photo {name} could not be normalized by itself")]
    Photo { name: String, source: syncbn::Error },
    #[error("y is {found:.1} ulp from {what}; rounding explains at most {allowed}")]
    TooFar { what: &'static str, found: f64, allowed: f64 },
    #[error("the picture cannot be written to {}", file.display())]
    Write { file: PathBuf, source: image::ImageError },
}

fn main() -> ExitCode {
    let Err(error) = pollster::block_on(run(&Args::parse())) else {
        return ExitCode::SUCCESS;
    };
    let mut message = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Some libraries repeat the cause in their own message.
        let inner_message = inner.to_string();
        if !message.contains(&inner_message) {
            message += &format!("  because: {inner_message}\n");
        }
        cause = inner.source();
    }
    // Nobody is left to tell when this fails too.
    let _ = io::stderr().write_all(message.as_bytes());
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let photos = photos::load(&args.input())?;
    let batch = Batch::new(&photos);
    let opened = devices::open(args.adapter.as_deref(), args.devices()).await?;
    let devices = &opened.ranks;
    let shards = batch::cut(photos.len(), devices.len());
    print(&report::devices(&opened, &shards, &photos, &batch))?;

    let layer = layer_of(devices)?;
    let together = |source| RunError::Batch { how: "over the devices", source };
    let pass = pass::run(&layer, &batch, &shards).await.map_err(together)?;
    let mut later = Vec::with_capacity(LATER_PASSES);
    for _ in 0..LATER_PASSES {
        later.push(pass::run(&layer, &batch, &shards).await.map_err(together)?.times);
    }
    print(&report::statistics(&pass))?;

    let outcome = Outcome::of(&pass, &batch);
    let to_definition = outcome.difference(&Outcome::by_definition(&batch, layer.config().eps)?);
    let to_one_device = outcome.difference(&on_one_device(&devices[0], &batch).await?);
    print(&report::agreement(&to_definition, &to_one_device, &devices[0]))?;
    print(&report::times(&pass.times, &later, &batch, &shards, devices))?;

    let shown = compare(&photos, &batch, &shards, devices, &pass).await?;
    let lead = format!(
        "{} over {}: {}.",
        report::counted(photos.len(), "photo"),
        opened.summary(),
        opened.names()
    );
    let picture = comparison::sheet(&shown, photos.len(), &lead).draw()?;
    let file = args.output();
    write(&picture, &file).map_err(|source| RunError::Write { file: file.clone(), source })?;
    print(&format!(
        "\nPicture of the photos before, normalized each on its own, and together: {}\n",
        file.display()
    ))?;

    within("the definition", &to_definition, MAX_ULPS)?;
    within("the result of one device", &to_one_device, MAX_ULPS_BETWEEN)?;
    Ok(())
}

fn layer_of(devices: &[Device]) -> Result<SyncBatchNorm, syncbn::Error> {
    SyncBatchNorm::new(BatchNormConfig::torch(CHANNELS), devices.iter().cloned())
}

/// The whole batch as one shard on `device`.
async fn on_one_device(device: &Device, batch: &Batch) -> Result<Outcome, RunError> {
    let whole = batch::cut(batch.photos(), 1);
    let alone = |source| RunError::Batch { how: "on one device", source };
    let layer = layer_of(std::slice::from_ref(device)).map_err(alone)?;
    Ok(Outcome::of(&pass::run(&layer, batch, &whole).await.map_err(alone)?, batch))
}

/// What the picture shows of the first photos: each normalized by itself, on the device that held
/// it, and with all others.
async fn compare<'a>(
    photos: &'a [Photo],
    batch: &Batch,
    shards: &[Range<usize>],
    devices: &[Device],
    together: &Pass,
) -> Result<Vec<Comparison<'a>>, RunError> {
    let mut comparisons = Vec::new();
    let rank_of = |index| shards.iter().position(|shard| shard.contains(&index)).unwrap_or(0);
    for (index, photo) in photos.iter().enumerate().take(MAX_COLUMNS) {
        let rank = rank_of(index);
        let failed = |source| RunError::Photo { name: photo.name.clone(), source };
        let local = layer_of(&devices[rank..=rank]).map_err(failed)?;
        let one = index..index + 1;
        let alone = pass::run(&local, batch, std::slice::from_ref(&one)).await.map_err(failed)?;
        comparisons.push(Comparison {
            photo,
            rank,
            alone: Normalized::new(alone.global(), &alone.y),
            together: Normalized::new(together.global(), batch.part(&together.y, &one)),
        });
    }
    Ok(comparisons)
}

fn within(what: &'static str, difference: &Difference, allowed: f64) -> Result<(), RunError> {
    let found = difference.y_ulps;
    if found <= allowed { Ok(()) } else { Err(RunError::TooFar { what, found, allowed }) }
}

/// Writes `picture` as PNG, whatever the name of `file`, into a folder that is made where there is
/// none.
fn write(picture: &RgbImage, file: &Path) -> Result<(), image::ImageError> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    picture.save_with_format(file, ImageFormat::Png)
}

/// Prints at once what is known, and carries on when nobody reads: the picture is still to come.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
