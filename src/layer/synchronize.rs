//! The exchange of one or several layers by itself, between the steps of a pass.

use futures::FutureExt;

use super::member::{Exchanging, Member, begin, end, exchange};
use super::{Failure, SyncBatchNorm, check_same_group};
use crate::collective::{ANY_SUBJECT, Phase, Synchronization};
use crate::stats::{Global, Local, Mergeable};

/// The exchange of several layers as one message.
pub(crate) fn synchronize_layers<'a, T: Mergeable>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, Local<T>)>,
) -> Synchronization<Vec<Global<T>>> {
    let layers = calls
        .into_iter()
        .map(|(layer, local)| (layer.member(), layer.devices().len(), local))
        .collect();
    Synchronization::new(move |tracks| {
        synchronize(layers, tracks).map(|result| result.map_err(Failure::joint)).boxed()
    })
}

/// What all ranks have together, for layers with so many ranks of this caller each.
pub(super) async fn synchronize<T: Mergeable>(
    layers: Vec<(Member, usize, Local<T>)>,
    tracks: bool,
) -> Result<Vec<Global<T>>, Failure> {
    let (phase, subject) = match (T::IS_STATISTICS, tracks) {
        (true, true) => (Phase::Forward, 0),
        (true, false) => (Phase::Recompute, 0),
        (false, _) => (Phase::Backward, ANY_SUBJECT),
    };
    let (members, locals): (Vec<_>, Vec<_>) =
        layers.into_iter().map(|(member, ranks, local)| (member, (ranks, local))).unzip();
    let (calls, begun) = begin(members.into_iter().map(|member| Some((member, phase, subject))));
    let run = async {
        begun?;
        let members: Vec<_> = calls.iter().filter_map(Option::as_deref).collect();
        let mut ranks_of = Vec::with_capacity(members.len());
        for (index, ((member, _), (ranks, local))) in members.iter().zip(locals).enumerate() {
            check_same_group(&members[0].0.exchange, &member.exchange)
                .map_err(Failure::of(index))?;
            ranks_of.push(local.into_ranks(member.channels, ranks).map_err(Failure::of(index))?);
        }
        let exchanging = members.iter().zip(&ranks_of).enumerate();
        let exchanging = exchanging.map(|(index, ((member, call), local))| Exchanging {
            index,
            member,
            call: call.as_ref(),
            local,
            tracks,
        });
        exchange(&exchanging.collect::<Vec<_>>()).await
    };
    let result = run.await;
    end(calls, result)
}
