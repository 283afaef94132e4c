//! In the place of `host` without that feature: its names, as types that have no values.

/// There are no threads without the feature `host`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Threads {}

impl Threads {
    /// Those of the host, where it computes.
    pub fn any() -> Option<Self> {
        None
    }
}

pub(crate) fn prefer_large_pages<T>(_: &mut [T]) {}
