// Gradients through the networks of the prior and of the synthesis, for refinement: encoders alone use them.
//
// The gradient of a dense layer is another dense layer, of the transposed weights, so gradients pass through the kernels
// of networks.h as int16 in a unit that the caller chooses.  They saturate.  What a block has to remember of its forward
// pass is in a tape (vc_tape_row).  Gradients by values and by samples are float32.
//
// Layers of a block, here: mix, gate, out, space, in, all transposed, in the order in which gradients pass them.

typedef struct {
    const vc_dense *mix, *gate, *out, *in;
    const vc_depthwise *space;
    int32_t shift;  // activations have the unit 2^-shift
} vc_block_back;

static inline vc_block_back block_back_at(const void *const *layers, int32_t shift) {
    vc_block_back block = {.mix = vc_dense_at(layers[0]), .gate = vc_dense_at(layers[1]), .out = vc_dense_at(layers[2]),
                           .space = vc_depthwise_at(layers[3]), .in = vc_dense_at(layers[4]), .shift = shift};
    return block;
}

// Of rows r - 1, r and r + 1, at r % 3: gradients of the middle of the block [w, stride], and of the result of its
// depthwise layer [w + 2, stride].
typedef struct {
    size_t stride, both_step;
    int w;
    int16_t *middle[3], *spread[3], *zero, *gated, *both;
} vc_ring_back;

static inline void ring_back_take(vc_arena *arena, vc_ring_back *ring, int w, int channels) {
    ring->w = w, ring->stride = vc_stride(channels), ring->both_step = vc_stride(2 * channels);
    const size_t cell = ring->stride * sizeof(int16_t), row = (size_t)w * cell;
    for (int n = 0; n < 3; n++) ring->middle[n] = vc_take(arena, row);
    for (int n = 0; n < 3; n++) ring->spread[n] = vc_take(arena, row + 2 * cell);
    ring->zero = vc_take(arena, row + 2 * cell);
    ring->gated = vc_take(arena, row);
    ring->both = vc_take(arena, (size_t)w * ring->both_step * sizeof(int16_t));
}
static inline void ring_back_clear(const vc_ring_back *ring) {
    const size_t cell = ring->stride * sizeof(int16_t), row = (size_t)ring->w * cell;
    for (int n = 0; n < 3; n++) {
        __builtin_memset(ring->spread[n], 0, cell);
        __builtin_memset((char *)ring->spread[n] + cell + row, 0, cell);
    }
    __builtin_memset(ring->zero, 0, row + 2 * cell);
}

// Gradients g of products [w, stride] -> of both factors [w, both_step], of which the first passed a ReLU.
static inline void gate_back(int w, int channels, size_t stride, size_t both_step, int shift, const int16_t *g,
                             const int16_t *kept, int16_t *both) {
    const int32_t half = shift ? 1 << (shift - 1) : 0;
    for (int i = 0; i < w; i++, g += stride, kept += 2 * stride, both += both_step) {
        const int16_t *restrict in = g, *restrict a = kept, *restrict b = kept + stride;
        int16_t *restrict out = both, *restrict other = both + channels;
        for (int n = 0; n < channels; n++)
            out[n] = (int16_t)(a[n] > 0 ? vc_clip((in[n] * b[n] + half) >> shift, -32767, 32767) : 0);
        for (int n = 0; n < channels; n++) other[n] = (int16_t)vc_clip((in[n] * a[n] + half) >> shift, -32767, 32767);
    }
}

