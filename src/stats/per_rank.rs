//! One value for all ranks, or one for each.

/// One for all ranks, or one for each.
#[derive(Clone, Debug)]
pub(crate) enum PerRank<T> {
    Shared(T),
    Each(Vec<T>),
}

impl<T> PerRank<T> {
    /// That of a rank.
    pub fn of(&self, rank: usize) -> &T {
        match self {
            Self::Shared(all) => all,
            Self::Each(ranks) => &ranks[rank],
        }
    }

    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        match self {
            Self::Shared(all) => std::slice::from_ref(all),
            Self::Each(ranks) => ranks.as_slice(),
        }
        .iter()
    }

    /// What `make` returns for each, shared where these are.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> PerRank<U> {
        match self {
            Self::Shared(all) => PerRank::Shared(make(all)),
            Self::Each(ranks) => PerRank::Each(ranks.iter().map(make).collect()),
        }
    }
}
