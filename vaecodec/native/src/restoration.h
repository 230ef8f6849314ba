// The restoration filter of one image: weighted sums of neighbouring samples, in rotated colours, added to each pixel.
//
// Strips of STRIP_ROWS rows are worked through, so that their planes stay in a cache.  Sums that a hostile filter could
// let overflow are taken modulo 2^32.

enum { REACH = 4, STRIP_ROWS = 16, DISTANCES = 3, WEIGHTS = 9, COLOR_MAX = 4095, MEAN_REACH = 3 };

typedef struct {
    int32_t height, width, channels, classes;
    const int32_t *rotation;  // [C, C], unit 2^-14
    const int32_t *first;     // [classes, 9] weights of colour 0
    const int32_t *shifts;    // [classes]
    const int32_t *ramps;     // [classes - 1]
    const int32_t *others;    // [2 C]: shared by colours 1 .. C - 1, then of each for colour 0; none where C is 1
} vc_filter;

static inline int32_t mirror(int32_t place, int32_t count) {
    return place < 0 ? -place : place >= count ? 2 * count - 2 - place : place;
}

// Rotated colours of row `row`, with REACH mirrored samples on either side -> out [C] rows, `plane` elements apart.
static void rotate_row(const vc_filter *f, const int16_t *samples, int32_t row, int16_t *out, ptrdiff_t plane) {
    const int32_t width = f->width, channels = f->channels;
    const int16_t *restrict in = samples + (ptrdiff_t)mirror(row, f->height) * width * channels;
    for (int32_t k = 0; k < channels; k++) {
        const int32_t *row_of = f->rotation + k * channels;
        int16_t *restrict line = out + k * plane + REACH;
        if (channels == 3) {
            const int32_t r = row_of[0], g = row_of[1], b = row_of[2];
            for (int32_t x = 0; x < width; x++)
                line[x] = (int16_t)vc_clip(
                    (r * in[3 * x] + g * in[3 * x + 1] + b * in[3 * x + 2] + 65536) >> 17, -COLOR_MAX, COLOR_MAX);
        } else {
            for (int32_t x = 0; x < width; x++) {
                int32_t sum = 65536;
                for (int32_t c = 0; c < channels; c++) sum = vc_add(sum, vc_mul(row_of[c], in[channels * x + c]));
                line[x] = (int16_t)vc_clip(sum >> 17, -COLOR_MAX, COLOR_MAX);
            }
        }
        for (int32_t n = 1; n <= REACH; n++) {
            line[-n] = line[mirror(-n, width)];
            line[width - 1 + n] = line[mirror(width - 1 + n, width)];
        }
    }
}

// Sums around each sample of a row, at one distance: of the two in its row, the two in its column and the four on its
// diagonals, each less it.  They fit 16 bits, as samples are within +-COLOR_MAX.
static inline void around(const int16_t *restrict line, ptrdiff_t stride, int32_t far, int32_t width,
                          int16_t *restrict along, int16_t *restrict down, int16_t *restrict diagonal) {
    const int16_t *restrict above = line - far * stride, *restrict below = line + far * stride;
    for (int32_t x = 0; x < width; x++) {
        const int16_t twice = (int16_t)(2 * line[x]);
        along[x] = (int16_t)(line[x - far] + line[x + far] - twice);
        down[x] = (int16_t)(above[x] + below[x] - twice);
        diagonal[x] = (int16_t)((above[x - far] + above[x + far] - twice) + (below[x - far] + below[x + far] - twice));
    }
}

// 16 times the weighted mean of nine values that far from each other, of row `line` from its sample 0 on.
static inline void mean9(const int32_t *restrict line, ptrdiff_t stride, int32_t far, int32_t width,
                         int32_t *restrict out) {
    const int32_t *restrict above = line - far * stride, *restrict below = line + far * stride;
    for (int32_t x = 0; x < width; x++)
        out[x] = above[x - far] + 2 * above[x] + above[x + far] + 2 * (line[x - far] + 2 * line[x] + line[x + far]) +
                 below[x - far] + 2 * below[x] + below[x + far];
}