// Gradients g [w, g_step] of row r of the block's result, as far as the depthwise layer; `kept` is the row of the tape.
static inline void ring_back_feed(const vc_block_back *p, const vc_ring_back *ring, int r, const int16_t *g,
                                  size_t g_step, const int16_t *kept) {
    const int w = ring->w;
    const size_t stride = ring->stride;
    int16_t *middle = ring->middle[r % 3];
    vc_dense_plain(p->mix, w, g, g_step, ring->gated, stride);
    gate_back(w, p->space->channels, stride, ring->both_step, p->shift, ring->gated, kept + (w + 2) * stride, ring->both);
    vc_dense_add(p->gate, w, ring->both, ring->both_step, g, g_step, middle, stride);
    vc_dense_plain(p->out, w, middle, stride, ring->spread[r % 3] + stride, stride);
}
// Gradients by row r of the block's input, after rows r - 1 and r + 1 were fed; `multiplier` may be NULL.
static inline void block_back_row(const vc_block_back *p, const vc_ring_back *ring, int h, int r, const int16_t *kept,
                                  const int32_t *multiplier, int16_t *out, size_t out_step) {
    const int w = ring->w;
    const size_t stride = ring->stride, count = w * stride;
    const int16_t *above = r > 0 ? ring->spread[(r - 1) % 3] : ring->zero;
    const int16_t *below = r + 1 < h ? ring->spread[(r + 1) % 3] : ring->zero;
    int16_t *restrict first = ring->gated;
    const int16_t *restrict passed = kept + stride;
    vc_depthwise_row(p->space, w, above, ring->spread[r % 3], below, first);
    for (size_t n = 0; n < count; n++) first[n] = (int16_t)(passed[n] > 0 ? first[n] : 0);
    if (multiplier)
        vc_dense_add_mul(p->in, w, first, stride, ring->middle[r % 3], stride, multiplier, out, out_step);
    else
        vc_dense_add(p->in, w, first, stride, ring->middle[r % 3], stride, out, out_step);
}

typedef struct { vc_ring_back ring; int16_t *in, *out; const int32_t *multiplier; } vc_block_back_rows;
static inline void block_back_take(vc_arena *arena, vc_block_back_rows *rows, int w, int channels,
                                   const int32_t *multiplier) {
    ring_back_take(arena, &rows->ring, w, channels);
    rows->in = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->out = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->multiplier = vc_padded(multiplier, channels, arena);
}
static int32_t block_back_scratch(int32_t w, int32_t channels) {
    vc_arena arena = {0};
    vc_block_back_rows rows;
    block_back_take(&arena, &rows, w, channels, NULL);
    return vc_lines(&arena);
}

// Gradients g by the result of a block -> by its input, both int16 [h, w, channels], rows [top, bottom) of these.
// multiplier: int32 [channels], unit 2^-12, of the result, or NULL.
static int32_t block_back(const void *const *layers, int32_t shift, int32_t h, int32_t w, int32_t top, int32_t bottom,
                          const int16_t *g, int16_t *tape, const int32_t *multiplier, int16_t *out, void *scratch) {
    const vc_block_back p = block_back_at(layers, shift);
    const int c = p.space->channels;
    const size_t line = (size_t)w * c;
    vc_arena arena = vc_arena_of(scratch);
    vc_block_back_rows rows;
    block_back_take(&arena, &rows, w, c, multiplier);
    ring_back_clear(&rows.ring);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h)
            ring_back_feed(&p, &rows.ring, r, vc_open(g + r * line, w, c, rows.in), vc_step(c),
                           vc_tape_at(tape, w, c, r));
        if (r - 1 < top) continue;
        int16_t *row = out + (r - 1) * line, *made = vc_target(row, c, rows.out);
        block_back_row(&p, &rows.ring, h, r - 1, vc_tape_at(tape, w, c, r - 1), rows.multiplier, made, vc_step(c));
        vc_close(made, w, c, row);
    }
    return 0;
}

// --------------------------------------------------------------------------------------------------------------- prior

enum { VC_COMPANDED = 255 };  // quantisation steps beyond which networks see no difference

VC_INLINE int16_t vc_to16(float x) {
    x = x < -32767.0f ? -32767.0f : x;
    x = x > 32767.0f ? 32767.0f : x;
    return (int16_t)(x + (x < 0 ? -0.5f : 0.5f));
}

// How bits grow with means and with table indices, in the units of gradients: 16 bits each, by means below and by indices
// above, by place in the concatenated tables, and of symbol 0 by table index.
typedef struct {
    const int32_t *entries, *zero, *start, *low, *last;
    float loc_gain;  // of the gradient by a value, where that is its mean
} vc_slopes;

