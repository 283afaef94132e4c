//! Owns reading folders of manifests. A broken one is a message that names it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One manifest: its format, its cases, and the folder that holds them.
pub struct Manifest {
    pub path: PathBuf,
    pub folder: PathBuf,
    pub format: String,
    pub cases: Vec<Value>,
}

/// Every `manifest.json` in `root` and its subfolders, in the order of their paths.
pub fn manifests(root: &Path) -> Result<Vec<Manifest>, String> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{}: no manifest.json in this folder or below it", root.display()));
    }
    paths.into_iter().map(manifest).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |error| format!("{}: cannot be read: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.file_name().is_some_and(|name| name == "manifest.json") {
            paths.push(path);
        }
    }
    Ok(())
}

fn manifest(path: PathBuf) -> Result<Manifest, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    let text =
        fs::read_to_string(&path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut json: Value =
        serde_json::from_str(&text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let format =
        json["format"].as_str().ok_or_else(|| wrong("has no \"format\"".to_owned()))?.to_owned();
    let Value::Array(cases) = json["cases"].take() else {
        return Err(wrong("has no list of \"cases\"".to_owned()));
    };
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    Ok(Manifest { folder, format, cases, path })
}
