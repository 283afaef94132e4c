//! Double backward on a GPU.

use std::time::Duration;

use futures::future::{FutureExt, ready};

use super::sums::{Job, Sums, Taker, Upload};
use super::{Slices, note_write};
use crate::engine::DoubleRank;
use crate::error::Error;
use crate::gpu::{Gpu, Pending};
use crate::plan::DoubleGradient;
use crate::stats::{DoubleCentering, GradCentering};

/// Whether the sums of a channel left the range of f32 on one side.
type OutOfRange = fn([f32; 4]) -> bool;

/// 2⁻⁹⁶: what is summed of the largest values becomes 2³², whose products with the largest of x or
/// g stay within f32.
const LARGE: f32 = f32::from_bits((127 - 96) << 23);
/// 2⁸⁰: values of 2⁻¹⁰⁰ become 2⁻²⁰, whose products with values as small stay within f32.
const SMALL: f32 = f32::from_bits((127 + 80) << 23);
/// Sums below may have lost products that are no normal f32.
const SMALL_SUM: f32 = f32::from_bits((127 - 90) << 23);

pub(in crate::engine) fn double_sums(
    gpu: &Gpu,
    deadline: Duration,
    rank: &mut DoubleRank<'_>,
    centering: Vec<GradCentering>,
) -> Result<Pending<Vec<[f64; 3]>>, Error> {
    let channels = rank.shape.channels();
    let Some(plan) = rank.sums.take() else {
        return Ok(ready(Ok(vec![[0.0; 3]; channels])).boxed());
    };
    let units: Vec<f64> = centering.iter().map(|of| of.center.unit.into()).collect();
    let job = Job::new(plan, Slices::double(gpu, rank), centering);
    let taker = Taker { gpu: gpu.clone(), deadline, phase: "local sums of double backward" };
    let sums = taker.take(&[&job])?;
    Ok(async move {
        let sums = sums.await?.pop().unwrap_or_default();
        let sums = in_range(sums, &taker, &job).await?;
        let of_x = |([v, v_x, v_p], unit): ([f64; 3], f64)| [v, v_x / unit, v_p];
        Ok(sums.into_iter().zip(units).map(of_x).collect())
    }
    .boxed())
}

/// Whether sums have overflowed.
fn is_beyond([v, v_x, v_p, flag]: [f32; 4]) -> bool {
    flag == 0.0 && !(v.is_finite() && v_x.is_finite() && v_p.is_finite())
}

/// Whether products may have vanished.
fn is_below([v, v_x, v_p, flag]: [f32; 4]) -> bool {
    let is_small = |sum: f32| sum.abs() < SMALL_SUM;
    flag == 0.0 && v != 0.0 && (is_small(v_x) || is_small(v_p)) && is_small(v * SMALL.recip())
}

/// Sums of channels in f64, NaN where a value is not finite; those that leave the range of f32 are
/// taken again.
async fn in_range(
    sums: Sums,
    taker: &Taker,
    job: &Job<GradCentering>,
) -> Result<Vec<[f64; 3]>, Error> {
    let in_units = |[v, v_x, v_p, flag]: [f32; 4], unit: f32| {
        let is_finite = flag == 0.0;
        [v, v_x, v_p].map(|sum| if is_finite { f64::from(sum) / f64::from(unit) } else { f64::NAN })
    };
    let mut of_channels: Vec<[f64; 3]> = sums.iter().map(|&of| in_units(of, 1.0)).collect();
    let ranges: [(OutOfRange, f32); 2] = [(is_beyond, LARGE), (is_below, SMALL)];
    for (is_out, unit) in ranges {
        if !sums.iter().any(|&of| is_out(of)) {
            continue;
        }
        let again = taker.take_in_units(job, unit).await?;
        for ((to, &first), again) in of_channels.iter_mut().zip(&sums).zip(again) {
            if is_out(first) && again[..3].iter().all(|sum| sum.is_finite()) {
                *to = in_units(again, unit);
            }
        }
    }
    Ok(of_channels)
}

pub(in crate::engine) fn double_gradients(
    gpu: &Gpu,
    rank: &mut DoubleRank<'_>,
    centering: &[DoubleCentering],
) -> Result<Pending<()>, Error> {
    note_write(&mut rank.input);
    note_write(&mut rank.grad_output);
    let upload = Upload::new(gpu, centering)?;
    let rank = &*rank;
    let slices = |of| match of {
        DoubleGradient::Input => Slices::double(gpu, rank).with_output(rank.input.as_deref()),
        DoubleGradient::GradOutput => {
            Slices::double(gpu, rank).with_output(rank.grad_output.as_deref())
        }
    };
    if rank.applies.is_empty() {
        return Ok(ready(Ok(())).boxed());
    }
    Ok(gpu.submit("double backward", |recorder| {
        upload.send(recorder);
        for (of, plan) in &rank.applies {
            let slices = slices(*of).with_centering(&upload.lease);
            let dispatches = plan.dispatches.iter();
            dispatches.for_each(|dispatch| recorder.dispatch(dispatch, |role| slices.role(role)));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_taken_again_where_they_overflow_or_where_products_may_vanish() {
        assert!(is_beyond([1.0, f32::INFINITY, 0.0, 0.0]));
        assert!(is_beyond([1.0, 0.0, f32::NAN, 0.0]));
        assert!(!is_beyond([1.0, 0.0, f32::NAN, 1.0]));
        assert!(!is_below([0.0, 0.0, 0.0, 0.0]));
        assert!(is_below([1e-30, 0.0, 1.0, 0.0]));
        assert!(!is_below([1e-3, 1e-2, 1.0, 0.0]));
    }
}
