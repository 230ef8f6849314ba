// The prior of one octave: distributions of the two halves of its coefficients, from all that is coded before.
//
// An octave [H, W] of C colours is coded in cells of 2x2 places, h = ceil(H / 2) by w = ceil(W / 2).  Of the 12 C
// coefficients of a cell, of place (i, j), subband b and colour c, those with i + j + b + c even are the first half,
// the others the second; halves are int32 [h, w, 6C], each in order of i, j, b and c.
//
// prior_first and prior_second work on rows [top, bottom) of cells, so that threads can share an octave.

enum { PASSED = 8, SUBBANDS = 3, PRIOR_COLOURS = 16 };  // PASSED: channels for each cell of the next finer octave
enum { LOC_SHIFT = 7, INDEX_SHIFT = 12 };

typedef struct {
    int32_t colours, height, width;  // of the octave
    int32_t scales, reach;           // the table has a value for each magnitude up to reach
    const int16_t *companding;       // 0 for magnitude 0, not negative
} vc_octave;

// The half of each coefficient of a cell, by place 2 i + j and plane b * C + c, and its channel in that half.
typedef struct { uint8_t half[4][SUBBANDS * PRIOR_COLOURS], channel[4][SUBBANDS * PRIOR_COLOURS]; } vc_halves;

static inline void halves_of(int colours, vc_halves *out) {
    uint8_t count[2] = {0, 0};
    for (int place = 0; place < 4; place++)
        for (int plane = 0; plane < SUBBANDS * colours; plane++) {
            const int half = (place / 2 + place % 2 + plane / colours + plane % colours) % 2;
            out->half[place][plane] = (uint8_t)half, out->channel[place][plane] = count[half]++;
        }
}

// The table's entry for a magnitude, at x[side], and with the value's sign, at x[0].  Without branches: signs are random.
VC_INLINE void compand(const vc_octave *o, int32_t value, int16_t *x, int side) {
    const uint32_t negative = value < 0 ? ~0u : 0u, magnitude = ((uint32_t)value ^ negative) - negative;
    const int16_t found = o->companding[magnitude < (uint32_t)o->reach ? magnitude : (uint32_t)o->reach];
    x[side] = found;
    x[0] = (int16_t)((found ^ (int16_t)negative) - (int16_t)negative);
}

// The index that stands for -1 or n of 0 .. n - 1: edges are mirrored.
VC_INLINE int mirrored(int index, int n) {
    if (n == 1) return 0;
    return index < 0 ? 1 : index >= n ? n - 2 : index;
}

// Row y of a low-pass plane [h, w], less the rounded mean of the eight neighbours.  column is [w + 2].
static void detail_row(const int32_t *plane, int h, int w, int y, int32_t *restrict column, int32_t *restrict out) {
    const int32_t *above = plane + (size_t)mirrored(y - 1, h) * w, *here = plane + (size_t)y * w;
    const int32_t *below = plane + (size_t)mirrored(y + 1, h) * w;
    for (int n = 0; n < w; n++) column[n + 1] = vc_add(vc_add(above[n], here[n]), below[n]);
    column[0] = column[1 + mirrored(-1, w)], column[w + 1] = column[1 + mirrored(w, w)];
    for (int n = 0; n < w; n++) {
        const int32_t around = vc_sub(vc_add(vc_add(column[n], column[n + 1]), column[n + 2]), here[n]);
        out[n] = vc_sub(here[n], vc_add(around, 4) >> 3);
    }
}

typedef struct {
    vc_ring ring;
    int16_t *in, *out;
    int32_t *sums, *column, *detail;
    const int32_t *vector;
} vc_prior_rows;

static inline void prior_take(vc_arena *arena, vc_prior_rows *rows, int w, int colours, int channels,
                              const int32_t *vector) {
    const int inputs = 14 * colours + PASSED;  // those of prior_second are fewer
    vc_ring_take(arena, &rows->ring, w, channels);
    rows->in = vc_take(arena, (size_t)w * vc_stride(inputs) * sizeof(int16_t));
    rows->out = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->sums = vc_take(arena, (size_t)w * vc_stride(12 * colours) * sizeof(int32_t));
    rows->column = vc_take(arena, ((size_t)w * 2 + 2) * sizeof(int32_t));
    rows->detail = vc_take(arena, (size_t)w * 2 * sizeof(int32_t));
    rows->vector = vc_padded(vector, channels, arena);
}

// Lines of scratch for rows of w cells and features of so many channels.
static int32_t prior_scratch(int32_t w, int32_t colours, int32_t channels) {
    vc_arena arena = {0};
    vc_prior_rows rows;
    prior_take(&arena, &rows, w, colours, channels, NULL);
    return vc_lines(&arena);
}