// Scratch of a strip: where each array begins, in bytes, and how large all are.
typedef struct { size_t planes, deviation, smooth, active, sums, added, total; } filter_layout;
static filter_layout filter_scratch(int32_t width, int32_t channels) {
    filter_layout at;
    const size_t line = ((size_t)width + 2 * REACH + 31) / 32 * 32;
    at.planes = 0;
    at.deviation = at.planes + (STRIP_ROWS + 2 * REACH) * line * channels * sizeof(int16_t);
    at.smooth = at.deviation + (STRIP_ROWS + 2 * MEAN_REACH) * line * sizeof(int32_t);
    at.active = at.smooth + (STRIP_ROWS + 4) * line * sizeof(int32_t);
    at.sums = at.active + line * sizeof(int32_t);
    at.added = at.sums + (WEIGHTS + 3) * line * sizeof(int16_t) + 3 * line * sizeof(int32_t);
    at.total = at.added + (size_t)channels * line * sizeof(int16_t) + 64;
    return at;
}
static int32_t restoration_scratch(int32_t width, int32_t channels) {
    return (int32_t)filter_scratch(width, channels).total;
}

// How much happens around each sample of a strip of `rows` rows: deviations from the mean, twice smoothed, times 4096.
// plane is row 0 of the strip at its sample 0; deviations and `smooth` get rows and samples beyond it as they need.
static void deviations(const int16_t *plane, ptrdiff_t stride, int32_t rows, int32_t width, int32_t *deviation,
                       int32_t *smooth) {
    for (int32_t y = -MEAN_REACH; y < rows + MEAN_REACH; y++) {
        const int16_t *restrict line = plane + y * stride, *restrict above = line - stride,
                                *restrict below = line + stride;
        int32_t *restrict out = deviation + (y + MEAN_REACH) * stride + REACH;
        for (int32_t x = -MEAN_REACH; x < width + MEAN_REACH; x++) {
            const int32_t away = 12 * line[x] - 2 * (line[x - 1] + line[x + 1] + above[x] + below[x]) -
                                 (above[x - 1] + above[x + 1] + below[x - 1] + below[x + 1]);
            out[x] = away < 0 ? -away : away;
        }
    }
    for (int32_t y = -2; y < rows + 2; y++)
        mean9(deviation + (y + MEAN_REACH) * stride + REACH - 2, stride, 1, width + 4,
              smooth + (y + 2) * stride + REACH - 2);
}

// The weighted sums of one class, unit 2^-10.
static inline void weigh_class(const int32_t *w, int32_t unit, const int16_t *restrict sums, ptrdiff_t stride,
                               int32_t width, int32_t *restrict out) {
    const int32_t shift = unit - 7, half = shift > 0 ? 1 << (shift - 1) : 0;
    const int32_t down = shift > 0 ? shift : 0, up = shift < 0 ? -shift : 0;
    const int16_t *restrict far = sums + 3 * stride, *restrict farther = sums + 6 * stride;
    for (int32_t x = 0; x < width; x++) {
        const int32_t near = w[0] * sums[x] + w[1] * sums[stride + x] + w[2] * sums[2 * stride + x];
        const int32_t middle = w[3] * far[x] + w[4] * far[stride + x] + w[5] * far[2 * stride + x];
        const int32_t last = w[6] * farther[x] + w[7] * farther[stride + x] + w[8] * farther[2 * stride + x];
        out[x] = (int32_t)((uint32_t)((near + middle + last + half) >> down) << up);
    }
}

// What is added to colour 0: the weighted sums of the classes, blended by activity.  Unit 2^-10.
static void weigh_first(const vc_filter *f, const int16_t *sums, ptrdiff_t stride, const int32_t *restrict active,
                        int32_t *lines, int16_t *restrict out) {
    const int32_t width = f->width;
    int32_t *restrict total = lines, *before = lines + stride, *here = lines + 2 * stride;
    weigh_class(f->first, f->shifts[0], sums, stride, width, before);
    for (int32_t x = 0; x < width; x++) total[x] = (int32_t)(((uint32_t)before[x] << 8) + 128);
    for (int32_t k = 1; k < f->classes; k++) {
        const uint32_t ramp = (uint32_t)f->ramps[k - 1];
        weigh_class(f->first + k * WEIGHTS, f->shifts[k], sums, stride, width, here);
        const int32_t *restrict low = before, *restrict high = here;
        for (int32_t x = 0; x < width; x++) {
            const int32_t busy = active[x] >> 8 > 32767 ? 32767 : active[x] >> 8;
            const int32_t part = vc_clip((int32_t)((uint32_t)busy * ramp >> 12) - 256, 0, 256);
            total[x] = vc_add(total[x], vc_mul(part, vc_sub(high[x], low[x])));
        }
        int32_t *swap = before;
        before = here;
        here = swap;
    }
    for (int32_t x = 0; x < width; x++) out[x] = (int16_t)vc_clip(total[x] >> 8, -32767, 32767);
}

