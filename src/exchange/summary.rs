//! The values of a node of the tree while nodes merge, in the form in which they are sent.

use crate::collective::{NodePayload, Values};
use crate::stats::tree::Node;
use crate::stats::{Component, Components, Mergeable};

/// Values of every channel of a rank or of a node. All have the same count.
pub(super) struct Summary<T: Mergeable> {
    count: u64,
    channels: Vec<[T::Component; 2]>,
}

impl<T: Mergeable> Summary<T> {
    /// The values of a rank.
    pub fn of(channels: &[T]) -> Self {
        let count = channels.first().map_or(0, T::count);
        Self { count, channels: channels.iter().map(T::components).collect() }
    }

    /// A node, or an error if its values are of another kind.
    pub fn of_payload(payload: NodePayload) -> Result<Node<Self>, String> {
        let NodePayload { level, index, count, values } = payload;
        let list = match values {
            Values::Floats(pairs) => Components::Floats(pairs),
            Values::Integers(pairs) => Components::Integers(pairs),
        };
        let refuse = || "a node holds values of another kind than this exchange has".to_owned();
        let channels = T::Component::pairs(list).ok_or_else(refuse)?;
        // Values without a count have 0, whatever was sent.
        let count = channels.first().map_or(0, |of| T::from_components(count, *of).count());
        Ok(Node { level, index, value: Self { count, channels } })
    }

    pub fn into_payload(node: Node<Self>) -> NodePayload {
        let Node { level, index, value: Self { count, channels } } = node;
        let values = match T::Component::list(channels) {
            Components::Floats(pairs) => Values::Floats(pairs),
            Components::Integers(pairs) => Values::Integers(pairs),
        };
        NodePayload { level, index, count, values }
    }

    /// Merges the node to the right, which has the same channels, into this one.
    pub fn merge(&mut self, right: &Self) {
        debug_assert_eq!(self.channels.len(), right.channels.len(), "channels");
        T::merge_channels([self.count, right.count], &mut self.channels, &right.channels);
        // Saturating, because a peer may invent counts.
        self.count = self.count.saturating_add(right.count);
    }

    pub fn into_channels(self) -> Vec<T> {
        let Self { count, channels } = self;
        channels.into_iter().map(|of| T::from_components(count, of)).collect()
    }
}
