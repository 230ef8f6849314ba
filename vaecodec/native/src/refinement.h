// Refinement beside the networks: gradients through wavelets, details, and the ends of the synthesis, in float32; the
// cost of symbols; and the move of quantisation targets along a gradient.  Encoders alone use them.

// d -= a * p + b * q
static inline void lift_back(float *restrict d, const float *p, float a, const float *q, float b, int n) {
    for (int k = 0; k < n; k++) d[k] -= a * p[k] + b * q[k];
}
// The transposes of VC_EVEN and VC_ODD: mirrored samples beyond the ends count twice where they lie.
static inline void even_back(float *e, const float *f, int n, float factor) {
    lift_back(e, f, n > 1 ? factor : 2 * factor, f, 0, 1);
    if (n == 1) return;
    lift_back(e + 1, f, factor, f + 1, factor, n - 2);
    lift_back(e + n - 1, f + n - 2, factor, f + n - 1, 2 * factor, 1);
}
static inline void odd_back(const float *e, float *f, int n, float factor) {
    if (n == 1) {
        lift_back(f, e, 2 * factor, e, 0, 1);
        return;
    }
    lift_back(f, e, 2 * factor, e + 1, factor, 1);
    lift_back(f + 1, e + 1, factor, e + 2, factor, n - 2);
    lift_back(f + n - 1, e + n - 1, factor, e, 0, 1);
}

static const float lift_factors[4] = {-1.586134342059924f, -0.052980118572961f, 0.882911075530934f, 0.443506852043971f};

// Gradients by the samples of an inverse wavelet, a plane [2h, 2w] of rows sample_row apart -> by low and by the three
// subbands, planes [h, w], multiplied by scales[0] and scales[1..3].  scratch float[16w].
static int32_t inverse_dwt_back(int32_t h, int32_t w, const float *samples, int64_t sample_row, const float *scales,
                                float *low, int64_t low_row, float *across, float *down, float *both,
                                int64_t band_row, float *scratch) {
    float *rows[2 * VC_RING];
    for (int k = 0; k < 2 * VC_RING; k++) rows[k] = scratch + (ptrdiff_t)k * 2 * w;
#define EVEN(i) rows[2 * ((i) & (VC_RING - 1))]
#define ODD(i) rows[2 * ((i) & (VC_RING - 1)) + 1]
    const int n = 2 * w;
    const float *a = lift_factors;
    for (int i = 0; i < h + 2; i++) {
        for (int half = 0; half < 2 && i < h; half++) {
            const float *restrict in = samples + (2 * i + half) * sample_row;
            float *restrict e = half ? ODD(i) : EVEN(i), *restrict f = e + w;
            for (int k = 0; k < w; k++) e[k] = in[2 * k], f[k] = in[2 * k + 1];
            even_back(e, f, w, a[0]), odd_back(e, f, w, a[1]), even_back(e, f, w, a[2]), odd_back(e, f, w, a[3]);
        }
        // Of rows: each step as soon as the rows that it needs are there.
        if (i < h) lift_back(EVEN(i), ODD(i ? i - 1 : i), i ? a[0] : 0, ODD(i), i + 1 < h ? a[0] : 2 * a[0], n);
        if (i >= 1 && i <= h) {
            const int k = i - 1, end = k + 1 == h;
            lift_back(ODD(k), EVEN(k), k ? a[1] : 2 * a[1], EVEN(end ? k : k + 1), end ? 0 : a[1], n);
            lift_back(EVEN(k), ODD(k ? k - 1 : k), k ? a[2] : 0, ODD(k), end ? 2 * a[2] : a[2], n);
        }
        if (i < 2) continue;
        const int k = i - 2, end = k + 1 == h;
        float *restrict e = EVEN(k), *restrict f = ODD(k);
        lift_back(f, e, k ? a[3] : 2 * a[3], EVEN(end ? k : k + 1), end ? 0 : a[3], n);
        for (int x = 0; x < w; x++) low[k * low_row + x] = scales[0] * e[x];
        for (int x = 0; x < w; x++) across[k * band_row + x] = scales[1] * e[w + x];
        for (int x = 0; x < w; x++) down[k * band_row + x] = scales[2] * f[x];
        for (int x = 0; x < w; x++) both[k * band_row + x] = scales[3] * f[w + x];
    }
#undef EVEN
#undef ODD
    return 0;
}

