// Layers of integer networks: dense, depthwise, and the residual block, a row of cells at a time.
//
// Activations and weights are int16, sums int32.  Layers are refused at loading unless sum|w| * limit + |bias| + rounding
// stays below 2^31 for every output.  A row of w cells is int16 [w, step]: `step` is the number of channels where that is a
// multiple of LANES (arrays), else channels rounded up (vc_stride); the contents of the padding do not matter, but
// may be read and written.  vc_open and vc_close stand between an array of any width and the rows of the kernels.
//
//   Packed layers, in memory of dense_size or depthwise_size lines of 64 bytes that the caller owns:
//     pack_dense, pack_depthwise          kernels: weights in the order of the tiles, biases with half a unit, shifts
//     vc_dense_at, vc_depthwise_at        memory -> layer
//     vc_block_at                         five pointers to such memory (in, space, out, gate, mix) -> vc_block
//   Layers of a row (low, limit and shifts are the layer's):
//     vc_dense_plain    out = clip(round(x . kernel + bias))
//     vc_dense_vector   clip(that + vector)            vector and multiplier: int32, padded to whole vectors
//     vc_dense_add      clip(that + residual)
//     vc_dense_add_mul  clip(round(clip(that + residual) * multiplier, 12))
//     vc_dense_gate     clip(round(clip(a, 0, limit) * clip(b, -limit, limit), gate))
//     vc_dense_sums     int32 out = x . kernel + bias
//     vc_depthwise_row  out [w] from three rows [w + 2], the first and last cell zero
//   Blocks over a strip of rows, in a ring of three:
//     vc_ring_take      takes the rows from an arena (or counts bytes); vc_ring_clear zeroes their margins
//     vc_ring_feed      row r is in ring->x[r % 3]: computes its first layer.  In order of r, from one row above the
//                       strip, where there is one, to one below
//     vc_block_row      row r, after row r + 1 was fed: [w, step] of the channels
//     vc_ring_keep      before row r is fed: its first layer stays in a tape, for gradients.h
//
// Scratch: vc_arena hands out pieces of the caller's memory, aligned to 64 bytes.  The size functions run the same
// calls on an empty arena.

#define VC_KERNEL static __attribute__((noinline, unused))

typedef struct { uintptr_t at; } vc_arena;
VC_INLINE vc_arena vc_arena_of(const void *memory) {
    vc_arena arena = {((uintptr_t)memory + 63) & ~(uintptr_t)63};
    return arena;
}
VC_INLINE void *vc_take(vc_arena *arena, size_t bytes) {
    uintptr_t at = arena->at;
    arena->at += (bytes + 63) & ~(size_t)63;
    return (void *)at;
}
// Lines of 64 bytes that an arena which began empty has handed out, and one to align the first.
VC_INLINE int32_t vc_lines(const vc_arena *arena) { return (int32_t)(arena->at / 64 + 1); }

VC_INLINE size_t vc_stride(int channels) { return ((size_t)channels + 2 * LANES - 1) / (2 * LANES) * (2 * LANES); }
VC_INLINE size_t vc_step(int channels) { return channels % LANES ? vc_stride(channels) : (size_t)channels; }
VC_INLINE int vc_vectors(int channels) { return (channels + LANES - 1) / LANES; }

// A row [w, channels] of an array as one that kernels read: itself, or a copy in `own`, of w * vc_stride.
static inline const int16_t *vc_open(const int16_t *row, int w, int channels, int16_t *own) {
    const size_t step = vc_step(channels);
    if (step == (size_t)channels) return row;
    for (int i = 0; i < w; i++)
        __builtin_memcpy(own + i * step, row + (size_t)i * channels, (size_t)channels * sizeof *row);
    return own;
}
// The same the other way: where kernels write a row (`vc_target`), and, after they did, the copy into the array.
static inline int16_t *vc_target(int16_t *row, int channels, int16_t *own) { return channels % LANES ? own : row; }
static inline void vc_close(const int16_t *made, int w, int channels, int16_t *row) {
    const size_t step = vc_step(channels);
    if (made == row) return;
    for (int i = 0; i < w; i++)
        __builtin_memcpy(row + (size_t)i * channels, made + i * step, (size_t)channels * sizeof *row);
}
static inline const int32_t *vc_padded(const int32_t *vector, int channels, vc_arena *arena) {
    int32_t *out = vc_take(arena, vc_stride(channels) * sizeof *out);
    for (size_t n = 0; vector && n < vc_stride(channels); n++) out[n] = n < (size_t)channels ? vector[n] : 0;
    return vector ? out : NULL;
}

