//! Writes the seeds of every target into a folder of its own, and the names of the targets to
//! stdout: `seeds FOLDER`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: seeds FOLDER"))?;
    for (target, _, seeds) in syncbn_fuzz::TARGETS {
        std::fs::create_dir_all(folder.join(target))?;
        for (number, seed) in seeds().into_iter().enumerate() {
            std::fs::write(folder.join(target).join(format!("seed-{number}")), seed)?;
        }
        println!("{target}");
    }
    Ok(())
}
