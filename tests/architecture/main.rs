//! Keeps the module rules of the architecture: who may name whom, no panics in library code, the
//! form of files, the words of the field, and documents that lead to what exists and have no long
//! line.
//!
//! The sources are read as text with comments, string literals and `#[cfg(test)]` modules blanked
//! out, so prose trips nothing. A top-level module without a rule fails, which keeps the table
//! complete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

mod documents;
mod retired;
mod rules;
mod source;

use retired::{RETIRED, retired};
use rules::Reach::{AllBut, Below, Only};
use rules::{LAYERS, RULES, Rule};
use source::{code_only, files, first_segments, root, root_exports, tokens, without_tests};

/// What would abort the caller's program instead of returning an error.
const PANICS: &[&str] = &[".unwrap(", ".expect(", "panic!", "todo!", "unimplemented!"];

/// Lines of a shader file: what a reader takes in at once.
const SHADER_LINES: usize = 120;

/// Every breach of `rule` in one file that lies `depth` modules below the crate root.
fn breaches(
    rule: &Rule,
    depth: usize,
    text: &str,
    exports: &BTreeMap<String, String>,
) -> Vec<String> {
    let tokens = tokens(&without_tests(&code_only(text)));
    let mut found = Vec::new();
    let mut supers = 0;
    for (i, (line, token)) in tokens.iter().enumerate() {
        if rule.names.contains(&token.as_str()) {
            found.push(format!("line {line}: `{token}`"));
        }
        supers = match token.as_str() {
            "super" => supers + 1,
            "::" => supers,
            _ => 0,
        };
        let from_root = token == "crate" || (token == "super" && supers == depth);
        if from_root && tokens.get(i + 1).is_some_and(|next| next.1 == "::") {
            for (line, segment) in first_segments(&tokens, i + 2) {
                let target = exports.get(segment).unwrap_or(segment);
                let allowed = target == rule.module
                    || segment == "super"
                    || match rule.reach {
                        Only(modules) => modules.contains(&target.as_str()),
                        AllBut(modules) => !modules.contains(&target.as_str()),
                        Below(modules) => {
                            !modules.iter().chain(LAYERS).any(|module| module == target)
                        }
                    };
                if !allowed {
                    found.push(format!("line {line}: `crate::{segment}`, of module `{target}`"));
                }
            }
        }
    }
    found
}

/// Every call in library code that would abort the caller's program.
fn panics(text: &str) -> Vec<String> {
    let code = without_tests(&code_only(text));
    // A method of that name that the file declares itself returns an error; clippy knows the two
    // apart.
    let is_own = |call: &str| call == ".expect(" && code.contains("fn expect");
    let in_line =
        |line: &str| PANICS.iter().find(|call| line.contains(**call) && !is_own(call)).copied();
    code.lines()
        .enumerate()
        .filter_map(|(i, line)| Some(format!("line {}: `{}`", i + 1, in_line(line)?)))
        .collect()
}

/// What is wrong with the form of a shader file.
fn shader_form(text: &str) -> Option<String> {
    let lines = text.lines().count();
    if lines >= SHADER_LINES {
        return Some(format!("{lines} lines, allowed: below {SHADER_LINES}"));
    }
    (!text.starts_with("//")).then(|| "does not start with a comment".to_string())
}

/// The top-level module of a file below src/, and its depth below the crate root; none for lib.rs.
fn module_of(path: &Path) -> Option<(String, usize)> {
    let parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_str().unwrap().to_string()).collect();
    let depth =
        if parts.last().is_some_and(|last| last == "mod") { parts.len() - 1 } else { parts.len() };
    (parts[0] != "lib").then(|| (parts[0].clone(), depth))
}

/// `tests.rs` is the body of a `#[cfg(test)] mod tests;`.
fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_top_level_module_has_one_rule() {
    let known: Vec<&str> = RULES.iter().map(|rule| rule.module).collect();
    assert_eq!(known.len(), known.iter().collect::<BTreeSet<_>>().len(), "a module with two rules");
    let found: BTreeSet<String> = files(&root().join("src"), "rs")
        .iter()
        .filter_map(|file| Some(module_of(&file.0)?.0))
        .collect();
    assert_none(found.into_iter().filter(|module| !known.contains(&module.as_str())).collect());
}

