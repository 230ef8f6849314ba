// The integer CDF 9/7 wavelet by lifting (Daubechies and Sweldens 1998, section 7.7), modulo 2^32, and the order in
// which octaves are coded.
//
// A line of even coefficients e and odd ones f becomes samples by four lifting steps, each reversible.  Columns are
// transformed row by row in a ring of four pairs of rows, and each row along itself as soon as it is finished, so that
// all work stays in the first-level cache.  Normalisation is left to the gains of dequantisation.
//
// Arrays are planes, with distances between planes and between rows given in elements.

enum { VC_STEP_1 = 7266, VC_STEP_2 = 7233, VC_STEP_3 = 3472, VC_STEP_4 = 6497 };
enum { VC_BITS_1 = 14, VC_BITS_2 = 13, VC_BITS_3 = 16, VC_BITS_4 = 12, VC_RING = 4 };

// d += or -= round(factor * (p + q), bits)
#define VC_LIFT(name, factor, bits, operation)                                                                     \
    static inline void name(int32_t *restrict d, const int32_t *p, const int32_t *q, int n) {                      \
        for (int k = 0; k < n; k++)                                                                                \
            d[k] = operation(d[k], vc_add(vc_mul(vc_add(p[k], q[k]), factor), 1 << (bits - 1)) >> bits);           \
    }
VC_LIFT(vc_lift_1, VC_STEP_1, VC_BITS_1, vc_sub)
VC_LIFT(vc_lift_2, VC_STEP_2, VC_BITS_2, vc_sub)
VC_LIFT(vc_lift_3, VC_STEP_3, VC_BITS_3, vc_add)
VC_LIFT(vc_lift_4, VC_STEP_4, VC_BITS_4, vc_add)
VC_LIFT(vc_undo_1, VC_STEP_1, VC_BITS_1, vc_add)
VC_LIFT(vc_undo_2, VC_STEP_2, VC_BITS_2, vc_add)
VC_LIFT(vc_undo_3, VC_STEP_3, VC_BITS_3, vc_sub)
VC_LIFT(vc_undo_4, VC_STEP_4, VC_BITS_4, vc_sub)

// Each even coefficient between two odd ones, the first one twice; each odd one between even ones, the last one twice.
#define VC_EVEN(lift, e, f, n) (lift(e, f, f, 1), lift((e) + 1, f, (f) + 1, (n)-1))
#define VC_ODD(lift, e, f, n) (lift(f, e, (e) + 1, (n)-1), lift((f) + (n)-1, (e) + (n)-1, (e) + (n)-1, 1))

// Pairs of rows: even[k], odd[k] hold rows 2k and 2k + 1, each the even and then the odd columns.
typedef struct {
    int32_t *rows[2 * VC_RING];
} vc_dwt_ring;

static vc_dwt_ring vc_make_ring(int32_t *scratch, int width) {
    vc_dwt_ring ring;
    for (int k = 0; k < 2 * VC_RING; k++) ring.rows[k] = scratch + (ptrdiff_t)k * 2 * width;
    return ring;
}

static inline int32_t *vc_even(const vc_dwt_ring *ring, int k) { return ring->rows[2 * (k & (VC_RING - 1))]; }
static inline int32_t *vc_odd(const vc_dwt_ring *ring, int k) { return ring->rows[2 * (k & (VC_RING - 1)) + 1]; }

// Even and odd columns, width of each (width + 1) / 2, by turns into out[width].
static inline void vc_interleave(const int32_t *e, const int32_t *f, int width, int32_t limit, int32_t *restrict out) {
    int pairs = width / 2;
    if (limit) {
        for (int k = 0; k < pairs; k++) {
            out[2 * k] = vc_clip(e[k], -limit, limit);
            out[2 * k + 1] = vc_clip(f[k], -limit, limit);
        }
        if (width & 1) out[width - 1] = vc_clip(e[pairs], -limit, limit);
        return;
    }
    for (int k = 0; k < pairs; k++) {
        out[2 * k] = e[k];
        out[2 * k + 1] = f[k];
    }
    if (width & 1) out[width - 1] = e[pairs];
}

