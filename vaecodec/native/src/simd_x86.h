// Vector operations for x86-64: SSE2, VC_256 for AVX2, VC_512 for AVX-512, VC_VNNI with VNNI.  See simd_plain.h.
#include "core.h"

#include <immintrin.h>

VC_INLINE int weight_place(int lane, int second) { return 2 * lane + second; }

#if defined(VC_512)
#define LANES 16
#define PANEL 3
#define CELLS 8
typedef __m512i VI, VW, VX, VS;
VC_INLINE VI v_set(int32_t x) { return _mm512_set1_epi32(x); }
VC_INLINE VI v_load32(const int32_t *p) { return _mm512_loadu_si512(p); }
VC_INLINE VI v_load16(const int16_t *p) { return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
VC_INLINE void v_store32(int32_t *p, VI a) { _mm512_storeu_si512(p, a); }
VC_INLINE void v_store16(int16_t *p, VI a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(a)); }
VC_INLINE VW v_weights(const int16_t *p) { return _mm512_loadu_si512(p); }
VC_INLINE VX v_pair(const int16_t *p) { int32_t t; __builtin_memcpy(&t, p, 4); return _mm512_set1_epi32(t); }
VC_INLINE VS v_shifts(const int32_t *p) { return v_load32(p); }
VC_INLINE VI v_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
VC_INLINE VI v_shift(VI a, int bits) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(bits)); }
VC_INLINE VI v_shift_each(VI a, VS s) { return _mm512_srav_epi32(a, s); }
VC_INLINE VI v_clip(VI a, VI low, VI high) { return _mm512_min_epi32(_mm512_max_epi32(a, low), high); }
VC_INLINE VI v_product(VI a, VI b) { return _mm512_madd_epi16(a, b); }
#if defined(VC_VNNI)
// In assembly: Clang takes the intrinsic apart into a product and a sum, and GCC copies registers about.
VC_INLINE VI v_dot(VI acc, VX x, VW w) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
}
#else
VC_INLINE VI v_dot(VI acc, VX x, VW w) { return _mm512_add_epi32(acc, _mm512_madd_epi16(x, w)); }
#endif
#define V_LOW _mm512_unpacklo_epi16
#define V_HIGH _mm512_unpackhi_epi16
VC_INLINE VI v_saturate(VI a, VI b, int limit) {
    const VI t = _mm512_max_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16((short)-limit));
    return _mm512_min_epi16(t, _mm512_set1_epi16((short)limit));
}

#elif defined(VC_256)
#define LANES 8
#define PANEL 2
#define CELLS 6
typedef __m256i VI, VW, VX, VS;
VC_INLINE VI v_set(int32_t x) { return _mm256_set1_epi32(x); }
VC_INLINE VI v_load32(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
VC_INLINE VI v_load16(const int16_t *p) { return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)); }
VC_INLINE void v_store32(int32_t *p, VI a) { _mm256_storeu_si256((__m256i *)p, a); }
VC_INLINE void v_store16(int16_t *p, VI a) {
    const VI t = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, a), 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(t));
}
VC_INLINE VW v_weights(const int16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
VC_INLINE VX v_pair(const int16_t *p) { int32_t t; __builtin_memcpy(&t, p, 4); return _mm256_set1_epi32(t); }
VC_INLINE VS v_shifts(const int32_t *p) { return v_load32(p); }
VC_INLINE VI v_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
VC_INLINE VI v_shift(VI a, int bits) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(bits)); }
VC_INLINE VI v_shift_each(VI a, VS s) { return _mm256_srav_epi32(a, s); }
VC_INLINE VI v_clip(VI a, VI low, VI high) { return _mm256_min_epi32(_mm256_max_epi32(a, low), high); }
VC_INLINE VI v_product(VI a, VI b) { return _mm256_madd_epi16(a, b); }
VC_INLINE VI v_dot(VI acc, VX x, VW w) { return _mm256_add_epi32(acc, _mm256_madd_epi16(x, w)); }
#define V_LOW _mm256_unpacklo_epi16
#define V_HIGH _mm256_unpackhi_epi16
VC_INLINE VI v_saturate(VI a, VI b, int limit) {
    const VI t = _mm256_max_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16((short)-limit));
    return _mm256_min_epi16(t, _mm256_set1_epi16((short)limit));
}

