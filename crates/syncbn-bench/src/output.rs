//! Owns the output: a table for people, or JSON lines for machines.

use std::io::{self, ErrorKind, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::timing::Samples;

/// A line of the output: one pass over one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub workload: &'static str,
    /// (N, C, spatial…) of the whole batch, in whichever layout.
    pub shape: &'static [usize],
    pub pass: &'static str,
    pub dtype: &'static str,
    pub layout: &'static str,
    pub epilogue: &'static str,
    pub devices: usize,
    pub adapter: String,
    /// Moved at least, read and written, on all devices.
    pub bytes: u64,
    /// Median; the wall time where a device has no clock.
    pub device_ms: f64,
    /// Median.
    pub wall_ms: f64,
    /// The shortest.
    pub wall_min_ms: f64,
    pub gb_per_s: f64,
    pub copy_gb_per_s: f64,
    /// Median of the ratios of runs that followed each other.
    pub copy_ratio: f64,
    /// Median; absent where nothing is exchanged.
    pub exchange_us: Option<f64>,
    /// Median; absent where nothing is exchanged.
    pub bare_exchange_us: Option<f64>,
    /// Median; absent where nothing is exchanged.
    pub round_trip_us: Option<f64>,
    /// Median of the reproducible layer; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reproducible_ms: Option<f64>,
    /// Median of the ratios of runs of both layers that followed each other; absent as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reproducible_ratio: Option<f64>,
    /// Quartiles of that ratio, for the table.
    #[serde(skip)]
    pub reproducible_spread: Option<Samples>,
    /// Quartiles of the device time and of the wall time, for the table.
    #[serde(skip)]
    pub spread: [Samples; 2],
    /// How the copy is done, for the table.
    #[serde(skip)]
    pub copied_by: &'static str,
}

/// Prints JSON lines as they come, or a table when all of them are there.
pub struct Output {
    json: bool,
    table: Table,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, table: markdown_table(HEADER, &WORDS) }
    }

    /// A remark for people; machines do not get it.
    pub fn remark(&self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }

    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        if self.json {
            return print(&format!("{}\n", serde_json::to_string(line)?));
        }
        self.table.add_row(cells(line));
        Ok(())
    }

    /// Prints the table, if there is one.
    pub fn finish(self) -> io::Result<()> {
        if self.table.is_empty() { Ok(()) } else { print(&format!("{}\n", self.table)) }
    }
}

/// Titles of the columns.
const HEADER: [&str; 17] = [
    "workload",
    "pass",
    "MB",
    "device ms",
    "quartiles",
    "wall ms",
    "quartiles",
    "GB/s",
    "copy GB/s",
    "ratio",
    "reproducible ms",
    "to ordinary",
    "quartiles",
    "exchange us",
    "bare exchange us",
    "round trip us",
    "copied by",
];
/// Columns of words, which stand to the left.
const WORDS: [usize; 3] = [0, 1, 16];

/// A Markdown table without rows. Columns in `words` stand to the left, the others to the right.
pub fn markdown_table<const COLUMNS: usize>(header: [&str; COLUMNS], words: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        let is_words = words.contains(&index);
        column.set_cell_alignment(if is_words {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        });
    }
    table
}

fn cells(line: &Line) -> [String; 17] {
    let spread =
        |samples: &Samples| format!("{} .. {}", digits(samples.lower), digits(samples.upper));
    let micros = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    [
        line.workload.to_owned(),
        line.pass.to_owned(),
        format!("{:.1}", line.bytes as f64 / 1e6),
        digits(line.device_ms),
        spread(&line.spread[0]),
        digits(line.wall_ms),
        spread(&line.spread[1]),
        format!("{:.2}", line.gb_per_s),
        format!("{:.2}", line.copy_gb_per_s),
        format!("{:.2}", line.copy_ratio),
        line.reproducible_ms.map_or("-".to_owned(), digits),
        line.reproducible_ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        line.reproducible_spread.as_ref().map_or("-".to_owned(), spread),
        micros(line.exchange_us),
        micros(line.bare_exchange_us),
        micros(line.round_trip_us),
        line.copied_by.to_owned(),
    ]
}

/// Four digits that count, as many as a timing is good for.
pub fn digits(milliseconds: f64) -> String {
    let decimals = match milliseconds {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    format!("{milliseconds:.decimals$}")
}

/// Prints, and ends without an error when the reader has closed the pipe.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let samples = Samples { least: 0.5, lower: 1.0, median: 2.0, upper: 30.0 };
        Line {
            workload: "tiny",
            shape: &[8, 16, 8, 8],
            pass: "forward",
            dtype: "f32",
            layout: "first",
            epilogue: "none",
            devices: 2,
            adapter: "an adapter".to_owned(),
            bytes: 98_304,
            device_ms: 2.0,
            wall_ms: 2.0,
            wall_min_ms: 0.5,
            gb_per_s: 0.05,
            copy_gb_per_s: 0.1,
            copy_ratio: 0.5,
            exchange_us: None,
            bare_exchange_us: None,
            round_trip_us: Some(300.0),
            reproducible_ms: None,
            reproducible_ratio: None,
            reproducible_spread: None,
            spread: [samples; 2],
            copied_by: "memcpy per thread",
        }
    }

    #[test]
    fn a_json_line_has_the_documented_keys_in_their_order() {
        let text = serde_json::to_string(&line()).expect("plain data");
        let keys = "workload shape pass dtype layout epilogue devices adapter bytes device_ms \
            wall_ms wall_min_ms gb_per_s copy_gb_per_s copy_ratio exchange_us bare_exchange_us \
            round_trip_us";
        let mut rest = text.as_str();
        for key in keys.split_whitespace() {
            let at = rest.find(&format!("\"{key}\":"));
            rest =
                &rest[at.unwrap_or_else(|| panic!("{key} is absent or out of order in {text}"))..];
        }
        let object: serde_json::Map<_, _> = serde_json::from_str(&text).expect("an object");
        assert_eq!(object.len(), keys.split_whitespace().count());
        assert_eq!(object["exchange_us"], serde_json::Value::Null);
        let both = Line { reproducible_ms: Some(2.5), reproducible_ratio: Some(1.25), ..line() };
        let text = serde_json::to_string(&both).expect("plain data");
        assert!(text.ends_with(r#""reproducible_ms":2.5,"reproducible_ratio":1.25}"#), "{text}");
    }

    #[test]
    fn the_table_has_a_row_per_line() {
        let mut output = Output::new(false);
        output.line(&line()).expect("a row");
        let text = output.table.to_string();
        let row = text.lines().nth(2).expect("a row behind the header and its rule");
        assert_eq!(row.matches('|').count(), HEADER.len() + 1, "{text}");
        assert!(
            row.contains("| memcpy per thread |") && row.contains(" 1.000 .. 30.00 |"),
            "{text}"
        );
    }

    #[test]
    fn times_have_four_digits() {
        assert_eq!(
            [0.01234, 1.2345, 12.345, 123.45, 1234.5].map(digits),
            ["0.012", "1.234", "12.35", "123.5", "1234"]
        );
    }
}
