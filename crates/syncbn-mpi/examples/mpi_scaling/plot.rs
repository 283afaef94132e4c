//! The plot: time of a step's exchanges over the number of ranks, both axes logarithmic.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::measure::Costs;
use crate::model::{self, RANKS, Way};

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 640);
const FONT: &[u8] = include_bytes!("../../../../examples/data/fonts/Roboto-Regular.ttf");
const FAMILY: &str = "Roboto";
/// Milliseconds that the axis shows.
const TIMES: std::ops::Range<f64> = 0.1..1e6;

pub fn draw(costs: &Costs, file: &Path) -> Result<(), Box<dyn Error>> {
    register_font(FAMILY, FontStyle::Normal, FONT).map_err(|_| "the font is not one")?;
    let sheet = BitMapBackend::new(file, SIZE).into_drawing_area();
    sheet.fill(&WHITE)?;
    let title =
        format!("Exchanges of one training step of ResNet-50 ({} of them)", model::exchanges());
    let first = RANKS[0] as f64;
    let last = RANKS[RANKS.len() - 1] as f64;
    let mut chart = ChartBuilder::on(&sheet)
        .caption(title, (FAMILY, 26))
        .margin(16)
        .x_label_area_size(56)
        .y_label_area_size(84)
        .build_cartesian_2d((first..last).log_scale().base(2.0), TIMES.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("ranks")
        .y_desc("milliseconds of a step")
        .label_style((FAMILY, 18))
        .x_labels(RANKS.len())
        .x_label_formatter(&|ranks| format!("{ranks:.0}"))
        .y_label_formatter(&|time| format!("{time}"))
        .light_line_style(WHITE)
        .draw()?;
    let lines = [
        (Way::Gathered, "everyone gathers everything", RGBColor(200, 60, 40)),
        (Way::Merged, "merged along the tree", RGBColor(30, 90, 190)),
        (Way::Groups(32), "process groups of 32", RGBColor(120, 120, 120)),
        (Way::Groups(8), "process groups of 8", RGBColor(20, 140, 80)),
    ];
    for (way, name, color) in lines {
        let points = RANKS.map(|ranks| (ranks as f64, 1e3 * way.step_seconds(costs, ranks)));
        let line = LineSeries::new(points, color.stroke_width(3));
        let sample = move |(x, y)| PathElement::new([(x, y), (x + 28, y)], color.stroke_width(3));
        chart.draw_series(line)?.label(name).legend(sample);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(36)
        .label_font((FAMILY, 18))
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    sheet.present()?;
    Ok(())
}
