//! The preprocessor of the WGSL files: a kernel names at its head what it uses, and what a variant
//! does not need is not compiled.
//!
//! A line holds one directive:
//!
//! | directive | effect |
//! |---|---|
//! | `#import NAME` | the file `shaders/parts/NAME.wgsl`, once per shader |
//! | `#import NAME(WORD)` | that file with `OPERAND` replaced by `WORD`, once per word |
//! | `#import params` | the parameter struct of the kernel and its binding |
//! | `#if FLAG`, `#if !FLAG` | keeps lines up to `#else` or `#endif` if the flag is set, or not |
//! | `#else`, `#endif` | the other branch of a condition, and its end; conditions may be nested |
//!
//! An import that it does not know stays in the source, where a compiler refuses it: it cannot
//! fail. That conditions end where they should is tested of every file.

use std::collections::BTreeSet;

use super::files::part;

/// What the source of a shader depends on.
pub(super) struct Definitions {
    /// Flags that are set.
    pub flags: BTreeSet<String>,
    /// Words, and what they are replaced by.
    pub words: Vec<(String, String)>,
    /// The parameter struct and its binding, in WGSL.
    pub params: String,
}

impl Definitions {
    /// The source of a file, with what it imports where it does.
    pub fn expand(&self, file: &str) -> String {
        let mut expansion =
            Expansion { definitions: self, imported: BTreeSet::new(), source: String::new() };
        expansion.file(file, None);
        let mut source = expansion.source;
        for (word, replacement) in &self.words {
            source = source.replace(word.as_str(), replacement);
        }
        source
    }
}

struct Expansion<'a> {
    definitions: &'a Definitions,
    /// Directives of what has been imported.
    imported: BTreeSet<String>,
    source: String,
}

impl Expansion<'_> {
    /// Appends a file, with what it imports in the place of the directives.
    fn file(&mut self, source: &str, operand: Option<&str>) {
        // Whether each condition around the current line holds.
        let mut conditions: Vec<bool> = Vec::new();
        for line in source.lines() {
            let line =
                operand.map_or_else(|| line.to_owned(), |operand| line.replace("OPERAND", operand));
            let (directive, argument) = line.split_once(' ').unwrap_or((&line, ""));
            match directive {
                "#if" => conditions.push(self.holds(argument)),
                "#else" => {
                    conditions.iter_mut().last().into_iter().for_each(|holds| *holds = !*holds)
                }
                "#endif" => drop(conditions.pop()),
                _ if conditions.contains(&false) => {}
                "#import" => self.import(argument),
                _ => {
                    self.source.push_str(&line);
                    self.source.push('\n');
                }
            }
        }
    }

    fn holds(&self, condition: &str) -> bool {
        match condition.strip_prefix('!') {
            Some(flag) => !self.definitions.flags.contains(flag),
            None => self.definitions.flags.contains(condition),
        }
    }

    fn import(&mut self, what: &str) {
        if !self.imported.insert(what.to_owned()) {
            return;
        }
        let (name, operand) = match what.strip_suffix(')').and_then(|what| what.split_once('(')) {
            Some((name, operand)) => (name, Some(operand)),
            None => (what, None),
        };
        match part(name) {
            _ if name == "params" => self.source.push_str(&self.definitions.params),
            Some(source) => self.file(source, operand),
            None => self.source.push_str(&format!("#import {what}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(source: &str, flags: &[&str]) -> String {
        let definitions = Definitions {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            words: vec![("x_BINDING".to_owned(), "1".to_owned())],
            params: "struct Params {}\n".to_owned(),
        };
        definitions.expand(source)
    }

    #[test]
    fn conditions_nest_and_have_two_branches() {
        let source =
            "#if A\n1\n#if B\n2\n#else\n3\n#endif\n#else\n4\n#if !B\n5\n#endif\n#endif\n6\n";
        assert_eq!(expanded(source, &["A", "B"]), "1\n2\n6\n");
        assert_eq!(expanded(source, &["A"]), "1\n3\n6\n");
        assert_eq!(expanded(source, &["B"]), "4\n6\n");
        assert_eq!(expanded(source, &[]), "4\n5\n6\n");
    }

    #[test]
    fn a_file_is_imported_once_and_an_operand_s_once_for_each() {
        let once = expanded("#import element\n#import element\n", &[]);
        assert_eq!(once.matches("alias V = f32;").count(), 1);
        let loads = expanded("#import load(x)\n#import load(grad_output)\n#import load(x)\n", &[]);
        assert_eq!(loads.matches("fn load_x(").count(), 1);
        assert_eq!(loads.matches("fn load_grad_output(").count(), 1);
        assert_eq!(loads.matches("OPERAND").count(), 0);
    }

    #[test]
    fn nothing_is_imported_from_a_branch_that_is_left_out() {
        assert_eq!(
            expanded("#if A\n#import element\n#endif\n#import params\n", &[]),
            "struct Params {}\n"
        );
    }

    #[test]
    fn what_is_unknown_stays_for_the_compiler_to_refuse() {
        assert_eq!(expanded("#import nothing\nx_BINDING\n", &[]), "#import nothing\n1\n");
    }
}
