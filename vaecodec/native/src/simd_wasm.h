// Vector operations for WebAssembly with SIMD.  See simd_plain.h.
#include "core.h"

#include <wasm_simd128.h>

#define LANES 4
#define PANEL 2
#define CELLS 6
typedef v128_t VI, VW, VX;
typedef struct { int32_t n[4]; } VS;  // all lanes are shifted alike
VC_INLINE int weight_place(int lane, int second) { return 2 * lane + second; }
VC_INLINE VI v_set(int32_t x) { return wasm_i32x4_splat(x); }
VC_INLINE VI v_load32(const int32_t *p) { return wasm_v128_load(p); }
VC_INLINE VI v_load16(const int16_t *p) { return wasm_i32x4_load16x4(p); }
VC_INLINE void v_store32(int32_t *p, VI a) { wasm_v128_store(p, a); }
VC_INLINE void v_store16(int16_t *p, VI a) { wasm_v128_store64_lane(p, wasm_i16x8_narrow_i32x4(a, a), 0); }
VC_INLINE VW v_weights(const int16_t *p) { return wasm_v128_load(p); }
VC_INLINE VX v_pair(const int16_t *p) { return wasm_v128_load32_splat(p); }
VC_INLINE VS v_shifts(const int32_t *p) { VS s = {{p[0], p[1], p[2], p[3]}}; return s; }
VC_INLINE VI v_add(VI a, VI b) { return wasm_i32x4_add(a, b); }
VC_INLINE VI v_shift(VI a, int bits) { return wasm_i32x4_shr(a, (uint32_t)bits); }
VC_INLINE VI v_shift_each(VI a, VS s) {
    const VI lower = wasm_i32x4_shuffle(v_shift(a, s.n[0]), v_shift(a, s.n[1]), 0, 5, 0, 5);
    const VI upper = wasm_i32x4_shuffle(v_shift(a, s.n[2]), v_shift(a, s.n[3]), 2, 7, 2, 7);
    return wasm_i32x4_shuffle(lower, upper, 0, 1, 4, 5);
}
VC_INLINE VI v_clip(VI a, VI low, VI high) { return wasm_i32x4_min(wasm_i32x4_max(a, low), high); }
VC_INLINE VI v_product(VI a, VI b) { return wasm_i32x4_mul(a, b); }
VC_INLINE VI v_dot(VI acc, VX x, VW w) { return wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(x, w)); }

VC_INLINE void v_space(const int16_t *above, const int16_t *here, const int16_t *below, ptrdiff_t stride,
                       const VW *taps, VI *a, VI *b) {
    const int16_t *rows[3] = {above, here, below};
    for (int tap = 0; tap < 9; tap++) {
        const VW x = wasm_v128_load(rows[tap / 3] + tap % 3 * stride);
        *a = wasm_i32x4_add(*a, wasm_i32x4_extmul_low_i16x8(x, taps[tap]));
        *b = wasm_i32x4_add(*b, wasm_i32x4_extmul_high_i16x8(x, taps[tap]));
    }
}
VC_INLINE void v_store_space(int16_t *p, VI a, VI b, int limit) {
    const VI t = wasm_i16x8_max(wasm_i16x8_narrow_i32x4(a, b), wasm_i16x8_splat((int16_t)-limit));
    wasm_v128_store(p, wasm_i16x8_min(t, wasm_i16x8_splat((int16_t)limit)));
}
