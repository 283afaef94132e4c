//! What every shader variant must satisfy, checked on naga's intermediate representation without
//! any GPU.
//!
//! `shaders/check.rs` holds the checks of interface and limits, `shaders/uniformity.rs` the one of
//! barriers, `shaders/cancellation.rs` the one of differences, `shaders/choices.rs` the one of
//! choices between integers, and `shaders/planted.rs` and `shaders/planted_cancellations.rs` the
//! bad shaders that show that each of them bites.

use std::collections::BTreeSet;

use naga::valid::Capabilities;
use syncbn::low_level::shaders::{Dialect, Variant};
use syncbn::wgpu;

mod cancellation;
mod check;
mod choices;
mod pipeline;
mod planted;
mod planted_cancellations;
mod probe;
mod uniformity;

use cancellation::Exempt;
use check::{Interface, Shader};

/// Runs one check over every variant and fails with all that was found.
fn every_variant(mut check: impl FnMut(&Variant) -> Vec<String>) {
    let variants = Variant::all();
    assert!(!variants.is_empty());
    let found: Vec<String> = variants
        .iter()
        .flat_map(|variant| {
            check(variant).into_iter().map(|what| format!("{}: {what}", label(variant)))
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn label(variant: &Variant) -> String {
    format!("{variant:?}")
}

/// The shader of a variant, with the capabilities that it may ask for, conversions of f16 and
/// subgroups.
fn parse(variant: &Variant) -> Result<Shader, String> {
    let f16 = match variant.converts_f16() {
        true => Capabilities::SHADER_FLOAT16_IN_FLOAT32,
        false => Capabilities::empty(),
    };
    let subgroups =
        if variant.needs_subgroups() { Capabilities::SUBGROUP } else { Capabilities::empty() };
    Shader::parse_with(&variant.source(), f16 | subgroups)
}

/// The shader of a portable variant as OpenGL gets it.
fn parse_for_opengl(variant: &Variant) -> Option<Result<Shader, String>> {
    let is_taken = !variant.converts_f16() && !variant.needs_subgroups();
    is_taken.then(|| Shader::parse(&variant.source_in(Dialect::Glsl430)))
}

/// Differences in which nothing cancels that was not known.
const EXEMPT: &[Exempt] = &[
    Exempt {
        function: "update_running",
        line: "1.0 - batch_weight",
        reason: "batch_weight is 1/batches: at most ½, or 1 exactly, of which nothing is left",
    },
    GRADIENT_FROM_STATISTICS,
];

/// The questions to a driver have it too.
const GRADIENT_FROM_STATISTICS: Exempt = Exempt {
    function: "gradient_of",
    line: "g - from_statistics",
    reason: "the result is held against the sizes of both terms, not of their difference",
};

/// One test, because parsing a source costs more than all checks of it: it validates without an
/// optional capability but those it asks for; every parameter struct and binding table equals the
/// shader's; it stays within the portable limits; no barrier is in non-uniform control flow; no
/// difference is one that a compiler may take apart.
#[test]
fn every_variant_passes_every_check() {
    let mut used = BTreeSet::new();
    let mut portable = 0;
    every_variant(|variant| {
        let shader = match parse(variant) {
            Ok(shader) => shader,
            Err(error) => return vec![error],
        };
        portable += usize::from(!variant.converts_f16() && !variant.needs_subgroups());
        let (mut found, exempt) = cancellation::cancellations(&shader, EXEMPT);
        used.extend(exempt);
        found.extend(check::interface(&shader, &Interface::of(variant)));
        found.extend(check::limits(&shader));
        found.extend(uniformity::misplaced_barriers(&shader));
        found
    });
    assert!(portable > 0, "every variant asks for a capability");
    assert_eq!(used.len(), EXEMPT.len(), "exemptions that nothing needs: those used are {used:?}");
}

/// What OpenGL gets differs in `parts/choose.wgsl` alone, in two functions on integers. They
/// declare nothing and wait for nobody, so that interface, barriers and pipelines are those of the
/// other source; the rest is checked in one go, because parsing costs the most.
#[test]
fn every_variant_for_opengl_passes_the_same_checks_and_chooses_between_no_integers() {
    let mut count = 0;
    every_variant(|variant| {
        let shader = match parse_for_opengl(variant) {
            None => return Vec::new(),
            Some(Err(error)) => return vec![error],
            Some(Ok(shader)) => shader,
        };
        count += 1;
        let (mut found, _) = cancellation::cancellations(&shader, EXEMPT);
        found.extend(check::limits(&shader));
        found.extend(choices::between_integers(&shader));
        found
    });
    assert!(count > 0, "OpenGL takes no variant");
}

#[test]
fn what_opengl_gets_differs_in_choices_alone() {
    let without_choices = |source: String| -> String {
        // Up to the brace that is not indented.
        let mut is_choice = false;
        let kept = source.lines().filter(|line| {
            is_choice |= line.starts_with("fn choose");
            let is_kept = !is_choice;
            is_choice &= *line != "}";
            is_kept
        });
        kept.collect::<Vec<_>>().join("\n")
    };
    every_variant(|variant| {
        let [full, opengl] =
            [Dialect::Full, Dialect::Glsl430].map(|dialect| variant.source_in(dialect));
        let differs = without_choices(full) != without_choices(opengl);
        differs.then(|| "another difference than in choices".to_owned()).into_iter().collect()
    });
}

#[test]
fn every_variant_makes_a_pipeline_with_the_layout_of_its_tables() {
    let portable = pipeline::device(wgpu::Features::empty());
    let with_subgroups = pipeline::device(wgpu::Features::SUBGROUP);
    every_variant(|variant| {
        let device = if variant.needs_subgroups() { &with_subgroups } else { &portable };
        pipeline::refusal(device, &variant.source(), &Interface::of(variant)).into_iter().collect()
    });
}

#[test]
fn every_variant_has_a_source_of_its_own() {
    let variants = Variant::all();
    let sources: BTreeSet<String> = variants.iter().map(Variant::source).collect();
    assert_eq!(
        sources.len(),
        variants.len(),
        "two variants with one source compile the same shader twice"
    );
}

#[test]
fn every_kernel_has_a_variant() {
    let names: BTreeSet<&str> =
        Variant::all().iter().map(|variant| variant.kernel.name()).collect();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders"))
        .expect("the folder of the kernels");
    let files: BTreeSet<String> = files
        .filter_map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
                .strip_suffix(".wgsl")
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(names, files.iter().map(String::as_str).collect());
}
