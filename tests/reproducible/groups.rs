//! Ranks that each have a caller, over transports that gather and that reduce, in whole passes and
//! in rounds.

use std::time::Duration;

use pollster::block_on;
use proptest::prelude::*;
use syncbn::low_level::Epilogue;
use syncbn::{Backward, Device, Forward, ProcessGroup, SyncBatchNorm};
use syncbn_testkit::reproducible::{
    Cut, FORMS, Findings, Whole, any_cut, findings, findings_of, found, hosts, uncut, whole,
};
use syncbn_testkit::transport::{all_reduce_groups, on_threads, process_groups};

const DEADLINE: Duration = Duration::from_secs(120);

/// Findings of a rank that takes whole passes.
fn in_passes(group: &ProcessGroup, device: &Device, whole: &Whole, own: &[usize]) -> Findings {
    let layer = SyncBatchNorm::new(whole.config(), [device.clone()]).expect("a layer");
    let layer = layer.in_group(group).expect("a layer of the group");
    findings_of(&layer, whole, &vec![own.to_vec()])
}

/// Findings of a rank whose samples are micro-batches of a few.
fn in_rounds(
    group: &ProcessGroup,
    device: &Device,
    whole: &Whole,
    own: &[usize],
    at_once: usize,
) -> Findings {
    let layer = SyncBatchNorm::new(whole.config(), [device.clone()]).expect("a layer");
    let layer = layer.in_group(group).expect("a layer of the group");
    let batches: Vec<Cut> = own.chunks(at_once).map(|batch| vec![batch.to_vec()]).collect();
    block_on(async {
        let x: Vec<_> = batches.iter().map(|batch| whole.upload_x(device, &batch[0])).collect();
        let grad: Vec<_> =
            batches.iter().map(|batch| whole.upload_grad_output(device, &batch[0])).collect();
        let mut rounds = layer.statistics_in_rounds()?;
        let mut number = 0;
        let global = loop {
            number += 1;
            // In another order every time.
            for at in 0..x.len() {
                rounds.add(&x[(at + number) % x.len()]).await?;
            }
            if let Some(global) = rounds.synchronize().await? {
                break global;
            }
        };
        assert_eq!(number, 3, "one channel has values beyond 32 deviations");
        let mut saved = Vec::new();
        let mut y = vec![Vec::new(); whole.samples()];
        for (x, batch) in x.iter().zip(&batches) {
            let done = layer.normalize(Forward::of(x), &global).await?;
            for (to, of) in y.iter_mut().zip(whole.by_sample(&[done.output], batch)) {
                to.extend(of);
            }
            saved.push(done.saved);
        }
        let mut rounds = layer.gradient_sums_in_rounds()?;
        let sums = loop {
            for ((x, grad), saved) in x.iter().zip(&grad).zip(&saved) {
                rounds.add(saved, Backward::of(x, grad)).await?;
            }
            if let Some(sums) = rounds.synchronize().await? {
                break sums;
            }
        };
        let mut grad_input = vec![Vec::new(); whole.samples()];
        for (((x, grad), saved), batch) in x.iter().zip(&grad).zip(&saved).zip(&batches) {
            let done = layer.input_gradients(saved, Backward::of(x, grad), &sums).await?;
            for (to, of) in grad_input.iter_mut().zip(whole.by_sample(&[done.input], batch)) {
                to.extend(of);
            }
        }
        // Those of weight and bias are the group's sums, as `GroupSum` gives them.
        let inv_std = global.inv_std(0.0);
        let bias = sums.channels().iter().map(|of| (of.sum_dy as f32).to_bits()).collect();
        let weight = sums.channels().iter().zip(&inv_std).map(|(of, inv_std)| {
            let gradient = if of.sum_dy_xmu == 0.0 { 0.0 } else { of.sum_dy_xmu * inv_std };
            (gradient as f32).to_bits()
        });
        let weight = weight.collect();
        Ok::<_, syncbn::Error>(found(&layer, (&saved[0], &sums), [weight, bias], [y, grad_input]))
    })
    .expect("all rounds")
}

/// What every rank found of its own samples, as one.
fn joined(found: Vec<Findings>) -> Findings {
    let mut found = found.into_iter();
    let mut all = found.next().expect("a rank");
    for of_rank in found {
        of_rank.assert_same(&all, false, "another rank");
        for (to, of) in all.y.iter_mut().zip(of_rank.y) {
            to.extend(of);
        }
        for (to, of) in all.grad_input.iter_mut().zip(of_rank.grad_input) {
            to.extend(of);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_bits_over_threads(
        form in 0..FORMS.len(),
        last: bool,
        reduces: bool,
        seed: u64,
    ) {
        let whole = whole(form, last, Epilogue::NONE);
        let expected = findings(&whole, &uncut(&whole), &hosts(1));
        let cut = any_cut(whole.samples(), seed);
        let make = if reduces { all_reduce_groups } else { process_groups };
        let ranks: Vec<_> = make(cut.len(), DEADLINE).into_iter().zip(&cut).collect();
        let host = Device::host();
        let found = on_threads(ranks, |(group, own)| in_passes(&group, &host, &whole, own));
        joined(found).assert_same(&expected, true, &format!("form {form}, {cut:?}"));
    }

    #[test]
    fn any_split_gives_the_same_bits_in_rounds(at_once in 1usize..6, last: bool, seed: u64) {
        check_rounds(&hosts(1), at_once, last, seed);
    }
}

/// Ranks in turn in rounds and in whole passes, on devices in turn: with the bits of one pass on
/// the host, and on the host with those of y too.
pub fn check_rounds(devices: &[Device], at_once: usize, last: bool, seed: u64) {
    // Of as many channels as there are kinds of values, far outliers among them.
    let whole = whole([6, 8][(seed % 2) as usize], last, Epilogue::NONE);
    let expected = findings(&whole, &uncut(&whole), &hosts(1));
    let mut cut = any_cut(whole.samples(), seed);
    cut.retain(|rank| !rank.is_empty());
    let groups = process_groups(cut.len(), DEADLINE);
    let ranks: Vec<_> = groups.into_iter().zip(&cut).enumerate().collect();
    let found = on_threads(ranks, |(rank, (group, own))| {
        let device = &devices[rank / 2 % devices.len()];
        match rank % 2 {
            0 => in_rounds(&group, device, &whole, own, at_once),
            _ => in_passes(&group, device, &whole, own),
        }
    });
    let is_alike = devices.iter().all(Device::is_host);
    joined(found).assert_same(&expected, is_alike, &format!("{at_once} at once, {cut:?}"));
}