// Gradients by means and table indices [w, step] of a row of a half, from those by values and the slopes of bits.
// pairs int32 and by_value int16 [w * count] are scratch.
static void parameters_back(const vc_slopes *t, int w, int count, const float *restrict values,
                            const int32_t *restrict symbols, const uint8_t *restrict indices, int32_t *restrict pairs,
                            int16_t *restrict by_value, int16_t *out, size_t step) {
    const int total = w * count;
    const float gain = t->loc_gain;
    for (int n = 0; n < total; n++) by_value[n] = vc_to16(symbols[n] ? 0 : gain * values[n]);
    for (int n = 0; n < total; n++) pairs[n] = t->zero[indices[n]];
    for (int begin = 0; begin < total; begin += 256) {  // the places of other symbols, without a branch for each
        const int end = begin + 256 < total ? begin + 256 : total;
        int places[256], found = 0;
        for (int n = begin; n < end; n++) places[found] = n, found += symbols[n] != 0;
        for (int k = 0; k < found; k++) {
            const int n = places[k], index = indices[n];
            pairs[n] = t->entries[t->start[index] + vc_clip(vc_sub(symbols[n], t->low[index]), 0, t->last[index])];
        }
    }
    for (int s = 0; s < w; s++, pairs += count, by_value += count, out += step) {
        int16_t *restrict by_loc = out, *restrict by_index = out + count;
        for (int n = 0; n < count; n++) by_loc[n] = (int16_t)vc_clip(by_value[n] - (int16_t)pairs[n], -32767, 32767);
        for (int n = 0; n < count; n++) by_index[n] = (int16_t)(pairs[n] >> 16);
    }
}

// Zeroes what belongs to coefficients beyond odd sides, of a row of a half, as `blank` does; `from` is the first place
// in a cell of count coefficients, of which another array follows count later where `twice`.
static void blank_gradients(const vc_octave *o, int half, int r, int h, int w, int twice, int16_t *out, size_t step) {
    const int planes = SUBBANDS * o->colours, low = r + 1 == h && o->height % 2;
    vc_halves halves;
    if (!low && o->width % 2 == 0) return;
    halves_of(o->colours, &halves);
    for (int s = low ? 0 : w - 1; s < w; s++) {
        const int right = s + 1 == w && o->width % 2;
        for (int place = 0; place < 4; place++)
            for (int plane = 0; plane < planes; plane++) {
                int16_t *at = out + s * step + halves.channel[place][plane];
                if (halves.half[place][plane] != half || !((low && place / 2) || (right && place % 2))) continue;
                at[0] = 0;
                if (twice) at[2 * planes] = 0;
            }
    }
}

// Gradients by n values in units of 2^-6, from those by their companded values, sign(v) * log(1 + |v|), and by the
// magnitudes of these.  `unit` is that of gradients.
static inline void compand_back(int n, const int32_t *restrict v, const int16_t *restrict g, const int16_t *restrict size,
                                float unit, float *restrict out) {
    for (int k = 0; k < n; k++) {
        const int32_t magnitude = v[k] < 0 ? -v[k] : v[k], sign = (v[k] > 0) - (v[k] < 0);
        const float sum = (float)(g[k] + sign * size[k]) * (64 * unit);
        out[k] = magnitude < 64 * VC_COMPANDED ? sum / (float)(64 + magnitude) : 0;
    }
}

typedef struct {
    vc_prior_rows own;
    vc_ring_back ring;
    int16_t *parameters, *g, *passed, *out, *inputs;
    int16_t *by_companded, *by_size;  // of a row of values, as are these
    int32_t *values;
    float *by_value;
} vc_prior_back;
static inline void prior_back_take(vc_arena *arena, vc_prior_back *rows, int w, int colours, int channels) {
    const int inputs = 14 * colours + PASSED;
    prior_take(arena, &rows->own, w, colours, channels, NULL);
    ring_back_take(arena, &rows->ring, w, channels);
    rows->parameters = vc_take(arena, (size_t)w * vc_stride(12 * colours) * sizeof(int16_t));
    rows->g = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->passed = vc_take(arena, (size_t)w * vc_stride(4 * PASSED) * sizeof(int16_t));
    rows->out = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->inputs = vc_take(arena, (size_t)w * vc_stride(inputs) * sizeof(int16_t));
    const size_t most = (size_t)w * 6 * colours + 2;  // of a half; the parents are fewer, and a row of details, too
    rows->by_companded = vc_take(arena, most * sizeof(int16_t));
    rows->by_size = vc_take(arena, most * sizeof(int16_t));
    rows->values = vc_take(arena, most * sizeof(int32_t));
    rows->by_value = vc_take(arena, most * sizeof(float));
}
static int32_t prior_back_scratch(int32_t w, int32_t colours, int32_t channels) {
    vc_arena arena = {0};
    vc_prior_back rows;
    prior_back_take(&arena, &rows, w, colours, channels);
    return vc_lines(&arena);
}

