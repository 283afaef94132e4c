//! What a document names and the repository has not.

use std::path::{Component, Path, PathBuf};

use super::tree::Tree;

/// Folders at whose names a word in backticks is taken for a path.
const FOLDERS: &[&str] =
    &["src", "scripts", "crates", "docs", "tests", "examples", "shaders", "fuzz", ".github", ".ci"];

/// Every fault of the document at `path`, with its line.
pub fn faults(tree: &Tree, path: &Path) -> Vec<String> {
    let document = &tree.documents[path];
    let links = document.links.iter().map(|(line, link)| (line, link_fault(tree, path, link)));
    let undefined = document
        .undefined
        .iter()
        .map(|(line, label)| (line, Some(format!("`[{label}]` is defined nowhere"))));
    let code = document.code.iter().flat_map(|(line, code)| {
        let faults =
            path_faults(tree, path, code).into_iter().chain(cargo_faults(tree, path, code));
        faults.map(move |fault| (line, Some(fault)))
    });
    let mut found: Vec<(&usize, String)> = links
        .chain(undefined)
        .chain(code)
        .filter_map(|(line, fault)| fault.map(|fault| (line, fault)))
        .collect();
    found.sort();
    found.into_iter().map(|(line, fault)| format!("line {line}: {fault}")).collect()
}

/// What is wrong with the target of a link; other sites are not asked.
fn link_fault(tree: &Tree, document: &Path, link: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let target = match file {
        "" => Some(document.to_path_buf()),
        _ => joined(document.parent()?, Path::new(file)),
    };
    let Some(target) = target.filter(|target| tree.exists(target)) else {
        return Some(format!("link to `{file}`, which does not exist"));
    };
    let anchor = anchor?;
    let has_anchor =
        tree.documents.get(&target).is_some_and(|target| target.anchors.contains(anchor));
    (!has_anchor).then(|| format!("link to `{link}`: no heading has this anchor"))
}

/// `path` seen from `folder`, without `..`; none for one outside the repository.
fn joined(folder: &Path, path: &Path) -> Option<PathBuf> {
    let mut joined = folder.to_path_buf();
    for part in path.components() {
        match part {
            Component::Normal(part) => joined.push(part),
            Component::CurDir => {}
            Component::ParentDir => joined.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(joined)
}

/// Words of `code` that are paths, as seen from the root or from the document's folder, and lead
/// nowhere.
fn path_faults(tree: &Tree, document: &Path, code: &str) -> Vec<String> {
    let folder = document.parent().unwrap_or(Path::new(""));
    let is_path = |word: &&str| {
        word.split_once('/').is_some_and(|(first, _)| FOLDERS.contains(&first))
            && !word.contains("::")
    };
    words(code)
        .filter(is_path)
        .filter(|word| {
            let known: PathBuf = Path::new(word).iter().take_while(|part| !varies(part)).collect();
            !tree.exists(&known) && !tree.exists(&folder.join(&known))
        })
        .map(|word| format!("`{word}` does not exist"))
        .collect()
}

/// A part of a path, or a name, that stands for several: `*.md`, `<name>.wgsl`, `…`, `NAME`.
fn varies(part: impl AsRef<std::ffi::OsStr>) -> bool {
    let part = part.as_ref().to_string_lossy();
    let stands_for_all = part.contains(['*', '<', '{', '$', '…']);
    stands_for_all || part.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The words of a line of code, without the signs around them and without a comment.
fn words(code: &str) -> impl Iterator<Item = &str> {
    let code = code.split(" # ").next().unwrap_or_default();
    code.split_whitespace().map(|word| word.trim_matches(['"', '\'', ',', ';', '(', ')', ':', '.']))
}

/// Packages and targets that a cargo command names and no package has.
fn cargo_faults(tree: &Tree, document: &Path, code: &str) -> Vec<String> {
    let words: Vec<&str> = words(code).collect();
    let Some(start) = words.iter().position(|word| *word == "cargo") else { return Vec::new() };
    let command = words[start..].split(|word| *word == "--").next().unwrap_or_default();
    let value_of = |flags: &[&str]| {
        let pairs = command.windows(2).filter(|pair| flags.contains(&pair[0]));
        pairs.map(|pair| pair[1]).find(|value| !varies(value))
    };
    let package = value_of(&["-p", "--package"]);
    // Where the command is run: in the document's own package, or in one around it.
    let concerned: Vec<_> = tree
        .packages
        .iter()
        .filter(|known| match package {
            Some(name) => known.name == name,
            None => document.starts_with(&known.folder),
        })
        .collect();
    if let Some(name) = package.filter(|_| concerned.is_empty()) {
        return vec![format!("there is no package `{name}`")];
    }
    ["example", "test", "bin", "bench"]
        .into_iter()
        .filter_map(|kind| Some((kind, value_of(&[&format!("--{kind}")])?)))
        .filter(|(kind, name)| {
            let mut targets = concerned.iter().flat_map(|package| &package.targets);
            !targets.any(|(of_kind, of_name)| of_kind == kind && of_name == name)
        })
        .map(|(kind, name)| format!("there is no {kind} `{name}`"))
        .collect()
}
