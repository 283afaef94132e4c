//! Owns the cases as the harness runs them: a trial is a case everywhere, or the self-test.

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};

use crate::compare::{Part, Verdict};
use crate::entry::{self, Entry, State};
use crate::generated::{self, Generated};
use crate::library::{self, Driver};
use crate::place::{EXACT_BOUND, Place, Places};
use crate::report::{Report, Where};
use crate::scenario::{Group, Observed, Scenario, judge_case};
use crate::{agreement, double, on_device, selftest};

pub struct Suite {
    root: PathBuf,
    /// Whether the folder is this project's.
    own: bool,
    entries: Vec<Entry>,
    generated: Vec<Generated>,
    /// Opened for the first case that is run.
    places: OnceLock<Result<Places, String>>,
    run: Mutex<Run>,
}

/// What has been run.
#[derive(Default)]
struct Run {
    trials: usize,
    report: Report,
    /// Lines of the self-test.
    tested: Vec<String>,
    /// By place.
    time: BTreeMap<String, Duration>,
}

impl Suite {
    /// Reads the folder and makes what is generated.
    ///
    /// # Errors
    /// Of a folder or manifest that cannot be read.
    pub fn read() -> Result<Arc<Self>, String> {
        let other = env::var_os("SYNCBN_VECTORS").map(PathBuf::from);
        let own = other.is_none();
        let root =
            other.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
        let entries = entry::read(&root, own)?;
        let generated = generated::cases()?;
        let (places, run) = Default::default();
        Ok(Arc::new(Self { root, own, entries, generated, places, run }))
    }

    /// The self-test first, then the cases in the order of their folders.
    pub fn trials(self: &Arc<Self>) -> Vec<Trial> {
        let mut trials = vec![self.trial("self-test", Self::self_test)];
        for (index, entry) in self.entries.iter().enumerate() {
            trials.push(
                self.trial(&entry.name, move |suite, run| suite.entry(&suite.entries[index], run)),
            );
        }
        for (index, case) in self.generated.iter().enumerate() {
            let name = &case.groups[0].scenario.kind;
            trials
                .push(self.trial(name, move |suite, run| suite.made(&suite.generated[index], run)));
        }
        trials
    }

    /// A test of the harness, which fails with what the report has to say of it.
    fn trial(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce(&Self, &mut Run) -> Result<Completion, String> + Send + 'static,
    ) -> Trial {
        let suite = self.clone();
        let name = name.to_owned();
        Trial::ignorable_test(format!("conformance::{name}"), move || {
            let mut run = suite.run.lock().unwrap_or_else(PoisonError::into_inner);
            run.trials += 1;
            let before = run.report.failures().len();
            let result = catch_unwind(AssertUnwindSafe(|| body(&suite, &mut run)));
            let completion = match result.unwrap_or_else(|_| Err("it panicked".to_owned())) {
                Ok(completion) => completion,
                Err(what) => {
                    run.report.broken(&name, &what);
                    Completion::Completed
                }
            };
            match &run.report.failures()[before..] {
                [] => Ok(completion),
                failures => Err(Failed::from(failures.join("\n"))),
            }
        })
    }

    fn self_test(&self, run: &mut Run) -> Result<Completion, String> {
        let ready = self.entries.iter().filter_map(|entry| match &entry.state {
            State::Ready(case) => Some(&case[..]),
            _ => None,
        });
        let made = self.generated.iter().map(|case| &case.groups[..]);
        let tested = selftest::run(ready, self.own, made)?;
        run.tested = vec![
            format!(
                "{} checks refused twice their tolerance, {} wrong formulas were caught",
                tested.perturbed, tested.wrong_formulas
            ),
            format!(
                "the definition in f64 agrees with {} stored cases, within {:.1e} of the \
                tolerances ({})",
                tested.oracle_cases, tested.oracle_share, tested.oracle_share_at
            ),
        ];
        tested.unfit.iter().for_each(|(case, what)| run.report.broken(case, what));
        Ok(Completion::Completed)
    }

    /// Opens the places where cases are run, with as many devices as the largest case has ranks.
    fn places(&self) -> Result<&Places, String> {
        let ready = self.entries.iter().filter(|entry| matches!(entry.state, State::Ready(_)));
        let worlds = ready.map(|entry| entry.world);
        let largest = worlds.chain(self.generated.iter().map(Generated::world)).max().unwrap_or(1);
        self.places.get_or_init(|| Places::open(largest)).as_ref().map_err(String::clone)
    }

