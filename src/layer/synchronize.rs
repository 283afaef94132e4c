//! The exchange of one or several layers by itself, between the steps of a pass.

use futures::FutureExt;

use super::member::{Begin, Communicating, Member, begin, end};
use super::merging::{Exchanging, exchange};
use super::{Failure, SyncBatchNorm, check_same_group};
use crate::collective::{ANY_SUBJECT, Phase, Synchronization};
use crate::stats::{Global, Local, Mergeable};

/// The exchange of several layers as one message.
pub(crate) fn synchronize_layers<'a, T: Mergeable>(
    calls: impl IntoIterator<Item = (&'a SyncBatchNorm, Local<T>)>,
) -> Synchronization<Vec<Global<T>>> {
    let mut is_allowed = Ok(());
    let mut layers = Vec::new();
    for (layer, local) in calls {
        is_allowed = is_allowed.and_then(|()| layer.check_one_round());
        layers.push((layer.member(), local));
    }
    Synchronization::new(move |tracks| {
        let run = async move {
            is_allowed?;
            synchronize(layers, tracks).await.map_err(Failure::joint)
        };
        run.boxed()
    })
}

/// Merges over all ranks, for several layers.
pub(super) async fn synchronize<T: Mergeable>(
    layers: Vec<(Member, Local<T>)>,
    tracks: bool,
) -> Result<Vec<Global<T>>, Failure> {
    let (phase, subject) = match (T::IS_STATISTICS, tracks) {
        (true, true) => (Phase::Forward, 0),
        (true, false) => (Phase::Recompute, 0),
        (false, _) => (Phase::Backward, ANY_SUBJECT),
    };
    let (members, locals): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let members = members.into_iter().map(|member| Some(Begin { member, phase, subject }));
    let (calls, begun) = begin(members);
    let run = async {
        begun?;
        let layers: Vec<_> = calls.iter().filter_map(Option::as_deref).collect();
        let mut ranks_of = Vec::with_capacity(layers.len());
        for (index, (layer, local)) in layers.iter().zip(locals).enumerate() {
            let member = &layer.member;
            check_same_group(&layers[0].member.exchange, &member.exchange)
                .map_err(Failure::of(index))?;
            let ranks = local.into_ranks(member.channels, member.parameters.len());
            ranks_of.push(ranks.map_err(Failure::of(index))?);
        }
        let exchanging = layers.iter().zip(&ranks_of).enumerate().map(|(index, (layer, local))| {
            let Communicating { member, call } = layer;
            Exchanging { index, member, call: call.as_ref(), local, tracks }
        });
        exchange(&exchanging.collect::<Vec<_>>()).await
    };
    let result = run.await;
    end(calls, result)
}
