//! Double backward: the sums of backward, its own, one exchange of both, the gradients everywhere.

use futures::future::{BoxFuture, FutureExt, try_join_all};

use super::member::{Begin, Calls, begin, end};
use super::merging::{Exchanging, exchange};
use super::part::check_encode;
use super::{Failure, SyncBatchNorm, span};
use crate::base::CheckedDouble;
use crate::collective::Phase;
use crate::config::{AffineGradient, Statistics};
use crate::engine::{self, DoublePair};
use crate::error::{ArgumentError, Error};
use crate::request::{DoubleGradients, DoubleParts};
use crate::saved::{OnHost, Saved};
use crate::stats::{self, DoubleSums, GradientSums, Normalization, ParameterCotangents};
use crate::tensor::{List, Output, Tensor};

/// The gradients of one call, with the type of what comes back.
pub(super) async fn double_backward_of<O: Output>(
    layer: &SyncBatchNorm,
    saved: &Saved,
    parts: DoubleParts<'_>,
) -> Result<DoubleGradients<O>, Failure> {
    let (checked, weight) = double_backward(layer, saved, parts).await?;
    Ok(DoubleGradients {
        input: O::of_list(checked.input).map_err(Error::from)?,
        grad_output: O::of_list(checked.grad_output).map_err(Error::from)?,
        weight: weight.map(O::of_list).transpose().map_err(Error::from)?,
    })
}

/// The gradients of activations, and of the weight where it gets one.
type Done = (CheckedDouble, Option<Vec<Tensor>>);

/// Boxed, as forward is.
fn double_backward<'r>(
    layer: &'r SyncBatchNorm,
    saved: &'r Saved,
    parts: DoubleParts<'r>,
) -> BoxFuture<'r, Result<Done, Failure>> {
    let phase = Phase::DoubleBackward;
    let span = span(phase, std::iter::once(layer), parts.inputs.x.len(), || parts.inputs.bytes());
    let work = async move {
        let exchanges = saved.call().statistics == Statistics::Group;
        let subject = saved.on_host().map_or(0, |of| of.subject);
        let call = exchanges.then(|| Begin { member: layer.member(), phase, subject });
        let (communicating, begun) = begin([call]);
        let result = match begun {
            Ok(()) => Call { layer, saved }.run(&parts, &communicating).await,
            Err(failure) => Err(failure),
        };
        end(communicating, result)
    };
    async move { span.around(work).await }.boxed()
}

/// A call of double backward.
struct Call<'c> {
    layer: &'c SyncBatchNorm,
    saved: &'c Saved,
}

/// Cotangents of the gradients of weight and bias, `[rank][channel]`; empty for zeros.
type Cotangents = [Vec<Vec<f32>>; 2];

