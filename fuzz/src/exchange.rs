//! A whole exchange with a peer that says anything.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use syncbn::collective::{Collective, CollectiveError, Gathered, Part, ReduceOp};
use syncbn::low_level::{Frame, Payload, Phase};
use syncbn::{Error, ProcessGroup};

/// Values that the peer broadcasts.
const VALUES: usize = 3;

/// A group of two, whose other rank repeats the messages of this one in its own name, with edits.
#[derive(Clone, Debug)]
struct Peer {
    edits: Arc<[u8]>,
    all_reduces: bool,
}

impl Peer {
    /// The answer of the peer to `message`.
    ///
    /// Of the edits the first two bytes are the length that is left of the message, and each three
    /// that follow are a place and what is written there, in bits that change.
    fn answer(&self, message: &[u8], merged: bool) -> Vec<u8> {
        let mut answer = Self::in_its_name(message, merged);
        if let Some((length, edits)) = self.edits.split_first_chunk() {
            for [low, high, bits] in edits.as_chunks().0 {
                let place = usize::from(u16::from_le_bytes([*low, *high])) % answer.len();
                answer[place] ^= bits;
            }
            answer.truncate(usize::from(u16::from_le_bytes(*length)));
        }
        answer
    }

    fn in_its_name(message: &[u8], merged: bool) -> Vec<u8> {
        // One frame behind its length; merged, behind the kind and the number of ranks as well.
        let start = if merged { 1 + 8 + 8 + 8 } else { 8 };
        let mut frame = Frame::decode(&message[start..]).expect("a frame of this crate");
        frame.header.rank = 1;
        match &mut frame.payload {
            Payload::Nodes(nodes) => nodes.iter_mut().for_each(|node| node.index = 1),
            Payload::Bytes(values) if frame.header.phase == Phase::Broadcast => {
                *values = vec![0; 4 * VALUES];
            }
            _ => {}
        }
        let frame = frame.encode();
        [&message[..start - 8], &(frame.len() as u64).to_le_bytes(), &frame].concat()
    }
}

impl Collective for Peer {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        2
    }

    fn all_gather(
        &self,
        message: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Gathered, CollectiveError>> {
        let answer = self.answer(&message, false);
        ready(Ok(vec![message.into(), answer.into()])).boxed()
    }

    fn supports_all_reduce(&self) -> bool {
        self.all_reduces
    }

    fn all_reduce(
        &self,
        message: Vec<u8>,
        op: ReduceOp,
        _: Duration,
    ) -> BoxFuture<'static, Result<Arc<[u8]>, CollectiveError>> {
        let answer = self.answer(&message, true);
        let merged = op(Part { rank: 0, bytes: &message }, Part { rank: 1, bytes: &answer });
        ready(Ok(merged.into())).boxed()
    }

    fn abort(&self, _: Vec<u8>) {}

    fn split(&self, _: u64, _: &[usize]) -> Result<Arc<dyn Collective>, CollectiveError> {
        Err(CollectiveError::Transport { message: "two ranks are not split".to_owned() })
    }
}

/// The exchange of a layer of two channels, of forward or of backward.
#[cfg(feature = "layers")]
async fn layer(group: &ProcessGroup, is_forward: bool) -> Result<(), Error> {
    use std::sync::LazyLock;

    use syncbn::stats::{GradientSums, Local, Moments};
    use syncbn::{BatchNormConfig, Device, SyncBatchNorm};

    static HOST: LazyLock<Device> = LazyLock::new(Device::host);
    let config = BatchNormConfig::torch(2);
    let layer = SyncBatchNorm::new(config, [HOST.clone()])?.in_group(group)?;
    if is_forward {
        let moments = Moments { count: 3, mean: 1.0, m2: 2.0 };
        layer.synchronize(Local::of_rank([moments; 2])).await.map(drop)
    } else {
        let sums = GradientSums { sum_dy: 1.0, sum_dy_xmu: 2.0 };
        layer.synchronize(Local::of_rank([sums; 2])).await.map(drop)
    }
}

#[cfg(not(feature = "layers"))]
async fn layer(_: &ProcessGroup, _: bool) -> Result<(), Error> {
    Ok(())
}

/// An exchange ends with a result or an error. The first byte says which exchange, the others are
/// the edits.
pub fn exchange(bytes: &[u8]) {
    let Some((&which, edits)) = bytes.split_first() else { return };
    let is_unchanged = edits.is_empty();
    let peer = Peer { edits: edits.into(), all_reduces: which & 8 != 0 };
    let group = ProcessGroup::new(peer).with_deadline(Duration::from_secs(1));
    let mut values = [1.0_f32; VALUES];
    let result = pollster::block_on(async {
        match which % 6 {
            0 => group.all_reduce_sum([&mut values]).await,
            1 => group.all_gather(b"message").await.map(drop),
            2 => group.broadcast(1, &mut values).await,
            3 => group.barrier().await,
            direction => layer(&group, direction == 4).await,
        }
    });
    if is_unchanged {
        assert!(result.is_ok(), "{result:?}");
    }
}
