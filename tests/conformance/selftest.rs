//! Owns the proof that the checker bites: it is made to fail before any result of the library is
//! looked at.
//!
//! * Every expected value of every case, moved by twice its tolerance, must be refused; moved by
//!   half of it, accepted.
//! * Formulas known to be wrong must be refused, and the statistics of all ranks where process
//!   groups have their own.
//! * One bit that differs between ranks or between drivers must be found; a rank that fails must
//!   not hang the others.
//! * The definition (`syncbn_reference`) must agree with what the folders store, which another
//!   program computed.
//! * Tolerances derived here must not be wider than those that this project's own cases store.
//!
//! What a stored case fails of this is a failure of the case; anything else ends the run.

mod stored;

use syncbn::low_level::epilogue_of;

use crate::compare::{Check, Part, Quantity, compare};
use crate::formula::Formula;
use crate::generated;
use crate::oracle;
use crate::scenario::{Group, Scenario, judge};
use crate::{selftest_ranks, ulp};
use stored::{not_wider, oracle_agrees};

/// What the self-test did, for the output.
#[derive(Default)]
pub struct Summary {
    pub perturbed: usize,
    pub wrong_formulas: usize,
    pub oracle_cases: usize,
    /// The worst difference between the definition and what is stored, as a share of the tolerance.
    pub oracle_share: f64,
    pub oracle_share_at: String,
    /// Stored cases that are not fit to check anything with, and why.
    pub unfit: Vec<(String, String)>,
}

/// Runs all of it; `stored` are the cases of folders, `own` says that they are this project's,
/// `made` the generated ones.
pub fn run<'a>(
    stored: impl Iterator<Item = &'a [Group]>,
    own: bool,
    made: impl Iterator<Item = &'a [Group]>,
) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let ordinary = generated::ordinary()?;
    wrong_formulas(&ordinary, &mut summary)?;
    wrong_epilogues(&mut summary)?;
    patterns()?;
    perturbations(&ordinary, &mut summary)?;
    selftest_ranks::agreement(&ordinary)?;
    selftest_ranks::failures(&ordinary)?;
    for case in made {
        for Group { scenario, .. } in case {
            perturbations(scenario, &mut summary)?;
            one_float(scenario, &mut summary)?;
        }
        summary.wrong_formulas += selftest_ranks::groups_told_apart(case)?;
    }
    for case in stored {
        for Group { scenario, .. } in case {
            let fit = perturbations(scenario, &mut summary)
                .and_then(|()| oracle_agrees(scenario, &mut summary));
            fit.unwrap_or_else(|what| summary.unfit.push((scenario.name.clone(), what)));
            if own {
                not_wider(scenario)?;
            }
        }
        match selftest_ranks::groups_told_apart(case) {
            Ok(told_apart) => summary.wrong_formulas += told_apart,
            Err(what) => summary.unfit.push((case[0].scenario.name.clone(), what)),
        }
        summary.oracle_cases += 1;
    }
    Ok(summary)
}

/// The definition passes on the ordinary case, and each wrong formula fails on it.
fn wrong_formulas(scenario: &Scenario, summary: &mut Summary) -> Result<(), String> {
    let forward = Formula::WRONG_FORWARD.map(|formula| (formula, Part::Forward));
    let backward = Formula::WRONG_BACKWARD.map(|formula| (formula, Part::Backward));
    caught(scenario, forward.into_iter().chain(backward), summary)?;
    // Normalization itself, not only the statistics that are reported beside it, must give such
    // formulas away.
    for formula in
        [Formula::UnbiasedNormalization, Formula::UnweightedMeans, Formula::NotSynchronized]
    {
        let mut outputs = scenario.clone();
        for step in &mut outputs.steps {
            step.checks.retain(|check| matches!(check.quantity, Quantity::Output(_)));
        }
        outputs.ulp_bound = None;
        if judge(&outputs, &oracle::observe(&outputs, formula)?, Part::Forward).failures.is_empty()
        {
            return Err(format!(
                "the outputs of the wrong formula {formula:?} are within their tolerances"
            ));
        }
    }
    Ok(())
}

/// The definition passes on every case with an epilogue, and what is wrong about one alone fails
/// there.
fn wrong_epilogues(summary: &mut Summary) -> Result<(), String> {
    for scenario in generated::epilogues()? {
        caught(
            &scenario,
            Formula::wrong_epilogues(epilogue_of(&scenario.config)).into_iter(),
            summary,
        )?;
    }
    Ok(())
}

