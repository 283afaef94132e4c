//! Owns the targets of a report: standard output and files. Files are opened before anything is
//! measured.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::markdown::Markdown;
use crate::options::Options;
use crate::record::Report;

/// A file that could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{option} {}: the file cannot be opened: {source}", path.display())]
    Open { option: &'static str, path: PathBuf, source: io::Error },
    #[error("{option} {}: the file cannot be written: {source}", path.display())]
    Write { option: &'static str, path: PathBuf, source: io::Error },
    #[error("standard output: {0}")]
    Standard(io::Error),
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The files of the command line.
#[derive(Debug)]
pub struct Targets {
    markdown: Option<Target>,
    json: Option<Target>,
}

/// A file, and the option that names it.
#[derive(Debug)]
struct Target {
    option: &'static str,
    path: PathBuf,
    file: File,
}

impl Targets {
    /// Opens the files. Their contents stay until a report is written.
    ///
    /// # Errors
    ///
    /// Where one cannot be opened for writing.
    pub fn open(options: &Options) -> Result<Self, TargetError> {
        let open = |option, path: &Option<PathBuf>| {
            path.as_deref().map(|path| Target::open(option, path)).transpose()
        };
        Ok(Self {
            markdown: open("--markdown", &options.markdown)?,
            json: open("--json", &options.json)?,
        })
    }

    /// Writes the report everywhere; a file that fails keeps nothing else from being written. The
    /// Markdown goes to `standard` where it has no file, or one that fails.
    ///
    /// # Errors
    ///
    /// Everything that could not be written.
    pub fn write(self, report: &Report, standard: &mut dyn Write) -> Result<(), Vec<TargetError>> {
        let mut errors = Vec::new();
        errors.extend(self.json.and_then(|target| target.write_json(report).err()));
        let markdown = Markdown(report).to_string();
        let has_file = self.markdown.is_some();
        let failed = self.markdown.and_then(|target| target.write(markdown.as_bytes()).err());
        if failed.is_some() || !has_file {
            errors.extend(standard.write_all(markdown.as_bytes()).err().map(TargetError::Standard));
        }
        errors.extend(failed);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

impl Target {
    fn open(option: &'static str, path: &Path) -> Result<Self, TargetError> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file =
            file.map_err(|source| TargetError::Open { option, path: path.to_owned(), source })?;
        Ok(Self { option, path: path.to_owned(), file })
    }

    fn write_json(self, report: &Report) -> Result<(), TargetError> {
        let json = serde_json::to_string_pretty(report)?;
        self.write(json.as_bytes())
    }

    fn write(mut self, contents: &[u8]) -> Result<(), TargetError> {
        // A pipe has no length to set.
        let emptied = if self.file.metadata().is_ok_and(|facts| facts.is_file()) {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        let written = emptied.and_then(|()| self.file.write_all(contents));
        written.map_err(|source| TargetError::Write {
            option: self.option,
            path: self.path,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_contents_until_a_report_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.md");
        std::fs::write(&path, "an earlier, longer report").expect("a written file");
        let target = Target::open("--markdown", &path).expect("an opened file");
        let contents = || std::fs::read_to_string(&path).expect("a readable file");
        assert_eq!(contents(), "an earlier, longer report");
        target.write(b"new").expect("a written file");
        assert_eq!(contents(), "new");
    }
}
