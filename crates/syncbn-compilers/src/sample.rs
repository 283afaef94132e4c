//! A part of the variants for compilers that take long.
//!
//! Lines of a source that always come together are one choice. If two choices meet in some variant
//! of a kernel, they meet in a variant of the sample: every storage type with every flag, and every
//! flag with every other.

use std::collections::{BTreeMap, BTreeSet};

use crate::variants::Shader;

/// The names of the sample, the same for the same sources.
pub fn names<'a>(shaders: impl IntoIterator<Item = &'a Shader>) -> BTreeSet<String> {
    let mut kernels: BTreeMap<&str, Vec<&Shader>> = BTreeMap::new();
    for shader in shaders {
        kernels.entry(&shader.kernel).or_default().push(shader);
    }
    kernels.values().flat_map(|variants| of_kernel(variants)).collect()
}

fn of_kernel(variants: &[&Shader]) -> Vec<String> {
    let pairs: Vec<BTreeSet<(usize, usize)>> = choices(variants).iter().map(pairs).collect();
    let mut missing: BTreeSet<(usize, usize)> = pairs.iter().flatten().copied().collect();
    let mut names = Vec::new();
    // The variant that adds most pairs. Of equal ones the first counts.
    while !missing.is_empty() {
        let adds = |number: &usize| pairs[*number].intersection(&missing).count();
        let Some(best) = (0..variants.len()).rev().max_by_key(adds) else { break };
        missing.retain(|pair| !pairs[best].contains(pair));
        names.push(variants[best].name.clone());
    }
    names
}

/// The choices of each variant, by number.
fn choices(variants: &[&Shader]) -> Vec<BTreeSet<usize>> {
    let mut holders: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (number, shader) in variants.iter().enumerate() {
        for line in shader.source.lines() {
            holders.entry(line).or_default().insert(number);
        }
    }
    let sets: BTreeSet<BTreeSet<usize>> = holders.into_values().collect();
    let mut made = vec![BTreeSet::new(); variants.len()];
    for (choice, holders) in sets.iter().enumerate() {
        for &number in holders {
            made[number].insert(choice);
        }
    }
    made
}

/// Every two of them, and each with itself.
fn pairs(choices: &BTreeSet<usize>) -> BTreeSet<(usize, usize)> {
    let with = |first: usize| choices.range(first..).map(move |&second| (first, second));
    choices.iter().flat_map(|&first| with(first)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted;

    /// Every combination of some flags, each with two sources.
    fn combinations(flags: u32) -> Vec<Shader> {
        let source = |number: u32| {
            (0..flags).map(|flag| format!("flag {flag} is {}\n", number >> flag & 1)).collect()
        };
        let shader = |number: u32| Shader {
            source: source(number),
            name: number.to_string(),
            ..planted::good()
        };
        (0..1 << flags).map(shader).collect()
    }

    fn meetings<'a>(shaders: impl Iterator<Item = &'a Shader>) -> BTreeSet<(&'a str, &'a str)> {
        let of_shader = |shader: &'a Shader| {
            let lines: Vec<&str> = shader.source.lines().collect();
            let with =
                |first: &'a str| lines.clone().into_iter().map(move |second| (first, second));
            lines.iter().flat_map(|first| with(first)).collect::<Vec<_>>()
        };
        shaders.flat_map(of_shader).collect()
    }

    #[test]
    fn every_two_lines_that_meet_in_a_variant_meet_in_the_sample() {
        let shaders = combinations(7);
        let names = names(&shaders);
        let sampled = shaders.iter().filter(|shader| names.contains(&shader.name));
        assert_eq!(meetings(sampled), meetings(shaders.iter()));
        assert!((4..20).contains(&names.len()), "{} of {}", names.len(), shaders.len());
    }

    #[test]
    fn kernels_have_samples_of_their_own() {
        let mut shaders = combinations(3);
        let alone = Shader {
            kernel: "another".to_owned(),
            name: "another".to_owned(),
            ..shaders[0].clone()
        };
        shaders.push(alone);
        assert!(names(&shaders).contains("another"));
    }
}
