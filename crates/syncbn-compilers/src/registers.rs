//! Reports of GPU drivers' compilers on every variant: registers, and the number of resident
//! subgroups (occupancy).

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::folder::Folder;
use crate::variants::{Shader, WORKGROUP_SIZE};
use crate::verdict::Verdict;
use crate::vulkan::{Compiler, Layout, Statistic};

/// Statistics that are 0 if every value has a register.
const SPILLS: &[&str] = &["Spilled SGPRs", "Spilled VGPRs", "Scratch size", "SLM Size"];
/// Names of the number of registers of an invocation.
const REGISTERS: &[&str] = &["VGPRs", "Number of GPRs"];
/// Name of the number of subgroups that one SIMD unit can hold, in drivers that report it.
const RESIDENT: &str = "Subgroups per SIMD";
/// Constants of NVIDIA's Ampere: the 32-bit registers of a multiprocessor, their allocation unit
/// for a subgroup of 32, and the largest number of resident invocations.
const NVIDIA_REGISTERS: u64 = 65_536;
const NVIDIA_GRANULE: u64 = 8;
const NVIDIA_INVOCATIONS: u64 = 1536;

/// A compiler's report on one shader.
#[derive(Serialize, Deserialize)]
struct Report {
    kernel: String,
    form: String,
    registers: u64,
    /// Subgroups per SIMD unit, or on NVIDIA invocations per multiprocessor.
    resident: u64,
    statistics: Vec<Statistic>,
}

/// Prints the first Vulkan device's verdict on every shader: refused, spilled, or taken. Its
/// reports are kept under the chip's name.
///
/// # Errors
///
/// There is no device, or a file cannot be read or written.
pub fn judge(folder: &Folder, chip: &str) -> io::Result<()> {
    let compiler = Compiler::open().map_err(io::Error::other)?;
    eprintln!("{chip}: {}", compiler.name);
    let shaders = folder.shaders()?;
    let mut reports = Vec::new();
    for name in folder.list("mesa")? {
        let shader = shaders.iter().find(|shader| shader.name == name);
        let result = match shader {
            Some(shader) => compile(&compiler, folder, shader),
            None => Err("it is not in the table".to_owned()),
        };
        println!(
            "{}",
            Verdict::new(&name, result.as_ref().map_err(Clone::clone).and_then(spilled))
        );
        reports.extend(result);
    }
    folder.write(&format!("registers.{chip}.json"), serde_json::to_string_pretty(&reports)?)
}

fn compile(compiler: &Compiler, folder: &Folder, shader: &Shader) -> Result<Report, String> {
    let module = fs::read(folder.file(&format!("spirv-1.6/{}.spv", shader.name)))
        .map_err(|error| error.to_string())?;
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let words: Vec<u32> = module.chunks_exact(4).map(word).collect();
    let layout = Layout {
        storage_buffers: shader.buffers.len() as u32,
        has_lengths: shader.lengths_bytes > 0,
    };
    let statistics = compiler.compile(&words, layout).map_err(|error| error.to_string())?;
    let value =
        |name: &str| statistics.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let Some(registers) = REGISTERS.iter().find_map(|name| value(name)) else {
        return Err(format!("no number of registers among {statistics:?}"));
    };
    let resident = value(RESIDENT).unwrap_or_else(|| nvidia_invocations(registers));
    let form = format!("{}{}", shader.form, if shader.subgroups { ", subgroups" } else { "" });
    Ok(Report { kernel: shader.kernel.clone(), form, registers, resident, statistics })
}

/// Number of invocations that have registers at the same time.
fn nvidia_invocations(registers: u64) -> u64 {
    let each = registers.max(1).div_ceil(NVIDIA_GRANULE) * NVIDIA_GRANULE;
    let workgroup = u64::from(WORKGROUP_SIZE);
    let fit = NVIDIA_REGISTERS / each;
    (fit / workgroup * workgroup).min(NVIDIA_INVOCATIONS)
}

/// An error with the values that are not held in registers.
fn spilled(report: &Report) -> Result<(), String> {
    let spills = report
        .statistics
        .iter()
        .filter(|(name, value)| SPILLS.contains(&name.as_str()) && *value > 0);
    let found: Vec<String> = spills.map(|(name, value)| format!("{name}: {value}")).collect();
    if found.is_empty() { Ok(()) } else { Err(found.join(", ")) }
}

/// Prints a table: for each kernel and form the most registers of any variant and the least that
/// can be resident, by chip.
///
/// # Errors
///
/// A chip was not asked.
pub fn table(folder: &Folder, chips: &[String]) -> io::Result<()> {
    let mut rows: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (column, chip) in chips.iter().enumerate() {
        let reports: Vec<Report> = serde_json::from_str(&fs::read_to_string(
            folder.file(&format!("registers.{chip}.json")),
        )?)?;
        let mut worst: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for report in reports {
            let (registers, resident) =
                worst.entry((report.kernel, report.form)).or_insert((0, u64::MAX));
            *registers = report.registers.max(*registers);
            *resident = report.resident.min(*resident);
        }
        for (key, (registers, resident)) in worst {
            let cells = rows.entry(key).or_insert_with(|| vec!["–".to_owned(); chips.len()]);
            cells[column] = format!("{registers} / {resident}");
        }
    }
    println!(
        "Registers / what is resident with them: subgroups per SIMD, on NVIDIA invocations per \
        multiprocessor.\n"
    );
    println!("| kernel | form | {} |\n|---|---|{}", chips.join(" | "), "---|".repeat(chips.len()));
    for ((kernel, form), cells) in rows {
        println!("| {kernel} | {form} | {} |", cells.join(" | "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::nvidia_invocations;

    #[test]
    fn registers_bound_the_invocations_of_a_multiprocessor() {
        // 65,536 / 108 rounded up to 112 is 585: two workgroups of 256.
        assert_eq!(nvidia_invocations(108), 512);
        assert_eq!(nvidia_invocations(64), 1024);
        assert_eq!(nvidia_invocations(16), 1536);
    }
}
