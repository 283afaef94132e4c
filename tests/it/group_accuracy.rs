//! How exact y of a layer is where others lose it.

mod accuracy;

use crate::common;
