//! Owns the section of times: every pass beside a copy of the same bytes, and the exchange beside
//! two programs without the crate.

use std::error::Error;
use std::time::{Duration, Instant};

use syncbn::{DType, Layout, low_level::Epilogue};

use crate::check::smallest;
use crate::hard;
use crate::layers::{Layers, Merge};
use crate::options::Effort;
use crate::record::{Failure, Timed};
use crate::sizes;
use syncbn_bench::devices::Machine;
use syncbn_bench::inputs::Form;
use syncbn_bench::run::Run;
use syncbn_bench::workloads::Workload;

/// f32, channels first, nothing after the normalization.
const PLAIN: Form =
    Form { dtype: DType::F32, layout: Layout::ChannelsFirst, epilogue: Epilogue::NONE, mask: true };
/// Further forms in which the first shape is timed.
const OTHERS: [Form; 4] = [
    Form { layout: Layout::ChannelsLast, ..PLAIN },
    Form { dtype: DType::F16, ..PLAIN },
    Form { dtype: DType::BF16, ..PLAIN },
    Form { epilogue: Epilogue::ADD_RELU, ..PLAIN },
];
/// Channels of the smaller inputs that a wrong row is looked for in.
const CHANNELS: usize = 8;

/// No row begins after this time, so the report of a slow machine ends.
const TIME: Duration = Duration::from_secs(45);

/// Results of the section.
#[derive(Default)]
pub struct Found {
    pub timed: Vec<Timed>,
    pub failures: Vec<Failure>,
    /// Rows that did not begin in time.
    pub left_out: usize,
}

/// Times of all rows, and the rows that failed.
///
/// # Errors
///
/// Where not even a copy runs.
pub fn passes(
    machine: &Machine,
    layers: &dyn Layers,
    effort: Effort,
) -> Result<Found, Box<dyn Error>> {
    let started = Instant::now();
    let shapes = if effort.smallest { sizes::smallest() } else { sizes::measured(machine)? };
    let mut rows: Vec<(&'static Workload, Form, Merge)> =
        shapes.iter().map(|shape| (shape, PLAIN, Merge::Host)).collect();
    if layers.merges().contains(&Merge::Device) {
        rows.push((&shapes[0], PLAIN, Merge::Device));
    }
    rows.extend(OTHERS.map(|form| (&shapes[0], form, Merge::Host)));
    let mut found = Found::default();
    for (workload, form, merge) in rows {
        if started.elapsed() > TIME {
            found.left_out += 1;
            continue;
        }
        let machine = one_rank(machine, merge == Merge::Device);
        let run = Run {
            machine: &machine,
            workload,
            form,
            repeats: effort.repeats,
            quick: true,
            reuse: false,
            reproducible: false,
        };
        let ran = run.lines(
            || (),
            |line| {
                found.timed.push(Timed { merge, line });
                Ok(())
            },
        );
        if let Err(error) = ran {
            found.failures.push(failure(layers, workload, form, merge, &*error));
        }
    }
    Ok(found)
}

/// A rank on the first device, which merges there or exchanges through the host.
fn one_rank(machine: &Machine, shared: bool) -> Machine {
    let ranks = vec![machine.ranks[0].clone()];
    let gpus = machine.gpus.iter().take(1).cloned().collect();
    let adapter = machine.adapter.clone();
    let awake = machine.awake.first();
    Machine { ranks, gpus, shared, adapter, awake }
}

/// With a smaller input of the same form, if one fails: growing batches of a few channels.
pub fn failure(
    layers: &dyn Layers,
    workload: &Workload,
    form: Form,
    merge: Merge,
    error: &dyn Error,
) -> Failure {
    let positions = workload.dims[2..].iter().product();
    let channels = workload.channels().min(CHANNELS);
    let batches = std::iter::successors(Some(2), |batch| Some(batch * 4))
        .take_while(|&batch| batch <= workload.batch());
    let Form { dtype, layout, epilogue, .. } = form;
    let problem = |batch| hard::random(dtype, layout, epilogue, &[[batch, channels, positions]], 1);
    Failure {
        section: "passes",
        case: format!("{} {:?}, {form:?}", workload.name, workload.dims),
        merge,
        what: error.to_string(),
        smallest: batches.map(problem).find_map(|problem| smallest(layers, merge, &problem)),
    }
}
