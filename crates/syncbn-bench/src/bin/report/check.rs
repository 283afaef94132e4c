//! Owns the sections that compare: golden cases with their stored results, others with the
//! definition.

use crate::golden;
use crate::hard;
use crate::judge::{Expected, Wrong, by_definition, judge, largest, narrowed};
use crate::layers::{Layers, Merge};
use crate::problem::{Problem, epilogue_name};
use crate::record::{Checked, Failure, Smallest};
use crate::shrink;
use syncbn_bench::names::{DTYPES, LAYOUTS};

/// Results of a section.
#[derive(Debug, Default)]
pub struct Found {
    pub checked: Vec<Checked>,
    pub failures: Vec<Failure>,
}

/// Golden cases, the first `count` of them: within the tolerances stored with them, which are wide
/// where a mean is large, and within the bounds of the definition.
///
/// # Errors
///
/// Where the embedded cases cannot be read.
pub fn conformance(layers: &dyn Layers, count: usize) -> Result<Found, String> {
    let mut found = Found::default();
    for case in golden::cases(count)? {
        for &merge in layers.merges() {
            let definition = by_definition(&case.problem, merge).map_err(|error| error.to_string());
            let expected =
                definition.map(|definition| narrowed(case.expected.clone(), &definition));
            found.check(layers, "conformance", case.id, merge, &case.problem, expected);
        }
    }
    Ok(found)
}

/// Hard cases in `sizes` sizes.
pub fn accuracy(layers: &dyn Layers, sizes: usize) -> Found {
    let mut found = Found::default();
    for case in hard::cases(sizes) {
        for &merge in layers.merges() {
            let expected = by_definition(&case.problem, merge).map_err(|error| error.to_string());
            found.check(layers, "accuracy", &case.name, merge, &case.problem, expected);
        }
    }
    found
}

/// Every storage type and layout with `epilogues` epilogues, by quads and by single values. One
/// line per storage type and layout.
pub fn kernels(layers: &dyn Layers, epilogues: usize) -> Found {
    let mut found = Found::default();
    for (name, dtype) in DTYPES {
        for (layout_name, layout) in LAYOUTS {
            for &merge in layers.merges() {
                let mut of_form = Found::default();
                for (seed, (epilogue, dims)) in (1..).zip(hard::kernels(epilogues)) {
                    let problem = hard::random(dtype, layout, epilogue, &dims, seed);
                    let expected =
                        by_definition(&problem, merge).map_err(|error| error.to_string());
                    let case = format!(
                        "{name}, channels {layout_name}, {}, {dims:?}",
                        epilogue_name(epilogue)
                    );
                    of_form.check(layers, "kernels", &case, merge, &problem, expected);
                }
                let count = of_form.checked.len();
                let passed = of_form.failures.is_empty();
                let worst = of_form.checked.into_iter().flat_map(|checked| checked.worst).collect();
                let case = format!("{name}, channels {layout_name}: {count} problems");
                found.checked.push(Checked { case, merge, passed, worst: largest(worst) });
                found.failures.extend(of_form.failures);
            }
        }
    }
    found
}

impl Found {
    fn check(
        &mut self,
        layers: &dyn Layers,
        section: &'static str,
        case: &str,
        merge: Merge,
        problem: &Problem,
        expected: Result<Expected, String>,
    ) {
        let judged = expected.and_then(|expected| {
            let outputs = layers.run(merge, problem).map_err(|error| error.to_string())?;
            judge(problem, &outputs, &expected)
        });
        let (worst, what) = match judged {
            Ok((worst, wrong)) => (worst, wrong.map(|wrong| wrong.to_string())),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.checked.push(Checked { case: case.to_owned(), merge, passed: what.is_none(), worst });
        if let Some(what) = what {
            let smallest = smallest(layers, merge, problem);
            self.failures.push(Failure { section, case: case.to_owned(), merge, what, smallest });
        }
    }
}

/// The smallest part of a problem of which an output is not that of the definition.
pub fn smallest(layers: &dyn Layers, merge: Merge, problem: &Problem) -> Option<Smallest> {
    first_wrong(layers, merge, problem)?;
    let problem =
        shrink::smallest(problem.clone(), |part| first_wrong(layers, merge, part).is_some());
    let wrong = first_wrong(layers, merge, &problem)?;
    Some(Smallest { wrong, problem })
}

/// The first output that is not that of the definition. A problem without statistics, and one that
/// the layer refuses, has none.
fn first_wrong(layers: &dyn Layers, merge: Merge, problem: &Problem) -> Option<Wrong> {
    let expected = by_definition(problem, merge).ok()?;
    let outputs = layers.run(merge, problem).ok()?;
    judge(problem, &outputs, &expected).ok()?.1
}
