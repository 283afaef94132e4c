//! Reports of GPU drivers' compilers on every variant: registers, the number of resident subgroups
//! (occupancy), and the number of instructions.

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
/// Names of the number of instructions of the whole kernel.
const INSTRUCTIONS: &[&str] = &["Instructions", "Instruction count"];
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
    /// Of a kernel without an epilogue, all of whose activations are stored alike.
    storage: Option<String>,
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
    let Some(registers) = value(&statistics, REGISTERS) else {
        return Err(format!("no number of registers among {statistics:?}"));
    };
    let resident = value(&statistics, &[RESIDENT]).unwrap_or_else(|| nvidia_invocations(registers));
    let form = format!("{}{}", shader.form, if shader.subgroups { ", subgroups" } else { "" });
    let kernel = shader.kernel.clone();
    let storage = shader.storage.clone();
    Ok(Report { kernel, form, storage, registers, resident, statistics })
}

/// The first of some statistics that is reported.
fn value(statistics: &[Statistic], names: &[&str]) -> Option<u64> {
    let of = |name: &&str| statistics.iter().find(|(known, _)| known == name);
    names.iter().find_map(of).map(|(_, value)| *value)
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

/// Prints two tables, by chip: for each kernel and form the most registers of any variant and the
/// least that can be resident; and of kernels without an epilogue the number of instructions.
///
/// # Errors
///
/// A chip was not asked.
pub fn tables(folder: &Folder, chips: &[String]) -> io::Result<()> {
    let mut registers = Table::new(&["kernel", "form"], chips);
    let mut instructions = Table::new(&["kernel", "form", "storage"], chips);
    for (column, chip) in chips.iter().enumerate() {
        let reports: Vec<Report> = serde_json::from_str(&fs::read_to_string(
            folder.file(&format!("registers.{chip}.json")),
        )?)?;
        let mut worst: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for Report { kernel, form, storage, registers, resident, statistics } in reports {
            let (most, least) =
                worst.entry(vec![kernel.clone(), form.clone()]).or_insert((0, u64::MAX));
            *most = registers.max(*most);
            *least = resident.min(*least);
            if let (Some(storage), Some(count)) = (storage, value(&statistics, INSTRUCTIONS)) {
                instructions.set(vec![kernel, form, storage], column, count.to_string());
            }
        }
        for (key, (most, least)) in worst {
            registers.set(key, column, format!("{most} / {least}"));
        }
    }
    println!(
        "Registers / what is resident with them: subgroups per SIMD, on NVIDIA invocations per \
        multiprocessor.\n"
    );
    registers.print();
    println!("\nInstructions of the whole kernel, of layers without an epilogue.\n");
    instructions.print();
    Ok(())
}

/// A table in Markdown, with a column for each chip.
struct Table {
    header: Vec<String>,
    chips: usize,
    rows: BTreeMap<Vec<String>, Vec<String>>,
}

impl Table {
    fn new(keys: &[&str], chips: &[String]) -> Self {
        let header = keys.iter().map(|key| (*key).to_owned()).chain(chips.iter().cloned());
        Self { header: header.collect(), chips: chips.len(), rows: BTreeMap::new() }
    }

    fn set(&mut self, key: Vec<String>, column: usize, cell: String) {
        let row = self.rows.entry(key).or_insert_with(|| vec!["–".to_owned(); self.chips]);
        row[column] = cell;
    }

    fn print(&self) {
        println!("| {} |\n|{}", self.header.join(" | "), "---|".repeat(self.header.len()));
        for (key, cells) in &self.rows {
            println!("| {} | {} |", key.join(" | "), cells.join(" | "));
        }
    }
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