static void vc_inverse_row(int32_t *row, int width, int32_t limit, int32_t *out) {
    int n = (width + 1) / 2;
    int32_t *e = row, *f = row + n;
    VC_EVEN(vc_lift_1, e, f, n);
    VC_ODD(vc_lift_2, e, f, n);
    VC_EVEN(vc_lift_3, e, f, n);
    VC_ODD(vc_lift_4, e, f, n);
    vc_interleave(e, f, width, limit, out);
}

// One row of the subbands into a ring: e = [low, across], f = [down, both].
static void vc_load_row(const int32_t *low, const int32_t *across, const int32_t *down, const int32_t *both, int n,
                        int scaled, int32_t *restrict e, int32_t *restrict f) {
    if (scaled)
        for (int k = 0; k < n; k++) e[k] = vc_add(vc_mul(low[k], 12397), 1 << 13) >> 14;  // 1 / 1.1496^2
    else
        memcpy(e, low, (size_t)n * sizeof *e);
    memcpy(e + n, across, (size_t)n * sizeof *e);
    memcpy(f, down, (size_t)n * sizeof *f);
    memcpy(f + n, both, (size_t)n * sizeof *f);
}

// The steps along columns that can be computed once row pair i of h is loaded.
static void vc_inverse_columns(const vc_dwt_ring *ring, int i, int h, int n) {
    int32_t *e = vc_even(ring, i), *f = vc_odd(ring, i);
    int32_t *e1 = vc_even(ring, i - 1), *f1 = vc_odd(ring, i - 1);
    int32_t *e2 = vc_even(ring, i - 2), *f2 = vc_odd(ring, i - 2);
    if (i < h) vc_lift_1(e, i ? f1 : f, f, n);
    if (i >= 1 && i <= h) {
        vc_lift_2(f1, e1, i < h ? e : e1, n);
        vc_lift_3(e1, i > 1 ? f2 : f1, f1, n);
    }
    if (i >= 2) vc_lift_4(f2, e2, i <= h ? e1 : e2, n);
}

// bands[0..2] are the three subbands; out is height x width, of which an odd last row or column leaves one out.
static void vc_inverse_plane(int height, int width, int scaled, int32_t limit, const int32_t *low, ptrdiff_t low_row,
                             const int32_t *const *bands, ptrdiff_t band_row, int32_t *out, ptrdiff_t out_row,
                             int32_t *scratch) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    vc_dwt_ring ring = vc_make_ring(scratch, w);
    for (int i = 0; i < h + 2; i++) {
        if (i < h)
            vc_load_row(low + i * low_row, bands[0] + i * band_row, bands[1] + i * band_row, bands[2] + i * band_row, w,
                        scaled, vc_even(&ring, i), vc_odd(&ring, i));
        vc_inverse_columns(&ring, i, h, 2 * w);
        if (i < 2) continue;
        int row = 2 * (i - 2);
        vc_inverse_row(vc_even(&ring, i - 2), width, limit, out + row * out_row);
        if (row + 1 < height) vc_inverse_row(vc_odd(&ring, i - 2), width, limit, out + (row + 1) * out_row);
    }
}

// low [C, h, w] and bands [3C, h, w], of detail along rows, columns, both -> out [C, height, width], h and w half of
// these, rounded up.  `scaled`: low is multiplied by 12397 / 2^14 first.  limit: clip the result to +-limit, unless it
// is 0.  scratch i32[16w].
static int32_t inverse_dwt(int32_t channels, int32_t height, int32_t width, int32_t scaled, int32_t limit,
                           const int32_t *low, int64_t low_plane, int64_t low_row, const int32_t *bands,
                           int64_t band_plane, int64_t band_row, int32_t *out, int64_t out_plane, int64_t out_row,
                           int32_t *scratch) {
    for (int c = 0; c < channels; c++) {
        const int32_t *three[3];
        for (int b = 0; b < 3; b++) three[b] = bands + (b * channels + c) * band_plane;
        vc_inverse_plane(height, width, scaled, limit, low + c * low_plane, low_row, three, band_row,
                         out + c * out_plane, out_row, scratch);
    }
    return 0;
}