// Planes [3C, height, width] times their scales, added to the halves [h, w, 6C] of an octave.
static int32_t add_to_halves(int32_t channels, int32_t height, int32_t width, const float *planes,
                             int64_t plane_stride, int64_t row_stride, const float *scales, float *first,
                             float *second) {
    float *halves[2] = {first, second};
    const int cells = (width + 1) / 2, stride = 6 * channels;
    vc_halves order;
    halves_of(channels, &order);
    for (int row = 0; row < height; row++)
        for (int p = 0; p < 3 * channels; p++)
            for (int j = 0; j < 2; j++) {
                const int place = 2 * (row & 1) + j, count = (width + 1 - j) / 2;
                const float *from = planes + p * plane_stride + row * row_stride + j, scale = scales[p];
                float *to = halves[order.half[place][p]] + (ptrdiff_t)(row / 2) * cells * stride + order.channel[place][p];
                for (int k = 0; k < count; k++) to[(ptrdiff_t)k * stride] += scale * from[2 * (ptrdiff_t)k];
            }
    return 0;
}

// d + a * p + b * q for each sample of a row.
static inline void three_sum(const float *restrict d, const float *restrict p, float a, const float *restrict q, float b,
                             int n, float *restrict out) {
    for (int k = 0; k < n; k++) out[k] = d[k] + a * p[k] + b * q[k];
}
// Gradients by details (see detail_row) of a plane [height, width] added to those by the plane.  line float[2 width].
static int32_t details_back(int32_t height, int32_t width, const float *details, float *plane, float *line) {
    float *sum = line + width;
    for (int y = 0; y < height; y++) {
        const float *here = details + (size_t)y * width, *above = y ? here - width : here;
        const float *below = y + 1 < height ? here + width : here;
        if (height == 1) three_sum(here, here, 1, here, 1, width, line);
        else three_sum(here, above, y == 0 ? 0 : y == 1 ? 2 : 1, below, y + 1 == height ? 0 : y + 2 == height ? 2 : 1,
                       width, line);
        if (width == 1) {
            sum[0] = 3 * line[0];
        } else {
            for (int x = 1; x + 1 < width; x++) sum[x] = line[x - 1] + line[x] + line[x + 1];
            sum[0] = line[0] + line[1], sum[width - 1] = line[width - 2] + line[width - 1];
            sum[1] += line[0], sum[width - 2] += line[width - 1];
        }
        float *restrict out = plane + (size_t)y * width;
        for (int x = 0; x < width; x++) out[x] += 1.125f * here[x] - 0.125f * sum[x];
    }
    return 0;
}

// ----------------------------------------------------------------------------------------------------------- synthesis

// levels int16 [H, W, C], unit 2^-6 of a level, less pixels uint8, times `scale` -> error int16; 0 from row `rows` and
// column `columns` on.  Of the rows [top, bottom).  squares: the sum of squared errors of decoded pixels, of each row.
static int32_t level_errors(int32_t width, int32_t channels, int32_t rows, int32_t columns, int32_t top, int32_t bottom,
                            float scale, const int16_t *levels, const uint8_t *pixels, int16_t *error,
                            double *squares) {
    const size_t line = (size_t)width * channels, inside = (size_t)columns * channels;
    for (int y = top; y < bottom; y++) {
        const int16_t *restrict in = levels + y * line;
        const uint8_t *restrict original = pixels + y * line;
        int16_t *restrict out = error + y * line;
        const size_t count = y < rows ? inside : 0;
        int64_t total = 0;
        for (size_t n = 0; n < count; n++) {
            const int32_t t = vc_clip(in[n] + 8160 - 64 * original[n], -32767, 32767);
            const int32_t shown = vc_clip(in[n] >> 6, -128, 127) + 128 - original[n];
            total += shown * shown;
            out[n] = vc_to16(scale * (float)t);
        }
        squares[y] = (double)total;
        for (size_t n = count; n < line; n++) out[n] = 0;
    }
    return 0;
}

