//! One value for all ranks, or one for each.

/// One for all ranks, or one for each.
#[derive(Clone, Debug)]
pub(crate) enum PerRank<T> {
    Shared(T),
    Each(Vec<T>),
}

impl<T> PerRank<T> {
    /// The value of a rank.
    pub fn of(&self, rank: usize) -> &T {
        match self {
            Self::Shared(all) => all,
            Self::Each(ranks) => &ranks[rank],
        }
    }

    /// The distinct values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        match self {
            Self::Shared(all) => std::slice::from_ref(all),
            Self::Each(ranks) => ranks.as_slice(),
        }
        .iter()
    }

    /// Maps each value. A shared value stays shared.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> PerRank<U> {
        match self {
            Self::Shared(all) => PerRank::Shared(make(all)),
            Self::Each(ranks) => PerRank::Each(ranks.iter().map(make).collect()),
        }
    }

    /// Maps each pair of values. The result is shared if both are.
    pub fn zip<U, V>(&self, other: &PerRank<U>, make: impl Fn(&T, &U) -> V) -> PerRank<V> {
        match (self, other) {
            (Self::Shared(all), PerRank::Shared(other)) => PerRank::Shared(make(all, other)),
            (Self::Each(ranks), _) => {
                let pairs = ranks.iter().enumerate().map(|(rank, of)| make(of, other.of(rank)));
                PerRank::Each(pairs.collect())
            }
            (Self::Shared(all), PerRank::Each(others)) => {
                PerRank::Each(others.iter().map(|other| make(all, other)).collect())
            }
        }
    }
}
