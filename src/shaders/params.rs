//! Parameter structs as the kernels read them: 4-byte fields without gaps. Their WGSL is made here
//! too.

/// A parameter struct as the kernels read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamsLayout {
    /// Name of the struct.
    pub name: &'static str,
    /// Size of the struct in bytes.
    pub size_bytes: u32,
    /// Name and offset in bytes of every field, in order.
    pub fields: &'static [(&'static str, u32)],
    /// The fields as WGSL declares them, with what each is.
    pub declarations: &'static [&'static str],
}

impl ParamsLayout {
    /// The struct in WGSL, and its binding.
    pub(super) fn wgsl(&self) -> String {
        let Self { name, declarations, .. } = self;
        let fields = declarations.concat();
        format!(
            "struct {name} {{\n{fields}}}\n\n@group(0) @binding(0) var<uniform> params: {name};\n\n"
        )
    }
}

/// Declares a parameter struct together with its [`ParamsLayout`].
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $field_doc:literal] $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $(#[doc = $field_doc] pub $field: $type,)* }

        impl $name {
            /// Its layout, and its declaration in WGSL.
            pub const LAYOUT: ParamsLayout = ParamsLayout {
                name: stringify!($name),
                size_bytes: size_of::<Self>() as u32,
                fields: &[$((stringify!($field), offset_of!(Self, $field) as u32),)*],
                declarations: &[$(
                    concat!(
                        "    ", stringify!($field), ": ", stringify!($type), ",   //",
                        $field_doc, "\n",
                    ),
                )*],
            };
        }
    };
}

// Below the macro, which is known from its declaration on.
mod double;
mod finalize;
mod integers;
mod tiles;

pub use double::{CotangentParams, FinalizeDoubleParams};
pub use finalize::{AccumulateParams, FinalizeGradParams, FinalizeParams};
pub use integers::{GradIntegersParams, IntegersParams};
pub use tiles::{CombineParams, TileParams};
