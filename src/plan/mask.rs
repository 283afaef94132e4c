//! How a mask of the activation lies, a bit per value, and how large it is.

use super::flat::flat_elements;
use super::grid::Grid;
use super::{Activation, ApplyPlan, DeviceCaps, MaskOrder, Partition};
use crate::dtype::DType;
use crate::shaders::{FLAT_GROUP, WORKGROUP_SIZE};

impl ApplyPlan {
    /// How the mask of an activation lies that is normalized into `y`; `None` where backward's
    /// kernels could not read it: they write as x is stored, and 16-bit gradients of single values
    /// need the mask by address.
    pub fn mask_order(x: Activation<'_>, y: DType, caps: &DeviceCaps) -> Option<MaskOrder> {
        let by_address = Some(MaskOrder::ByAddress);
        if flat_elements(x.shape, y.size_bytes(), caps, by_address).is_some() {
            return by_address;
        }
        match (x.dtype, y) {
            _ if Grid::new(x, x.shape, caps).is_quads() => Some(MaskOrder::ByInvocation),
            (DType::F32, DType::F32) => Some(MaskOrder::ByInvocation),
            (_, DType::F32) => None,
            _ => by_address,
        }
    }

    /// Bytes of a mask of an activation: one bit per value, of whole tiles or of whole groups of
    /// words.
    pub fn mask_bytes(x: Activation<'_>, order: Option<MaskOrder>, caps: &DeviceCaps) -> u64 {
        match order {
            None => 0,
            Some(MaskOrder::ByAddress) => {
                x.shape.elements().div_ceil(FLAT_GROUP) * (FLAT_GROUP / 8)
            }
            Some(MaskOrder::ByInvocation) => {
                let grid = Grid::new(x, x.shape, caps);
                let partition = Partition::new(&grid, x.dtype.size_bytes()).written(&grid);
                // Of an invocation: 16 quads, or 32 single values.
                let words = if grid.is_quads() { 2 } else { 1 };
                partition
                    .tiles
                    .saturating_mul(partition.blocks * u64::from(WORKGROUP_SIZE) * words * 4)
            }
        }
    }
}

/// Where the bits of a span lie whose first element is this one, in units of so many elements: the
/// first word of its group, and the units of that before it.
pub(super) fn place_by_address(first_element: u64, unit: u64) -> [u32; 2] {
    let group = first_element / FLAT_GROUP;
    [(group * (FLAT_GROUP / 32)) as u32, (first_element % FLAT_GROUP / unit) as u32]
}
