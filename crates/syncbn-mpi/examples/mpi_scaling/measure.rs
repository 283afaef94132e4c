//! Times of messages between two processes, and of decoding and merging one.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use syncbn::collective::{Collective, CollectiveError};
use syncbn::low_level::tree::{Node, merge_nodes};
use syncbn::low_level::{Frame, Header, NodePayload, Payload, Phase, Values};
use syncbn::stats::Moments;
use syncbn_mpi::Mpi;

/// How long ranks wait for each other: a message takes microseconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// Repetitions of each measurement, of which the median counts.
const REPETITIONS: usize = 200;
/// The message sizes between which a cost is a straight line: that of a layer of 8 channels, and of
/// the widest layers of ResNet-50.
const BYTES: [usize; 2] = [256, 32_768];
/// Messages at once, as among 33 ranks.
const MANY: usize = 32;

/// A time that grows with a size.
#[derive(Clone, Copy, Debug)]
pub struct LinearCost {
    /// Seconds.
    pub fixed: f64,
    /// Seconds per byte.
    pub per_byte: f64,
}

impl LinearCost {
    /// That of two measurements at [`BYTES`]. On a busy machine more bytes may seem to
    /// take less time.
    fn through([short, long]: [f64; 2]) -> Self {
        let per_byte = ((long - short) / (BYTES[1] - BYTES[0]) as f64).max(0.0);
        Self { fixed: (short - per_byte * BYTES[0] as f64).max(0.0), per_byte }
    }

    pub fn seconds(&self, bytes: usize) -> f64 {
        self.fixed + self.per_byte * bytes as f64
    }
}

/// The costs that the model uses.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A message to a rank and one back, by itself: from the call until the other's is there.
    pub alone: LinearCost,
    /// Each further message where many are under way at once: sent, received and waited for.
    pub of_many: LinearCost,
    /// Decoding and merging one message, per byte.
    pub merging: LinearCost,
}

impl Costs {
    /// Measures between ranks 0 and 1; others wait.
    pub fn measure(mpi: &Mpi) -> Result<Self, Box<dyn std::error::Error>> {
        let world = mpi.world()?;
        if world.world_size() < 2 {
            return Err("messages need two processes".into());
        }
        let mut alone = [0.0; 2];
        let mut of_many = [0.0; 2];
        if world.rank() < 2 {
            let pair = world.split(0, &[0, 1])?;
            for (index, bytes) in BYTES.into_iter().enumerate() {
                alone[index] = median(|| burst(pair.as_ref(), bytes, 1))?;
                let many = median(|| burst(pair.as_ref(), bytes, MANY))?;
                of_many[index] = (many - alone[index]).max(0.0) / (MANY - 1) as f64;
            }
        }
        let merging = [merging(BYTES[0])?, merging(BYTES[1])?];
        // Nobody leaves before all are done.
        pollster::block_on(world.all_gather(Vec::new(), DEADLINE))?;
        Ok(Self {
            alone: LinearCost::through(alone),
            of_many: LinearCost::through(of_many),
            merging: LinearCost::through(merging),
        })
    }
}

/// The median of a time in seconds, after a first one that does not count.
fn median<E>(mut time: impl FnMut() -> Result<Duration, E>) -> Result<f64, E> {
    time()?;
    let mut times =
        (0..REPETITIONS).map(|_| Ok(time()?.as_secs_f64())).collect::<Result<Vec<_>, E>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// So many exchanges of two ranks at once.
fn burst(pair: &dyn Collective, bytes: usize, count: usize) -> Result<Duration, CollectiveError> {
    let messages = vec![vec![1u8; bytes]; count];
    // Both ranks are there.
    pollster::block_on(pair.all_gather(Vec::new(), DEADLINE))?;
    let began = Instant::now();
    pollster::block_on(try_join_all(
        messages.into_iter().map(|message| pair.all_gather(message, DEADLINE)),
    ))?;
    Ok(began.elapsed())
}

/// Seconds for one message of about so many bytes, of many that are decoded and merged.
fn merging(bytes: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let channels = bytes / 16;
    let frame = |rank: usize| {
        let (group, layer, step, subject, config, state) = Default::default();
        let name = "layer3.0.bn2".to_owned();
        let phase = Phase::Forward;
        let rank = rank as u64;
        let channels_of_layer = channels as u64;
        let header = Header {
            group,
            rank,
            phase,
            layer,
            name,
            step,
            subject,
            channels: channels_of_layer,
            config,
            state,
            ranks: 0,
            listed: 1,
        };
        let values = (0..channels).map(|channel| [channel as f64, 1.0 + rank as f64]);
        let values = Values::Floats(values.collect());
        Frame {
            header,
            payload: Payload::Nodes(vec![NodePayload { level: 0, index: rank, count: 32, values }]),
        }
    };
    let messages: Vec<Vec<u8>> = (0..MANY).map(|rank| frame(rank).encode()).collect();
    let merge = |left: &mut Vec<Moments>, right: &Vec<Moments>| {
        left.iter_mut().zip(right).for_each(|(left, right)| *left = left.merge(*right));
    };
    let once = || {
        let began = Instant::now();
        let mut nodes = Vec::new();
        for message in &messages {
            let Payload::Nodes(payloads) =
                Frame::decode(message).map_err(|error| error.to_string())?.payload
            else {
                return Err("a frame came back as another".to_owned());
            };
            for NodePayload { level, index, count, values } in payloads {
                let Values::Floats(values) = values else {
                    return Err("values came back as integers".to_owned());
                };
                let value =
                    values.into_iter().map(|[mean, m2]| Moments { count, mean, m2 }).collect();
                nodes.push(Node { level, index, value });
            }
        }
        black_box(merge_nodes(nodes, merge));
        Ok(began.elapsed() / MANY as u32)
    };
    Ok(median(once)?)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, line: &LinearCost| {
            writeln!(
                f,
                "{what}: {:.2} us + {:.3} ns per byte",
                line.fixed * 1e6,
                line.per_byte * 1e9
            )
        };
        line("a message by itself           ", &self.alone)?;
        line("each further of many at once  ", &self.of_many)?;
        line("decoding and merging a message", &self.merging)
    }
}
