//! Owns the report as Markdown.

mod failure;

use std::fmt::{self, Display, Formatter};

use crate::judge::Worst;
use crate::layers::{Merge, Output};
use crate::record::{Checked, Report, Timed};
use syncbn_bench::output::{digits, markdown_table};

/// A report, written as Markdown by `Display`.
pub struct Markdown<'a>(pub &'a Report);

impl Display for Markdown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "# syncbn {} on {}\n", report.version, report.machine.name)?;
        writeln!(f, "{}", if report.passed { report.verdict() } else { bold(&report.verdict()) })?;
        report
            .machine
            .notice()
            .into_iter()
            .try_for_each(|notice| writeln!(f, "\n{}", bold(notice)))?;
        if report.quick {
            writeln!(
                f,
                "\n{}",
                bold(
                    "Made with --quick: fewer cases were checked, and few repeats of small \
                    tensors timed."
                )
            )?;
        }
        self.machine(f)?;
        section(
            f,
            "Golden cases",
            "Training steps of other programs, within the tolerances stored with them.",
        )?;
        writeln!(f, "{CHECKS}\n")?;
        checks(f, &report.conformance)?;
        let about = "Random inputs with every storage type, layout and epilogue, by quads and by \
            single values, against the definition in f64.";
        section(f, "Kernels", about)?;
        checks(f, &report.kernels)?;
        section(f, "Accuracy", "Hard inputs against the definition in f64.")?;
        checks(f, &report.accuracy)?;
        self.passes(f)?;
        report.failures.iter().try_for_each(|failure| failure::write(f, failure))?;
        let seconds =
            report.seconds.iter().map(|(section, seconds)| format!("{section} {seconds:.1} s"));
        writeln!(f, "\nTime: {}.", seconds.collect::<Vec<_>>().join(", "))
    }
}

impl Markdown<'_> {
    fn machine(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let machine = &self.0.machine;
        let mut table = markdown_table(["", ""], &[0, 1]);
        let subgroups = match machine.subgroup_sizes {
            [_, 0] => String::new(),
            [least, most] => format!("{least} to {most}"),
        };
        let paths = machine
            .fast_paths
            .iter()
            .map(|(name, taken)| format!("{name} {}", if *taken { "on" } else { "off" }));
        let limits = machine.limits.iter().map(|(name, value)| format!("{name} {value}"));
        for (name, value) in [
            ("syncbn", format!("{}, on wgpu {}", self.0.version, self.0.wgpu)),
            ("system", self.0.system.clone()),
            ("adapter", format!("{} ({})", machine.name, machine.device_type)),
            ("driver", format!("{} {}", machine.driver, machine.driver_info)),
            ("backend", machine.backend.clone()),
            ("PCI ids", machine.ids.clone()),
            ("subgroup sizes", subgroups),
            ("fast paths", paths.collect::<Vec<_>>().join(", ")),
            ("probe", machine.findings.join("; ")),
        ] {
            // The host has few of them.
            if !value.trim().is_empty() {
                table.add_row([name, value.trim()]);
            }
        }
        writeln!(f, "\n{table}")?;
        folded(
            f,
            &format!("{} limits", machine.limits.len()),
            &limits.collect::<Vec<_>>().join(", "),
        )?;
        folded(f, &format!("{} features", machine.features.len()), &machine.features.join(", "))
    }

    fn passes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let about = "Each pass beside a copy kernel of the same bytes, and the exchange of sums \
            beside the same submissions without the crate and beside a bare round trip.";
        section(f, "Passes", about)?;
        writeln!(f, "{PASSES}\n")?;
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
            "bare exchange us",
            "round trip us",
        ];
        let mut table = markdown_table(titles, &[0, 1, 2, 3]);
        table.add_rows(self.0.passes.iter().map(cells));
        writeln!(f, "{table}")?;
        match self.0.passes_left_out {
            0 => Ok(()),
            rows => {
                writeln!(f, "\n{rows} more rows were left out, because this machine took too long.")
            }
        }
    }
}

/// How to read a table of checks.
const CHECKS: &str = "Each cell: the largest error in ulp of the channel's largest value (error ÷ \
    bound; above 1 is wrong). 16-bit storage has only the quotient. \
    merge: the place where the statistics of the ranks merge.";
/// How to read the table of passes.
const PASSES: &str = "MB: least traffic of the pass. device ms: median time of its kernels. \
    wall ms: median time with submission and exchange. \
    ratio: time of the copy ÷ time of the pass. 1 is the speed of memory.";

fn bold(text: &str) -> String {
    format!("**{text}**")
}

/// Text that is shown when its title is clicked; nothing where there is no text.
fn folded(f: &mut Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n<details><summary>{title}</summary>\n\n{}\n\n</details>", text.trim_end())
}

fn section(f: &mut Formatter<'_>, title: &str, about: &str) -> fmt::Result {
    writeln!(f, "\n## {title}\n\n{about}\n")
}

/// A table of checks, folded away if all of them passed.
fn checks(f: &mut Formatter<'_>, checked: &[Checked]) -> fmt::Result {
    let table = table(checked);
    if checked.is_empty() {
        writeln!(f, "Nothing was checked.")
    } else if checked.iter().all(|checked| checked.passed) {
        folded(f, &format!("All {} rows passed", checked.len()), &table)
    } else {
        f.write_str(&table)
    }
}

/// A row per case and merge, a column per output.
fn table(checked: &[Checked]) -> String {
    const OUTPUTS: [Output; 5] =
        [Output::Y, Output::GradInput, Output::GradWeight, Output::GradBias, Output::GradResidual];
    let [y, grad_input, grad_weight, grad_bias, grad_residual] = OUTPUTS.map(Output::name);
    let header = ["case", "merge", y, grad_input, grad_weight, grad_bias, grad_residual, ""];
    let mut table = markdown_table(header, &[0, 1, 7]);
    for Checked { case, merge, passed, worst } in checked {
        let cell = |output| {
            worst.iter().find(|worst| worst.output == output).map_or("–".to_owned(), errors)
        };
        let mut cells = vec![case.clone(), merge.name().to_owned()];
        cells.extend(OUTPUTS.map(cell));
        cells.push(if *passed { "ok".to_owned() } else { bold("FAILED") });
        table.add_row(cells);
    }
    format!("{table}\n")
}

fn errors(worst: &Worst) -> String {
    let share = format!("{:.3}", worst.share);
    worst.ulps.map_or(share.clone(), |ulps| format!("{ulps:.2} ({share})"))
}

fn cells(Timed { merge, line }: &Timed) -> [String; 13] {
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
        micros(line.bare_exchange_us),
        micros(line.round_trip_us),
    ]
}
