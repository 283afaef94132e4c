//! Listens to the crate's events, on one thread.

use std::sync::OnceLock;

use tracing::subscriber::Interest;
use tracing::{Dispatch, span};

/// Hands every event of some targets on this thread to a function, until the returned guard is
/// dropped.
pub fn hear(
    targets: &'static [&'static str],
    heard: fn(&tracing::Event<'_>),
) -> tracing::subscriber::DefaultGuard {
    keep_asking();
    tracing::subscriber::set_default(Listener { targets, heard })
}

/// Keeps two subscribers. As long as there are fewer than two in a process, `tracing` forgets an
/// event for all threads where the first thread that comes by it listens to none.
pub fn keep_asking() {
    static KEPT: OnceLock<[Dispatch; 2]> = OnceLock::new();
    KEPT.get_or_init(|| [(); 2].map(|()| Dispatch::new(Listener { targets: &[], heard: |_| {} })));
}

struct Listener {
    targets: &'static [&'static str],
    heard: fn(&tracing::Event<'_>),
}

impl tracing::Subscriber for Listener {
    fn register_callsite(&self, _: &tracing::Metadata<'_>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        self.targets.contains(&metadata.target())
    }

    fn event(&self, event: &tracing::Event<'_>) {
        (self.heard)(event);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
