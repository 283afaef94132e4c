//! Every Markdown document leads to what exists: files, headings, packages, examples, tests. No
//! line is long.

mod check;
mod lines;
mod markdown;
mod tree;

use std::path::{Path, PathBuf};

use super::assert_none;
use super::source::root;
use check::faults;
use lines::long_lines;
use markdown::{Document, slug};
use tree::{Package, Tree};

#[test]
fn documents_name_only_what_exists() {
    let tree = Tree::read(&root());
    for expected in ["README.md", "docs/GUIDE.md", "crates/syncbn-mpi/README.md"] {
        assert!(tree.documents.contains_key(Path::new(expected)), "{expected} was not read");
    }
    for expected in ["syncbn", "syncbn-bench", "syncbn-burn", "syncbn-web"] {
        assert!(tree.packages.iter().any(|package| package.name == expected), "{expected}");
    }
    let found = tree.documents.keys().flat_map(|path| {
        let here = faults(&tree, path);
        here.into_iter().map(move |fault| format!("{}, {fault}", path.display()))
    });
    assert_none(found.collect());
}

#[test]
fn no_line_of_a_document_is_long() {
    let tree = Tree::read(&root());
    let mut found = Vec::new();
    for path in tree.documents.keys() {
        let name = path.display();
        let long = long_lines(&std::fs::read_to_string(root().join(path)).unwrap());
        found.extend(long.iter().map(|fault| format!("{name}, {fault}")));
    }
    assert_none(found);
}

// The checks bite.
/// Faults of `text` as docs/PAGE.md of a small repository.
fn planted(text: &str) -> Vec<String> {
    let mut tree = Tree::default();
    let paths = ["README.md", "docs", "docs/PAGE.md", "docs/a.svg", "src", "src/plan.rs"];
    tree.paths.extend(paths.map(PathBuf::from));
    tree.documents
        .insert("README.md".into(), Document::parse("# Top\n## A `b`, c\n## Twice\n# Twice"));
    tree.documents.insert("docs/PAGE.md".into(), Document::parse(text));
    let package = |name: &str, folder: &str, kind: &str, target: &str| Package {
        name: name.to_owned(),
        folder: folder.into(),
        targets: vec![(kind.to_owned(), target.to_owned())],
    };
    tree.packages.push(package("root", "", "example", "first"));
    tree.packages.push(package("tool", "crates/tool", "test", "all"));
    faults(&tree, Path::new("docs/PAGE.md"))
}

#[test]
fn a_planted_link_to_nothing_is_found() {
    assert_eq!(
        planted("[a](a.svg) [b](../README.md) [c](https://example.org/x) ![d](a.svg)"),
        [""; 0]
    );
    let missing = |file: &str| format!("line 2: link to `{file}`, which does not exist");
    for file in ["b.svg", "README.md", "../docs/b.svg", "/README.md", "../../README.md"] {
        assert_eq!(planted(&format!("Text.\n[a]({file})")), [missing(file)]);
        assert_eq!(planted(&format!("Text.\n![a]({file})")), [missing(file)]);
        assert_eq!(planted(&format!("Text.\n[a]\n\n[a]: {file}")), [missing(file)]);
    }
}

#[test]
fn a_planted_anchor_of_no_heading_is_found() {
    let harmless = "# Here, too\n[a](#here-too) [b](../README.md#a-b-c) [c](../README.md#twice-1)";
    assert_eq!(planted(harmless), [""; 0]);
    let missing = |link: &str| format!("line 1: link to `{link}`: no heading has this anchor");
    for link in ["#here", "../README.md#A-b-c", "../README.md#twice-2", "a.svg#top"] {
        assert_eq!(planted(&format!("[a]({link})\n# Heading")), [missing(link)]);
    }
    assert_eq!(planted("[a](#b)\n```sh\n# b\n```"), [missing("#b")]);
}

