//! Checksums that show ranks with different settings, and the lists under the checksums. They are
//! no defence against an attacker.

use std::fmt::Display;
use std::sync::Arc;

/// FNV-1a over 64 bits (Fowler, Noll, Vo). 0 means "not given", so a hash of 0 becomes 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum(u64);

impl Checksum {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn add_u64(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    pub fn finish(self) -> u64 {
        self.0.max(1)
    }
}

/// Settings or state for comparison between ranks: lines `name = value`, which every program writes
/// alike (`docs/PROTOCOL.md`), and the checksum of that text.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The lines, each with a line feed behind it.
    pub text: Arc<str>,
    /// FNV-1a of the text.
    pub checksum: u64,
}

impl Manifest {
    /// The value of a name.
    pub(crate) fn value(&self, name: &str) -> &str {
        value(&self.text, name)
    }

    /// The first line whose value is not that of `expected`.
    pub(crate) fn first_difference<'a>(&'a self, expected: &'a Self) -> Option<Difference<'a>> {
        let names = lines(&expected.text).chain(lines(&self.text)).map(|(name, _)| name);
        names
            .map(|name| Difference {
                name,
                found: self.value(name),
                expected: expected.value(name),
            })
            .find(|difference| difference.found != difference.expected)
    }
}

/// A name with its values in two manifests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    pub name: &'a str,
    pub found: &'a str,
    pub expected: &'a str,
}

/// The value of a name that a list does not have.
const ABSENT: &str = "absent";

/// The lines of a list, as name and value.
pub(crate) fn lines(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().map(|line| line.split_once(" = ").unwrap_or((line, "")))
}

/// The value of a name in a list, or [`ABSENT`].
pub(crate) fn value<'a>(list: &'a str, name: &str) -> &'a str {
    lines(list).find(|line| line.0 == name).map_or(ABSENT, |line| line.1)
}

/// The lines of a [`Manifest`].
#[derive(Debug, Default)]
pub(crate) struct Listing(String);

impl Listing {
    pub fn add(&mut self, name: impl Display, value: impl Display) {
        self.0 += &format!("{name} = {value}\n");
    }

    pub fn finish(self) -> Manifest {
        let mut checksum = Checksum::new();
        checksum.add(self.0.as_bytes());
        Manifest { text: self.0.into(), checksum: checksum.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(settings: &[(&str, u32)]) -> Manifest {
        let mut lines = Listing::default();
        settings.iter().for_each(|(name, value)| lines.add(name, value));
        lines.finish()
    }

    #[test]
    fn the_first_line_that_differs_is_found_with_both_values() {
        let expected = manifest(&[("eps", 1), ("seed", 2), ("values[0]", 3)]);
        let found = manifest(&[("eps", 1), ("seed", 5), ("values[0]", 6)]);
        let seed = Difference { name: "seed", found: "5", expected: "2" };
        assert_eq!(found.first_difference(&expected), Some(seed));
        assert_eq!(expected.first_difference(&expected), None);
        // A line that only one of the two has.
        let shorter = manifest(&[("eps", 1), ("seed", 2)]);
        let name = "values[0]";
        let missing = Difference { name, found: ABSENT, expected: "3" };
        assert_eq!(shorter.first_difference(&expected), Some(missing));
        let further = Difference { name, found: "3", expected: ABSENT };
        assert_eq!(expected.first_difference(&shorter), Some(further));
    }
}