// A row of samples, with what is added to its rotated colours, as pixels.
VC_INLINE void add_colors(const int32_t channels, const int32_t *rotation, const int16_t *restrict added,
                          ptrdiff_t stride, int32_t width, const int16_t *restrict in, uint8_t *restrict out,
                          int16_t *restrict levels) {
    for (int32_t x = 0; x < width; x++)
        for (int32_t c = 0; c < channels; c++) {
            int32_t sum = 1 << 17;
            for (int32_t k = 0; k < channels; k++)
                sum = vc_add(sum, vc_mul(added[k * stride + x], rotation[k * channels + c]));
            const int32_t level = in[channels * x + c] + (sum >> 18);
            if (levels) levels[channels * x + c] = (int16_t)vc_clip(level, -32767, 32767);
            else out[channels * x + c] = (uint8_t)vc_clip((level + 8192) >> 6, 0, 255);
        }
}

// samples i16[H, W, C], unit 2^-6 of a level -> pixels u8[H, W, C] or, where that is not NULL, levels i16 in the unit of
// samples; rows top .. bottom - 1.  `adjoint`: of one class, gradients by the result -> by the samples, of any unit, but
// for what mirrored samples beyond the edges add.
static int32_t restore(int32_t height, int32_t width, int32_t channels, int32_t top, int32_t bottom, int32_t classes,
                       const int32_t *rotation, const int32_t *first_weights, const int32_t *shifts,
                       const int32_t *ramps, const int32_t *others, const int16_t *samples, char *scratch,
                       uint8_t *pixels, int16_t *levels, int32_t adjoint) {
    const vc_filter filter = {height, width, channels, classes, rotation, first_weights, shifts, ramps, others};
    const vc_filter *f = &filter;
    const ptrdiff_t stride = ((ptrdiff_t)width + 2 * REACH + 31) / 32 * 32, plane = (STRIP_ROWS + 2 * REACH) * stride;
    const filter_layout at = filter_scratch(width, channels);
    scratch = (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int16_t *planes = (int16_t *)(scratch + at.planes), *sums = (int16_t *)(scratch + at.sums);
    int16_t *added = (int16_t *)(scratch + at.added);
    int32_t *deviation = (int32_t *)(scratch + at.deviation), *smooth = (int32_t *)(scratch + at.smooth);
    int32_t *active = (int32_t *)(scratch + at.active), *lines = (int32_t *)(sums + (WEIGHTS + 3) * stride);
    for (int32_t begin = top; begin < bottom; begin += STRIP_ROWS) {
        const int32_t rows = bottom - begin < STRIP_ROWS ? bottom - begin : STRIP_ROWS;
        for (int32_t y = -REACH; y < rows + REACH; y++)
            rotate_row(f, samples, begin + y, planes + (y + REACH) * stride, plane);
        const int16_t *first = planes + REACH * stride + REACH;
        if (f->classes > 1) deviations(first, stride, rows, width, deviation, smooth);
        for (int32_t y = 0; y < rows; y++) {
            const int16_t *line = first + y * stride;
            for (int32_t n = 0; n < DISTANCES; n++)
                around(line, stride, n + 1, width, sums + 3 * n * stride, sums + (3 * n + 1) * stride,
                       sums + (3 * n + 2) * stride);
            if (f->classes > 1) mean9(smooth + (y + 2) * stride + REACH, stride, 2, width, active);
            weigh_first(f, sums, stride, active, lines, added);
            for (int32_t k = 1; k < channels; k++) {
                int16_t *own = sums + WEIGHTS * stride, *restrict out = added + k * stride;
                around(line + k * plane, stride, 1, width, own, own + stride, own + 2 * stride);
                const int32_t *w = f->others, *each = f->others + 2 * k;
                int16_t *restrict brightness = added;
                for (int32_t x = 0; x < width && adjoint; x++) {
                    const int32_t by_first = (each[0] * (own[x] + own[stride + x]) + each[1] * own[2 * stride + x] + 2) >> 2;
                    out[x] = (int16_t)vc_clip((w[0] * (own[x] + own[stride + x]) + w[1] * own[2 * stride + x] + 2) >> 2,
                                             -32767, 32767);
                    brightness[x] = (int16_t)vc_clip(brightness[x] + by_first, -32767, 32767);
                }
                for (int32_t x = 0; x < width && !adjoint; x++)
                    out[x] = (int16_t)vc_clip((w[0] * (own[x] + own[stride + x]) + w[1] * own[2 * stride + x] +
                                              each[0] * (sums[x] + sums[stride + x]) + each[1] * sums[2 * stride + x] + 2) >> 2,
                                             -32767, 32767);
            }
            const ptrdiff_t from = (ptrdiff_t)(begin + y) * width * channels;
            const int16_t *in = samples + from;
            if (channels == 3 && levels) add_colors(3, f->rotation, added, stride, width, in, NULL, levels + from);
            else if (channels == 3) add_colors(3, f->rotation, added, stride, width, in, pixels + from, NULL);
            else if (levels) add_colors(channels, f->rotation, added, stride, width, in, NULL, levels + from);
            else add_colors(channels, f->rotation, added, stride, width, in, pixels + from, NULL);
        }
    }
    return 0;
}

// Normal equations of least squares for a filter of one class, of every `every`-th row of a box: the sums of products of
// 9 sums around samples of colour 0 and of what it lacks, then of colours k > 0 four sums: own near and diagonal, those of
// colour 0.  matrix i64[81 + 9 + (C - 1) * (16 + 4)].
static inline int64_t product_sum(const int16_t *restrict a, const int16_t *restrict b, int32_t count) {
    int64_t total = 0;
    for (int32_t begin = 0; begin < count; begin += 256) {  // products of 15 bits, two signs: 256 stay exact in 64 bits
        const int32_t end = count - begin < 256 ? count : begin + 256;
        for (int32_t x = begin; x < end; x++) total += (int32_t)a[x] * (int32_t)b[x];
    }
    return total;
}

static int32_t fit_sums(int32_t height, int32_t width, int32_t channels, int32_t top, int32_t left, int32_t bottom,
                        int32_t right, int32_t every, const int32_t *rotation, const int16_t *samples,
                        const uint8_t *original, char *scratch, int64_t *sums_out) {
    const vc_filter f = {height, width, channels, 1, rotation, NULL, NULL, NULL, NULL};
    const ptrdiff_t stride = ((ptrdiff_t)width + 2 * REACH + 31) / 32 * 32, plane = (2 * REACH + 1) * stride;
    const int32_t count = right - left;
    scratch = (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    int16_t *planes = (int16_t *)scratch, *sums = planes + channels * plane, *lack = sums + (WEIGHTS + 4) * stride;
    for (int32_t y = top; y < bottom; y += every) {
        for (int32_t n = 0; n <= 2 * REACH; n++) rotate_row(&f, samples, y + n - REACH, planes + n * stride, plane);
        const ptrdiff_t from = (ptrdiff_t)y * width * channels;
        for (int32_t k = 0; k < channels; k++) {
            const int32_t *row_of = rotation + k * channels;
            for (int32_t x = 0; x < count; x++) {  // what the image has there, less what was made; unit 1/8 of a level
                int32_t sum = 65536;
                for (int32_t c = 0; c < channels; c++) {
                    const ptrdiff_t place = from + (left + x) * channels + c;
                    sum = vc_add(sum, vc_mul(row_of[c], 64 * original[place] - 8160 - samples[place]));
                }
                lack[k * stride + x] = (int16_t)vc_clip(sum >> 17, -COLOR_MAX, COLOR_MAX);
            }
        }
        const int16_t *line = planes + REACH * stride + REACH + left;
        for (int32_t n = 0; n < DISTANCES; n++)
            around(line, stride, n + 1, count, sums + 3 * n * stride, sums + (3 * n + 1) * stride,
                   sums + (3 * n + 2) * stride);
        for (int32_t i = 0; i < WEIGHTS; i++) {
            for (int32_t j = i; j < WEIGHTS; j++)
                sums_out[WEIGHTS * i + j] += product_sum(sums + i * stride, sums + j * stride, count);
            sums_out[WEIGHTS * WEIGHTS + i] += product_sum(sums + i * stride, lack, count);
        }
        // Near sums of colour 0 in places of 9 and 10, then those of each other colour.
        int16_t *near = sums + WEIGHTS * stride, *four[4] = {near, near + stride, near + 2 * stride, near + 3 * stride};
        for (int32_t k = 1; k < channels; k++) {
            int64_t *out = sums_out + WEIGHTS * WEIGHTS + WEIGHTS + (k - 1) * 20;
            around(line + k * plane, stride, 1, count, four[0], four[2], four[1]);
            for (int32_t x = 0; x < count; x++) {
                four[0][x] = (int16_t)(four[0][x] + four[2][x]);
                four[2][x] = (int16_t)(sums[x] + sums[stride + x]);
                four[3][x] = sums[2 * stride + x];
            }
            for (int32_t i = 0; i < 4; i++) {
                for (int32_t j = i; j < 4; j++) out[4 * i + j] += product_sum(four[i], four[j], count);
                out[16 + i] += product_sum(four[i], lack + k * stride, count);
            }
        }
    }
    return 0;
}

static int32_t fit_scratch(int32_t width, int32_t channels) {
    const size_t line = ((size_t)width + 2 * REACH + 31) / 32 * 32;
    return (int32_t)((((2 * REACH + 1) * channels + WEIGHTS + 4 + channels) * line) * sizeof(int16_t) + 64);
}

// Normal equations of colour 0 for FIT_CLASSES classes, of every `every`-th row of a box.  A sample belongs to class k by
// rising[k] - rising[k + 1], where rising[0] is 1 and the others are ramps of the activity, float [begin, slope] each.  At
// most two classes that follow each other share a sample.  sums double: for each class, and for it and the next one, by
// turns, the 45 products of 9 sums around samples; then those of these with what the samples lack, for each class.
enum { FIT_CLASSES = 4, FIT_BLOCKS = 2 * FIT_CLASSES - 1, FIT_LANES = 32 };

typedef struct {
    int16_t *planes, *sums, *lack;
    int32_t *deviation, *smooth, *active;
    float *basis, *product, *shares, *belongs;
} class_rows;
static void class_take(vc_arena *arena, class_rows *rows, size_t line, size_t channels) {
    rows->planes = vc_take(arena, (2 * REACH + 1) * line * channels * sizeof(int16_t));
    rows->sums = vc_take(arena, WEIGHTS * line * sizeof(int16_t));
    rows->lack = vc_take(arena, line * sizeof(int16_t));
    rows->deviation = vc_take(arena, (1 + 2 * MEAN_REACH) * line * sizeof(int32_t));
    rows->smooth = vc_take(arena, 5 * line * sizeof(int32_t));
    rows->active = vc_take(arena, line * sizeof(int32_t));
    rows->basis = vc_take(arena, (WEIGHTS + 1) * line * sizeof(float));
    rows->product = vc_take(arena, line * sizeof(float));
    rows->shares = vc_take(arena, FIT_BLOCKS * line * sizeof(float));
    rows->belongs = vc_take(arena, FIT_CLASSES * line * sizeof(float));
}
static int32_t class_scratch(int32_t width, int32_t channels) {
    vc_arena arena = {0};
    class_rows rows;
    class_take(&arena, &rows, ((size_t)width + 2 * REACH + 31) / 32 * 32, (size_t)channels);
    return vc_lines(&arena);
}

// The sum of products of two rows of a multiple of FIT_LANES samples.
static inline double dot_row(const float *restrict a, const float *restrict b, int32_t count) {
    float lanes[FIT_LANES] = {0};
    for (int32_t x = 0; x < count; x += FIT_LANES)
        for (int32_t n = 0; n < FIT_LANES; n++) lanes[n] += a[x + n] * b[x + n];
    double total = 0;
    for (int32_t n = 0; n < FIT_LANES; n++) total += (double)lanes[n];
    return total;
}

static int32_t fit_class_sums(int32_t height, int32_t width, int32_t channels, int32_t top, int32_t left,
                              int32_t bottom, int32_t right, int32_t every, const int32_t *rotation,
                              const float *ramps, const int16_t *samples, const uint8_t *original, void *scratch,
                              double *sums_out) {
    const vc_filter f = {height, width, channels, 1, rotation, NULL, NULL, NULL, NULL};
    const ptrdiff_t line = ((ptrdiff_t)width + 2 * REACH + 31) / 32 * 32, plane = (2 * REACH + 1) * line;
    const int32_t count = right - left, padded = (count + FIT_LANES - 1) / FIT_LANES * FIT_LANES;
    vc_arena arena = vc_arena_of(scratch);
    class_rows rows;
    class_take(&arena, &rows, (size_t)line, (size_t)channels);
    for (int32_t y = top; y < bottom; y += every) {
        for (int32_t n = 0; n <= 2 * REACH; n++)
            rotate_row(&f, samples, y + n - REACH, rows.planes + n * line, plane);
        const int16_t *here = rows.planes + REACH * line + REACH, *at = here + left;
        const ptrdiff_t from = (ptrdiff_t)y * width * channels;
        for (int32_t n = 0; n < DISTANCES; n++)
            around(at, line, n + 1, count, rows.sums + 3 * n * line, rows.sums + (3 * n + 1) * line,
                   rows.sums + (3 * n + 2) * line);
        deviations(here, line, 1, width, rows.deviation, rows.smooth);
        mean9(rows.smooth + 2 * line + REACH, line, 2, width, rows.active);
        for (int32_t i = 0; i < WEIGHTS; i++)
            for (int32_t x = 0; x < padded; x++) rows.basis[i * line + x] = x < count ? (float)rows.sums[i * line + x] : 0;
        float *lack = rows.basis + WEIGHTS * line;
        for (int32_t x = 0; x < padded; x++) {  // unit 1/8 of a level
            int32_t sum = 65536;
            for (int32_t c = 0; c < channels && x < count; c++) {
                const ptrdiff_t place = from + (left + x) * channels + c;
                sum = vc_add(sum, vc_mul(rotation[c], 64 * original[place] - 8160 - samples[place]));
            }
            lack[x] = x < count ? (float)vc_clip(sum >> 17, -COLOR_MAX, COLOR_MAX) : 0;
        }
        for (int32_t x = 0; x < padded; x++) {
            const float active = x < count ? (float)rows.active[left + x] * 0.125f : 0;
            float above = 1;
            for (int32_t k = 0; k < FIT_CLASSES; k++) {
                float next = k + 1 < FIT_CLASSES ? (active - ramps[2 * k]) * ramps[2 * k + 1] : 0;
                next = next < 0 ? 0 : next > 1 ? 1 : next;
                rows.belongs[k * line + x] = above - next;
                above = next;
            }
        }
        for (int32_t n = 0; n < FIT_BLOCKS; n++) {
            const float *a = rows.belongs + n / 2 * line, *b = rows.belongs + (n + 1) / 2 * line;
            for (int32_t x = 0; x < padded; x++) rows.shares[n * line + x] = a[x] * b[x];
        }
        double *out = sums_out;
        for (int32_t i = 0; i < WEIGHTS; i++)
            for (int32_t j = i; j < WEIGHTS; j++, out++) {
                const float *a = rows.basis + i * line, *b = rows.basis + j * line;
                for (int32_t x = 0; x < padded; x++) rows.product[x] = a[x] * b[x];
                for (int32_t n = 0; n < FIT_BLOCKS; n++)
                    out[n * 45] += dot_row(rows.product, rows.shares + n * line, padded);
            }
        out = sums_out + FIT_BLOCKS * 45;
        for (int32_t i = 0; i < WEIGHTS; i++) {
            const float *a = rows.basis + i * line;
            for (int32_t x = 0; x < padded; x++) rows.product[x] = a[x] * lack[x];
            for (int32_t k = 0; k < FIT_CLASSES; k++)
                out[k * WEIGHTS + i] += dot_row(rows.product, rows.belongs + k * line, padded);
        }
    }
    return 0;
}

#define RESTORATION_KERNELS(X) \
    X(restore) X(restoration_scratch) X(fit_sums) X(fit_scratch) X(class_scratch) X(fit_class_sums)
