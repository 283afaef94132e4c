//! [`SyncBatchNorm`]: crate::SyncBatchNorm
//! [`BatchNorm`]: crate::BatchNorm
//! [`ProcessGroup`]: crate::ProcessGroup
//! [`LocalGroup`]: crate::collective::LocalGroup
//! [`Collective`]: crate::collective::Collective
//! [`Forward`]: crate::Forward
//! [`Backward`]: crate::Backward
//! [`Saved`]: crate::Saved
//! [`Workspace`]: crate::Workspace
//! [`Tensor`]: crate::Tensor
//! [`stats`]: crate::stats
//! [`joint`]: crate::joint
//! [`StateDict`]: crate::state::StateDict
//! [`Checkpoint`]: crate::state::Checkpoint
//! [`Naming`]: crate::state::Naming
//! [`Error`]: crate::Error
//! [`FastPaths`]: crate::device::FastPaths
//! [`TorchArguments`]: crate::config::TorchArguments
//! [`MindSporeArguments`]: crate::config::MindSporeArguments
//! [`Initializer`]: crate::config::Initializer
//! [protocol]: crate::guide::protocol
//! [compare]: crate::guide::compare
#![doc = include_str!("../docs/GUIDE.md")]
// The documents of docs/ as modules without items. docs.rs shows them, and their examples run as
// tests. A link is defined twice: here for rustdoc, at the end of the document for readers of the
// files. Markdown takes the first of two definitions.

pub mod compare {
    //! [guide]: crate::guide
    //! [protocol]: crate::guide::protocol
    //! [performance]: https://docs.rs/crate/syncbn/latest/source/docs/PERFORMANCE.md
    #![doc = include_str!("../docs/COMPARE.md")]
}

pub mod protocol {
    //! [guide]: crate::guide
    //! [rounds]: crate::guide#any-number-of-ranks
    //! [numerics]: https://docs.rs/crate/syncbn/latest/source/docs/numerics.md
    #![doc = include_str!("../docs/PROTOCOL.md")]
}