// Details of the low-pass planes at row r of cells: the first 4C inputs, and their magnitudes from `side` on.
static void put_details(const vc_octave *o, const int32_t *low, int r, int w, size_t step, int side,
                        const vc_prior_rows *rows) {
    const int c = o->colours;
    for (int n = 0; n < 2 * c; n++) {
        const int colour = n % c, y = 2 * r + n / c, inside = y < o->height;
        int16_t *x = rows->in + n / c * 2 * c + colour;
        if (inside)
            detail_row(low + (size_t)colour * o->height * o->width, o->height, o->width, y, rows->column, rows->detail);
        for (int beyond = inside ? o->width : 0; beyond < 2 * w; beyond++) rows->detail[beyond] = 0;
        for (int s = 0; s < w; s++, x += step) {
            compand(o, rows->detail[2 * s], x, side);
            compand(o, rows->detail[2 * s + 1], x + c, side);
        }
    }
}

// The 3C coefficients of the next coarser octave at place (r, s), whose halves are rows of `across` cells, or none.
static void put_parents(const vc_octave *o, const int32_t *first, const int32_t *second, int across, int r, int w,
                        size_t step, int side, int16_t *x) {
    const int planes = SUBBANDS * o->colours;
    const int32_t *from[2] = {first, second};
    vc_halves halves;
    halves_of(o->colours, &halves);
    for (int s = 0; s < w; s++, x += step) {
        const size_t cell = ((size_t)(r / 2) * across + s / 2) * 2 * planes;
        const uint8_t *half = halves.half[r % 2 * 2 + s % 2], *channel = halves.channel[r % 2 * 2 + s % 2];
        for (int plane = 0; plane < planes; plane++)
            compand(o, first ? from[half[plane]][cell + channel[plane]] : 0, x + plane, side);
    }
}

// Sums [w, stride] of means and scale indices -> loc and table indices [w, count].
VC_INLINE void parameters(const int32_t *sums, size_t stride, int w, const int count, int scales, int32_t *restrict loc,
                          uint8_t *restrict indices) {
    for (int s = 0; s < w; s++, sums += stride, loc += count, indices += count) {
        for (int n = 0; n < count; n++) loc[n] = vc_add(sums[n], 1 << (LOC_SHIFT - 1)) >> LOC_SHIFT;
        for (int n = 0; n < count; n++) {
            int32_t index = vc_add(sums[count + n], 1 << (INDEX_SHIFT - 1)) >> INDEX_SHIFT;
            index = index < 0 ? 0 : index;
            indices[n] = (uint8_t)(index < scales ? index : scales - 1);
        }
    }
}

// Coefficients beyond an odd side are not coded: table index and mean 0.
static void blank(const vc_octave *o, int half, int r, int h, int w, int32_t *loc, uint8_t *indices) {
    const int planes = SUBBANDS * o->colours, low = r + 1 == h && o->height % 2;
    vc_halves halves;
    if (!low && o->width % 2 == 0) return;
    halves_of(o->colours, &halves);
    for (int s = low ? 0 : w - 1; s < w; s++) {
        const int right = s + 1 == w && o->width % 2;
        for (int place = 0; place < 4; place++)
            for (int plane = 0; plane < planes; plane++) {
                const size_t n = (size_t)s * 2 * planes + halves.channel[place][plane];
                if (halves.half[place][plane] == half && ((low && place / 2) || (right && place % 2)))
                    loc[n] = 0, indices[n] = 0;
            }
    }
}

// A row of distributions from features x.
static void distribution(const vc_octave *o, const vc_dense *layer, int half, int r, int h, int w, const int16_t *x,
                         size_t step, int32_t *sums, int32_t *loc, uint8_t *indices) {
    const int count = 6 * o->colours;
    const size_t stride = vc_stride(2 * count);
    loc += (size_t)r * w * count, indices += (size_t)r * w * count;
    vc_dense_sums(layer, w, x, step, sums, stride);
    if (count == 18) parameters(sums, stride, w, 18, o->scales, loc, indices);
    else parameters(sums, stride, w, count, o->scales, loc, indices);
    blank(o, half, r, h, w, loc, indices);
}

