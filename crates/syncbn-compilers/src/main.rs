//! Writes every shader variant of `syncbn`, as WGSL and in every language that naga can write.
//! Compilers judge them without any GPU. `scripts/compilers.sh` installs the compilers, runs them,
//! and counts their verdicts.
//!
//! A judge gets a list of names and prints one line about each (`verdict`). It gets the variants,
//! and planted shaders, which it must refuse (`planted`).

mod folder;
mod planted;
mod programs;
mod registers;
mod sample;
mod translate;
mod variants;
mod verdict;
mod vulkan;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use folder::Folder;
use sample::Cover;
use translate::{Hlsl, TARGETS, Target};
use variants::Shader;

#[derive(Parser)]
#[command(about = "Writes every shader variant for other compilers to judge")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes all variants into a folder.
    Write {
        /// The folder, which is emptied.
        folder: PathBuf,
        /// Asks the compilers of Direct3D about all of them, and not about a sample.
        #[arg(long)]
        all: bool,
        /// Asks every compiler about a sample, and those of Direct3D about a smaller one.
        #[arg(long, conflicts_with = "all")]
        sample: bool,
    },
    /// Writes the planted shaders into a folder.
    Plant {
        /// The folder, which is emptied.
        folder: PathBuf,
    },
    /// Asks spirv-val about every module.
    SpirvVal {
        /// The folder.
        folder: PathBuf,
        /// The folder of the modules within it.
        language: String,
        /// The version of Vulkan.
        environment: String,
    },
    /// Asks glslang about every source.
    Glslang {
        /// The folder.
        folder: PathBuf,
        /// The folder of the sources within it.
        language: String,
    },
    /// Asks the compiler of the first Vulkan device about every module.
    Compile {
        /// The folder.
        folder: PathBuf,
        /// The name under which to keep its report.
        chip: String,
    },
    /// Prints the reports of the chips' compilers as tables.
    Registers {
        /// The folder.
        folder: PathBuf,
        /// The chips.
        #[arg(required = true)]
        chips: Vec<String>,
    },
    /// Prints the software adapter with the size of its subgroups.
    Subgroups,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Write { folder, all, sample } => write(&Folder::create(&folder)?, all, sample),
        Command::Plant { folder } => planted::fill(&Folder::create(&folder)?),
        Command::SpirvVal { folder, language, environment } => {
            programs::spirv_val(&Folder::open(&folder), target(&language)?, &environment)
        }
        Command::Glslang { folder, language } => {
            programs::glslang(&Folder::open(&folder), target(&language)?)
        }
        Command::Compile { folder, chip } => registers::judge(&Folder::open(&folder), &chip),
        Command::Registers { folder, chips } => registers::tables(&Folder::open(&folder), &chips),
        Command::Subgroups => subgroups(),
    }
}

/// Writes the variants, or a sample of them.
fn write(folder: &Folder, all: bool, sample: bool) -> io::Result<()> {
    let mut shaders = Shader::all();
    let variants = shaders.len();
    // Each compiler has a sample of its own: of what it can compile. Those of Direct3D are slow:
    // FXC takes a second for each shader.
    let cover = if sample { Cover::Lines } else { Cover::Pairs };
    let of_dxc = sample::names(cover, &shaders);
    let of_fxc = sample::names(cover, shaders.iter().filter(|shader| Hlsl::V5_1.takes(shader)));
    if sample {
        let mut of_all = sample::names(Cover::Pairs, &shaders);
        of_all.extend(of_dxc.iter().chain(&of_fxc).cloned());
        shaders.retain(|shader| of_all.contains(&shader.name));
    }
    let [all_others, dxc, fxc] = [shaders.len(), of_dxc.len(), of_fxc.len()];
    println!("{variants} variants; {all_others} for all, {dxc} for DXC, {fxc} for FXC");
    let asked =
        |names: BTreeSet<String>| move |shader: &Shader| all || names.contains(&shader.name);
    folder::fill(folder, &shaders, asked(of_dxc), asked(of_fxc))
}

fn target(language: &str) -> io::Result<&'static dyn Target> {
    let found = TARGETS.iter().find(|target| target.name() == language);
    found.copied().ok_or_else(|| io::Error::other(format!("there is no language {language}")))
}

/// The first adapter that is no hardware.
fn subgroups() -> io::Result<()> {
    use syncbn::wgpu;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    for adapter in adapters {
        let info = adapter.get_info();
        if info.device_type == wgpu::DeviceType::Cpu {
            println!("{}: {} to {}", info.name, info.subgroup_min_size, info.subgroup_max_size);
            return Ok(());
        }
    }
    Err(io::Error::other("there is no software driver"))
}
