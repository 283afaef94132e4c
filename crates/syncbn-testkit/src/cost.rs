//! Counts the costs that the crate reports, per thread.

use std::cell::Cell;

use tracing::field::{Field, Visit};

use crate::events::hear;

/// Costs of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub allocations: u64,
    pub bind_groups: u64,
    pub pipelines: u64,
    pub submissions: u64,
    /// Locks of what the calls on a device share, each taken once.
    pub locks: u64,
    /// Passes of layers that the host has taken channel by channel.
    pub fused: u64,
}

impl Cost {
    const NONE: Self =
        Self { allocations: 0, bind_groups: 0, pipelines: 0, submissions: 0, locks: 0, fused: 0 };
}

thread_local! {
    static SPENT: Cell<Cost> = const { Cell::new(Cost::NONE) };
}

/// Costs of this thread since the last call.
pub fn spent() -> Cost {
    SPENT.take()
}

/// Counts on this thread until it is dropped.
pub fn counting() -> tracing::subscriber::DefaultGuard {
    hear(&["syncbn::memory", "syncbn::cost"], |event| {
        let mut cost = SPENT.get();
        event.record(&mut cost);
        SPENT.set(cost);
    })
}

impl Visit for Cost {
    fn record_u64(&mut self, field: &Field, _: u64) {
        assert_eq!(field.name(), "size_bytes");
        self.allocations += 1;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        assert_eq!(field.name(), "what");
        *match value {
            "bind group" => &mut self.bind_groups,
            "pipeline" => &mut self.pipelines,
            "submission" => &mut self.submissions,
            "lock" => &mut self.locks,
            "fused" => &mut self.fused,
            other => panic!("{other} is not counted"),
        } += 1;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