// ---------------------------------------------------------------------------------------------------------------- dense

enum { VC_LINEAR, VC_RELU, VC_GATE, VC_SUMS };                  // what a layer is packed for
enum { AS_PLAIN = 0, AS_VECTOR = 1, AS_ADD = 2, AS_MUL = 4, AS_GATE = 8, AS_SUMS = 16, AS_KEPT = 32 };  // what a row is made by

// Weights: panels of up to PANEL vectors of outputs; in a panel, for each pair of inputs, one VW for each vector.  A
// panel of a gate is a vector of its first half and the same of its second; biases and shifts are in that order.
typedef struct {
    const int16_t *weights;
    const int32_t *bias, *shifts;
    int32_t form, inputs, channels, pairs, vectors, low, limit, gate;  // channels of the result
} vc_dense;

static inline int panel_width(const vc_dense *p, int vector) {
    if (p->form == VC_GATE) return 2;
    return p->vectors - vector < PANEL ? p->vectors - vector : PANEL;
}
// The output of a lane, or -1 in the padding.
static inline int output_of(const vc_dense *p, int vector, int lane) {
    const int gate = p->form == VC_GATE, n = (gate ? vector / 2 : vector) * LANES + lane;
    return n >= p->channels ? -1 : gate && vector % 2 ? p->channels + n : n;
}
static inline vc_dense *dense_take(vc_arena *arena, int inputs, int outputs, int form, vc_dense *size) {
    vc_dense *memory = vc_take(arena, sizeof *memory);
    size->inputs = inputs, size->form = form, size->channels = form == VC_GATE ? outputs / 2 : outputs;
    size->pairs = (inputs + 1) / 2, size->vectors = vc_vectors(size->channels) * (form == VC_GATE ? 2 : 1);
    const size_t lanes = (size_t)size->vectors * LANES;
    size->weights = vc_take(arena, lanes * size->pairs * 2 * sizeof(int16_t));
    size->bias = vc_take(arena, lanes * sizeof(int32_t));
    size->shifts = vc_take(arena, lanes * sizeof(int32_t));
    return memory;
}
static inline const vc_dense *vc_dense_at(const void *memory) { return (const vc_dense *)vc_arena_of(memory).at; }

static int32_t dense_size(int32_t inputs, int32_t outputs, int32_t form) {
    vc_arena arena = {0};
    vc_dense size;
    dense_take(&arena, inputs, outputs, form, &size);
    return vc_lines(&arena);
}

// kernel int16 [inputs, outputs], bias and shifts int32 [outputs]; `gate` is the shift of the product of a gate.
static int32_t pack_dense(int32_t inputs, int32_t outputs, int32_t form, int32_t limit, int32_t gate,
                          const int16_t *kernel, const int32_t *bias, const int32_t *shifts, void *memory) {
    vc_arena arena = vc_arena_of(memory);
    vc_dense made, *p = dense_take(&arena, inputs, outputs, form, &made);
    made.low = form == VC_RELU ? 0 : -limit, made.limit = limit, made.gate = gate;
    int16_t *w = (int16_t *)made.weights;
    int32_t *b = (int32_t *)made.bias, *s = (int32_t *)made.shifts;
    for (int first = 0, width; first < made.vectors; first += width) {
        width = panel_width(&made, first);
        for (int pair = 0; pair < made.pairs; pair++)
            for (int j = 0; j < width; j++, w += 2 * LANES)
                for (int n = 0; n < 2 * LANES; n++) {
                    const int output = output_of(&made, first + j, n / 2), input = 2 * pair + n % 2;
                    w[weight_place(n / 2, n % 2)] =
                        output >= 0 && input < inputs ? kernel[(size_t)input * outputs + output] : 0;
                }
        for (int n = 0; n < width * LANES; n++) {
            const int output = output_of(&made, first + n / LANES, n % LANES);
            const int32_t shift = output < 0 || form == VC_SUMS ? 0 : shifts[output];
            *b++ = vc_add(output < 0 ? 0 : bias[output], shift ? (int32_t)1 << (shift - 1) : 0);
            *s++ = shift;
        }
    }
    *p = made;
    return 0;
}