// A row of samples -> [even, odd] coefficients; the last sample is repeated where width is odd.
static void vc_forward_row(const int32_t *samples, int width, int32_t *restrict row) {
    int n = (width + 1) / 2, pairs = width / 2;
    int32_t *e = row, *f = row + n;
    for (int k = 0; k < pairs; k++) {
        e[k] = samples[2 * k];
        f[k] = samples[2 * k + 1];
    }
    if (width & 1) e[pairs] = f[pairs] = samples[width - 1];
    VC_ODD(vc_undo_4, e, f, n);
    VC_EVEN(vc_undo_3, e, f, n);
    VC_ODD(vc_undo_2, e, f, n);
    VC_EVEN(vc_undo_1, e, f, n);
}

static void vc_forward_columns(const vc_dwt_ring *ring, int i, int h, int n) {
    int32_t *e = vc_even(ring, i), *e1 = vc_even(ring, i - 1), *f1 = vc_odd(ring, i - 1);
    int32_t *e2 = vc_even(ring, i - 2), *f2 = vc_odd(ring, i - 2), *f3 = vc_odd(ring, i - 3);
    if (i >= 1 && i <= h) {
        vc_undo_4(f1, e1, i < h ? e : e1, n);
        vc_undo_3(e1, i > 1 ? f2 : f1, f1, n);
    }
    if (i >= 2) {
        vc_undo_2(f2, e2, i <= h ? e1 : e2, n);
        vc_undo_1(e2, i > 2 ? f3 : f2, f2, n);
    }
}

static void vc_forward_plane(int height, int width, const int32_t *samples, ptrdiff_t sample_row, int32_t *low,
                             ptrdiff_t low_row, int32_t *const *bands, ptrdiff_t band_row, int32_t *scratch) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    size_t size = (size_t)w * sizeof *low;
    vc_dwt_ring ring = vc_make_ring(scratch, w);
    for (int i = 0; i < h + 2; i++) {
        if (i < h) {
            int second = 2 * i + 1 < height ? 2 * i + 1 : height - 1;
            vc_forward_row(samples + 2 * i * sample_row, width, vc_even(&ring, i));
            vc_forward_row(samples + second * sample_row, width, vc_odd(&ring, i));
        }
        vc_forward_columns(&ring, i, h, 2 * w);
        if (i < 2) continue;
        const int32_t *e = vc_even(&ring, i - 2), *f = vc_odd(&ring, i - 2);
        memcpy(low + (i - 2) * low_row, e, size);
        memcpy(bands[0] + (i - 2) * band_row, e + w, size);
        memcpy(bands[1] + (i - 2) * band_row, f, size);
        memcpy(bands[2] + (i - 2) * band_row, f + w, size);
    }
}

// The inverse of inverse_dwt without scaling and limit; an odd last row or column is repeated.
static int32_t forward_dwt(int32_t channels, int32_t height, int32_t width, const int32_t *samples,
                           int64_t sample_plane, int64_t sample_row, int32_t *low, int64_t low_plane, int64_t low_row,
                           int32_t *bands, int64_t band_plane, int64_t band_row, int32_t *scratch) {
    for (int c = 0; c < channels; c++) {
        int32_t *three[3];
        for (int b = 0; b < 3; b++) three[b] = bands + (b * channels + c) * band_plane;
        vc_forward_plane(height, width, samples + c * sample_plane, sample_row, low + c * low_plane, low_row, three,
                         band_row, scratch);
    }
    return 0;
}

// round(value * mantissa, shift), where adding 2^(shift - 1) must not wrap.
static inline int32_t vc_scaled(int32_t value, int32_t mantissa, int shift, int32_t half, int32_t limit) {
    int32_t product = vc_mul(value, mantissa);
    int32_t rounded = (product >> shift) + (product >> (shift - half) & half);
    return limit ? vc_clip(rounded, -limit, limit) : rounded;
}