    fn entry(&self, entry: &Entry, run: &mut Run) -> Result<Completion, String> {
        match &entry.state {
            State::Broken(what) => Err(what.clone()),
            State::NotYet(reason) => {
                for place in self.places_of(entry.world)? {
                    let drivers = Driver::alike(place);
                    let counted =
                        entry.parts.iter().flat_map(|&part| drivers.iter().map(move |_| part));
                    counted.for_each(|part| run.report.not_yet(&entry.name, part, reason));
                }
                Ok(Completion::ignored_with(format!("not yet: {reason}")))
            }
            State::Ready(case) => self.case(case, entry.world, &entry.name, &entry.parts, run),
        }
    }

    fn made(&self, case: &Generated, run: &mut Run) -> Result<Completion, String> {
        let name = &case.groups[0].scenario.kind;
        self.case(&case.groups, case.world(), name, &[Part::Forward, Part::Backward], run)
    }

    /// The places that a case of so many ranks is run in.
    fn places_of(&self, world: usize) -> Result<impl Iterator<Item = &Place>, String> {
        Ok(self.places()?.all.iter().filter(move |place| world >= place.smallest_world))
    }

    fn case(
        &self,
        case: &[Group],
        world: usize,
        name: &str,
        parts: &[Part],
        run: &mut Run,
    ) -> Result<Completion, String> {
        for place in self.places_of(world)? {
            let started = Instant::now();
            run_case(case, name, parts, place, &mut run.report);
            *run.time.entry(place.name.clone()).or_default() += started.elapsed();
        }
        Ok(Completion::Completed)
    }

    /// Whether no trial has been run.
    pub fn ran_nothing(&self) -> bool {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).trials == 0
    }

    /// Prints what was run where, the table and the counts; whether all is well.
    pub fn finish(&self) -> bool {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        println!("cases: {}", self.root.display());
        let titles: Vec<String> = self.generated.iter().map(Generated::title).collect();
        println!("generated: {}", titles.join(", "));
        run.tested.iter().for_each(|line| println!("self-test: {line}"));
        if let Some(Ok(places)) = self.places.get() {
            places.adapters.iter().for_each(|line| println!("adapter: {line}"));
            for Place { name, form, .. } in &places.all {
                let seconds = run.time.get(name).copied().unwrap_or_default().as_secs_f64();
                println!("{name}: {seconds:.1} s, process groups made by {form}");
                println!("{name}: fingerprint {:016x}", run.report.fingerprint(name));
            }
        }
        let all: Duration = run.time.values().sum();
        println!("all: {:.1} s", all.as_secs_f64());
        std::mem::take(&mut run.report).finish()
    }
}

/// Through each driver; all of them must observe the same bits, but for the layer that stays on one
/// device.
fn run_case(case: &[Group], name: &str, parts: &[Part], place: &Place, report: &mut Report) {
    let first_derivatives = place.reproducible.then(|| double::without(case));
    let case = first_derivatives.as_deref().unwrap_or(case);
    let mut first: Option<(Driver, Vec<Vec<Observed>>)> = None;
    for &driver in Driver::alike(place) {
        let mut observed = library::observe(case, place, driver);
        if let (Ok(observed), Some((other, expected))) = (&mut observed, &first) {
            for ((group, observed), expected) in case.iter().zip(observed).zip(expected) {
                agreement::compare_drivers(group, observed, expected, other.name());
            }
        }
        let at = Where { place: &place.name, driver, reproducible: place.reproducible };
        judge(case, &observed, (name, parts), at, report);
        first = first.or_else(|| Some((driver, observed.ok()?)));
    }
    if let Some((_, observed)) = &first {
        report.saw(&place.name, observed.iter().flatten());
    }
    if place.is_one_gpu() {
        let case = on_device::checked(case);
        let driver = Driver::OnDevice;
        let observed = library::observe(&case, place, driver);
        let at = Where { place: &place.name, driver, reproducible: place.reproducible };
        judge(&case, &observed, (name, parts), at, report);
    }
}

fn judge(
    case: &[Group],
    observed: &Result<Vec<Vec<Observed>>, String>,
    (name, parts): (&str, &[Part]),
    at: Where<'_>,
    report: &mut Report,
) {
    let Scenario { kind, ulp_bound, .. } = &case[0].scenario;
    for &part in parts {
        let verdict = match observed {
            Ok(observed) => judge_case(case, observed, part),
            Err(what) => Verdict::failed(what.clone()),
        };
        let is_exact = at.reproducible && part == Part::Forward;
        let (bound, mut verdict) =
            if is_exact { (Some(EXACT_BOUND), verdict) } else { (*ulp_bound, verdict) };
        if let (true, Some(ulp)) = (is_exact, verdict.ulp)
            && ulp > EXACT_BOUND
        {
            let of = &verdict.ulp_at;
            verdict.failures.push(format!("{ulp:.2} ulp, allowed: {EXACT_BOUND}, {of}"));
        }
        report.ran(name, kind, part, at, bound, verdict);
    }
}
