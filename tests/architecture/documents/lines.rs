//! Lines of a Markdown document that are too long to read beside code.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};

/// Characters of a line at most.
const CHARACTERS: usize = 100;

/// Every line that is too long although it could be broken.
pub fn long_lines(text: &str) -> Vec<String> {
    let unbreakable = unbreakable(text);
    let mut found = Vec::new();
    let mut start = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let end = start + line.len();
        let characters = line.trim_end().chars().count();
        let is_unbreakable = unbreakable.iter().any(|block| block.start < end && start < block.end);
        if characters > CHARACTERS && !is_unbreakable && !is_link(line) {
            found.push(format!("line {number}: {characters} characters, of {CHARACTERS} at most"));
        }
        start = end;
    }
    found
}

/// Where tables and printed output lie: a break would change what they are.
fn unbreakable(text: &str) -> Vec<Range<usize>> {
    let blocks = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
    let unbreakable = blocks.filter(|(event, _)| match event {
        Event::Start(Tag::Table(_)) => true,
        Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
            language.is_empty() || language.starts_with("text")
        }
        _ => false,
    });
    unbreakable.map(|(_, span)| span).collect()
}

/// Whether the line is a link by itself, with at most its label or the sign of a list before it.
fn is_link(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.len() <= 2 && words.iter().any(|word| word.contains("://") || word.contains("]("))
}
