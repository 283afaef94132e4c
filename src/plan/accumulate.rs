//! Accumulation: a vector that was made elsewhere is added to one that a device has.

use super::{DeviceCaps, Dispatch, Parts};
use crate::error::LimitError;
use crate::shaders::{AccumulateParams, Kernel, Variant, WORKGROUP_SIZE};

/// The dispatch that adds a vector of f32, one for each channel, to another.
///
/// # Errors
/// [`LimitError`] when they exceed one binding, or the workgroups one dispatch.
pub fn accumulation(
    channels: usize,
    caps: &DeviceCaps,
) -> Result<Dispatch<AccumulateParams>, LimitError> {
    let bytes = (channels as u64).saturating_mul(size_of::<f32>() as u64);
    caps.check_binding("values that are added", &[channels], bytes)?;
    let workgroups =
        caps.workgroups((channels as u64).div_ceil(WORKGROUP_SIZE.into()), &[channels])?;
    let params = AccumulateParams { channels: channels as u32 };
    Ok(Dispatch {
        variant: Variant::new(Kernel::Accumulate),
        params,
        workgroups,
        parts: Parts::NONE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_one_binding_or_one_dispatch_are_refused() {
        let caps =
            DeviceCaps { max_binding_bytes: 4096, max_workgroups: 2, ..DeviceCaps::PORTABLE };
        let workgroups =
            |channels| accumulation(channels, &caps).map(|dispatch| dispatch.workgroups);
        assert_eq!(workgroups(1024), Ok([2, 2]));
        let refused = LimitError::Binding {
            what: "values that are added",
            dims: vec![1025],
            found_bytes: 4100,
            allowed_bytes: 4096,
        };
        assert_eq!(workgroups(1025), Err(refused));
        let caps = DeviceCaps { max_workgroups: 1, ..caps };
        let refused = LimitError::Workgroups { dims: vec![257], found: 2, allowed: 1 };
        assert_eq!(accumulation(257, &caps), Err(refused));
    }
}
