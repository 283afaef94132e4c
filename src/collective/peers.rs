//! Checks every header against the others: all ranks must be at the same place.

use super::ProcessGroup;
use super::frame::{ANY_SUBJECT, Header, Phase, UNANNOUNCED};
use super::merged::Head;

/// Meaning of a difference in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ranks are not at the same place.
    Place,
    /// Ranks have different settings.
    Settings,
    /// Ranks have different parameters or running statistics.
    State,
}

/// A field that must agree, and its form in an error. `None` agrees with everything.
struct Field {
    what: &'static str,
    kind: Kind,
    show: fn(&Header) -> Option<String>,
}

const fn place(what: &'static str, show: fn(&Header) -> Option<String>) -> Field {
    Field { what, kind: Kind::Place, show }
}

/// The field that explains most comes first: a rank in another layer is also at another exchange.
const FIELDS: [Field; 12] = [
    place("process group", |header| Some(format!("{:#018x}", header.group))),
    place("layer", |header| header.phase.is_of_a_layer().then(|| header.layer.to_string())),
    place("layer name", |header| {
        header.phase.is_of_a_layer().then(|| format!("{:?}", header.name))
    }),
    place("call", |header| Some(header.phase.to_string())),
    place("exchange", |header| Some(header.step.to_string())),
    place("`from`", |header| subject(header, true)),
    place("forward exchange of `saved`", |header| subject(header, false)),
    place("number of exchanges in a message", |header| Some(header.listed.to_string())),
    place("num_features", |header| {
        let has_channels = header.phase.is_of_a_layer() && !header.phase.is_of_values();
        has_channels.then(|| header.channels.to_string())
    }),
    place("number of values", |header| Some(header.channels.to_string())),
    // Settings may differ in the exchange that compares them.
    Field {
        what: "checksum of the settings",
        kind: Kind::Settings,
        show: |header| {
            let is_compared = header.phase == Phase::Comparison;
            (!is_compared).then(|| format!("{:#018x}", header.config))
        },
    },
    Field {
        what: "checksum of parameters and running statistics",
        kind: Kind::State,
        show: |header| Some(format!("{:#018x}", header.state)),
    },
];

/// The subject where it is a rank, or where it is an exchange.
fn subject(header: &Header, is_rank: bool) -> Option<String> {
    let of_broadcast = matches!(header.phase, Phase::Broadcast | Phase::State);
    let has_one = is_rank || header.subject != ANY_SUBJECT;
    (of_broadcast == is_rank && has_one).then(|| header.subject.to_string())
}

const DEVICES: Field = place("number of devices", |header| Some(header.ranks.to_string()));

/// Fields that ranks at the same place must announce once more before they can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Again {
    /// Checksums of the state, if only some ranks announced theirs.
    pub states: bool,
    /// Numbers of devices, if they differ.
    pub ranks: bool,
}

/// A value, the first rank that has it, and the number of ranks that have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice<T> {
    pub value: T,
    pub rank: u64,
    pub ranks: u64,
}

/// The first rank that differs from most ranks, in ranks of the group.
#[derive(Debug)]
pub(super) struct Dissent {
    pub rank: usize,
    pub found: String,
    pub expected: String,
    /// The first rank with the expected value, and the number of such ranks.
    pub other: usize,
    pub agreeing: usize,
}

impl Dissent {
    /// The same in ranks of the outermost group.
    pub fn of_world(self, group: &ProcessGroup) -> Self {
        let [rank, other] = [self.rank, self.other].map(|rank| group.world_rank(rank));
        Self { rank, other, ..self }
    }
}

/// Compares the values of ranks, in the order of the first rank of each voice. The most frequent
/// value is the expected one. Of equally frequent values it is that of the lowest rank. So every
/// rank finds the same dissent.
pub(super) fn dissent<T: PartialEq + ToString>(voices: &[Voice<T>]) -> Option<Dissent> {
    let votes = |value: &T| {
        let same = voices.iter().filter(|voice| voice.value == *value);
        same.fold(0u64, |votes, voice| votes.saturating_add(voice.ranks))
    };
    let most = voices.iter().map(|voice| votes(&voice.value)).max()?;
    let expected = voices.iter().find(|voice| votes(&voice.value) == most)?;
    let found = voices.iter().find(|voice| voice.value != expected.value)?;
    Some(Dissent {
        rank: found.rank as usize,
        found: found.value.to_string(),
        expected: expected.value.to_string(),
        other: expected.rank as usize,
        agreeing: most as usize,
    })
}

/// The result of comparing headers.
pub(super) struct Judgement {
    /// Fields to announce once more. They are no difference.
    pub again: Again,
    /// The first field that differs.
    pub difference: Option<(Kind, &'static str, Dissent)>,
}

/// Compares all headers, in the order of the first rank of each.
pub(super) fn judge(heads: &[Head], may: Again) -> Judgement {
    // The usual case needs no formatting.
    if let [] | [_] = heads {
        return Judgement { again: Again::default(), difference: None };
    }
    let announced = heads.iter().filter(|head| head.header.state != UNANNOUNCED).count();
    let again = Again {
        states: may.states && (1..heads.len()).contains(&announced),
        ranks: may.ranks && heads.iter().any(|head| head.header.ranks != heads[0].header.ranks),
    };
    let compared = FIELDS.iter().filter(|field| !(again.states && field.kind == Kind::State));
    let mut fields = compared.chain((!again.ranks).then_some(&DEVICES));
    let difference = fields.find_map(|Field { what, kind, show }| {
        let voices = heads.iter().filter_map(|Head { header, ranks }| {
            Some(Voice { value: show(header)?, rank: header.rank, ranks: *ranks })
        });
        Some((*kind, *what, dissent(&voices.collect::<Vec<_>>())?))
    });
    Judgement { again, difference }
}

/// Whether all headers agree.
pub(super) fn agree(heads: &[Head]) -> bool {
    judge(heads, Again::default()).difference.is_none()
}

/// Adds the headers of further ranks, in rank order, to the different ones.
pub(super) fn add_head(heads: &mut Vec<Head>, other: Head) {
    match heads.iter_mut().find(|head| head.is_of(&other.header)) {
        Some(head) => head.ranks = head.ranks.saturating_add(other.ranks),
        None => heads.push(other),
    }
}
