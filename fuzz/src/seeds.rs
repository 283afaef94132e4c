//! The seeds of the fuzzer: for each target some valid inputs, of every kind.

use syncbn::BatchNormConfig;
use syncbn::config::{Activation, Initializer, Momentum};
use syncbn::low_level::{Frame, Header, NodePayload, Payload, Phase, Values, merged_of_one};
use syncbn::state::{Checkpoint, Naming, StateDict};
use syncbn::stats::{GlobalStatistics, Local, Moments, RunningStats};

fn header(rank: u64, phase: Phase) -> Header {
    Header {
        group: 0,
        rank,
        phase,
        layer: 1,
        name: "bn1".to_owned(),
        step: 2,
        subject: 1,
        channels: 2,
        config: 0x0102_0304_0506_0708,
        state: 0,
        ranks: 0,
        listed: 1,
    }
}

fn nodes(rank: u64) -> Payload {
    let values = Values::Floats(vec![[1.5, 0.25], [-2.0, 1e300]]);
    Payload::Nodes(vec![NodePayload { level: 0, index: rank, count: 7, values }])
}

fn frame(rank: u64, phase: Phase, payload: Payload) -> Vec<u8> {
    Frame { header: header(rank, phase), payload }.encode()
}

/// One frame of each kind, and one with a tall tree.
pub fn frames() -> Vec<Vec<u8>> {
    let of = |pair| Values::Floats(vec![pair; 2]);
    let node = |level, index| NodePayload { level, index, count: 9, values: of([0.5; 2]) };
    let integers = Values::Integers(vec![[-3, 1 << 70]; 2]);
    vec![
        frame(0, Phase::Forward, nodes(0)),
        frame(1, Phase::Backward, Payload::Nodes(vec![node(3, 2), node(1, 12), node(0, 26)])),
        frame(
            0,
            Phase::AllReduce,
            Payload::Nodes(vec![NodePayload {
                values: Values::Floats(vec![[1.0; 2]]),
                ..node(0, 0)
            }]),
        ),
        frame(
            0,
            Phase::Recompute,
            Payload::Nodes(vec![NodePayload { values: integers, ..node(0, 0) }]),
        ),
        frame(2, Phase::State, Payload::Bytes(vec![1, 2, 3])),
        frame(3, Phase::Evaluate, Payload::Abort("out of memory".to_owned())),
    ]
}

fn listed(frames: &[Vec<u8>]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| [&(frame.len() as u64).to_le_bytes(), &frame[..]].concat())
        .collect()
}

/// Messages of one frame and of several.
pub fn lists() -> Vec<Vec<u8>> {
    let frames = frames();
    vec![listed(&frames[..1]), listed(&frames[..2]), listed(&frames)]
}

fn merged_of(rank: u64) -> Vec<u8> {
    let message = listed(&[frame(rank, Phase::Forward, nodes(rank))]);
    merged_of_one(&message).expect("a message of frames")
}

/// Merged messages: of one rank, and a reason why there is none.
pub fn merged() -> Vec<Vec<u8>> {
    vec![merged_of(0), merged_of(1), [&[1][..], &3u64.to_le_bytes(), b"no frame"].concat()]
}

/// Two merged messages of ranks side by side, behind the length of the first.
pub fn pairs() -> Vec<Vec<u8>> {
    let (left, right) = (merged_of(0), merged_of(1));
    let pair =
        |left: &[u8], right: &[u8]| [&(left.len() as u16).to_le_bytes()[..], left, right].concat();
    vec![pair(&left, &right), pair(&left, &merged()[2]), pair(b"", &right)]
}

/// Every exchange, gathered and all-reduced: unchanged, cut, and with a bit flipped.
pub fn edits() -> Vec<Vec<u8>> {
    let whole = u16::MAX.to_le_bytes();
    let flip = [&whole[..], &[120, 0, 0x40]].concat();
    let edits = [Vec::new(), vec![40, 0], flip];
    (0..12)
        .flat_map(|which| edits.iter().map(move |edits| [&[which][..], edits].concat()))
        .collect()
}