/// The definition passes on a case, and each of these formulas fails on it.
fn caught(
    scenario: &Scenario,
    wrong: impl Iterator<Item = (Formula, Part)>,
    summary: &mut Summary,
) -> Result<(), String> {
    let name = &scenario.name;
    let caught = |formula: Formula, part: Part| -> Result<bool, String> {
        Ok(!judge(scenario, &oracle::observe(scenario, formula)?, part).failures.is_empty())
    };
    for part in [Part::Forward, Part::Backward] {
        if caught(Formula::Definition, part)? {
            return Err(format!("{name}: the definition does not pass its own {part:?} checks"));
        }
    }
    for (formula, part) in wrong {
        if !caught(formula, part)? {
            return Err(format!(
                "{name}: the wrong formula {formula:?} passes the {part:?} checks"
            ));
        }
        summary.wrong_formulas += 1;
    }
    Ok(())
}

/// A mean held in one f32 is allowed by tolerances that follow from conditioning; the bound in ulp
/// must refuse it where the mean is large beside the deviation.
fn one_float(scenario: &Scenario, summary: &mut Summary) -> Result<(), String> {
    if scenario.kind != "generated:huge_mean_uneven" {
        return Ok(());
    }
    let observed = oracle::observe(scenario, Formula::MeanInOneFloat)?;
    if judge(scenario, &observed, Part::Forward).failures.is_empty() {
        return Err(format!("{}: a mean in one f32 is within the bound in ulp", scenario.name));
    }
    summary.wrong_formulas += 1;
    Ok(())
}

/// NaN and infinity are no numbers that a tolerance could allow.
fn patterns() -> Result<(), String> {
    let check = |expected: f64, tolerance: f64, any_non_finite: bool| {
        let check =
            Check::vector("pattern".to_owned(), Quantity::Mean, vec![expected], vec![tolerance]);
        Check { any_non_finite, ..check }
    };
    let nan = f64::NAN;
    let inf = f64::INFINITY;
    let cases = [
        (check(1.0, 1.0, false), nan, false),
        (check(1.0, inf, false), nan, false),
        (check(1.0, inf, false), inf, false),
        (check(nan, inf, false), 1.0, false),
        (check(nan, inf, false), inf, false),
        (check(nan, inf, false), nan, true),
        (check(inf, inf, false), -inf, false),
        (check(inf, inf, false), nan, false),
        (check(inf, inf, true), nan, true),
        (check(inf, inf, true), 1.0, false),
        (check(1.0, nan, false), 1.5, false),
    ];
    for (check, found, allowed) in cases {
        if compare(&check, &[found]).failures.is_empty() != allowed {
            return Err(format!(
                "{found} for an expected {} was judged wrongly: {check:?}",
                check.expected[0]
            ));
        }
    }
    let short = check(1.0, 1.0, false);
    if compare(&short, &[]).failures.is_empty() {
        return Err("a missing value was accepted".to_owned());
    }
    Ok(())
}

/// Moves one value of every check, the one in the middle of those with a finite tolerance.
fn perturbations(scenario: &Scenario, summary: &mut Summary) -> Result<(), String> {
    for check in scenario.steps.iter().flat_map(|step| &step.checks) {
        let len =
            check.positions.iter().flatten().max().map_or(check.expected.len(), |last| last + 1);
        let mut observed = vec![0.0; len];
        for (i, &expected) in check.expected.iter().enumerate() {
            observed[check.position(i)] = expected;
        }
        if let Some(failure) = compare(check, &observed).failures.first() {
            return Err(format!(
                "{}: the expected values do not pass their own check: {failure}",
                scenario.name
            ));
        }
        let movable = |&i: &usize| {
            check.expected[i].is_finite() && check.tolerance_of(i).is_some_and(f64::is_finite)
        };
        let movable: Vec<usize> = (0..check.expected.len()).filter(movable).collect();
        let Some(&i) = movable.get(movable.len() / 2) else { continue };
        let expected = check.expected[i];
        // A tolerance of 0, or one that f64 does not see beside the value, is exceeded by the next
        // larger number.
        let tolerance =
            check.tolerance_of(i).unwrap_or_default().max(expected.next_up() - expected);
        let mut judged = |moved: f64| {
            observed[check.position(i)] = moved;
            compare(check, &observed).failures.is_empty()
        };
        if judged(expected + 2.0 * tolerance) || judged(expected - 2.0 * tolerance) {
            return Err(format!(
                "{}: {} accepts an error of twice its tolerance",
                scenario.name, check.name
            ));
        }
        let exact = check.tolerance_of(i).is_none_or(|stored| stored < tolerance);
        if !exact && !judged(expected + 0.5 * tolerance) {
            return Err(format!(
                "{}: {} refuses an error of half its tolerance",
                scenario.name, check.name
            ));
        }
        summary.perturbed += 1;
        let Some(ulp) = check.ulp.as_ref().and_then(|ulp| ulp.get(check.channel(i))) else {
            continue;
        };
        observed[check.position(i)] = expected + 2.0 * ulp::BOUND * ulp;
        if compare(check, &observed).ulp.is_none_or(|ulps| ulps <= ulp::BOUND) {
            return Err(format!(
                "{}: {} measures twice the bound in ulp as within it",
                scenario.name, check.name
            ));
        }
    }
    Ok(())
}