// A row of a plane: every second coefficient is of either half, `stride` values further each.
static inline void vc_octave_row(const int32_t *even, const int32_t *odd, int stride, int width, int32_t mantissa,
                                 int shift, int32_t limit, int32_t *restrict out) {
    int32_t half = shift > 0;
    for (int k = 0; k < width / 2; k++) {
        out[2 * k] = vc_scaled(even[(ptrdiff_t)k * stride], mantissa, shift, half, limit);
        out[2 * k + 1] = vc_scaled(odd[(ptrdiff_t)k * stride], mantissa, shift, half, limit);
    }
    if (width & 1)
        out[width - 1] = vc_scaled(even[(ptrdiff_t)(width / 2) * stride], mantissa, shift, half, limit);
}

// Halves i32[h, w, 6C], h and w half of height and width, rounded up -> out [3C, height, width], plane p multiplied by
// mantissa[p] / 2^shift[p], and clipped to +-limit where that is not 0.
static int32_t octave_planes(int32_t channels, int32_t height, int32_t width, const int32_t *first,
                             const int32_t *second, const int32_t *mantissa, const int32_t *shift, int32_t limit,
                             int32_t *out, int64_t plane_stride, int64_t row_stride) {
    const int32_t *halves[2] = {first, second};
    vc_halves order;
    halves_of(channels, &order);
    int stride = 6 * channels, cells = (width + 1) / 2;
    for (int row = 0; row < height; row++)
        for (int p = 0; p < 3 * channels; p++) {
            const ptrdiff_t begin = (ptrdiff_t)(row / 2) * cells * stride;
            const int place = 2 * (row & 1);
            const int32_t *even = halves[order.half[place][p]] + begin + order.channel[place][p];
            const int32_t *odd = halves[order.half[place + 1][p]] + begin + order.channel[place + 1][p];
            int32_t *to = out + p * plane_stride + row * row_stride;
            if (channels == 3)
                vc_octave_row(even, odd, 18, width, mantissa[p], shift[p], limit, to);
            else
                vc_octave_row(even, odd, stride, width, mantissa[p], shift[p], limit, to);
        }
    return 0;
}

// planes [3C, height, width] -> halves [h, w, 6C], 0 beyond odd sides.
#define VC_TO_HALVES(type, value)                                                                                  \
    type *halves[2] = {first, second};                                                                             \
    const int cells = (width + 1) / 2, stride = 6 * channels;                                                      \
    vc_halves order;                                                                                               \
    halves_of(channels, &order);                                                                                   \
    for (int row = 0; row < (height + 1) / 2 * 2; row++)                                                           \
        for (int p = 0; p < 3 * channels; p++)                                                                     \
            for (int j = 0; j < 2; j++) {                                                                          \
                const int place = 2 * (row & 1) + j, inside = row < height ? (width + 1 - j) / 2 : 0;              \
                const int32_t *from = planes + p * plane_stride + row * row_stride + j;                            \
                type *to = halves[order.half[place][p]] + (ptrdiff_t)(row / 2) * cells * stride +                  \
                           order.channel[place][p];                                                                \
                for (int k = 0; k < inside; k++) to[(ptrdiff_t)k * stride] = value;                                \
                for (int k = inside; k < cells; k++) to[(ptrdiff_t)k * stride] = 0;                                \
            }                                                                                                      \
    return 0;

// 32-bit values of any type.
static int32_t octave_halves(int32_t channels, int32_t height, int32_t width, const int32_t *planes,
                             int64_t plane_stride, int64_t row_stride, int32_t *first, int32_t *second) {
    VC_TO_HALVES(int32_t, from[2 * (ptrdiff_t)k])
}

// Integers, each plane times its scale.
static int32_t octave_scaled(int32_t channels, int32_t height, int32_t width, const int32_t *planes,
                             int64_t plane_stride, int64_t row_stride, const float *scales, float *first,
                             float *second) {
    VC_TO_HALVES(float, (float)from[2 * (ptrdiff_t)k] * scales[p])
}
#undef VC_TO_HALVES

#define WAVELET_KERNELS(X) X(inverse_dwt) X(forward_dwt) X(octave_planes) X(octave_halves) X(octave_scaled)