// error int16 [8 h2, 8 w2, C] -> gradients by the activations before the last layer, int16 [h2, w2, fine], rows [top,
// bottom) of fine cells; multiplier int32 [fine].
static int32_t pixels_back(const void *layer, int32_t channels, int32_t w, int32_t top, int32_t bottom,
                           const int16_t *error, const int32_t *multiplier, int16_t *out, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const int fine = p->channels;
    const size_t step = vc_step(p->inputs);
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, VC_FINE * channels, p->inputs, fine);
    const int32_t *padded = vc_padded(multiplier, fine, &arena);
    int16_t *zero = vc_take(&arena, vc_stride(fine) * sizeof *zero);
    __builtin_memset(zero, 0, vc_stride(fine) * sizeof *zero);
    for (int r = top; r < bottom; r++) {
        fine_cells_of_row(channels, w, r, error, rows.in, step);
        int16_t *row = out + (size_t)r * w * fine, *made = vc_target(row, fine, rows.out);
        vc_dense_add_mul(p, w, rows.in, step, zero, 0, padded, made, vc_step(fine));
        vc_close(made, w, fine, row);
    }
    return 0;
}

// Gradients by all samples: error int16 [8 h2, 8 w2, C], and what comes back through `layer`, the transposed skip, from
// x int16 [h2, w2, fine], in the unit `unit` of the error's -> planes float [C, 8 h2, 8 w2] of rotated colours.
static int32_t samples_back(const void *layer, int32_t channels, int32_t h, int32_t w, int32_t top, int32_t bottom,
                            const int16_t *x, const int16_t *error, float unit, const float *rotation, float *planes,
                            void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const size_t step = vc_step(p->channels), run = (size_t)VC_FINE * channels, line = w * run;
    const size_t width = (size_t)VC_FINE * w, plane = VC_FINE * h * width;
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, VC_FINE * channels, p->inputs, p->channels);
    float *sums = vc_take(&arena, line * sizeof *sums);
    for (int r = top; r < bottom; r++) {
        const int16_t *in = vc_open(x + (size_t)r * w * p->inputs, w, p->inputs, rows.in);
        vc_dense_plain(p, w, in, vc_step(p->inputs), rows.out, step);
        for (int y = 0; y < VC_FINE; y++) {
            const size_t at = (size_t)r * VC_FINE + y;
            const int16_t *restrict own = error + at * line, *restrict added = rows.line;
            for (int i = 0; i < w; i++)
                __builtin_memcpy(rows.line + i * run, rows.out + i * step + y * run, run * sizeof(int16_t));
            for (size_t n = 0; n < line; n++) sums[n] = (float)own[n] + unit * (float)added[n];
            for (int k = 0; k < channels; k++) {
                float *restrict out = planes + k * plane + at * width;
                const float *restrict from = sums, *weights = rotation + k * channels;
                if (channels == 3) {
                    const float a = weights[0], b = weights[1], c = weights[2];
                    for (size_t n = 0; n < width; n++) out[n] = a * from[3 * n] + b * from[3 * n + 1] + c * from[3 * n + 2];
                    continue;
                }
                for (size_t n = 0; n < width; n++) {
                    out[n] = 0;
                    for (int c = 0; c < channels; c++) out[n] += weights[c] * from[channels * n + c];
                }
            }
        }
    }
    return 0;
}
// Lines of scratch of these, for w fine cells in a row.
static int32_t samples_back_scratch(int32_t w, int32_t channels, int32_t fine) {
    vc_arena arena = {0};
    vc_rows rows;
    const int widest = 64 * channels > fine ? 64 * channels : fine;
    rows_take(&arena, &rows, w, VC_FINE * channels, widest, widest);
    vc_take(&arena, (size_t)w * VC_FINE * channels * sizeof(float));
    vc_take(&arena, vc_stride(fine) * 6);
    return vc_lines(&arena) + 2;
}

