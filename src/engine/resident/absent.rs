//! In the place of whole passes on a GPU where there is none.

/// Nothing was normalized on a device.
#[derive(Clone, Debug)]
pub(crate) enum Centers {}

impl Centers {
    pub fn retain(&self) {
        match *self {}
    }
}
