//! Rust sources as text without prose: comments, literals and test modules blanked out, then cut
//! into tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this extension, as (path relative to `folder`, text), sorted.
pub fn files(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in
            std::fs::read_dir(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(folder).unwrap().to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}

/// The text with comments, string and character literals turned into spaces; line breaks stay.
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match chars[i] {
            '/' if at(i + 1) == '/' => {
                (i..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len())
            }
            '/' if at(i + 1) == '*' => end_of_block_comment(&chars, i),
            '"' => end_of_quoted(&chars, i, '"'),
            // A raw string, but not a word that ends in r, nor a raw identifier.
            'r' if matches!(at(i + 1), '"' | '#')
                && (i == 0 || !is_word(at(i - 1)) || matches!(at(i - 1), 'b' | 'c')) =>
            {
                let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
                if at(i + 1 + hashes) == '"' {
                    end_of_raw_string(&chars, i + 2 + hashes, hashes)
                } else {
                    i
                }
            }
            // A character, but not a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => end_of_quoted(&chars, i, '\''),
            _ => i,
        };
        if end == i {
            code.push(chars[i]);
            i += 1;
        } else {
            code.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    code
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn end_of_raw_string(chars: &[char], start: usize, hashes: usize) -> usize {
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (start..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + 1 + hashes)
}

/// The code without its inline `#[cfg(test)]` modules.
pub fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let (before, from) = rest.split_at(start);
        kept.push_str(before);
        let item = from["#[cfg(test)]".len()..].trim_start();
        let body = item
            .find(['{', ';'])
            .filter(|&i| item.starts_with("mod ") && item[i..].starts_with('{'));
        let skipped = body.map_or("#[cfg(test)]".len(), |open| {
            let mut depth = 0;
            let close = item[open..].find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            from.len() - item.len() + close.map_or(item.len(), |close| open + close + 1)
        });
        kept.extend(from[..skipped].chars().filter(|&c| c == '\n'));
        rest = &from[skipped..];
    }
    kept + rest
}

/// Words, `::`, and single other characters, each with its line.
pub fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let length = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
            tokens.push((line + 1, rest[..length].to_string()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// First segments of the paths that start at `tokens[at]`: one, or those of a `{…}` group.
pub fn first_segments(tokens: &[(usize, String)], at: usize) -> Vec<&(usize, String)> {
    let mut segments = Vec::new();
    let mut depth = 0;
    let mut starts = true;
    for token in &tokens[at..] {
        match token.1.as_str() {
            "{" => (depth, starts) = (depth + 1, depth == 0),
            "}" => depth -= 1,
            "," => starts = depth == 1,
            _ if starts && depth <= 1 => (starts, _) = (false, segments.push(token)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    segments
}

/// What the crate root hands out under its own name: item -> the module it comes from.
pub fn root_exports(lib: &str) -> BTreeMap<String, String> {
    let tokens = tokens(&without_tests(&code_only(lib)));
    let mut exports = BTreeMap::new();
    for (i, window) in tokens.windows(3).enumerate() {
        if window[0].1 == "use" && window[2].1 == "::" {
            let items = tokens[i + 3..].iter().take_while(|token| token.1 != ";");
            exports.extend(items.map(|item| (item.1.clone(), window[1].1.clone())));
        }
    }
    exports
}