#[test]
fn modules_touch_only_what_the_architecture_allows() {
    let sources = files(&root().join("src"), "rs");
    let lib = &sources.iter().find(|file| file.0 == Path::new("lib.rs")).expect("src/lib.rs").1;
    let exports = root_exports(lib);
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|file| !is_test_file(&file.0)) {
        let Some((module, depth)) = module_of(path) else { continue };
        let Some(rule) = RULES.iter().find(|rule| rule.module == module) else { continue };
        let here = breaches(rule, depth, text, &exports);
        found.extend(
            here.into_iter()
                .map(|what| format!("src/{}, {what}: not for `{module}`", path.display())),
        );
    }
    assert_none(found);
}

#[test]
fn library_code_returns_errors_instead_of_panicking() {
    let sources = files(&root().join("src"), "rs");
    let library = sources.iter().filter(|file| !is_test_file(&file.0));
    assert_none(
        library
            .flat_map(|(path, text)| {
                panics(text).into_iter().map(|w| format!("src/{}, {w}", path.display()))
            })
            .collect(),
    );
}

#[test]
fn unsafe_code_lies_in_one_module() {
    let is_unsafe =
        |text: &str| tokens(&code_only(text)).iter().any(|(_, token)| token == "unsafe");
    let sources = files(&root().join("src"), "rs");
    let found: Vec<_> =
        sources.iter().filter(|file| is_unsafe(&file.1)).map(|file| file.0.clone()).collect();
    assert_eq!(found, ["host/intrinsics/lend.rs", "host/intrinsics.rs"].map(Path::new));
}

#[test]
fn every_source_file_starts_with_what_it_owns() {
    let sources = files(&root().join("src"), "rs");
    assert_none(
        sources
            .iter()
            .filter(|f| !f.1.starts_with("//!"))
            .map(|f| format!("src/{}", f.0.display()))
            .collect(),
    );
}

#[test]
fn every_shader_file_is_short_and_starts_with_its_purpose() {
    let shaders = files(&root().join("shaders"), "wgsl");
    assert!(!shaders.is_empty(), "no shader found: the folder has moved, this test with it");
    assert_none(
        shaders
            .iter()
            .filter_map(|(path, text)| Some(format!("{}: {}", path.display(), shader_form(text)?)))
            .collect(),
    );
}

#[test]
fn retired_words_do_not_come_back() {
    let mut found = Vec::new();
    for (folder, extension) in [("src", "rs"), ("shaders", "wgsl")] {
        for (path, text) in files(&root().join(folder), extension) {
            let here = retired(&path, &text);
            found.extend(
                here.into_iter().map(|what| format!("{folder}/{}, {what}", path.display())),
            );
        }
    }
    assert_none(found);
}

#[test]
fn the_table_of_retired_words_names_each_once_and_says_none_of_them_instead() {
    let old: BTreeSet<&str> = RETIRED.iter().map(|(old, _)| *old).collect();
    assert_eq!(old.len(), RETIRED.len(), "a word that is retired twice");
    assert_none(
        RETIRED
            .iter()
            .filter(|(_, instead)| tokens(instead).iter().any(|(_, word)| old.contains(&**word)))
            .map(|(old, instead)| format!("`{old}`: `{instead}`"))
            .collect(),
    );
}

// The checks bite.
/// Breaches of the rule for `plan` in a file src/plan/x.rs, the crate root re-exporting `Tensor`
/// and `Shape`.
fn planted(text: &str) -> Vec<String> {
    let rule = RULES.iter().find(|rule| rule.module == "plan").unwrap();
    breaches(
        rule,
        2,
        text,
        &root_exports("pub use shape::Shape;\npub use tensor::{Other, Tensor};"),
    )
}

