//! AVX-512 and AVX2, whose products are of the even lanes of two registers.

use pulp::cast;
use pulp::x86::{V3, V4};

use super::Registers;

impl Registers for V4 {
    #[inline(always)]
    fn rounded(self, t: Self::f32s) -> Self::i32s {
        cast(self.avx512f._mm512_cvtps_epi32(cast(t)))
    }

    #[inline(always)]
    fn near(self, q: Self::i32s) -> Self::f32s {
        cast(self.avx512f._mm512_cvtepi32_ps(cast(q)))
    }

    #[inline(always)]
    fn products(self, a: Self::i32s, b: Self::i32s) -> [Self::i64s; 2] {
        let of = self.avx512f;
        let odd_a = of._mm512_srli_epi64::<32>(cast(a));
        let odd_b = of._mm512_srli_epi64::<32>(cast(b));
        [cast(of._mm512_mul_epi32(cast(a), cast(b))), cast(of._mm512_mul_epi32(odd_a, odd_b))]
    }

    #[inline(always)]
    fn in_order(self, [even, odd]: [Self::i64s; 2]) -> [Self::i64s; 2] {
        const FIRST: [i64; 8] = [0, 8, 1, 9, 2, 10, 3, 11];
        const SECOND: [i64; 8] = [4, 12, 5, 13, 6, 14, 7, 15];
        let of = self.avx512f;
        [
            cast(of._mm512_permutex2var_epi64(cast(even), cast(FIRST), cast(odd))),
            cast(of._mm512_permutex2var_epi64(cast(even), cast(SECOND), cast(odd))),
        ]
    }

    #[inline(always)]
    fn high(self, v: Self::i64s) -> Self::i64s {
        cast(self.avx512f._mm512_srai_epi64::<32>(cast(v)))
    }
}

impl Registers for V3 {
    #[inline(always)]
    fn rounded(self, t: Self::f32s) -> Self::i32s {
        cast(self.avx._mm256_cvtps_epi32(cast(t)))
    }

    #[inline(always)]
    fn near(self, q: Self::i32s) -> Self::f32s {
        cast(self.avx._mm256_cvtepi32_ps(cast(q)))
    }

    #[inline(always)]
    fn products(self, a: Self::i32s, b: Self::i32s) -> [Self::i64s; 2] {
        let of = self.avx2;
        let odd_a = of._mm256_srli_epi64::<32>(cast(a));
        let odd_b = of._mm256_srli_epi64::<32>(cast(b));
        [cast(of._mm256_mul_epi32(cast(a), cast(b))), cast(of._mm256_mul_epi32(odd_a, odd_b))]
    }

    #[inline(always)]
    fn in_order(self, [even, odd]: [Self::i64s; 2]) -> [Self::i64s; 2] {
        let of = self.avx2;
        let low = of._mm256_unpacklo_epi64(cast(even), cast(odd));
        let high = of._mm256_unpackhi_epi64(cast(even), cast(odd));
        [
            cast(of._mm256_permute2x128_si256::<0x20>(low, high)),
            cast(of._mm256_permute2x128_si256::<0x31>(low, high)),
        ]
    }

    #[inline(always)]
    fn high(self, v: Self::i64s) -> Self::i64s {
        let of = self.avx2;
        // There is no arithmetic shift of 64 bits: the signs come from one of 32.
        let signs = of._mm256_srai_epi32::<31>(cast(v));
        let shifted = of._mm256_srli_epi64::<32>(cast(v));
        cast(of._mm256_blend_epi32::<0b1010_1010>(shifted, signs))
    }
}