// What a row is made of, beside the layer: pointers are those of the first vector of a panel, at the first cell.
typedef struct {
    const int16_t *x, *weights, *residual;
    const int32_t *bias, *shifts, *vector, *multiplier;
    int16_t *kept;  // both factors of a gate for each cell, kept_step apart
    char *out;
    size_t x_step, residual_step, out_step, kept_step;
    int pairs, low, limit, gate;
} vc_work;

VC_INLINE VI finish(const int mode, VI sum, VS shifts, const vc_work *k, const int vector, const int16_t *residual) {
    const VI high = v_set(k->limit), least = v_set(-k->limit);
    VI t = v_clip(v_shift_each(sum, shifts), v_set(k->low), high);
    if (mode & AS_VECTOR) t = v_clip(v_add(t, v_load32(k->vector + vector * LANES)), least, high);
    if (mode & AS_ADD) t = v_clip(v_add(t, v_load16(residual + vector * LANES)), least, high);
    if (mode & AS_MUL) {
        t = v_product(v_load32(k->multiplier + vector * LANES), t);
        t = v_clip(v_shift(v_add(t, v_set(1 << 11)), 12), least, high);
    }
    return t;
}
VC_INLINE VI gated(const int mode, VI a, VI b, VS a_shifts, VS b_shifts, const vc_work *k, size_t cell) {
    const VI high = v_set(k->limit), least = v_set(-k->limit), half = v_set(k->gate ? 1 << (k->gate - 1) : 0);
    a = v_clip(v_shift_each(a, a_shifts), v_set(0), high);
    b = v_clip(v_shift_each(b, b_shifts), least, high);
    if (mode & AS_KEPT) {
        v_store16(k->kept + 2 * cell * k->kept_step, a);
        v_store16(k->kept + (2 * cell + 1) * k->kept_step, b);
    }
    return v_clip(v_shift(v_add(v_product(a, b), half), k->gate), least, high);
}

