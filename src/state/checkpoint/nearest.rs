//! Guesses of the name that was meant.

use super::index::{Index, normal};

/// Number of names in a message.
const SHOWN: usize = 3;

impl Index {
    /// The names in the file that are nearest to a missing one.
    pub fn nearest(&self, name: &str) -> Vec<String> {
        let wanted = normal(name);
        let mut names: Vec<(usize, &str)> =
            self.names().map(|(key, name)| (distance(key, &wanted), name)).collect();
        names.sort();
        names.into_iter().take(SHOWN).map(|(_, name)| name.to_owned()).collect()
    }

    /// A guess of the layer's path. It is the file's only path, or one of two paths is the end of
    /// the other, or at most a third of the letters differ.
    pub fn guess(&self, path: &str, layers: &[String]) -> Option<String> {
        let wanted = normal(path.trim_end_matches(['.', '/']));
        let ranked = layers.iter().map(|layer| {
            let key = normal(layer);
            let is_end = ends_as(&key, &wanted) || ends_as(&wanted, &key);
            (!is_end, distance(&key, &wanted), layer)
        });
        let (is_other, distance, layer) = ranked.min()?;
        let is_near = !is_other || 3 * distance <= wanted.len().max(layer.len());
        let is_near = is_near || layers.len() == 1;
        is_near.then(|| layer.clone())
    }
}

/// Whether `whole` is `end` behind some part of a path.
fn ends_as(whole: &str, end: &str) -> bool {
    let before = whole.strip_suffix(end);
    before.is_some_and(|before| before.ends_with('.') || before.is_empty()) && !end.is_empty()
}

/// Number of letters to insert, delete or replace (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let exchanged = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("bn1", "bn2", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a:?}, {b:?}");
        }
    }

    #[test]
    fn a_guess_ends_alike_or_is_near_or_is_none() {
        let layers = ["module.layer1.0.bn1", "module.layer1.0.bn2"].map(str::to_owned);
        let guess = |path: &str| Index::default().guess(path, &layers);
        assert_eq!(guess("layer1.0.bn2").as_deref(), Some("module.layer1.0.bn2"));
        assert_eq!(guess("model/module/layer1/0/bn1/").as_deref(), Some("module.layer1.0.bn1"));
        assert_eq!(guess("nodule.layer1.0.bn1").as_deref(), Some("module.layer1.0.bn1"));
        assert_eq!(guess("decoder"), None);
        assert_eq!(guess(""), None);
        let only = Index::default().guess("", &layers[..1]);
        assert_eq!(only.as_deref(), Some("module.layer1.0.bn1"));
    }
}