#[test]
fn a_planted_label_without_a_definition_is_found() {
    assert_eq!(planted("[a][b], [`c`] and [d]\n\n[b]: a.svg\n[`c`]: a.svg"), [""; 0]);
    assert_eq!(planted("Text\n[a][b]"), ["line 2: `[b]` is defined nowhere"]);
    assert_eq!(planted("[`c`]"), ["line 1: `[`c`]` is defined nowhere"]);
}

#[test]
fn a_planted_path_that_is_not_there_is_found() {
    let harmless = "`src/plan.rs`, `src/`, `src/**`, `docs/*.md`, `src/<name>.rs`, `a/b`, \
        `src/x::y`\n\
        ```rust\nlet x = \"src/gone.rs\";\n```";
    assert_eq!(planted(harmless), [""; 0]);
    assert_eq!(planted("`src/gone.rs`"), ["line 1: `src/gone.rs` does not exist"]);
    assert_eq!(planted("`src/gone/*.rs`"), ["line 1: `src/gone/*.rs` does not exist"]);
    assert_eq!(
        planted("```sh\nls\nscripts/gone.sh x  # src/y\n```"),
        ["line 3: `scripts/gone.sh` does not exist"]
    );
    assert_eq!(planted("| a |\n|---|\n| `tests/it` |"), ["line 3: `tests/it` does not exist"]);
}

#[test]
fn a_planted_command_with_an_unknown_target_is_found() {
    let harmless = "`cargo run --example first`, `cargo test -p tool --test all -- --test x`\n\
        ```sh\nX=1 cargo run --release --example NAME\ncargo run --example …\n```";
    assert_eq!(planted(harmless), [""; 0]);
    assert_eq!(planted("`cargo run --example second`"), ["line 1: there is no example `second`"]);
    assert_eq!(planted("`cargo test -p tool --test some`"), ["line 1: there is no test `some`"]);
    assert_eq!(planted("`cargo test --test all`"), ["line 1: there is no test `all`"]);
    assert_eq!(planted("`cargo run -p root --bin first`"), ["line 1: there is no bin `first`"]);
    assert_eq!(planted("`cargo test --package tol`"), ["line 1: there is no package `tol`"]);
}

#[test]
fn a_planted_long_line_is_found() {
    let words = |characters: usize| "− ".repeat(characters / 2 - 1) + "ab";
    let fault = |line: usize| format!("line {line}: 102 characters, of 100 at most");
    assert_eq!(long_lines(&words(100)), [""; 0]);
    assert_eq!(long_lines(&words(102)), [fault(1)]);
    // Prose before and after a table, in a list, with a link among the words; code.
    let long = words(102);
    let table = format!("| {long} |\n|---|\n| {long} |\n");
    assert_eq!(long_lines(&table), [""; 0]);
    assert_eq!(long_lines(&format!("{long}\n\n{table}\n{long}\n")), [fault(1), fault(7)]);
    assert_eq!(long_lines(&format!("- {}", words(100))), [fault(1)]);
    assert_eq!(long_lines(&format!("[a](b) {}", words(96))).len(), 1);
    for language in ["sh", "rust", "toml"] {
        assert_eq!(long_lines(&format!("```{language}\n{long}\n```")), [fault(2)], "{language}");
    }
    for language in ["", "text", "text frame"] {
        let block = format!("```{language}\n{long}\n```\n");
        assert_eq!(long_lines(&block), [""; 0], "{language}");
        assert_eq!(long_lines(&format!("{block}{long}")), [fault(4)], "{language}");
    }
    // A link that no break makes shorter.
    let address = format!("https://example.org/{}", "x".repeat(100));
    for link in [format!("- [`a`]({address}),"), format!("[`a`]: {address}"), address] {
        assert_eq!(long_lines(&link), [""; 0], "{link}");
        assert_eq!(long_lines(&format!("See {link} there")).len(), 1, "{link}");
    }
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(slug("To change X, look at Y"), "to-change-x-look-at-y");
    assert_eq!(slug("The `sum_dy` of a – b"), "the-sum_dy-of-a--b");
    assert_eq!(slug("0.1.0, unreleased"), "010-unreleased");
}