#else
#define LANES 4
#define PANEL 2
#define CELLS 6
typedef __m128i VI, VW, VX;
typedef struct { __m128i n[4]; } VS;  // SSE2 shifts all lanes alike
VC_INLINE VI v_set(int32_t x) { return _mm_set1_epi32(x); }
VC_INLINE VI v_load32(const int32_t *p) { return _mm_loadu_si128((const __m128i *)p); }
VC_INLINE VI v_load16(const int16_t *p) {
    const VI t = _mm_loadl_epi64((const __m128i *)p);
    return _mm_srai_epi32(_mm_unpacklo_epi16(t, t), 16);
}
VC_INLINE void v_store32(int32_t *p, VI a) { _mm_storeu_si128((__m128i *)p, a); }
VC_INLINE void v_store16(int16_t *p, VI a) { _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(a, a)); }
VC_INLINE VW v_weights(const int16_t *p) { return _mm_loadu_si128((const __m128i *)p); }
VC_INLINE VX v_pair(const int16_t *p) { int32_t t; __builtin_memcpy(&t, p, 4); return _mm_set1_epi32(t); }
VC_INLINE VS v_shifts(const int32_t *p) {
    VS s = {{_mm_cvtsi32_si128(p[0]), _mm_cvtsi32_si128(p[1]), _mm_cvtsi32_si128(p[2]), _mm_cvtsi32_si128(p[3])}};
    return s;
}
VC_INLINE VI v_add(VI a, VI b) { return _mm_add_epi32(a, b); }
VC_INLINE VI v_shift(VI a, int bits) { return _mm_sra_epi32(a, _mm_cvtsi32_si128(bits)); }
VC_INLINE VI v_shift_each(VI a, VS s) {
#define V_BY(k) _mm_castsi128_ps(_mm_sra_epi32(a, s.n[k]))
    const __m128 lower = _mm_shuffle_ps(V_BY(0), V_BY(1), 0x50);  // lanes 0 0 1 1
    const __m128 upper = _mm_shuffle_ps(V_BY(2), V_BY(3), 0xfa);  // lanes 2 2 3 3
#undef V_BY
    return _mm_castps_si128(_mm_shuffle_ps(lower, upper, 0x88));
}
VC_INLINE VI v_choose(VI mask, VI a, VI b) { return _mm_or_si128(_mm_and_si128(mask, a), _mm_andnot_si128(mask, b)); }
VC_INLINE VI v_clip(VI a, VI low, VI high) {  // SSE2 has no minimum of 32 bits
    a = v_choose(_mm_cmpgt_epi32(low, a), low, a);
    return v_choose(_mm_cmpgt_epi32(a, high), high, a);
}
VC_INLINE VI v_product(VI a, VI b) { return _mm_madd_epi16(a, b); }
VC_INLINE VI v_dot(VI acc, VX x, VW w) { return _mm_add_epi32(acc, _mm_madd_epi16(x, w)); }
#define V_LOW _mm_unpacklo_epi16
#define V_HIGH _mm_unpackhi_epi16
VC_INLINE VI v_saturate(VI a, VI b, int limit) {
    const VI t = _mm_max_epi16(_mm_packs_epi32(a, b), _mm_set1_epi16((short)-limit));
    return _mm_min_epi16(t, _mm_set1_epi16((short)limit));
}
#endif

// Depthwise taps in pairs, (0,1) (2,3) (4,5) (6,7) (8,-), each for the lower and then for the upper channels: of every
// eight channels "unpack low" takes four and "unpack high" the other four, and "pack" puts them back in order.
#define SPACE_TAPS 10
VC_INLINE int space_channel(int half, int lane) { return lane / 4 * 8 + half * 4 + lane % 4; }
static inline void space_pack(int16_t *out, const int16_t *taps, int channels, int first) {
    for (int pair = 0; pair < 5; pair++)
        for (int half = 0; half < 2; half++)
            for (int n = 0; n < 2 * LANES; n++) {
                int channel = first + space_channel(half, n / 2), tap = 2 * pair + n % 2;
                *out++ = tap < 9 && channel < channels ? taps[(size_t)tap * channels + channel] : 0;
            }
}
VC_INLINE void v_space(const int16_t *above, const int16_t *here, const int16_t *below, ptrdiff_t stride,
                       const VW *taps, VI *a, VI *b) {
    const VW x0 = v_weights(above), x1 = v_weights(above + stride), x2 = v_weights(above + 2 * stride);
    const VW x3 = v_weights(here), x4 = v_weights(here + stride), x5 = v_weights(here + 2 * stride);
    const VW x6 = v_weights(below), x7 = v_weights(below + stride), x8 = v_weights(below + 2 * stride);
    const VW zero = v_set(0);
    *a = v_dot(*a, V_LOW(x0, x1), taps[0]), *b = v_dot(*b, V_HIGH(x0, x1), taps[1]);
    *a = v_dot(*a, V_LOW(x2, x3), taps[2]), *b = v_dot(*b, V_HIGH(x2, x3), taps[3]);
    *a = v_dot(*a, V_LOW(x4, x5), taps[4]), *b = v_dot(*b, V_HIGH(x4, x5), taps[5]);
    *a = v_dot(*a, V_LOW(x6, x7), taps[6]), *b = v_dot(*b, V_HIGH(x6, x7), taps[7]);
    *a = v_dot(*a, V_LOW(x8, zero), taps[8]), *b = v_dot(*b, V_HIGH(x8, zero), taps[9]);
}
VC_INLINE void v_store_space(int16_t *p, VI a, VI b, int limit) {
    const VI t = v_saturate(a, b, limit);
    __builtin_memcpy(p, &t, sizeof t);
}
