//! What the picture shows: the input, each photo normalized with its own statistics, all normalized
//! together.

use image::{Rgb, RgbImage};
use syncbn::stats::Moments;

use crate::batch::CHANNELS;
use crate::photos::Photo;
use crate::picture::{CaptionLine, Panel, Row, Sheet};

/// One photo after normalization, and the statistics it was normalized with.
#[derive(Debug)]
pub struct Normalized {
    pub mean: [f64; CHANNELS],
    /// √(biased variance).
    pub deviation: [f64; CHANNELS],
    /// The layer's output for this photo, (3, H, W).
    pub y: Vec<f32>,
}

/// One photo, the rank that held it, and what became of it.
#[derive(Debug)]
pub struct Comparison<'a> {
    pub photo: &'a Photo,
    pub rank: usize,
    pub alone: Normalized,
    pub together: Normalized,
}

impl Normalized {
    /// `y` as (3, H, W), and the statistics of the group it was normalized in.
    pub fn new(statistics: &[Moments], y: &[f32]) -> Self {
        let of = |channel: usize| statistics[channel];
        Self {
            mean: [0, 1, 2].map(|channel| of(channel).mean),
            deviation: [0, 1, 2].map(|channel| of(channel).var_biased().sqrt()),
            y: y.to_vec(),
        }
    }
}

/// The sheet of the photos `shown`, which are the first of `photos`. `lead` says what computed
/// them.
pub fn sheet(shown: &[Comparison], photos: usize, lead: &str) -> Sheet {
    let rest = if shown.len() < photos {
        format!(" The first {} are shown; the global statistics are of all.", shown.len())
    } else {
        String::new()
    };
    Sheet {
        title: String::from("What synchronized batch normalization does"),
        lead: format!("{lead}{rest}"),
        rows: vec![
            row(
                shown,
                "Input",
                "Pixel values from 0 to 255, as they enter the layer.",
                input_panel,
            ),
            row(
                shown,
                "Each photo normalized with its own statistics",
                "Local batch normalization, one photo on each device: every photo comes out equally bright.",
                |one| normalized_panel(one, &one.alone, ["local mean", "local std"]),
            ),
            row(
                shown,
                "All photos normalized together",
                "Synchronized batch normalization, one mean and one deviation for all devices: bright stays bright, dark stays dark.",
                |one| normalized_panel(one, &one.together, ["global mean", "global std"]),
            ),
        ],
        notes: vec![
            String::from(
                "Both normalized rows show the output y through one map: brightness = 0.5 + y / 5, \
                 so −2.5 is black, 0 is mid-grey and +2.5 is white.",
            ),
            String::from(
                "The bar under a photo is its mean color. The numbers are of the red, green and blue channel.",
            ),
        ],
    }
}

fn row(
    shown: &[Comparison],
    heading: &str,
    explanation: &str,
    panel: impl Fn(&Comparison) -> Panel,
) -> Row {
    Row {
        heading: heading.to_owned(),
        explanation: explanation.to_owned(),
        panels: shown.iter().map(panel).collect(),
    }
}

fn input_panel(one: &Comparison) -> Panel {
    Panel {
        image: one.photo.image.clone(),
        bar: one.alone.mean.map(|mean| mean.round() as u8),
        label: Some((one.photo.name.clone(), format!("rank {}", one.rank))),
        lines: Vec::new(),
    }
}

fn normalized_panel(
    one: &Comparison,
    normalized: &Normalized,
    [mean, deviation]: [&'static str; 2],
) -> Panel {
    let mean_y = channel_means(&normalized.y);
    let line = |name, values: [f64; CHANNELS], digits| CaptionLine {
        name,
        values: values.map(|value| decimal(value, digits)),
    };
    Panel {
        image: picture_of(&normalized.y, one.photo.image.dimensions()),
        bar: mean_y.map(brightness),
        label: None,
        lines: vec![
            line(mean, normalized.mean, 1),
            line(deviation, normalized.deviation, 1),
            line("mean of y", mean_y, 2),
        ],
    }
}

/// `y` as (3, H, W) seen through [`brightness`].
fn picture_of(y: &[f32], (width, height): (u32, u32)) -> RgbImage {
    let plane = width as usize * height as usize;
    RgbImage::from_fn(width, height, |column, row| {
        let pixel = row as usize * width as usize + column as usize;
        Rgb([0, 1, 2].map(|channel| brightness(f64::from(y[channel * plane + pixel]))))
    })
}

/// The one map of both normalized rows: 0.5 + y / 5 of full brightness.
fn brightness(y: f64) -> u8 {
    (255.0 * (0.5 + y / 5.0)).round().clamp(0.0, 255.0) as u8
}

fn channel_means(y: &[f32]) -> [f64; CHANNELS] {
    let plane = y.len() / CHANNELS;
    [0, 1, 2].map(|channel| {
        let values = &y[channel * plane..(channel + 1) * plane];
        values.iter().map(|&value| f64::from(value)).sum::<f64>() / plane as f64
    })
}

/// `value` with a real minus sign, and none before a zero.
fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(magnitude) if magnitude.bytes().all(|byte| matches!(byte, b'0' | b'.')) => {
            magnitude.to_owned()
        }
        Some(magnitude) => format!("−{magnitude}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_is_mid_grey_at_zero_and_clamped_at_both_ends() {
        assert_eq!([-9.0, -2.5, 0.0, 2.5, 9.0].map(brightness), [0, 0, 128, 255, 255]);
    }

    #[test]
    fn a_number_that_rounds_to_zero_has_no_sign() {
        assert_eq!(decimal(-0.001, 2), "0.00");
        assert_eq!(decimal(-0.5, 2), "−0.50");
    }
}