// Gradients through the networks of the second half of rows [top, bottom).  `layers`: second, pass or NULL, the block,
// known.  unit: that of gradients by activations.  second: gradients by the values of the
// second half, float [h, w, 6C], with its symbols and table indices; passed: by what the octave passed on, int16
// [h, w, 4 * PASSED], or NULL.  values: of the first half.  Adds to the gradients `first` by these, and writes those by
// the features [h, w, F].
static int32_t prior_second_back(const void *const *layers, int32_t colours, int32_t height, int32_t width,
                                 int32_t scales, int32_t reach, const int16_t *companding, int32_t top, int32_t bottom,
                                 int32_t shift, float unit, const int32_t *entries, const int32_t *zero,
                                 const int32_t *start, const int32_t *low, const int32_t *last, float loc_gain,
                                 const float *second, const int32_t *symbols, const uint8_t *indices,
                                 const int16_t *passed, const int32_t *values, int16_t *tape, float *first,
                                 int16_t *features, void *scratch) {
    const vc_octave o = {colours, height, width, scales, reach, companding};
    const vc_slopes slopes = {entries, zero, start, low, last, loc_gain};
    const vc_dense *last_layer = vc_dense_at(layers[0]), *pass = passed ? vc_dense_at(layers[1]) : NULL;
    const vc_dense *known = vc_dense_at(layers[7]);
    const vc_block_back block = block_back_at(layers + 2, shift);
    const int h = (height + 1) / 2, w = (width + 1) / 2, channels = block.space->channels, count = 6 * colours;
    const size_t step = vc_step(channels), in_step = vc_step(2 * count), row = (size_t)w * count;
    vc_arena arena = vc_arena_of(scratch);
    vc_prior_back own;
    prior_back_take(&arena, &own, w, colours, channels);
    ring_back_clear(&own.ring);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h) {
            parameters_back(&slopes, w, count, second + r * row, symbols + r * row, indices + r * row, own.values,
                            own.by_companded, own.parameters, in_step);
            blank_gradients(&o, 1, r, h, w, 1, own.parameters, in_step);
            if (pass) {
                const int16_t *from = vc_open(passed + (size_t)r * w * 4 * PASSED, w, 4 * PASSED, own.passed);
                vc_dense_plain(pass, w, from, vc_step(4 * PASSED), own.out, step);
                vc_dense_add(last_layer, w, own.parameters, in_step, own.out, step, own.g, step);
            } else {
                vc_dense_plain(last_layer, w, own.parameters, in_step, own.g, step);
            }
            ring_back_feed(&block, &own.ring, r, own.g, step, vc_tape_at(tape, w, channels, r));
        }
        if (r - 1 < top) continue;
        int16_t *to = features + (size_t)(r - 1) * w * channels, *made = vc_target(to, channels, own.out);
        block_back_row(&block, &own.ring, h, r - 1, vc_tape_at(tape, w, channels, r - 1), NULL, made, step);
        vc_dense_plain(known, w, made, step, own.inputs, in_step);
        blank_gradients(&o, 0, r - 1, h, w, 1, own.inputs, in_step);
        vc_close(made, w, channels, to);
        for (int i = 0; i < w; i++) {
            __builtin_memcpy(own.by_companded + i * count, own.inputs + i * in_step, (size_t)count * sizeof(int16_t));
            __builtin_memcpy(own.by_size + i * count, own.inputs + i * in_step + count, (size_t)count * sizeof(int16_t));
        }
        compand_back((int)row, values + (r - 1) * row, own.by_companded, own.by_size, unit, own.by_value);
        float *restrict sum = first + (r - 1) * row;
        const float *restrict added = own.by_value;
        for (size_t n = 0; n < row; n++) sum[n] += added[n];
    }
    return 0;
}