fn state() -> StateDict {
    let mut state = StateDict::default();
    state.weight = Some(vec![1.0, -2.0]);
    state.bias = Some(vec![0.5, 0.0]);
    state.running_mean = Some(vec![0.1, 1e30]);
    state.running_var = Some(vec![1.0, 0.0]);
    state.num_batches_tracked = Some(3);
    state
}

/// States with and without parts.
pub fn state_messages() -> Vec<Vec<u8>> {
    let mut no_weight = state();
    no_weight.weight = None;
    let states = [state(), StateDict::default(), no_weight];
    states.iter().map(syncbn::low_level::state_to_message).collect()
}

/// Files of both conventions, with a prefix and without.
pub fn state_files() -> Vec<Vec<u8>> {
    let file = |how: u8, naming, path| {
        let mut file = Checkpoint::new().with_namings([naming]);
        file.set_layer(path, &state()).expect("names for a state");
        [&[how | 1][..], &file.to_bytes().expect("a file of a state")].concat()
    };
    vec![
        file(16, Naming::TORCH, ""),
        file(16 | 32 | 64, Naming::TORCH, "bn"),
        file(24, Naming::MINDSPORE, ""),
        file(0, Naming::MINDSPORE, ""),
    ]
}

/// Settings with every kind of value.
pub fn configs() -> Vec<Vec<u8>> {
    let initial = [
        Initializer::Normal { mean: 0.5, std: 2.0 },
        Initializer::Uniform { low: -1.0, high: 1.0 },
        Initializer::TruncatedNormal { mean: 0.0, std: 1.0 },
        Initializer::Values(vec![1.0, 2.0]),
        Initializer::Constant(0.25),
    ];
    let of = |weight: Initializer| BatchNormConfig::torch(2).with_weight_init(weight);
    let mut configs: Vec<_> = initial.into_iter().map(of).collect();
    configs.push(BatchNormConfig::mindspore(3).with_activation(Activation::LeakyRelu(0.1)));
    configs.push(BatchNormConfig::torch(1).with_momentum(Momentum::Cumulative));
    let json = |config: &BatchNormConfig| serde_json::to_vec(config).expect("JSON of settings");
    configs.iter().map(json).chain([b"{\"num_features\":4}".to_vec()]).collect()
}

/// Statistics of each kind.
pub fn statistics() -> Vec<Vec<u8>> {
    let moments = Moments { count: 4, mean: 1.5, m2: 0.25 };
    let mut local = Local::of_rank([moments; 2]);
    local.append(local.clone()).expect("as many channels");
    vec![
        serde_json::to_vec(&local).expect("JSON of statistics"),
        serde_json::to_vec(&GlobalStatistics::new([moments; 2])).expect("JSON of statistics"),
        serde_json::to_vec(&RunningStats::new(2)).expect("JSON of statistics"),
    ]
}

/// Lengths that fit, of one rank and of two; too many lists; one too long; no axis for them.
#[cfg(feature = "layers")]
pub fn lengths() -> Vec<Vec<u8>> {
    vec![
        vec![0, 1, 0, 2, 1, 3, 0, 0, 2, 0, 3],
        vec![1, 0, 1, 1, 2, 4, 2, 1, 1, 3, 0, 0, 4, 0, 2],
        vec![0, 1, 0, 2, 1, 3, 3, 3, 0, 1],
        vec![0, 0, 0, 2, 1, 3, 0, 0, 250, 1],
        vec![0, 2, 1, 2, 0, 0, 0, 1, 1],
    ]
}

/// Requests with every kind of setting and target, as they should be and with other tensors.
#[cfg(feature = "layers")]
pub fn requests() -> Vec<Vec<u8>> {
    let of = |flags: u8, how: u8| [&[1, 0, flags, 1, 2][..], &[0; 8], &[how]].concat();
    let flags = [0, 1, 2, 4, 8, 9, 16];
    let mut requests: Vec<_> = flags.iter().map(|flags| of(*flags, 0)).collect();
    requests.extend([2, 4, 8, 16, 32, 96, 160, 224].map(|how| of(9, how)));
    // Another grad_output than x.
    requests.push([&[1, 1, 8, 1, 2, 0, 0, 0, 3, 1, 1, 2, 1, 1][..], &[0; 8]].concat());
    requests
}
