//! A hostile compiler: kernels' WGSL sources rewritten by what fast math permits, drawn by seed.
//!
//! A source becomes naga's intermediate representation; `straighten` inlines functions and forwards
//! what local variables hold, as optimizers do first; `fold` and `render` then write every float
//! expression anew, from its terms (`terms`), in another order and association; the result is
//! written as WGSL again. What is drawn for a kernel as a whole is its `Style`.
//!
//! Permitted, and done: sums regrouped and equal terms cancelled, products distributed and factored
//! back, products contracted into sums, division by a reciprocal within 2.5 ulp, roots within
//! theirs, √v·√v = v, subnormal results flushed to 0, and no value that arithmetic gives is NaN or
//! infinite. What stops it: a float that passes through an integer operation with a value known at
//! run time only, a select by a condition, a variable of a loop, and memory.

mod build;
mod fold;
mod forward;
mod known;
mod names;
mod numbers;
mod reach;
mod render;
mod statements;
mod straighten;
mod style;
mod terms;
mod views;

use naga::valid::{
    Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};

pub use style::{Division, Order, Style};

/// What a hostile compiler makes of a source. The same seed gives the same result.
///
/// # Panics
/// Where the source or what becomes of it is not valid WGSL, which fails the test.
pub fn rewritten(source: &str, seed: u64) -> String {
    rewritten_in(source, Style::drawn(source, seed))
}

/// The same in a given style.
pub fn rewritten_in(source: &str, style: Style) -> String {
    let mut module = naga::front::wgsl::parse_str(source).unwrap_or_else(|error| {
        panic!("{}", error.emit_to_string(source));
    });
    straighten::straighten(&mut module);
    let info = validated(&module);
    statements::rewrite(&mut module, &info, style);
    validated(&module);
    naga::compact::compact(&mut module, naga::compact::KeepUnused::No);
    names::name_deep(&mut module);
    let info = validated(&module);
    naga::back::wgsl::write_string(&module, &info, naga::back::wgsl::WriterFlags::empty())
        .expect("WGSL")
}

fn validated(module: &naga::Module) -> ModuleInfo {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all());
    validator.validate(module).unwrap_or_else(|error| panic!("{error:?}"))
}
