// Vector operations for NEON (AArch64).  See simd_plain.h.
#include "core.h"

#include <arm_neon.h>

#define LANES 4
#define PANEL 2
#define CELLS 8
typedef int32x4_t VI, VS;
typedef int16x8_t VW;
typedef int16x4_t VX;
VC_INLINE int weight_place(int lane, int second) { return second * LANES + lane; }
VC_INLINE VI v_set(int32_t x) { return vdupq_n_s32(x); }
VC_INLINE VI v_load32(const int32_t *p) { return vld1q_s32(p); }
VC_INLINE VI v_load16(const int16_t *p) { return vmovl_s16(vld1_s16(p)); }
VC_INLINE void v_store32(int32_t *p, VI a) { vst1q_s32(p, a); }
VC_INLINE void v_store16(int16_t *p, VI a) { vst1_s16(p, vmovn_s32(a)); }
VC_INLINE VW v_weights(const int16_t *p) { return vld1q_s16(p); }
VC_INLINE VX v_pair(const int16_t *p) {
    int32_t t;
    __builtin_memcpy(&t, p, 4);
    return vreinterpret_s16_s32(vdup_n_s32(t));
}
VC_INLINE VS v_shifts(const int32_t *p) { return vnegq_s32(vld1q_s32(p)); }  // NEON shifts left, or right by -n
VC_INLINE VI v_add(VI a, VI b) { return vaddq_s32(a, b); }
VC_INLINE VI v_shift(VI a, int bits) { return vshlq_s32(a, vdupq_n_s32(-bits)); }
VC_INLINE VI v_shift_each(VI a, VS s) { return vshlq_s32(a, s); }
VC_INLINE VI v_clip(VI a, VI low, VI high) { return vminq_s32(vmaxq_s32(a, low), high); }
VC_INLINE VI v_product(VI a, VI b) { return vmulq_s32(a, b); }
VC_INLINE VI v_dot(VI acc, VX x, VW w) {
    acc = vmlal_lane_s16(acc, vget_low_s16(w), x, 0);
    return vmlal_lane_s16(acc, vget_high_s16(w), x, 1);
}

VC_INLINE void v_space(const int16_t *above, const int16_t *here, const int16_t *below, ptrdiff_t stride,
                       const VW *taps, VI *a, VI *b) {
    const int16_t *rows[3] = {above, here, below};
    for (int tap = 0; tap < 9; tap++) {
        const VW x = vld1q_s16(rows[tap / 3] + tap % 3 * stride);
        *a = vmlal_s16(*a, vget_low_s16(x), vget_low_s16(taps[tap]));
        *b = vmlal_high_s16(*b, x, taps[tap]);
    }
}
VC_INLINE void v_store_space(int16_t *p, VI a, VI b, int limit) {
    const int16x8_t t = vmaxq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), vdupq_n_s16((int16_t)-limit));
    vst1q_s16(p, vminq_s16(t, vdupq_n_s16((int16_t)limit)));
}
