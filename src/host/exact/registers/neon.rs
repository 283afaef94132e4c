//! NEON, whose products are of the lower and of the upper half of two registers.

use pulp::aarch64::Neon;
use pulp::cast;

use super::Registers;

impl Registers for Neon {
    #[inline(always)]
    fn rounded(self, t: Self::f32s) -> Self::i32s {
        cast(self.neon.vcvtnq_s32_f32(cast(t)))
    }

    #[inline(always)]
    fn near(self, q: Self::i32s) -> Self::f32s {
        cast(self.neon.vcvtq_f32_s32(cast(q)))
    }

    #[inline(always)]
    fn products(self, a: Self::i32s, b: Self::i32s) -> [Self::i64s; 2] {
        let of = self.neon;
        let low = of.vmull_s32(of.vget_low_s32(cast(a)), of.vget_low_s32(cast(b)));
        [cast(low), cast(of.vmull_high_s32(cast(a), cast(b)))]
    }

    #[inline(always)]
    fn in_order(self, products: [Self::i64s; 2]) -> [Self::i64s; 2] {
        products
    }

    #[inline(always)]
    fn high(self, v: Self::i64s) -> Self::i64s {
        cast(self.neon.vshrq_n_s64::<32>(cast(v)))
    }
}
