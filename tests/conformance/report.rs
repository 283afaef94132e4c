//! Owns the counts and the table: what ran where, how near it came, what is still to come.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use comfy_table::{CellAlignment, Table, presets};

use crate::agreement;
use crate::compare::{Part, Verdict};
use crate::library::Driver;
use crate::scenario::Observed;

/// Counts of entries. An entry is one half of one case, in one place, through one driver.
#[derive(Default)]
pub struct Report {
    /// By kind, part and place.
    rows: BTreeMap<(String, Part, String), BTreeMap<Driver, Row>>,
    /// The cases, by reason and part.
    not_yet: BTreeMap<(String, Part), BTreeSet<String>>,
    passed: usize,
    failed: usize,
    not_yet_count: usize,
    /// What was wrong, each with its case.
    failures: Vec<String>,
    /// Of all that was seen in a place.
    hashers: BTreeMap<String, DefaultHasher>,
}

/// Where an entry was run.
#[derive(Clone, Copy)]
pub struct Where<'a> {
    pub place: &'a str,
    pub driver: Driver,
    /// Whether sums are of integers.
    pub reproducible: bool,
}

#[derive(Default, PartialEq)]
struct Row {
    passed: usize,
    failed: usize,
    values: usize,
    share: f64,
    share_at: String,
    ulp: Option<f64>,
    bound: Option<f64>,
}

/// Titles of the columns of the table.
const HEADER: [&str; 9] = [
    "kind",
    "part",
    "place",
    "driver",
    "passed",
    "values",
    "of tol.",
    "in ulp",
    "worst of tol. at",
];
/// Columns of numbers, which stand to the right.
const NUMBERS: std::ops::Range<usize> = 4..8;

impl Row {
    /// The cells behind the driver.
    fn cells(&self) -> [String; 5] {
        let ulp = match (self.ulp, self.bound) {
            (Some(ulp), Some(bound)) => format!("{ulp:.2} of {bound}"),
            (Some(ulp), None) => format!("{ulp:.2}"),
            (None, _) => "-".to_owned(),
        };
        let passed = format!("{}/{}", self.passed, self.passed + self.failed);
        let share = format!("{:.2e}", self.share);
        [passed, self.values.to_string(), share, ulp, self.share_at.trim().to_owned()]
    }
}

/// A line per driver, or one for all that give the same bits where they are alike.
fn lines(drivers: &BTreeMap<Driver, Row>) -> Vec<(&'static str, &Row)> {
    let alike = Driver::ALIKE.map(|driver| drivers.get(&driver));
    let each = alike[0].filter(|_| alike.iter().all(|row| *row == alike[0]));
    let named =
        drivers.iter().filter(|(driver, _)| each.is_none() || !Driver::ALIKE.contains(driver));
    each.map(|row| ("each", row))
        .into_iter()
        .chain(named.map(|(driver, row)| (driver.name(), row)))
        .collect()
}

impl Report {
    /// What was wrong so far, as it is printed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Counts an entry that was run.
    pub fn ran(
        &mut self,
        case: &str,
        kind: &str,
        part: Part,
        at: Where<'_>,
        bound: Option<f64>,
        verdict: Verdict,
    ) {
        let rows = self.rows.entry((kind.to_owned(), part, at.place.to_owned())).or_default();
        let row = rows.entry(at.driver).or_default();
        if verdict.failures.is_empty() {
            self.passed += 1;
            row.passed += 1;
        } else {
            self.failed += 1;
            row.failed += 1;
            let mut what = format!("FAILED {case}, {part:?}, {}, {}", at.place, at.driver.name());
            verdict
                .failures
                .iter()
                .for_each(|failure| what.push_str(&format!("\n       {failure}")));
            self.failures.push(what);
        }
        row.values += verdict.values;
        if verdict.share > row.share || row.share_at.is_empty() {
            (row.share, row.share_at) = (verdict.share, format!("{case} {}", verdict.share_at));
        }
        row.ulp = match (row.ulp, verdict.ulp) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        row.bound = row.bound.or(bound);
    }

    /// Takes the steps of a case into the fingerprint of a place.
    pub fn saw<'a>(&mut self, place: &str, steps: impl Iterator<Item = &'a Observed>) {
        let hasher = self.hashers.entry(place.to_owned()).or_default();
        steps.for_each(|observed| agreement::hash(observed, hasher));
    }

    /// A number that is the same for the same bits in all that was seen in a place.
    pub fn fingerprint(&self, place: &str) -> u64 {
        self.hashers.get(place).cloned().unwrap_or_default().finish()
    }

    /// Counts an entry whose feature the library does not have.
    pub fn not_yet(&mut self, case: &str, part: Part, reason: &str) {
        self.not_yet_count += 1;
        self.not_yet.entry((reason.to_owned(), part)).or_default().insert(case.to_owned());
    }

    /// Counts something that cannot be run at all as a failure.
    pub fn broken(&mut self, case: &str, what: &str) {
        self.failed += 1;
        self.failures.push(format!("FAILED {case}\n       {what}"));
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(HEADER);
        for (index, column) in table.column_iter_mut().enumerate() {
            if NUMBERS.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for ((kind, part, place), drivers) in &self.rows {
            for (driver, row) in lines(drivers) {
                let of = [kind.clone(), format!("{part:?}"), place.clone(), driver.to_owned()];
                table.add_row(of.into_iter().chain(row.cells()));
            }
        }
        table
    }

    /// Prints everything, the counts in the last line; whether all is well.
    pub fn finish(self) -> bool {
        println!();
        println!("{}\n", self.table());
        println!(
            "driver: \"each\" where all of the same bits have the same line. of tol.: the worst \
            error as a share of its tolerance."
        );
        println!(
            "in ulp: in units of one ulp, of the type that is stored, of the channel's largest \
            |y|, |weight·inv_std·g| (dx),"
        );
        println!(
            "Σ|g| (dbias) or Σ|g·x̂| (dweight); \"of 8\" where that is asserted, of 16 on the \
            device."
        );
        for ((reason, part), cases) in &self.not_yet {
            let names: Vec<&str> = cases.iter().map(String::as_str).collect();
            println!("not yet: {reason}: {part:?} of {} cases: {}", cases.len(), names.join(", "));
        }
        let nothing = self.passed + self.failed == 0;
        if nothing {
            println!("nothing ran");
        }
        println!(
            "conformance: {} passed, {} failed, {} not yet",
            self.passed, self.failed, self.not_yet_count
        );
        self.failed == 0 && !nothing
    }
}