// `cells` cells times `width` vectors of outputs; both are constants.  Unrolled by macros: Clang leaves such loops as
// they are, and its sums spill to memory.
#define EACH_CELL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
VC_INLINE void tile(const int cells, const int width, const int mode, const vc_work *k, size_t first) {
    const VI b0 = v_load32(k->bias), b1 = width > 1 ? v_load32(k->bias + LANES) : b0,
             b2 = width > 2 ? v_load32(k->bias + 2 * LANES) : b0;
#define X(i) VI a##i##_0 = b0, a##i##_1 = b1, a##i##_2 = b2;
    EACH_CELL(X)
#undef X
    const size_t step = k->x_step;
    const int16_t *xa = k->x + first * step, *xb = xa + 3 * step, *xc = xa + 6 * step, *w = k->weights;
    for (int pair = k->pairs; pair > 0; pair--, w += width * LANES * 2, xa += 2, xb += 2, xc += 2) {
        const VW w0 = v_weights(w), w1 = width > 1 ? v_weights(w + LANES * 2) : w0,
                 w2 = width > 2 ? v_weights(w + LANES * 4) : w0;
#define X(i)                                                            \
    if (i < cells) {                                                    \
        const VX x = v_pair((i < 3 ? xa : i < 6 ? xb : xc) + i % 3 * step); \
        a##i##_0 = v_dot(a##i##_0, x, w0);                              \
        if (width > 1) a##i##_1 = v_dot(a##i##_1, x, w1);               \
        if (width > 2) a##i##_2 = v_dot(a##i##_2, x, w2);               \
    }
        EACH_CELL(X)
#undef X
    }
    char *out = k->out + first * k->out_step;
    if (mode == AS_SUMS) {
#define X(i)                                                                                    \
    if (i < cells) {                                                                            \
        int32_t *o = (int32_t *)(out + i * k->out_step);                                        \
        v_store32(o, a##i##_0);                                                                 \
        if (width > 1) v_store32(o + LANES, a##i##_1);                                          \
        if (width > 2) v_store32(o + 2 * LANES, a##i##_2);                                      \
    }
        EACH_CELL(X)
#undef X
        return;
    }
    const VS s0 = v_shifts(k->shifts), s1 = width > 1 ? v_shifts(k->shifts + LANES) : s0,
             s2 = width > 2 ? v_shifts(k->shifts + 2 * LANES) : s0;
    const int16_t *residual = mode & AS_ADD ? k->residual + first * k->residual_step : NULL;
#define X(i)                                                                                    \
    if (i < cells) {                                                                            \
        int16_t *o = (int16_t *)(out + i * k->out_step);                                        \
        const int16_t *r = mode & AS_ADD ? residual + i * k->residual_step : NULL;              \
        if (mode & AS_GATE) {                                                                   \
            v_store16(o, gated(mode, a##i##_0, a##i##_1, s0, s1, k, first + i));                \
        } else {                                                                                \
            v_store16(o, finish(mode, a##i##_0, s0, k, 0, r));                                  \
            if (width > 1) v_store16(o + LANES, finish(mode, a##i##_1, s1, k, 1, r));           \
            if (width > 2) v_store16(o + 2 * LANES, finish(mode, a##i##_2, s2, k, 2, r));       \
        }                                                                                       \
    }
    EACH_CELL(X)
#undef X
}

VC_INLINE void panel(const int width, const int mode, const vc_work *k, int w) {
    int i = 0;
    for (; i + CELLS <= w; i += CELLS) tile(CELLS, width, mode, k, (size_t)i);
    for (; CELLS > 4 && i + 4 <= w; i += 4) tile(4, width, mode, k, (size_t)i);
    for (; i < w; i++) tile(1, width, mode, k, (size_t)i);
}

VC_INLINE void dense_row(const int mode, const vc_dense *p, vc_work k, int w) {
    const size_t size = mode == AS_SUMS ? sizeof(int32_t) : sizeof(int16_t);
    k.weights = p->weights, k.bias = p->bias, k.shifts = p->shifts;
    k.pairs = p->pairs, k.low = p->low, k.limit = p->limit, k.gate = p->gate, k.out_step *= size;
    for (int first = 0, width; first < p->vectors; first += width) {
        width = panel_width(p, first);
        if ((mode & AS_GATE) || (PANEL > 1 && width == 2)) panel(2, mode, &k, w);
        else if (PANEL > 2 && width == 3) panel(3, mode, &k, w);
        else panel(1, mode, &k, w);
        const size_t lanes = (size_t)width * LANES;
        k.weights += lanes * p->pairs * 2, k.bias += lanes, k.shifts += lanes;
        k.out += (mode & AS_GATE ? LANES : lanes) * size;
        if (mode & AS_KEPT) k.kept += LANES;
        if (mode & AS_VECTOR) k.vector += lanes;
        if (mode & AS_ADD) k.residual += lanes;
        if (mode & AS_MUL) k.multiplier += lanes;
    }
}

VC_KERNEL void vc_dense_plain(const vc_dense *p, int w, const int16_t *x, size_t x_step, int16_t *out,
                              size_t out_step) {
    dense_row(AS_PLAIN, p, (vc_work){.x = x, .x_step = x_step, .out = (char *)out, .out_step = out_step}, w);
}
VC_KERNEL void vc_dense_vector(const vc_dense *p, int w, const int16_t *x, size_t x_step, const int32_t *vector,
                               int16_t *out, size_t out_step) {
    const vc_work k = {.x = x, .x_step = x_step, .vector = vector, .out = (char *)out, .out_step = out_step};
    dense_row(AS_VECTOR, p, k, w);
}
VC_KERNEL void vc_dense_add(const vc_dense *p, int w, const int16_t *x, size_t x_step, const int16_t *residual,
                            size_t residual_step, int16_t *out, size_t out_step) {
    const vc_work k = {.x = x, .x_step = x_step, .residual = residual, .residual_step = residual_step,
                       .out = (char *)out, .out_step = out_step};
    dense_row(AS_ADD, p, k, w);
}
VC_KERNEL void vc_dense_add_mul(const vc_dense *p, int w, const int16_t *x, size_t x_step, const int16_t *residual,
                                size_t residual_step, const int32_t *multiplier, int16_t *out, size_t out_step) {
    const vc_work k = {.x = x, .x_step = x_step, .residual = residual, .residual_step = residual_step,
                       .multiplier = multiplier, .out = (char *)out, .out_step = out_step};
    dense_row(AS_ADD | AS_MUL, p, k, w);
}
VC_KERNEL void vc_dense_gate(const vc_dense *p, int w, const int16_t *x, size_t x_step, int16_t *out,
                             size_t out_step) {
    dense_row(AS_GATE, p, (vc_work){.x = x, .x_step = x_step, .out = (char *)out, .out_step = out_step}, w);
}
VC_KERNEL void vc_dense_gate_kept(const vc_dense *p, int w, const int16_t *x, size_t x_step, int16_t *kept,
                                  size_t kept_step, int16_t *out, size_t out_step) {
    const vc_work k = {.x = x, .x_step = x_step, .kept = kept, .kept_step = kept_step,
                       .out = (char *)out, .out_step = out_step};
    dense_row(AS_GATE | AS_KEPT, p, k, w);
}
VC_KERNEL void vc_dense_sums(const vc_dense *p, int w, const int16_t *x, size_t x_step, int32_t *out,
                             size_t out_step) {
    dense_row(AS_SUMS, p, (vc_work){.x = x, .x_step = x_step, .out = (char *)out, .out_step = out_step}, w);
}

// ------------------------------------------------------------------------------------------------------------ depthwise

#ifndef SPACE_TAPS  // vectors keep channels in order, unlike in simd_x86.h
#define SPACE_TAPS 9
VC_INLINE int space_channel(int half, int lane) { return half * LANES + lane; }
static inline void space_pack(int16_t *out, const int16_t *taps, int channels, int first) {
    for (int tap = 0; tap < 9; tap++)
        for (int n = 0; n < 2 * LANES; n++)
            *out++ = first + n < channels ? taps[(size_t)tap * channels + first + n] : 0;
}
#endif

// In groups of 2 * LANES channels: SPACE_TAPS weights, then biases and shifts in the order of space_channel.
typedef struct {
    const int16_t *taps;
    const int32_t *bias, *shifts;
    int32_t channels, limit;
} vc_depthwise;

static inline vc_depthwise *depthwise_take(vc_arena *arena, int channels, vc_depthwise *size) {
    vc_depthwise *memory = vc_take(arena, sizeof *memory);
    const size_t stride = vc_stride(channels);
    size->channels = channels;
    size->taps = vc_take(arena, stride * SPACE_TAPS * sizeof(int16_t));
    size->bias = vc_take(arena, stride * sizeof(int32_t));
    size->shifts = vc_take(arena, stride * sizeof(int32_t));
    return memory;
}
static inline const vc_depthwise *vc_depthwise_at(const void *memory) {
    return (const vc_depthwise *)vc_arena_of(memory).at;
}

static int32_t depthwise_size(int32_t channels) {
    vc_arena arena = {0};
    vc_depthwise size;
    depthwise_take(&arena, channels, &size);
    return vc_lines(&arena);
}

// taps int16 [3, 3, channels], bias and shifts int32 [channels].
static int32_t pack_depthwise(int32_t channels, int32_t limit, const int16_t *taps, const int32_t *bias,
                              const int32_t *shifts, void *memory) {
    vc_arena arena = vc_arena_of(memory);
    vc_depthwise made, *p = depthwise_take(&arena, channels, &made);
    made.limit = limit;
    int32_t *b = (int32_t *)made.bias, *s = (int32_t *)made.shifts;
    for (int first = 0; first < channels; first += 2 * LANES) {
        space_pack((int16_t *)made.taps + (size_t)first * SPACE_TAPS, taps, channels, first);
        for (int n = 0; n < 2 * LANES; n++) {
            const int channel = first + space_channel(n / LANES, n % LANES);
            const int32_t shift = channel < channels ? shifts[channel] : 0;
            *b++ = vc_add(channel < channels ? bias[channel] : 0, shift ? (int32_t)1 << (shift - 1) : 0);
            *s++ = shift;
        }
    }
    *p = made;
    return 0;
}

// Rows above, here and below [w + 2, stride], stride = vc_stride(channels) -> out [w, stride].
VC_KERNEL void vc_depthwise_row(const vc_depthwise *p, int w, const int16_t *above, const int16_t *here,
                                const int16_t *below, int16_t *out) {
    const size_t stride = vc_stride(p->channels);
    for (size_t first = 0; first < stride; first += 2 * LANES) {
        VW taps[SPACE_TAPS];
        for (int n = 0; n < SPACE_TAPS; n++) taps[n] = v_weights(p->taps + first * SPACE_TAPS + n * 2 * LANES);
        const VI bias_a = v_load32(p->bias + first), bias_b = v_load32(p->bias + first + LANES);
        const VS shifts_a = v_shifts(p->shifts + first), shifts_b = v_shifts(p->shifts + first + LANES);
        for (size_t i = first; i < w * stride; i += stride) {
            VI a = bias_a, b = bias_b;
            v_space(above + i, here + i, below + i, (ptrdiff_t)stride, taps, &a, &b);
            v_store_space(out + i, v_shift_each(a, shifts_a), v_shift_each(b, shifts_b), p->limit);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- block

typedef struct {
    const vc_dense *in, *out, *gate, *mix;
    const vc_depthwise *space;
} vc_block;

enum { VC_BLOCK_LAYERS = 5 };
static inline vc_block vc_block_at(const void *const *layers) {
    vc_block block = {.in = vc_dense_at(layers[0]), .space = vc_depthwise_at(layers[1]),
                      .out = vc_dense_at(layers[2]), .gate = vc_dense_at(layers[3]), .mix = vc_dense_at(layers[4])};
    return block;
}

// Of rows r - 1, r and r + 1, at r % 3: inputs, which may lie elsewhere, [w, x_step], and first layers [w + 2, stride].
typedef struct {
    const int16_t *x[3];
    size_t x_step, stride;
    int w;
    int16_t *own[3], *first[3], *zero, *spread, *middle, *gated;  // own: where a caller may put inputs
    int16_t *rows[3];  // of first layers that are not in a tape
} vc_ring;

// What the gradients of a block need of its row: first layers [w + 2, stride] with their margins, and both factors of
// the gate [w, 2, stride].
VC_INLINE size_t vc_tape_row(int w, int channels) { return ((size_t)3 * w + 2) * vc_stride(channels); }
VC_INLINE int16_t *vc_tape_at(int16_t *tape, int w, int channels, int row) {
    return tape ? tape + row * vc_tape_row(w, channels) : NULL;
}

static inline void vc_ring_take(vc_arena *arena, vc_ring *ring, int w, int channels) {
    ring->w = w, ring->stride = vc_stride(channels), ring->x_step = ring->stride;
    const size_t cell = ring->stride * sizeof(int16_t), row = (size_t)w * cell;
    for (int n = 0; n < 3; n++) ring->x[n] = ring->own[n] = vc_take(arena, row);
    for (int n = 0; n < 3; n++) ring->first[n] = ring->rows[n] = vc_take(arena, row + 2 * cell);
    ring->zero = vc_take(arena, row + 2 * cell);
    ring->spread = vc_take(arena, row), ring->middle = vc_take(arena, row), ring->gated = vc_take(arena, row);
}
static inline void vc_ring_clear(const vc_ring *ring) {
    const size_t cell = ring->stride * sizeof(int16_t), row = (size_t)ring->w * cell;
    for (int n = 0; n < 3; n++) {
        __builtin_memset(ring->first[n], 0, cell);
        __builtin_memset((char *)ring->first[n] + cell + row, 0, cell);
    }
    __builtin_memset(ring->zero, 0, row + 2 * cell);
}
// Row r of a tape, or NULL: where the first layer of the next row that is fed is to stay.
static inline void vc_ring_keep(vc_ring *ring, int r, int16_t *row) {
    const size_t cell = ring->stride * sizeof *row;
    ring->first[r % 3] = row ? row : ring->rows[r % 3];
    if (!row) return;
    __builtin_memset(row, 0, cell);
    __builtin_memset(row + ((size_t)ring->w + 1) * ring->stride, 0, cell);
}
static inline void vc_ring_feed(const vc_block *p, const vc_ring *ring, int r) {
    vc_dense_plain(p->in, ring->w, ring->x[r % 3], ring->x_step, ring->first[r % 3] + ring->stride, ring->stride);
}
// Row r of h; `multiplier` and the row of a tape may be NULL.
static inline void vc_block_row(const vc_block *p, const vc_ring *ring, int h, int r, const int32_t *multiplier,
                                int16_t *tape, int16_t *out, size_t out_step) {
    const int w = ring->w;
    const size_t stride = ring->stride;
    const int16_t *above = r > 0 ? ring->first[(r - 1) % 3] : ring->zero;
    const int16_t *below = r + 1 < h ? ring->first[(r + 1) % 3] : ring->zero;
    vc_depthwise_row(p->space, w, above, ring->first[r % 3], below, ring->spread);
    vc_dense_add(p->out, w, ring->spread, stride, ring->x[r % 3], ring->x_step, ring->middle, stride);
    if (tape)
        vc_dense_gate_kept(p->gate, w, ring->middle, stride, tape + (w + 2) * stride, stride, ring->gated, stride);
    else
        vc_dense_gate(p->gate, w, ring->middle, stride, ring->gated, stride);
    if (multiplier)
        vc_dense_add_mul(p->mix, w, ring->gated, stride, ring->middle, stride, multiplier, out, out_step);
    else
        vc_dense_add(p->mix, w, ring->gated, stride, ring->middle, stride, out, out_step);
}

// -------------------------------------------------------------------------------------------- kernels for whole arrays

typedef struct { int16_t *x, *residual, *out; int32_t *sums; const int32_t *vector, *multiplier; } vc_dense_rows;
static inline vc_dense_rows dense_rows_take(vc_arena *arena, int n, int inputs, int channels, const int32_t *vector,
                                            const int32_t *multiplier) {
    vc_dense_rows rows;
    rows.x = vc_take(arena, (size_t)n * vc_stride(inputs) * sizeof(int16_t));
    rows.residual = vc_take(arena, (size_t)n * vc_stride(channels) * sizeof(int16_t));
    rows.out = vc_take(arena, (size_t)n * vc_stride(channels) * sizeof(int16_t));
    rows.sums = vc_take(arena, (size_t)n * vc_stride(channels) * sizeof(int32_t));
    rows.vector = vc_padded(vector, channels, arena), rows.multiplier = vc_padded(multiplier, channels, arena);
    return rows;
}
enum { DENSE_CELLS = 256 };  // at once, so that they stay in cache

static int32_t dense_scratch(int32_t inputs, int32_t channels) {
    vc_arena arena = {0};
    dense_rows_take(&arena, DENSE_CELLS, inputs, channels, NULL, NULL);
    return vc_lines(&arena);
}

// x [n, inputs] -> out [n, channels], int16, or int32 of a layer packed as VC_SUMS.  A vector, or a residual, and with
// that a multiplier, may be there; else NULL.
static int32_t dense(const void *layer, int32_t n, const int16_t *x, const int32_t *vector, const int16_t *residual,
                     const int32_t *multiplier, void *out, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    vc_arena arena = vc_arena_of(scratch);
    const int c = p->channels;
    const vc_dense_rows own = dense_rows_take(&arena, DENSE_CELLS, p->inputs, c, vector, multiplier);
    const size_t x_step = vc_step(p->inputs), step = vc_step(c), stride = vc_stride(c);
    for (int first = 0, w; first < n; first += w) {
        w = n - first < DENSE_CELLS ? n - first : DENSE_CELLS;
        const int16_t *in = vc_open(x + (size_t)first * p->inputs, w, p->inputs, own.x);
        if (p->form == VC_SUMS) {
            vc_dense_sums(p, w, in, x_step, own.sums, stride);
            for (int i = 0; i < w; i++)
                __builtin_memcpy((int32_t *)out + ((size_t)first + i) * c, own.sums + i * stride, (size_t)c * 4);
            continue;
        }
        int16_t *row = (int16_t *)out + (size_t)first * c, *made = vc_target(row, c, own.out);
        const int16_t *r = residual ? vc_open(residual + (size_t)first * c, w, c, own.residual) : NULL;
        if (p->form == VC_GATE) vc_dense_gate(p, w, in, x_step, made, step);
        else if (multiplier) vc_dense_add_mul(p, w, in, x_step, r, step, own.multiplier, made, step);
        else if (residual) vc_dense_add(p, w, in, x_step, r, step, made, step);
        else if (vector) vc_dense_vector(p, w, in, x_step, own.vector, made, step);
        else vc_dense_plain(p, w, in, x_step, made, step);
        vc_close(made, w, c, row);
    }
    return 0;
}

typedef struct { vc_ring ring; int16_t *out; const int32_t *multiplier; } vc_block_rows;
static inline void block_rows_take(vc_arena *arena, vc_block_rows *rows, int w, int channels,
                                   const int32_t *multiplier) {
    vc_ring_take(arena, &rows->ring, w, channels);
    rows->out = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
    rows->multiplier = vc_padded(multiplier, channels, arena);
}
static int32_t block_scratch(int32_t w, int32_t channels) {
    vc_arena arena = {0};
    vc_block_rows rows;
    block_rows_take(&arena, &rows, w, channels, NULL);
    return vc_lines(&arena);
}

// Lines of the tape of a block, for all rows.
static int32_t tape_size(int32_t h, int32_t w, int32_t channels) {
    return (int32_t)(h * vc_tape_row(w, channels) * sizeof(int16_t) / 64 + 1);
}

// Rows [top, bottom) of out [h, w, channels] from x [h, w, channels]; `layers` are in, space, out, gate and mix.  `tape`
// is of tape_size, or NULL.
static int32_t block(const void *const *layers, int32_t h, int32_t w, int32_t top, int32_t bottom, const int16_t *x,
                     const int32_t *multiplier, int16_t *tape, int16_t *out, void *scratch) {
    const vc_block p = vc_block_at(layers);
    const int c = p.space->channels;
    const size_t line = (size_t)w * c;
    vc_arena arena = vc_arena_of(scratch);
    vc_block_rows rows;
    block_rows_take(&arena, &rows, w, c, multiplier);
    vc_ring_clear(&rows.ring);
    rows.ring.x_step = vc_step(c);
    for (int r = top > 0 ? top - 1 : 0; r <= bottom; r++) {
        if (r < h) {
            rows.ring.x[r % 3] = vc_open(x + r * line, w, c, rows.ring.own[r % 3]);
            vc_ring_keep(&rows.ring, r, r >= top && r < bottom ? vc_tape_at(tape, w, c, r) : NULL);
            vc_ring_feed(&p, &rows.ring, r);
        }
        if (r - 1 < top) continue;
        int16_t *row = out + (r - 1) * line, *made = vc_target(row, c, rows.out);
        int16_t *kept = vc_tape_at(tape, w, c, r - 1);
        vc_block_row(&p, &rows.ring, h, r - 1, rows.multiplier, kept, made, vc_step(c));
        vc_close(made, w, c, row);
    }
    return 0;
}

// x [h, w, channels] -> out, the same: the depthwise layer alone.
static int32_t depthwise(const void *layer, int32_t h, int32_t w, const int16_t *x, int16_t *out, void *scratch) {
    const vc_depthwise *p = vc_depthwise_at(layer);
    const size_t stride = vc_stride(p->channels), line = (size_t)w * p->channels;
    vc_arena arena = vc_arena_of(scratch);
    vc_ring ring;
    vc_ring_take(&arena, &ring, w, p->channels);
    vc_ring_clear(&ring);
    for (int r = 0; r <= h; r++) {
        for (int i = 0; i < w && r < h; i++)
            __builtin_memcpy(ring.first[r % 3] + (i + 1) * stride, x + r * line + (size_t)i * p->channels,
                             (size_t)p->channels * sizeof *x);
        if (r == 0) continue;
        const int16_t *above = r > 1 ? ring.first[(r - 2) % 3] : ring.zero;
        const int16_t *below = r < h ? ring.first[r % 3] : ring.zero;
        vc_depthwise_row(p, w, above, ring.first[(r - 1) % 3], below, ring.spread);
        for (int i = 0; i < w; i++)
            __builtin_memcpy(out + (r - 1) * line + (size_t)i * p->channels, ring.spread + i * stride,
                             (size_t)p->channels * sizeof *x);
    }
    return 0;
}

#define NETWORK_KERNELS(X)                                                                        \
    X(dense_size) X(pack_dense) X(dense_scratch) X(dense) X(depthwise_size) X(pack_depthwise)     \
    X(depthwise) X(block_scratch) X(tape_size) X(block)
