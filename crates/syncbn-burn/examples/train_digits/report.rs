//! The report of the runs: a table for the terminal and curves for a picture.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use plotters::prelude::*;
use plotters::style::register_font;

use super::Failure;
use super::training::{History, Way};

const FONT: &[u8] = include_bytes!("../../../../examples/data/fonts/Roboto-Regular.ttf");
/// Steps over which a loss is averaged for its curve: single batches of eight jump.
const SMOOTHED: usize = 32;

/// The label of a way to normalize.
pub fn name(way: Way) -> &'static str {
    match way {
        Way::Local => "local, 4 × 2 samples",
        Way::Synchronized => "synchronized, 4 × 2 samples",
        Way::Whole => "one device, 8 samples",
    }
}

/// The runs of one way, one per seed.
pub struct Runs {
    pub way: Way,
    pub histories: Vec<History>,
}

/// Mean and standard deviation over seeds; no deviation of a single one.
pub fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// Test accuracy after each epoch.
pub fn print_table(runs: &[Runs]) {
    let epochs = runs
        .iter()
        .flat_map(|runs| &runs.histories)
        .map(|history| history.accuracy.len())
        .min()
        .unwrap_or(0);
    let seeds = runs.first().map_or(0, |runs| runs.histories.len());
    println!("Test accuracy in %, mean ± standard deviation over {seeds} seed(s)\n");
    let mut table = Table::new();
    let header = ["after epoch".to_owned()].into_iter();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(header.chain((1..=epochs).map(|epoch| epoch.to_string())));
    for runs in runs {
        let accuracy = (0..epochs).map(|epoch| {
            let percent: Vec<f64> =
                runs.histories.iter().map(|history| 100.0 * history.accuracy[epoch]).collect();
            let (mean, spread) = mean_and_spread(&percent);
            format!("{mean:.1} ± {spread:.1}")
        });
        table.add_row([name(runs.way).to_owned()].into_iter().chain(accuracy));
    }
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    println!("{table}");
}

/// The largest relative difference of two losses over the first steps.
pub fn largest_difference(a: &History, b: &History, steps: usize) -> f64 {
    let pairs = a.losses.iter().zip(&b.losses).take(steps);
    pairs.map(|(&a, &b)| f64::from((a - b).abs() / b.abs())).fold(0.0, f64::max)
}

/// Loss and test accuracy of every run, in one color per way.
pub fn draw(runs: &[Runs], path: &Path) -> Result<(), Failure> {
    register_font("sans-serif", FontStyle::Normal, FONT).map_err(|_| "the font is damaged")?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let sheet = BitMapBackend::new(path, (1200, 520)).into_drawing_area();
    sheet.fill(&WHITE)?;
    let (left, right) = sheet.split_horizontally(600);
    let loss = |history: &History| {
        let means = history.losses.chunks_exact(SMOOTHED.min(history.losses.len().max(1)));
        let mean = |chunk: &[f32]| f64::from(chunk.iter().sum::<f32>()) / chunk.len() as f64;
        means
            .enumerate()
            .map(|(index, chunk)| (((index + 1) * chunk.len()) as f64, mean(chunk)))
            .collect()
    };
    let accuracy = |history: &History| {
        history
            .accuracy
            .iter()
            .enumerate()
            .map(|(epoch, share)| (epoch as f64 + 1.0, 100.0 * share))
            .collect()
    };
    let left_legend = SeriesLabelPosition::LowerLeft;
    let right_legend = SeriesLabelPosition::LowerRight;
    panel(&left, ["training loss, every seed", "step"], left_legend, runs, loss)?;
    panel(&right, ["test accuracy in %, every seed", "epoch"], right_legend, runs, accuracy)?;
    sheet.present()?;
    Ok(())
}

fn color(way: Way) -> RGBColor {
    match way {
        Way::Local => RGBColor(214, 94, 0),
        Way::Synchronized => RGBColor(0, 114, 178),
        Way::Whole => RGBColor(40, 40, 40),
    }
}

fn panel(
    area: &DrawingArea<BitMapBackend<'_>, plotters::coord::Shift>,
    [title, x_name]: [&str; 2],
    legend: SeriesLabelPosition,
    runs: &[Runs],
    curve: impl Fn(&History) -> Vec<(f64, f64)>,
) -> Result<(), Failure> {
    let curves: Vec<(Way, Vec<(f64, f64)>)> = runs
        .iter()
        .flat_map(|runs| runs.histories.iter().map(|history| (runs.way, curve(history))))
        .collect();
    let points = || curves.iter().flat_map(|(_, curve)| curve);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) =
            points().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        // A single point has no extent of its own.
        let margin = if high > low { 0.04 * (high - low) } else { 0.5 };
        low - margin..high + margin
    };
    if points().next().is_none() {
        return Ok(());
    }
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(range(|point| point.0), range(|point| point.1))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x_name)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (index, (way, curve)) in curves.iter().enumerate() {
        // The whole batch is drawn as dots, as its curves lie under those that equal them.
        let color = color(*way);
        let drawn = match way {
            Way::Whole => chart.draw_series(
                curve.iter().map(|&point| Circle::new(point, 3, color.stroke_width(1))),
            )?,
            Way::Local | Way::Synchronized => chart.draw_series(
                LineSeries::new(curve.iter().copied(), color.stroke_width(2)).point_size(2),
            )?,
        };
        let is_first = index == 0 || curves[index - 1].0 != *way;
        if is_first {
            let sample =
                move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3));
            drawn.label(name(*way)).legend(sample);
        }
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}
