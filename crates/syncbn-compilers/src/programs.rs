//! Judges that are programs: spirv-val takes one file at a time, glslang takes many.

use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::folder::Folder;
use crate::translate::Target;
use crate::verdict::{Verdict, in_parallel};

/// Files that glslang is given at once: it reads the language's own declarations once.
const BATCH: usize = 50;

/// A file to be judged, with the shader's name.
struct File {
    name: String,
    path: PathBuf,
}

/// Prints spirv-val's verdict on every module of one version, for a version of Vulkan.
///
/// # Errors
///
/// The list cannot be read.
pub fn spirv_val(folder: &Folder, target: &dyn Target, environment: &str) -> io::Result<()> {
    let verdicts = in_parallel(&files(folder, target)?, |file| {
        let result = match Command::new("spirv-val")
            .args(["--target-env", environment])
            .arg(&file.path)
            .output()
        {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
            }
            Err(error) => Err(format!("spirv-val: {error}")),
        };
        Verdict::new(&file.name, result)
    });
    print(&verdicts);
    Ok(())
}

/// Prints glslang's verdict on every source of one version.
///
/// # Errors
///
/// The list cannot be read, or the program cannot be run.
pub fn glslang(folder: &Folder, target: &dyn Target) -> io::Result<()> {
    let files = files(folder, target)?;
    let batches: Vec<&[File]> = files.chunks(BATCH).collect();
    for verdicts in in_parallel(&batches, |batch| of_batch(batch)) {
        print(&verdicts?);
    }
    Ok(())
}

/// glslang prints each path, and the errors under it; not the path where it is the only one. A
/// source that it does not mention gets no verdict.
fn of_batch(batch: &[File]) -> io::Result<Vec<Verdict>> {
    let paths = batch.iter().map(|file| &file.path);
    let output = Command::new("glslangValidator").args(paths).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut verdicts = Vec::new();
    let only = if let [file] = batch { Some(file) } else { None };
    let mut open: Option<(&File, String)> = only.map(|file| (file, String::new()));
    let mut close = |open: Option<(&File, String)>| {
        if let Some((file, found)) = open {
            verdicts.push(Verdict::new(
                &file.name,
                if found.contains("ERROR") { Err(found) } else { Ok(()) },
            ));
        }
    };
    for line in said.lines() {
        let named = batch.iter().find(|file| file.path.as_os_str() == line);
        if let Some(file) = named.filter(|_| only.is_none()) {
            close(open.replace((file, String::new())));
        } else if let Some((_, found)) = &mut open {
            found.push_str(line);
            found.push('\n');
        }
    }
    // If the program was killed, the last source has no verdict.
    if output.status.code().is_some() {
        close(open);
    }
    Ok(verdicts)
}

fn files(folder: &Folder, target: &dyn Target) -> io::Result<Vec<File>> {
    let judge = target
        .judge()
        .ok_or_else(|| io::Error::other(format!("nobody judges {}", target.name())))?;
    let file = |name: String| {
        let path = folder.file(&format!("{}/{name}{}", target.name(), target.ending()));
        File { name, path }
    };
    Ok(folder.list(&judge)?.into_iter().map(file).collect())
}

fn print(verdicts: &[Verdict]) {
    for verdict in verdicts {
        println!("{verdict}");
    }
}