// The same of the first half.  `layers`: first, the block, in.  first: gradients by the values of the first half, with its
// symbols and table indices; features: those by the features, from above.  planes, parents_first, parents_second: the
// inputs of prior_first.  Writes gradients by the details of the low-pass planes, float [C, H, W], adds to those by the
// values of the coarser octave, float [.., across, 6C], and writes passed, by what that octave passed on, or NULL.
static int32_t prior_first_back(const void *const *layers, int32_t colours, int32_t height, int32_t width,
                                int32_t scales, int32_t reach, const int16_t *companding, int32_t top, int32_t bottom,
                                int32_t shift, float unit, const int32_t *entries, const int32_t *zero,
                                const int32_t *start, const int32_t *low, const int32_t *last, float loc_gain,
                                const float *first, const int32_t *symbols, const uint8_t *indices,
                                const int16_t *features, const int32_t *planes, const int32_t *parents_first,
                                const int32_t *parents_second, int32_t across, int16_t *tape, float *details,
                                float *coarser_first, float *coarser_second, int16_t *passed, void *scratch) {
    const vc_octave o = {colours, height, width, scales, reach, companding};
    const vc_slopes slopes = {entries, zero, start, low, last, loc_gain};
    const vc_dense *first_layer = vc_dense_at(layers[0]), *enter = vc_dense_at(layers[6]);
    const vc_block_back block = block_back_at(layers + 1, shift);
    const int h = (height + 1) / 2, w = (width + 1) / 2, channels = block.space->channels, count = 6 * colours;
    const int side = 7 * colours + (passed ? PASSED : 0), subbands = SUBBANDS * colours;
    const size_t step = vc_step(channels), in_step = vc_step(2 * count), out_step = vc_step(enter->channels);
    const size_t row = (size_t)w * count;
    float *coarser[2] = {coarser_first, coarser_second};
    vc_halves halves;
    halves_of(colours, &halves);
    vc_arena arena = vc_arena_of(scratch);
    vc_prior_back own;
    prior_back_take(&arena, &own, w, colours, channels);
    ring_back_clear(&own.ring);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h) {
            parameters_back(&slopes, w, count, first + r * row, symbols + r * row, indices + r * row, own.values,
                            own.by_companded, own.parameters, in_step);
            blank_gradients(&o, 0, r, h, w, 1, own.parameters, in_step);
            const int16_t *added = vc_open(features + (size_t)r * w * channels, w, channels, own.out);
            vc_dense_add(first_layer, w, own.parameters, in_step, added, step, own.g, step);
            ring_back_feed(&block, &own.ring, r, own.g, step, vc_tape_at(tape, w, channels, r));
        }
        if (r - 1 < top) continue;
        const int y = r - 1;
        block_back_row(&block, &own.ring, h, y, vc_tape_at(tape, w, channels, y), NULL, own.out, step);
        vc_dense_plain(enter, w, own.out, step, own.inputs, out_step);
        for (int n = 0; n < 2 * colours; n++) {
            const int line = 2 * y + n / colours, colour = n % colours;
            if (line >= height) continue;
            const int16_t *g = own.inputs + n / colours * 2 * colours + colour;
            for (int s = 0; s < w; s++, g += out_step) {
                own.by_companded[2 * s] = g[0], own.by_companded[2 * s + 1] = g[colours];
                own.by_size[2 * s] = g[side], own.by_size[2 * s + 1] = g[side + colours];
            }
            detail_row(planes + (size_t)colour * height * width, height, width, line, own.own.column, own.own.detail);
            compand_back(width, own.own.detail, own.by_companded, own.by_size, unit,
                         details + ((size_t)colour * height + line) * width);
        }
        if (coarser_first) {
            const int32_t *parents[2] = {parents_first, parents_second};
            const size_t begin = (size_t)(y / 2) * across * count;
            for (int s = 0, n = 0; s < w; s++) {
                const int place = y % 2 * 2 + s % 2;
                const int16_t *g = own.inputs + s * out_step + 4 * colours;
                for (int plane = 0; plane < subbands; plane++, n++) {
                    const size_t at = begin + (size_t)(s / 2) * count + halves.channel[place][plane];
                    own.values[n] = parents[halves.half[place][plane]][at];
                    own.by_companded[n] = g[plane], own.by_size[n] = g[plane + side];
                }
            }
            compand_back(w * subbands, own.values, own.by_companded, own.by_size, unit, own.by_value);
            for (int s = 0, n = 0; s < w; s++) {
                const int place = y % 2 * 2 + s % 2;
                for (int plane = 0; plane < subbands; plane++, n++)
                    coarser[halves.half[place][plane]][begin + (size_t)(s / 2) * count + halves.channel[place][plane]] +=
                        own.by_value[n];
            }
        }
        for (int s = 0; passed && s < w; s++)
            __builtin_memcpy(passed + (((size_t)(y / 2) * across + s / 2) * 4 + y % 2 * 2 + s % 2) * PASSED,
                             own.inputs + s * out_step + 7 * colours, PASSED * sizeof *passed);
    }
    return 0;
}

#define GRADIENT_KERNELS(X)                                                                                       \
    X(block_back_scratch) X(block_back) X(prior_back_scratch) X(prior_second_back) X(prior_first_back)
