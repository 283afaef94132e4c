//! Which activations are written in the order of addresses, quad by quad.
//!
//! A tile of a channel whose planes are short, channels first, is many pieces of memory that begin
//! and end within a cache line. Reading them costs little, because neighbouring workgroups find
//! what is left of a line in a cache; writing parts of lines does. Long planes of f32 are written
//! so too where many invocations run in step: each takes whole lines then, and asks for its channel
//! four times instead of once. There a mask of short planes of whole quads lies so, too: elsewhere
//! tiles write it faster.

use super::run::Run;
use super::{DeviceCaps, MaskOrder};
use crate::dtype::DType;
use crate::shaders::{Elements, TileParams, WORKGROUP_SIZE};
use crate::shape::Shape;

/// Bytes of a plane below which it is short: 32 lines of 128 bytes, of which one or two are shared
/// with its neighbours.
const SHORT_BYTES: u64 = 4096;
/// Neighbouring invocations in step from which on long planes of f32 are written so: their quads
/// fill two lines of 128 bytes. Others keep the tiles, where an invocation finds its coefficients
/// once.
const LEAST_IN_STEP: u32 = 16;
/// Elements from one quad of an invocation to its next.
const STEP: u64 = 4 * WORKGROUP_SIZE as u64;

/// What an invocation loads at once where what is written in the shape and layout of `x`, in
/// elements of so many bytes, is written so; grad_output has the same layout. Planes that quads of
/// one channel do not fill are, long ones too, because they would be written value by value.
pub(super) fn flat_elements(
    x: &Shape,
    element_bytes: u64,
    caps: &DeviceCaps,
    mask: Option<MaskOrder>,
) -> Option<Elements> {
    let strides = x.strides();
    let inner = x.spatial_len() as u64;
    let in_step = caps.step_lanes >= LEAST_IN_STEP;
    let is_short = inner.saturating_mul(element_bytes) < SHORT_BYTES;
    let is_f32 = element_bytes == DType::F32.size_bytes();
    // By tiles, a lane finds all of its bits of a mask in one load.
    let pays = match mask {
        None => is_short || (is_f32 && in_step),
        Some(MaskOrder::ByAddress) => is_short && in_step,
        Some(MaskOrder::ByInvocation) => return None,
    };
    let straddles = !inner.is_multiple_of(4);
    let is_flat = caps.quads
        && strides.inner == 1
        && inner >= 4
        && x.elements().is_multiple_of(4)
        && x.padding().is_none()
        && (straddles || pays);
    is_flat.then_some(Elements::Flat { straddles })
}

/// Parameters of a kernel that writes a run of `x` so. Flags are 0.
pub(super) fn params(run: &Run, x: &Shape) -> TileParams {
    let inner = x.spatial_len() as u64;
    let channels = x.channels() as u64;
    TileParams {
        step_inner: (STEP % inner.max(1)) as u32,
        step_channels: (STEP / inner.max(1) % channels.max(1)) as u32,
        ..run.params(x, x)
    }
}
