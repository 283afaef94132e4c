//! Kernels of every instruction set that the processor has, against plain arithmetic and against
//! the definition: sums and ranges are equal to the bit.
//!
//! `values` draws inputs and sums them by the definition; `runs` and `columns` have the tests.

mod columns;
mod runs;
mod values;

use pulp::{Scalar, Simd, WithSimd};

/// Runs work with every instruction set, by its name, that of no vectors first.
fn on_all<W: WithSimd + Copy>(work: W) -> Vec<(&'static str, W::Output)> {
    let mut found = vec![("none", Simd::vectorize(Scalar::new(), work))];
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        found.extend(V3::try_new().map(|simd| ("AVX2", Simd::vectorize(simd, work))));
        found.extend(V4::try_new().map(|simd| ("AVX-512", Simd::vectorize(simd, work))));
    }
    #[cfg(target_arch = "aarch64")]
    {
        use pulp::aarch64::{Neon, NeonFcma};
        found.extend(Neon::try_new().map(|simd| ("NEON", Simd::vectorize(simd, work))));
        found.extend(
            NeonFcma::try_new().map(|simd| ("NEON with FCMA", Simd::vectorize(simd, work))),
        );
    }
    found
}

/// The same results of all of them.
fn alike<W: WithSimd + Copy>(work: W, what: &str) -> W::Output
where
    W::Output: PartialEq + std::fmt::Debug,
{
    let mut found = on_all(work).into_iter();
    let (_, expected) = found.next().expect("no vectors");
    for (name, found) in found {
        assert_eq!(found, expected, "{what}: {name}");
    }
    expected
}
