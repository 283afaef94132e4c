//! Owns the golden cases of the report: a few of `tests/golden`, embedded in the program.
//!
//! A case is a training step of one group. Its tensors and its tolerances per channel come from
//! another program; `tests/golden/README.md` and the manifest explain them. `cargo test --test
//! conformance` runs all of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use syncbn::{Layout, low_level::Epilogue};

use crate::judge::Expected;
use crate::layers::Output;
use crate::problem::{Problem, Shard, channels_first};
use syncbn_bench::check::bounds::Bounded;
use syncbn_testkit::golden::{Store, dtype_of};

/// A stored case: the problem and its expected results.
#[derive(Debug)]
pub struct Case {
    pub id: &'static str,
    pub problem: Problem,
    pub expected: Expected,
}

const MANIFEST: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/manifest.json"));

/// Bytes of the files of these cases.
macro_rules! stored {
    ($($id:literal)*) => {
        [$((
            $id,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../tests/golden/",
                $id,
                ".safetensors"
            )),
        )),*]
    };
}

/// Every kind of kernel at least once. Those of a quick report come first.
const STORED: &[(&str, &[u8])] = {
    let stored: &[(&str, &[u8])] = &stored! {
        "uneven-s0" "huge_mean-s1" "f16-s0" "fused_add_relu-s0" "dim4-s0" "empty_rank-s1"
        "rank_skew-s1" "eps-s1" "dynamic_range-s0" "nonfinite-s0" "nonfinite-s1" "bf16-s0"
        "channels_last-s1" "channels_last-s3" "fused_add-s0" "fused_add_relu-s2"
    };
    stored
};

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<Entry>,
}

/// The fields of a case's line in the manifest that the report needs.
#[derive(Deserialize)]
struct Entry {
    id: String,
    world: usize,
    channels: usize,
    channel_axis: usize,
    ndim: usize,
    dtype: String,
    eps: f64,
    fused: Option<String>,
}

/// The first `count` cases.
///
/// # Errors
///
/// Names the case that cannot be read, with the reason.
pub fn cases(count: usize) -> Result<Vec<Case>, String> {
    let manifest: Manifest =
        serde_json::from_str(MANIFEST).map_err(|error| format!("the manifest: {error}"))?;
    let entries: BTreeMap<&str, &Entry> =
        manifest.cases.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    let case = |&(id, bytes): &(&'static str, &[u8])| {
        let entry = entries.get(id).ok_or_else(|| format!("the manifest has no case {id}"))?;
        let case = Store::parse("its file", bytes).and_then(|store| read(id, entry, &store));
        case.map_err(|error| format!("golden case {id}: {error}"))
    };
    STORED.iter().take(count).map(case).collect()
}

fn read(id: &'static str, entry: &Entry, store: &Store) -> Result<Case, String> {
    let layout = match entry.channel_axis {
        1 => Layout::ChannelsFirst,
        axis if axis + 1 == entry.ndim => Layout::ChannelsLast,
        axis => return Err(format!("channels at axis {axis} of {}", entry.ndim)),
    };
    let dtype = dtype_of(&entry.dtype)?;
    let epilogue = match entry.fused.as_deref() {
        None => Epilogue::NONE,
        Some("relu") => Epilogue::RELU,
        Some("add") => Epilogue::ADD,
        Some("add_relu") => Epilogue::ADD_RELU,
        Some(other) => return Err(format!("the epilogue {other} is unknown")),
    };
    let narrow =
        |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<f32>>();
    let mut ranks = Vec::new();
    for rank in 0..entry.world {
        let (dims, x) = store.any_float(&format!("s1.r{rank}.x"))?;
        let dims =
            [dims[0], entry.channels, dims.iter().skip(1).product::<usize>() / entry.channels];
        let shard = |values: Vec<f64>| channels_first(&narrow(values), dims, layout);
        let grad_output = shard(store.any_float(&format!("s1.r{rank}.dy"))?.1);
        let residual = match epilogue.adds_residual() {
            true => Some(shard(store.any_float(&format!("s1.r{rank}.z"))?.1)),
            false => None,
        };
        ranks.push(Shard { dims, x: shard(x), grad_output, residual });
    }
    let parameter = |name: &str| Ok::<_, String>(narrow(store.any_float(name)?.1));
    let weight = parameter("weight")?;
    let bias = parameter("bias")?;
    let problem = Problem { dtype, layout, epilogue, eps: entry.eps, weight, bias, ranks };
    let expected = expected(store, &problem)?;
    Ok(Case { id, problem, expected })
}

fn expected(store: &Store, problem: &Problem) -> Result<Expected, String> {
    let mut outputs = vec![
        (Output::Y, "y"),
        (Output::GradInput, "dx"),
        (Output::GradWeight, "dweight"),
        (Output::GradBias, "dbias"),
    ];
    if problem.epilogue.adds_residual() {
        outputs.push((Output::GradResidual, "dz"));
    }
    let of_output = |(output, name): (Output, &str)| {
        let (_, allowed) = store.any_float(&format!("s1.g0.tol_{name}"))?;
        let of_rank = |(rank, shard): (usize, &Shard)| {
            let (_, values) = store.any_float(&format!("s1.r{rank}.{name}"))?;
            let is_vector = output.is_vector();
            let values = if is_vector {
                values
            } else {
                channels_first(&values, shard.dims, problem.layout)
            };
            let [_, channels, positions] = shard.dims;
            let channel =
                |index: usize| if is_vector { index } else { index / positions % channels };
            let bounded = |(index, value)| Bounded { value, allowed: allowed[channel(index)] };
            Ok(values.into_iter().enumerate().map(bounded).collect())
        };
        let ranks = problem.ranks.iter().enumerate().map(of_rank);
        Ok((output, ranks.collect::<Result<Vec<Vec<Bounded>>, String>>()?))
    };
    outputs.into_iter().map(of_output).collect()
}

#[cfg(test)]
mod tests {
    use syncbn::DType;

    use super::*;
    use crate::judge::{by_definition, judge};
    use crate::layers::{Merge, Outputs};

    #[test]
    fn stored_values_are_those_of_the_definition() {
        let cases = cases(usize::MAX).expect("readable cases");
        assert_eq!(cases.len(), STORED.len());
        for case in cases.iter().filter(|case| !case.id.starts_with("nonfinite")) {
            let definition = by_definition(&case.problem, Merge::Host).expect("statistics");
            let as_found = |(output, ranks): &(Output, Vec<Vec<Bounded>>)| {
                (*output, ranks.iter().map(|rank| rank.iter().map(|b| b.value).collect()).collect())
            };
            let found: Outputs = definition.iter().map(as_found).collect();
            let (_, wrong) =
                judge(&case.problem, &found, &case.expected).expect("the same outputs");
            assert!(wrong.is_none(), "{}: {wrong:?}", case.id);
        }
    }

    #[test]
    fn every_storage_type_layout_and_epilogue_is_there() {
        let cases = cases(usize::MAX).expect("readable cases");
        let has = |what: &dyn Fn(&Problem) -> bool| cases.iter().any(|case| what(&case.problem));
        assert!(
            [DType::F32, DType::F16, DType::BF16].iter().all(|&dtype| has(&|p| p.dtype == dtype))
        );
        assert!(
            has(&|p| p.layout == Layout::ChannelsLast)
                && has(&|p| p.epilogue == Epilogue::ADD_RELU)
        );
        assert!(has(&|p| p.ranks[0].x.is_empty()) && has(&|p| p.ranks.len() > 2));
    }
}