impl Call<'_> {
    async fn run(&self, parts: &DoubleParts<'_>, calls: &Calls) -> Result<Done, Failure> {
        let of = self.saved.on_host().map_err(Error::from)?;
        let base = &self.layer.base;
        check_encode(&parts.inputs.encode).map_err(Error::from)?;
        if of.normalization.iter().any(|of| !of.batch.is_empty()) {
            let reason =
                "the call was renormalized, and double_backward needs one with `renorm = None`";
            let error = ArgumentError::NotWanted { argument: "saved", reason };
            return Err(Error::from(error).into());
        }
        let mut checked = base.check_double(self.saved.call(), parts).map_err(Failure::of(0))?;
        let mut ranks = checked.ranks(base, self.saved.call(), parts).map_err(Failure::of(0))?;
        let cotangents = [read(&parts.weight).await?, read(&parts.bias).await?];
        let gradients = self.gradient_sums(of, &mut ranks).await?;
        let mut local = self.double_sums(of, &mut ranks, gradients).await?;
        for (rank, sums) in local.iter_mut().enumerate() {
            self.add_cotangents(rank, sums, &cotangents, calls[0].is_some());
        }
        let global = self.merge(&local, calls).await?;
        let order = self.layer.outputs_order();
        let mut pending = Vec::with_capacity(order.len());
        for rank in order {
            let all = global.as_deref().unwrap_or(&local[rank]);
            let parameters = self.parameters(rank, all, &cotangents, global.is_some());
            let centering = of.normalization.of(rank).double_centering(all, &parameters);
            let device = &self.layer.devices()[rank];
            let double = &mut ranks[rank].double;
            pending.push(engine::double_gradients(device, double, &centering)?);
        }
        try_join_all(pending).await?;
        drop(ranks);
        let weight = self.weight_gradients(of, &local, global.as_deref())?;
        Ok((checked, weight))
    }

    /// The sums of backward on every rank.
    async fn gradient_sums(
        &self,
        of: &OnHost,
        ranks: &mut [DoublePair<'_>],
    ) -> Result<Vec<Vec<GradientSums>>, Error> {
        let mut pending: Vec<_> = ranks.iter().map(|_| None).collect();
        for rank in self.layer.gpus_first() {
            let one = (&mut ranks[rank].backward, of.normalization.of(rank));
            pending[rank] = Some(engine::gradient_sums(&self.layer.devices()[rank], vec![one])?);
        }
        let sums = try_join_all(pending.into_iter().flatten()).await?;
        Ok(sums.into_iter().flatten().collect())
    }

    /// All sums on every rank, but for what the parameters' cotangents enter. Each rank sums about
    /// its own mean gradient.
    async fn double_sums(
        &self,
        of: &OnHost,
        ranks: &mut [DoublePair<'_>],
        gradients: Vec<Vec<GradientSums>>,
    ) -> Result<Vec<Vec<DoubleSums>>, Error> {
        let centering: Vec<_> = ranks
            .iter()
            .zip(&gradients)
            .enumerate()
            .map(|(rank, (pair, sums))| {
                let all = of.normalization.of(rank);
                let count = all.batch_count.map(|_| pair.double.shape.values_per_channel());
                Normalization { batch_count: count, ..all.clone() }.grad_centering(sums)
            })
            .collect();
        let mut pending: Vec<_> = ranks.iter().map(|_| None).collect();
        for rank in self.layer.gpus_first() {
            let device = &self.layer.devices()[rank];
            let double = &mut ranks[rank].double;
            pending[rank] = Some(engine::double_sums(device, double, centering[rank].clone())?);
        }
        let summed = try_join_all(pending.into_iter().flatten()).await?;
        let of_rank = |(rank, (gradients, summed)): (usize, (Vec<GradientSums>, Vec<[f64; 3]>))| {
            let rests = of.normalization.of(rank).rest();
            let channels = gradients.into_iter().zip(summed).zip(rests).zip(&centering[rank]);
            channels
                .map(|(((gradient, summed), rest), sent)| {
                    DoubleSums::from_pivot(gradient, summed, rest, sent)
                })
                .collect()
        };
        Ok(gradients.into_iter().zip(summed).enumerate().map(of_rank).collect())
    }

    /// Whether the parameters' gradients of the call are summed over the group, and what they are
    /// divided by then.
    fn divisor(&self, is_exchanged: bool) -> Option<f64> {
        match self.layer.config().affine_gradient {
            AffineGradient::GroupSum if is_exchanged => Some(1.0),
            AffineGradient::GroupMean if is_exchanged => {
                Some(self.layer.exchange.total_ranks() as f64)
            }
            _ => None,
        }
    }

    fn add_cotangents(
        &self,
        rank: usize,
        sums: &mut [DoubleSums],
        [weight, bias]: &Cotangents,
        is_exchanged: bool,
    ) {
        let is_summed = self.divisor(is_exchanged).is_some();
        for (channel, sums) in sums.iter_mut().enumerate() {
            let [u, q] = [weight, bias].map(|of| cotangent(of, rank, channel));
            let GradientSums { sum_dy, sum_dy_xmu } = sums.gradient;
            // Of no cotangent nothing, also where a sum is not finite.
            let of_rank = if u == 0.0 { [0.0; 2] } else { [u * sum_dy, u * sum_dy_xmu] };
            sums.parameters = if is_summed { [u, q] } else { of_rank };
        }
    }

    /// The sums over all ranks, where they are exchanged.
    async fn merge(
        &self,
        local: &[Vec<DoubleSums>],
        calls: &Calls,
    ) -> Result<Option<Vec<DoubleSums>>, Failure> {
        let Some(communicating) = calls[0].as_deref() else { return Ok(None) };
        let pairs = |sums: &Vec<DoubleSums>| sums.iter().flat_map(|sums| sums.pairs()).collect();
        let local: Vec<Vec<stats::DoublePair>> = local.iter().map(pairs).collect();
        let exchanging = Exchanging {
            index: 0,
            member: &communicating.member,
            call: communicating.call.as_ref(),
            local: &local,
            tracks: false,
        };
        let merged = exchange(&[exchanging]).await?;
        let pairs = merged.first().map_or(&[][..], |global| global.channels());
        let channels = pairs.as_chunks().0;
        Ok(Some(channels.iter().map(|pairs| DoubleSums::of_pairs(*pairs)).collect()))
    }

    /// The parameters' cotangents as they enter a rank.
    fn parameters(
        &self,
        rank: usize,
        all: &[DoubleSums],
        [weight, bias]: &Cotangents,
        is_exchanged: bool,
    ) -> Vec<ParameterCotangents> {
        let divisor = self.divisor(is_exchanged);
        let of_channel = |(channel, sums): (usize, &DoubleSums)| {
            let GradientSums { sum_dy, sum_dy_xmu } = sums.gradient;
            let [first, second] = sums.parameters;
            match divisor {
                Some(divisor) => {
                    let [u, q] = [first / divisor, second / divisor];
                    let of_all = if u == 0.0 { [0.0; 2] } else { [u * sum_dy, u * sum_dy_xmu] };
                    let [sum_ug, sum_ug_xmu] = of_all;
                    ParameterCotangents { weight: u, bias: q, sum_ug, sum_ug_xmu }
                }
                None => {
                    let [u, q] = [weight, bias].map(|of| cotangent(of, rank, channel));
                    let [sum_ug, sum_ug_xmu] = [first, second];
                    ParameterCotangents { weight: u, bias: q, sum_ug, sum_ug_xmu }
                }
            }
        };
        all.iter().enumerate().map(of_channel).collect()
    }

    /// inv_std·Σ v·p over each rank, or over the group where the layer's gradients are.
    fn weight_gradients(
        &self,
        of: &OnHost,
        local: &[Vec<DoubleSums>],
        global: Option<&[DoubleSums]>,
    ) -> Result<Option<Vec<Tensor>>, Error> {
        let config = self.layer.config();
        if !config.weight || config.freeze_affine {
            return Ok(None);
        }
        let divisor = self.divisor(global.is_some());
        let of_rank = |(rank, own): (usize, &Vec<DoubleSums>)| {
            let Normalization { inv_std, batch_count, .. } = of.normalization.of(rank);
            let all = global.unwrap_or(own);
            let summed = if divisor.is_some() { all } else { own };
            let channels = summed.iter().zip(all).zip(inv_std);
            let values = channels.map(|((sums, all), inv_std)| {
                let sum = sums.sum_vp(all, *batch_count, *inv_std) / divisor.unwrap_or(1.0);
                if sum == 0.0 { 0.0 } else { (sum * inv_std) as f32 }
            });
            let values: Vec<f32> = values.collect();
            self.layer.devices()[rank].upload(&[values.len()], &values)
        };
        local.iter().enumerate().map(of_rank).collect::<Result<_, _>>().map(Some)
    }
}

/// The values of a vector on every rank.
async fn read(list: &Option<List<'_>>) -> Result<Vec<Vec<f32>>, Error> {
    let tensors = list.iter().flat_map(|list| list.iter());
    try_join_all(tensors.map(Tensor::to_vec)).await
}

fn cotangent(of: &[Vec<f32>], rank: usize, channel: usize) -> f64 {
    of.get(rank).map_or(0.0, |of| f64::from(of[channel]))
}
