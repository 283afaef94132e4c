//! A part of the variants for compilers that take long.
//!
//! Lines of a source that always come together are one choice. If two choices meet in some variant
//! of a kernel, they meet in a variant of the sample of pairs: every storage type with every flag,
//! and every flag with every other. The smaller sample has every line, but not in every kernel that
//! has it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::variants::Shader;

/// The parts of a kernel's variants that a sample must cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Every line, in some kernel. Most lines are of parts that kernels share.
    Lines,
    /// Every two choices that meet.
    Pairs,
}

/// The names of the sample, the same for the same sources.
pub fn names<'a>(cover: Cover, shaders: impl IntoIterator<Item = &'a Shader>) -> BTreeSet<String> {
    let mut kernels: BTreeMap<&str, Vec<&Shader>> = BTreeMap::new();
    for shader in shaders {
        let kernel = if cover == Cover::Lines { "all" } else { &shader.kernel };
        kernels.entry(kernel).or_default().push(shader);
    }
    kernels.values().flat_map(|variants| of_kernel(cover, variants)).collect()
}

fn of_kernel(cover: Cover, variants: &[&Shader]) -> Vec<String> {
    let of_choices = |choices: &BTreeSet<usize>| match cover {
        Cover::Lines => choices.iter().map(|&choice| (choice, choice)).collect(),
        Cover::Pairs => pairs(choices),
    };
    let covered: Vec<Vec<(usize, usize)>> = choices(variants).iter().map(of_choices).collect();
    let mut missing: BTreeSet<(usize, usize)> = covered.iter().flatten().copied().collect();
    // By what they added when they were looked at last, which only gets less: the first that still
    // adds as much adds most. Of equal ones the first counts.
    let by_count = |(number, covered): (usize, &Vec<_>)| (covered.len(), Reverse(number));
    let mut waiting: BinaryHeap<_> = covered.iter().enumerate().map(by_count).collect();
    let mut names = Vec::new();
    while let Some((added, Reverse(number))) = waiting.pop() {
        let adds = covered[number].iter().filter(|pair| missing.contains(pair)).count();
        if adds < added {
            waiting.push((adds, Reverse(number)));
        } else if adds > 0 {
            for pair in &covered[number] {
                missing.remove(pair);
            }
            names.push(variants[number].name.clone());
        }
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
fn pairs(choices: &BTreeSet<usize>) -> Vec<(usize, usize)> {
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
        let names = names(Cover::Pairs, &shaders);
        let sampled = shaders.iter().filter(|shader| names.contains(&shader.name));
        assert_eq!(meetings(sampled), meetings(shaders.iter()));
        assert!((4..20).contains(&names.len()), "{} of {}", names.len(), shaders.len());
    }

    #[test]
    fn every_line_is_in_the_smaller_sample() {
        let shaders = combinations(7);
        let names = names(Cover::Lines, &shaders);
        let lines = |sampled: &dyn Fn(&Shader) -> bool| -> BTreeSet<String> {
            let sampled = shaders.iter().filter(|shader| sampled(shader));
            sampled.flat_map(|shader| shader.source.lines()).map(str::to_owned).collect()
        };
        assert_eq!(lines(&|shader| names.contains(&shader.name)), lines(&|_| true));
        assert_eq!(names.len(), 2);
    }

    fn with_another_kernel(source: &str) -> Vec<Shader> {
        let mut shaders = combinations(3);
        let source = format!("{}{source}", shaders[0].source);
        let [kernel, name] = ["another", "another"].map(str::to_owned);
        shaders.push(Shader { kernel, name, source, ..shaders[0].clone() });
        shaders
    }

    #[test]
    fn kernels_have_samples_of_their_own() {
        let shaders = with_another_kernel("");
        assert!(names(Cover::Pairs, &shaders).contains("another"));
    }

    #[test]
    fn the_smaller_sample_has_a_line_once_and_leaves_no_line_out() {
        let count = |shaders: &[Shader]| names(Cover::Lines, shaders).len();
        assert_eq!(count(&with_another_kernel("")), 2);
        let shaders = with_another_kernel("a line of its own");
        assert!(names(Cover::Lines, &shaders).contains("another"));
        assert_eq!(count(&shaders), 2);
    }

    #[test]
    fn the_smaller_sample_has_every_kernel() {
        let shaders = Shader::all();
        let kernels = |shaders: &mut dyn Iterator<Item = &Shader>| -> BTreeSet<String> {
            shaders.map(|shader| shader.kernel.clone()).collect()
        };
        let names = names(Cover::Lines, &shaders);
        let sampled = kernels(&mut shaders.iter().filter(|shader| names.contains(&shader.name)));
        assert_eq!(sampled, kernels(&mut shaders.iter()));
    }
}