#[test]
fn a_planted_breach_is_found_by_every_way_to_write_it() {
    assert_eq!(planted("fn f() {}\nfn g(d: &wgpu::Device) {}"), ["line 2: `wgpu`"]);
    assert_eq!(planted("use crate::gpu::Context;"), ["line 1: `crate::gpu`, of module `gpu`"]);
    assert_eq!(
        planted("use crate::{\n    shape::{Shape, gpu},\n    engine,\n};"),
        ["line 3: `crate::engine`, of module `engine`"]
    );
    assert_eq!(
        planted("fn f(t: crate::Tensor) {}"),
        ["line 1: `crate::Tensor`, of module `tensor`"]
    );
    assert_eq!(planted("use crate::base::Base;"), ["line 1: `crate::base`, of module `base`"]);
    assert_eq!(
        planted("use super::super::host::Pool;"),
        ["line 1: `crate::host`, of module `host`"]
    );
}

#[test]
fn prose_strings_and_test_modules_trip_nothing() {
    let harmless = [
        "//! Never sees wgpu.\n/* nor /* crate::gpu */ wgpu */ \
        fn f<'a>(x: &'a str) -> char { '\"' }",
        "const A: &str = \"wgpu \\\" crate::gpu\"; const B: &str = r#\"wgpu \" wgpu\"#; \
        const C: char = '\\'';",
        "use crate::{Shape, plan::tiles, stats};\nuse super::gpu;",
        "fn f() {}\n#[cfg(test)]\nmod tests { use crate::gpu; fn g() { wgpu(); } }",
    ];
    for text in harmless {
        assert_eq!(planted(text), [""; 0], "{text}");
    }
    assert_eq!(
        planted("#[cfg(test)]\nmod tests {\n    use crate::gpu;\n}\nuse wgpu::A;"),
        ["line 5: `wgpu`"]
    );
}

#[test]
fn a_planted_panic_is_found_outside_tests_only() {
    assert_eq!(panics("fn f() {\n    g().unwrap();\n}"), ["line 2: `.unwrap(`"]);
    assert_eq!(
        panics("fn f() { todo!() }\n#[cfg(test)]\nmod tests { fn g() { h().unwrap() } }"),
        ["line 1: `todo!`"]
    );
    assert_eq!(
        panics("// .unwrap()\n#[expect(dead_code)]\nfn f() { g().unwrap_or(\"panic!\") }"),
        [""; 0]
    );
    assert_eq!(panics("fn f() { g().expect(\"\") }"), ["line 1: `.expect(`"]);
    assert_eq!(panics("fn expect<T>(&self) {}\nfn f() { self.expect(1) }"), [""; 0]);
}

#[test]
fn a_shader_that_is_long_or_starts_with_code_is_found() {
    assert_eq!(shader_form("// Purpose.\n"), None);
    assert!(shader_form("@compute fn main() {}\n").is_some());
    assert!(shader_form(&format!("// Purpose.\n{}", "// line\n".repeat(SHADER_LINES))).is_some());
}

#[test]
fn a_planted_retired_word_is_found_in_code_comments_and_paths() {
    let found = |path: &str, text: &str| retired(Path::new(path), text);
    let in_line_2 = ["line 2: `ask_ahead`, say `prefetch_ahead`"];
    assert_eq!(found("host/simd.rs", "fn f() {}\nfn ask_ahead() {}"), in_line_2);
    assert_eq!(found("host/simd.rs", "//! Sums.\n/// As [`ask_ahead`].\nfn f() {}"), in_line_2);
    assert_eq!(found("tile.wgsl", "// A tile.\nlet ask_ahead = 0u;"), in_line_2);
    assert_eq!(found("host/ask_ahead.rs", ""), ["the path: `ask_ahead`, say `prefetch_ahead`"]);
    assert_eq!(found("host/simd.rs", "fn ask_ahead_of_time() {}\nfn task_ahead() {}"), [""; 0]);
    let in_code_only = ["line 2: `Numbers`, say `ChannelParams`"];
    assert_eq!(found("host/simd.rs", "//! Numbers.\nstruct Numbers;"), in_code_only);
}
