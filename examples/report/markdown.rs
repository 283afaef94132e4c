//! Owns the report as Markdown.

mod failure;

use std::fmt::{self, Display, Formatter};

use crate::bench::report::digits;
use crate::judge::Worst;
use crate::layers::{Merge, Output};
use crate::record::{Checked, Report, Timed};

/// A report, written as Markdown by `Display`.
pub struct Markdown<'a>(pub &'a Report);

impl Display for Markdown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "# syncbn {} on {}\n", report.version, report.machine.name)?;
        match report.failures.len() {
            0 => writeln!(f, "Everything passed.")?,
            count => writeln!(f, "**{count} FAILED**: see the end.")?,
        }
        self.machine(f)?;
        section(f, "Golden cases", "Training steps of other programs, within the tolerances stored with them.")?;
        checks(f, &report.conformance)?;
        let about = "Random inputs with every storage type, layout and epilogue, by quads and by single values, against the \
                     definition in f64.";
        section(f, "Kernels", about)?;
        checks(f, &report.kernels)?;
        let about = "Hard inputs against the definition in f64. Cells: ulp of the channel's largest value (share of the bound).";
        section(f, "Accuracy", about)?;
        checks(f, &report.accuracy)?;
        self.passes(f)?;
        report.failures.iter().try_for_each(|failure| failure::write(f, failure))?;
        let seconds = report.seconds.iter().map(|(section, seconds)| format!("{section} {seconds:.1} s"));
        writeln!(f, "\nTime: {}.", seconds.collect::<Vec<_>>().join(", "))
    }
}

impl Markdown<'_> {
    fn machine(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let machine = &self.0.machine;
        writeln!(f, "\n| | |\n|---|---|\n| system | {} |", self.0.system)?;
        let [least, most] = machine.subgroup_sizes;
        let paths =
            machine.fast_paths.iter().map(|(name, taken)| format!("{name} {}", if *taken { "on" } else { "off" }));
        let limits = machine.limits.iter().map(|(name, value)| format!("{name} {value}"));
        for (name, value) in [
            ("adapter", format!("{} ({})", machine.name, machine.device_type)),
            ("driver", format!("{} {}", machine.driver, machine.driver_info)),
            ("backend", machine.backend.clone()),
            ("PCI ids", machine.ids.clone()),
            ("subgroup sizes", format!("{least} to {most}")),
            ("fast paths", paths.collect::<Vec<_>>().join(", ")),
            ("probe", machine.findings.join("; ")),
            ("limits", limits.collect::<Vec<_>>().join(", ")),
            ("features", machine.features.join(", ")),
        ] {
            writeln!(f, "| {name} | {} |", value.trim())?;
        }
        Ok(())
    }

    fn passes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let about = "Each pass beside a copy kernel of the same bytes, and the exchange of sums beside a bare round trip to \
                     the device. A ratio of 1 is the speed of memory.";
        section(f, "Passes", about)?;
        let titles = [
            "shape",
            "form",
            "merge",
            "pass",
            "MB",
            "device ms",
            "wall ms",
            "GB/s",
            "copy GB/s",
            "ratio",
            "exchange us",
            "round trip us",
        ];
        writeln!(f, "| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len()))?;
        self.0.passes.iter().try_for_each(|timed| writeln!(f, "| {} |", cells(timed).join(" | ")))?;
        match self.0.passes_left_out {
            0 => Ok(()),
            rows => writeln!(f, "\n{rows} more rows were left out, because this machine took too long."),
        }
    }
}

fn section(f: &mut Formatter<'_>, title: &str, about: &str) -> fmt::Result {
    writeln!(f, "\n## {title}\n\n{about}\n")
}

/// A row per case and merge, a column per output.
fn checks(f: &mut Formatter<'_>, checked: &[Checked]) -> fmt::Result {
    const OUTPUTS: [Output; 5] =
        [Output::Y, Output::GradInput, Output::GradWeight, Output::GradBias, Output::GradResidual];
    let names = OUTPUTS.map(Output::name).join(" | ");
    writeln!(f, "| case | merge | {names} | |\n|---|---|{}", "---|".repeat(OUTPUTS.len() + 1))?;
    for Checked { case, merge, passed, worst } in checked {
        let cell = |output| worst.iter().find(|worst| worst.output == output).map_or("–".to_owned(), errors);
        let verdict = if *passed { "ok" } else { "**FAILED**" };
        writeln!(f, "| {case} | {} | {} | {verdict} |", merge.name(), OUTPUTS.map(cell).join(" | "))?;
    }
    Ok(())
}

fn errors(worst: &Worst) -> String {
    let share = format!("{:.3}", worst.share);
    worst.ulps.map_or(share.clone(), |ulps| format!("{ulps:.2} ({share})"))
}

fn cells(Timed { merge, line }: &Timed) -> [String; 12] {
    let micros = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.0}"));
    let shape: Vec<String> = line.shape.iter().map(usize::to_string).collect();
    [
        format!("({})", shape.join(", ")),
        format!("{} {} {}", line.dtype, line.layout, line.epilogue),
        Merge::name(*merge).to_owned(),
        line.pass.to_owned(),
        format!("{:.1}", line.bytes as f64 / 1e6),
        digits(line.device_ms),
        digits(line.wall_ms),
        format!("{:.1}", line.gb_per_s),
        format!("{:.1}", line.copy_gb_per_s),
        format!("{:.2}", line.copy_ratio),
        micros(line.exchange_us),
        micros(line.round_trip_us),
    ]
}
