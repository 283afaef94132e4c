//! What a Markdown document names: its headings, links, and the words of its code.

use std::collections::BTreeSet;

use pulldown_cmark::{
    BrokenLink, CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd,
};

/// Languages of code blocks whose lines are commands.
const SHELLS: &[&str] = &["sh", "bash", "console"];

/// What one document names. Lines count from 1.
#[derive(Debug, Default)]
pub struct Document {
    /// Anchors that GitHub makes of the headings.
    pub anchors: BTreeSet<String>,
    /// Targets of links and images, with their lines.
    pub links: Vec<(usize, String)>,
    /// References such as `[text][label]` whose label has no definition.
    pub undefined: Vec<(usize, String)>,
    /// Text in backticks, and the lines of shell blocks.
    pub code: Vec<(usize, String)>,
}

impl Document {
    pub fn parse(text: &str) -> Self {
        let line_of = |at: usize| text[..at].matches('\n').count() + 1;
        let mut undefined = Vec::new();
        let note_undefined = |link: BrokenLink<'_>| -> Option<(CowStr<'_>, CowStr<'_>)> {
            // `[x]` alone may be prose; in backticks, or with a label of its own, it is a link.
            let is_link = link.link_type != LinkType::Shortcut || link.reference.starts_with('`');
            if is_link {
                undefined.push((line_of(link.span.start), link.reference.to_string()));
            }
            None
        };
        let parser = Parser::new_with_broken_link_callback(
            text,
            Options::ENABLE_TABLES,
            Some(note_undefined),
        );
        let mut found = Self::default();
        let mut heading: Option<String> = None;
        let mut in_shell = false;
        for (event, span) in parser.into_offset_iter() {
            let line = line_of(span.start);
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    found.links.push((line, dest_url.to_string()));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    found.add_anchor(&heading.take().unwrap_or_default());
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    in_shell = SHELLS.contains(&&*language);
                }
                Event::End(TagEnd::CodeBlock) => in_shell = false,
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    found.code.push((line, code.to_string()));
                }
                Event::Text(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                    if in_shell {
                        let lines = words.lines().enumerate();
                        found.code.extend(lines.map(|(i, words)| (line + i, words.to_owned())));
                    }
                }
                _ => {}
            }
        }
        found.undefined = undefined;
        found
    }

    /// Adds the anchor of a heading; one that is taken gets a number behind it.
    fn add_anchor(&mut self, heading: &str) {
        let slug = slug(heading);
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let free =
            std::iter::once(slug.clone()).chain(numbered).find(|a| !self.anchors.contains(a));
        self.anchors.extend(free);
    }
}

/// The anchor that GitHub makes of a heading: lower case, hyphens for spaces, and no other signs
/// than hyphens and underscores.
pub fn slug(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
