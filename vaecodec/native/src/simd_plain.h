// Vector operations in plain C, for any processor.  simd_x86.h, simd_neon.h and simd_wasm.h define the same names:
//
//   LANES          int32 lanes of a vector; rows of int16 channels are padded to whole groups of 2 * LANES
//   PANEL, CELLS   the tile of a matrix product: vectors of outputs, and cells, whose sums stay in registers
//   VI, VW, VX     LANES int32; 2 * LANES int16 weights; one pair of int16 inputs, for all lanes
//   VS             LANES right shifts, 0 to 30
//   weight_place   place in a VW of the weight of a lane and of the first or second input of a pair
//   v_dot          acc + inputs . weights of each lane
//   v_product      a * b for 0 <= a <= 32767 and -32768 <= b <= 32767
//   v_store16      for values within int16
//   SPACE_TAPS     VW that hold the 3x3 taps of 2 * LANES channels, packed by space_pack
//   space_channel  the channel, of those 2 * LANES, that lane `lane` of the first or second vector of sums has
//   v_space        adds the 3x3 products at one cell to the two vectors of sums
//   v_store_space  stores both, saturated to int16 and clipped, in order of channels
#include "core.h"

#define LANES 8
#define PANEL 1
#define CELLS 4
typedef struct { int32_t v[LANES]; } VI, VS;
typedef struct { int16_t v[2 * LANES]; } VW;
typedef struct { int16_t v[2]; } VX;
#define EACH(statement) for (int n = 0; n < LANES; n++) { statement; }

VC_INLINE int weight_place(int lane, int second) { return second * LANES + lane; }
VC_INLINE VI v_set(int32_t x) { VI r; EACH(r.v[n] = x) return r; }
VC_INLINE VI v_load32(const int32_t *p) { VI r; EACH(r.v[n] = p[n]) return r; }
VC_INLINE VI v_load16(const int16_t *p) { VI r; EACH(r.v[n] = p[n]) return r; }
VC_INLINE void v_store32(int32_t *p, VI a) { EACH(p[n] = a.v[n]) }
VC_INLINE void v_store16(int16_t *p, VI a) { EACH(p[n] = (int16_t)a.v[n]) }
VC_INLINE VW v_weights(const int16_t *p) { VW r; __builtin_memcpy(&r, p, sizeof r); return r; }
VC_INLINE VX v_pair(const int16_t *p) { VX r = {{p[0], p[1]}}; return r; }
VC_INLINE VS v_shifts(const int32_t *p) { return v_load32(p); }
VC_INLINE VI v_add(VI a, VI b) { EACH(a.v[n] = vc_add(a.v[n], b.v[n])) return a; }
VC_INLINE VI v_shift(VI a, int bits) { EACH(a.v[n] >>= bits) return a; }
VC_INLINE VI v_shift_each(VI a, VS s) { EACH(a.v[n] >>= s.v[n]) return a; }
VC_INLINE VI v_clip(VI a, VI low, VI high) {
    EACH(int32_t t = a.v[n] < low.v[n] ? low.v[n] : a.v[n]; a.v[n] = t > high.v[n] ? high.v[n] : t)
    return a;
}
VC_INLINE VI v_product(VI a, VI b) { EACH(a.v[n] = vc_mul(a.v[n], b.v[n])) return a; }
VC_INLINE VI v_dot(VI acc, VX x, VW w) {
    EACH(acc.v[n] = vc_add(acc.v[n], vc_add(x.v[0] * w.v[n], x.v[1] * w.v[LANES + n])))
    return acc;
}

VC_INLINE void v_space(const int16_t *above, const int16_t *here, const int16_t *below, ptrdiff_t stride,
                       const VW *taps, VI *a, VI *b) {
    const int16_t *rows[3] = {above, here, below};
    for (int tap = 0; tap < 9; tap++) {
        const int16_t *x = rows[tap / 3] + tap % 3 * stride;
        EACH(a->v[n] = vc_add(a->v[n], x[n] * taps[tap].v[n]))
        EACH(b->v[n] = vc_add(b->v[n], x[LANES + n] * taps[tap].v[LANES + n]))
    }
}
VC_INLINE void v_store_space(int16_t *p, VI a, VI b, int limit) {
    const VI low = v_set(-limit), high = v_set(limit);
    v_store16(p, v_clip(a, low, high));
    v_store16(p + LANES, v_clip(b, low, high));
}
#undef EACH
