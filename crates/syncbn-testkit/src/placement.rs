//! Which devices the ranks of a group are.

use syncbn::Device;

/// A way to place ranks on devices. Each binary of tests has its own, because each opens its own
/// devices.
pub trait Placement: Copy {
    /// The devices of a group of so many ranks.
    fn devices(self, ranks: usize) -> Vec<Device>;
}