VC_INLINE void add_cells(const int n, int w, const int16_t *restrict in, size_t step, float scale, float *restrict line) {
    for (int i = 0; i < w; i++)
        for (int j = 0; j < n; j++) line[i * n + j] += scale * (float)in[i * step + j];
}
// Gradients x int16 [h, w, coarse] by the first activations of the synthesis, through `layer`, transposed, times `unit`,
// added to those by the coefficients, planes float; rows [top, bottom).
static int32_t coefficients_back(const void *layer, int32_t channels, int32_t h, int32_t w, int32_t top, int32_t bottom,
                                 const int16_t *x, float unit, float *band0, float *band1, float *band2, float *band3,
                                 float *low, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    float *bands[VC_OCTAVES] = {band0, band1, band2, band3};
    const size_t step = vc_step(p->channels);
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, 1, p->inputs, p->channels);
    for (int r = top; r < bottom; r++) {
        const int16_t *in = vc_open(x + (size_t)r * w * p->inputs, w, p->inputs, rows.in);
        vc_dense_plain(p, w, in, vc_step(p->inputs), rows.out, step);
        const int16_t *from = rows.out;
        for (int octave = 0; octave <= VC_OCTAVES; octave++) {
            const int n = octave < VC_OCTAVES ? VC_FINE >> octave : 1;
            float *target = octave < VC_OCTAVES ? bands[octave] : low;
            for (int plane = 0; plane < (octave < VC_OCTAVES ? 3 * channels : channels); plane++)
                for (int i = 0; i < n; i++, from += n) {
                    float *line = target + ((size_t)plane * h * n + (size_t)r * n + i) * w * n;
                    if (n == 8) add_cells(8, w, from, step, unit, line);
                    else if (n == 4) add_cells(4, w, from, step, unit, line);
                    else if (n == 2) add_cells(2, w, from, step, unit, line);
                    else add_cells(1, w, from, step, unit, line);
                }
        }
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------------------- symbols

// Bits of symbols in the concatenated tables, of symbol 0 by index; out: their sum, and the number of symbols that are
// not 0 under index 0, whose bits do not count.
static int32_t symbol_bits(int64_t n, const int32_t *symbols, const uint8_t *indices, const float *bits,
                           const float *zero, const int32_t *start, const int32_t *low, const int32_t *last,
                           double *out) {
    double total = 0, outliers = 0;
    for (int64_t begin = 0; begin < n; begin += 256) {
        const int64_t end = begin + 256 < n ? begin + 256 : n;
        float sums[4] = {0};  // an addition waits for the one before it in its own
        for (int64_t i = begin; i < end; i++) {
            const int32_t symbol = symbols[i], index = indices[i];
            if (!symbol) sums[i & 3] += zero[index];
            else if (!index) outliers++;
            else sums[i & 3] += bits[start[index] + vc_clip(vc_sub(symbol, low[index]), 0, last[index])];
        }
        total += (double)(sums[0] + sums[1]) + (double)(sums[2] + sums[3]);
    }
    out[0] = total, out[1] = outliers;
    return 0;
}

// Moves targets a part `rate` of the way to value - gradient * step, at most `reach` from where they were at first.
// Values are int32 in units of 2^-6.
static int32_t descend(int64_t n, const float *first, const int32_t *values, const float *gradients, float step,
                       float rate, float reach, float *restrict targets) {
    for (int64_t i = 0; i < n; i++) {
        const float way = (float)values[i] * (1.0f / 64) - gradients[i] * step - targets[i];
        float t = targets[i] + rate * way;
        t = t < first[i] - reach ? first[i] - reach : t;
        targets[i] = t > first[i] + reach ? first[i] + reach : t;
    }
    return 0;
}

#define REFINEMENT_KERNELS(X)                                                                                          \
    X(inverse_dwt_back) X(add_to_halves) X(details_back) X(level_errors) X(pixels_back) X(samples_back)                 \
    X(samples_back_scratch) X(coefficients_back) X(symbol_bits) X(descend)