// The first half of rows [top, bottom).  `layers`: in, the five of the block, first.  vector: int32 of the features.
// low: int32 [C, H, W]; first, second: halves of the next coarser octave, [.., across, 6C], and passed, what its
// network passed on, [.., across, 4 * PASSED], or NULL.  tape: of tape_size, for the gradients of the block, or NULL.
// Writes features [h, w, F], loc and indices [h, w, 6C].
static int32_t prior_first(const void *const *layers, int32_t colours, int32_t height, int32_t width, int32_t scales,
                           int32_t reach, const int16_t *companding, int32_t top, int32_t bottom,
                           const int32_t *vector, const int32_t *low, const int32_t *first, const int32_t *second,
                           const int16_t *passed, int32_t across, int16_t *tape, int16_t *features, int32_t *loc,
                           uint8_t *indices, void *scratch) {
    const vc_octave o = {colours, height, width, scales, reach, companding};
    const vc_dense *enter = vc_dense_at(layers[0]), *last = vc_dense_at(layers[1 + VC_BLOCK_LAYERS]);
    const vc_block block = vc_block_at(layers + 1);
    const int h = (height + 1) / 2, w = (width + 1) / 2, channels = enter->channels;
    const int side = 7 * colours + (passed ? PASSED : 0);
    const size_t in_step = vc_step(enter->inputs), step = vc_step(channels);
    vc_arena arena = vc_arena_of(scratch);
    vc_prior_rows own;
    prior_take(&arena, &own, w, colours, channels, vector);
    vc_ring_clear(&own.ring);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h) {
            put_details(&o, low, r, w, in_step, side, &own);
            put_parents(&o, first, second, across, r, w, in_step, side, own.in + 4 * colours);
            for (int s = 0; passed && s < w; s++)
                __builtin_memcpy(own.in + s * in_step + 7 * colours,
                                 passed + (((size_t)(r / 2) * across + s / 2) * 4 + r % 2 * 2 + s % 2) * PASSED,
                                 PASSED * sizeof *passed);
            vc_dense_vector(enter, w, own.in, in_step, own.vector, own.ring.own[r % 3], own.ring.stride);
            vc_ring_keep(&own.ring, r, r >= top && r < bottom ? vc_tape_at(tape, w, channels, r) : NULL);
            vc_ring_feed(&block, &own.ring, r);
        }
        if (r - 1 < top) continue;
        int16_t *row = features + (size_t)(r - 1) * w * channels, *made = vc_target(row, channels, own.out);
        vc_block_row(&block, &own.ring, h, r - 1, NULL, vc_tape_at(tape, w, channels, r - 1), made, step);
        distribution(&o, last, 0, r - 1, h, w, made, step, own.sums, loc, indices);
        vc_close(made, w, channels, row);
    }
    return 0;
}

// The second half of rows [top, bottom).  `layers`: known, the five of the block, second, pass or NULL.  features of
// prior_first; values: the first half, int32 [h, w, 6C]; tape as above.  Writes passed [h, w, 4 * PASSED], loc and
// indices [h, w, 6C].
static int32_t prior_second(const void *const *layers, int32_t colours, int32_t height, int32_t width, int32_t scales,
                            int32_t reach, const int16_t *companding, int32_t top, int32_t bottom,
                            const int16_t *features, const int32_t *values, int16_t *tape, int16_t *passed,
                            int32_t *loc, uint8_t *indices, void *scratch) {
    const vc_octave o = {colours, height, width, scales, reach, companding};
    const vc_dense *known = vc_dense_at(layers[0]), *last = vc_dense_at(layers[1 + VC_BLOCK_LAYERS]);
    const vc_block block = vc_block_at(layers + 1);
    const int h = (height + 1) / 2, w = (width + 1) / 2, channels = known->channels, count = 6 * colours;
    const size_t in_step = vc_step(known->inputs), step = vc_step(channels);
    vc_arena arena = vc_arena_of(scratch);
    vc_prior_rows own;
    prior_take(&arena, &own, w, colours, channels, NULL);
    vc_ring_clear(&own.ring);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h) {
            const int32_t *v = values + (size_t)r * w * count;
            int16_t *x = own.in;
            for (int s = 0; s < w; s++, v += count, x += in_step)
                for (int n = 0; n < count; n++) compand(&o, v[n], x + n, count);
            const int16_t *before = vc_open(features + (size_t)r * w * channels, w, channels, own.out);
            vc_dense_add(known, w, own.in, in_step, before, step, own.ring.own[r % 3], own.ring.stride);
            vc_ring_keep(&own.ring, r, r >= top && r < bottom ? vc_tape_at(tape, w, channels, r) : NULL);
            vc_ring_feed(&block, &own.ring, r);
        }
        if (r - 1 < top) continue;
        vc_block_row(&block, &own.ring, h, r - 1, NULL, vc_tape_at(tape, w, channels, r - 1), own.out, step);
        distribution(&o, last, 1, r - 1, h, w, own.out, step, own.sums, loc, indices);
        if (layers[2 + VC_BLOCK_LAYERS])
            vc_dense_plain(vc_dense_at(layers[2 + VC_BLOCK_LAYERS]), w, own.out, step,
                           passed + (size_t)(r - 1) * w * 4 * PASSED, 4 * PASSED);
    }
    return 0;
}

#define PRIOR_KERNELS(X) X(prior_scratch) X(prior_first) X(prior_second)
