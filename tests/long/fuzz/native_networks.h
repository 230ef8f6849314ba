// Parts of native_target.c: the prior of an octave, residual blocks, the synthesis and the restoration filter.
//
// What these kernels read never decides where they read, so that an input gives sizes and a seed, and the numbers are
// drawn from it: any of their type, and weights as large as a model file may have.  Results are the same in two strips
// of rows as in one, whatever the scratch held: kernels may read its padding, which MSan would report.

typedef struct { uint64_t state; } random_source;

static uint32_t draw(random_source *r) {  // xorshift64*
    r->state ^= r->state >> 12, r->state ^= r->state << 25, r->state ^= r->state >> 27;
    return (uint32_t)(r->state * 0x2545f4914f6cdd1dull >> 32);
}
static random_source take_seed(input *in) {
    const random_source r = {((uint64_t)take(in, 1u << 24) << 24 | take(in, 1u << 24)) + 1};
    return r;
}
// Within +-most; often both ends, or small.
static int32_t number_within(random_source *r, int32_t most) {
    const uint32_t kind = draw(r) % 8;
    if (kind < 2) return kind ? most : -most;
    const int32_t reach = kind < 5 ? most : most / 64 + 1;
    return (int32_t)(draw(r) % (2 * (uint32_t)reach + 1)) - reach;
}
static int32_t *numbers32(random_source *r, size_t count, int32_t most) {
    int32_t *out = array(count, sizeof *out);
    for (size_t n = 0; n < count; n++) out[n] = most ? number_within(r, most) : (int32_t)draw(r);
    return out;
}
static int16_t *numbers16(random_source *r, size_t count, int32_t most) {
    int16_t *out = array(count, sizeof *out);
    for (size_t n = 0; n < count; n++) out[n] = (int16_t)number_within(r, most);
    return out;
}
static void *lines_of(int32_t lines) { return array((size_t)lines, 64); }
// Scratch that holds anything.
typedef struct {
    void *memory;
    size_t size;
} scratch_memory;
static scratch_memory scratch_of(size_t size) { return (scratch_memory){array(size, 1), size}; }
static void *stirred(scratch_memory s, random_source *r) { return memset(s.memory, (int)(draw(r) % 256), s.size); }

// ---- Layers ----

enum { LAYER_REACH = 1023, SUM_BITS = 24, LAYERS_MAX = 16 };

typedef struct {
    void *memory[LAYERS_MAX];
    int count;
} layer_list;

static const void *keep(layer_list *list, void *memory) { return list->memory[list->count++] = memory; }
static void free_layers(layer_list *list) {
    while (list->count) free(list->memory[--list->count]);
}
// No sum can reach 2^31, of inputs within +-reach.
static int32_t most_weight(int32_t inputs, int32_t reach) {
    return ll_min(32767, (int32_t)((INT32_MAX - (1 << SUM_BITS)) / ((int64_t)inputs * reach)));
}
static int32_t *shifts_of(random_source *r, int32_t count) {
    int32_t *out = array((size_t)count, sizeof *out);
    for (int32_t n = 0; n < count; n++) out[n] = (int32_t)(draw(r) % SUM_BITS);
    return out;
}
static const void *dense_layer(random_source *r, layer_list *list, int32_t inputs, int32_t outputs, int32_t form,
                               int32_t reach) {
    int16_t *kernel = numbers16(r, (size_t)inputs * outputs, most_weight(inputs, reach));
    int32_t *bias = numbers32(r, (size_t)outputs, 1 << (SUM_BITS - 2)), *shifts = shifts_of(r, outputs);
    void *memory = lines_of(dense_size(inputs, outputs, form));
    pack_dense(inputs, outputs, form, LAYER_REACH, (int32_t)(draw(r) % 12), kernel, bias, shifts, memory);
    free(kernel), free(bias), free(shifts);
    return keep(list, memory);
}
static void block_layers(random_source *r, layer_list *list, int32_t channels, const void **out) {
    out[0] = dense_layer(r, list, channels, channels, VC_RELU, LAYER_REACH);
    int16_t *taps = numbers16(r, 9 * (size_t)channels, most_weight(9, LAYER_REACH));
    int32_t *bias = numbers32(r, (size_t)channels, 1 << (SUM_BITS - 2)), *shifts = shifts_of(r, channels);
    void *memory = lines_of(depthwise_size(channels));
    pack_depthwise(channels, LAYER_REACH, taps, bias, shifts, memory);
    free(taps), free(bias), free(shifts);
    out[1] = keep(list, memory);
    out[2] = dense_layer(r, list, channels, channels, VC_LINEAR, LAYER_REACH);
    out[3] = dense_layer(r, list, channels, 2 * channels, VC_GATE, LAYER_REACH);
    out[4] = dense_layer(r, list, channels, channels, VC_LINEAR, LAYER_REACH);
}
// Channels: fewer than, as many as and more than the lanes of a vector.
static const int32_t CHANNELS[] = {1, 3, 8, 10, 16, 17, 32, 40};

// ---- The prior ----

static void prior_octave(input *in) {
    random_source r = take_seed(in);
    layer_list list = {{0}, 0};
    const int32_t colours = 1 + (int32_t)take(in, 4), features = CHANNELS[take(in, 8)], scales = 1 + (int32_t)take(in, 256);
    const int32_t height = 1 + (int32_t)take(in, 12), width = 1 + (int32_t)take(in, 12), reach = (int32_t)take(in, 400);
    const int32_t h = (height + 1) / 2, w = (width + 1) / 2, count = 6 * colours, has_coarser = (int32_t)take(in, 2);
    const int32_t across = has_coarser ? (w + 1) / 2 + (int32_t)take(in, 2) : 0, tall = (h + 1) / 2, split = (int32_t)take(in, (uint32_t)h + 1);
    const int32_t with_tape = (int32_t)take(in, 2), with_pass = (int32_t)take(in, 2);
    const size_t cells = (size_t)h * w, coarser = (size_t)tall * across;
    int16_t *companding = array((size_t)reach + 1, sizeof *companding);
    companding[0] = 0;
    for (int32_t n = 1; n <= reach; n++) companding[n] = (int16_t)ll_min(LAYER_REACH, companding[n - 1] + (int32_t)(draw(&r) % 9));
    const void *first[7], *second[8];
    first[0] = dense_layer(&r, &list, 14 * colours + (has_coarser ? PASSED : 0), features, VC_LINEAR, LAYER_REACH);
    block_layers(&r, &list, features, first + 1);
    first[6] = dense_layer(&r, &list, features, 2 * count, VC_SUMS, LAYER_REACH);
    second[0] = dense_layer(&r, &list, 2 * count, features, VC_LINEAR, LAYER_REACH);
    block_layers(&r, &list, features, second + 1);
    second[6] = dense_layer(&r, &list, features, 2 * count, VC_SUMS, LAYER_REACH);
    second[7] = with_pass ? dense_layer(&r, &list, features, 4 * PASSED, VC_LINEAR, LAYER_REACH) : NULL;
    int32_t *vector = numbers32(&r, (size_t)features, 1 << SUM_BITS);
    int32_t *low = numbers32(&r, (size_t)colours * height * width, 0), *values = numbers32(&r, cells * count, 0);
    int32_t *parents[2] = {numbers32(&r, coarser * count, 0), numbers32(&r, coarser * count, 0)};
    int16_t *passed = numbers16(&r, coarser * 4 * PASSED, LAYER_REACH);
    const scratch_memory scratch = scratch_of(64 * (size_t)prior_scratch(w, colours, features));
    const scratch_memory tape = scratch_of(64 * (size_t)tape_size(h, w, features));
    int16_t *out_passed = array(cells * 4 * PASSED, 2), *out[2];
    int32_t *loc[2];
    uint8_t *indices[2];
    const int32_t strips[3][2] = {{0, h}, {0, split}, {split, h}};
    for (int n = 0; n < 2; n++) {
        out[n] = array(cells * features, 2), loc[n] = array(cells * count, 4), indices[n] = array(cells * count, 1);
    }
    for (int n = 0; n < 3; n++)
        prior_first(first, colours, height, width, scales, reach, companding, strips[n][0], strips[n][1], vector, low,
                    has_coarser ? parents[0] : NULL, has_coarser ? parents[1] : NULL, has_coarser ? passed : NULL, across,
                    with_tape ? stirred(tape, &r) : NULL, out[n > 0], loc[n > 0], indices[n > 0], stirred(scratch, &r));
    must(!memcmp(out[0], out[1], cells * features * 2) && !memcmp(loc[0], loc[1], cells * count * 4) &&
         !memcmp(indices[0], indices[1], cells * count), "strips of the first half are equal");
    for (size_t n = 0; n < cells * count; n++) must(indices[0][n] < scales, "indices are those of tables");
    for (int n = 0; n < 3; n++)
        prior_second(second, colours, height, width, scales, reach, companding, strips[n][0], strips[n][1], out[0], values,
                     with_tape ? stirred(tape, &r) : NULL, with_pass ? out_passed : NULL, loc[n > 0], indices[n > 0], stirred(scratch, &r));
    must(!memcmp(loc[0], loc[1], cells * count * 4) && !memcmp(indices[0], indices[1], cells * count),
         "strips of the second half are equal");
    for (size_t n = 0; n < cells * count; n++) must(indices[0][n] < scales, "indices are those of tables");
    for (int n = 0; n < 2; n++) free(out[n]), free(loc[n]), free(indices[n]), free(parents[n]);
    free(companding), free(vector), free(low), free(values), free(passed), free(scratch.memory), free(tape.memory), free(out_passed);
    free_layers(&list);
}

// ---- The synthesis and the restoration filter ----

static void filter(random_source *r, int32_t channels, int32_t height, int32_t width, int32_t split, int32_t adjoint,
                   int32_t classes, const int32_t *rotation, const int16_t *levels) {
    const size_t size = (size_t)height * width * channels;
    int32_t *first = array((size_t)classes * WEIGHTS, 4), *shifts = array((size_t)classes, 4);
    for (int32_t n = 0; n < classes * WEIGHTS; n++) first[n] = number_within(r, 127);
    for (int32_t n = 0; n < classes; n++) shifts[n] = (int32_t)(draw(r) % 16);
    int32_t *ramps = numbers32(r, (size_t)classes - 1, 0), *others = array(channels > 1 ? 2 * (size_t)channels : 0, 4);
    for (int32_t n = 0; channels > 1 && n < 2 * channels; n++) others[n] = number_within(r, 127);
    const scratch_memory scratch = scratch_of((size_t)restoration_scratch(width, channels) + 63);
    uint8_t *pixels[2] = {array(size, 1), array(size, 1)};
    int16_t *out[2] = {array(size, 2), array(size, 2)};
    const int32_t strips[3][2] = {{0, height}, {0, split}, {split, height}};
    for (int n = 0; n < 3; n++) {
        restore(height, width, channels, strips[n][0], strips[n][1], classes, rotation, first, shifts, ramps, others, levels,
                stirred(scratch, r), NULL, out[n > 0], adjoint);
        restore(height, width, channels, strips[n][0], strips[n][1], classes, rotation, first, shifts, ramps, others, levels,
                stirred(scratch, r), pixels[n > 0], NULL, 0);
    }
    must(!memcmp(out[0], out[1], size * 2) && !memcmp(pixels[0], pixels[1], size), "strips of a filter are equal");
    free(first), free(shifts), free(ramps), free(others), free(scratch.memory);
    for (int n = 0; n < 2; n++) free(pixels[n]), free(out[n]);
}

static void synthesis(input *in) {
    random_source r = take_seed(in);
    layer_list list = {{0}, 0};
    const int32_t channels = 1 + (int32_t)take(in, 4), coarse = CHANNELS[take(in, 8)], fine = CHANNELS[take(in, 6)];
    const int32_t h = 1 + (int32_t)take(in, 2), w = 1 + (int32_t)take(in, 2), classes = take(in, 2) ? 4 : 1;
    const int32_t height = VC_CELL * h, width = VC_CELL * w, split = (int32_t)take(in, (uint32_t)height + 1);
    const size_t size = (size_t)height * width * channels;
    int32_t *bands[VC_OCTAVES], *low = numbers32(&r, (size_t)channels * h * w, 0);
    for (int n = 0; n < VC_OCTAVES; n++) bands[n] = numbers32(&r, (3 * size / 4) >> 2 * n, 0);
    const void *enter = dense_layer(&r, &list, 256 * channels, coarse, VC_LINEAR, 32768);
    const void *up = dense_layer(&r, &list, coarse, 4 * fine, VC_LINEAR, LAYER_REACH);
    const void *skip = dense_layer(&r, &list, 64 * channels, fine, VC_LINEAR, 32768);
    const void *last = dense_layer(&r, &list, fine, 64 * channels, VC_LINEAR, LAYER_REACH), *blocks[5];
    block_layers(&r, &list, fine, blocks);
    int32_t *multiplier = array((size_t)fine, 4), *rotation = array((size_t)channels * channels, 4);
    for (int32_t n = 0; n < fine; n++) multiplier[n] = (int32_t)(draw(&r) % 32768);
    for (int32_t n = 0; n < channels * channels; n++) rotation[n] = number_within(&r, (1 << 14) / channels);
    int32_t *planes = numbers32(&r, size, 0);
    int16_t *samples = array(size, 2), *x = array((size_t)h * w * coarse, 2), *levels[2];
    int16_t *y = array((size_t)4 * h * w * fine, 2), *z = array((size_t)4 * h * w * fine, 2);
    uint8_t *pixels[2];
    const scratch_memory scratch = scratch_of(64 * (size_t)transform_scratch(w, channels, coarse, fine));
    const scratch_memory own = scratch_of(64 * (size_t)block_scratch(2 * w, fine));
    inverse_colors(channels, height, width, 0, height, planes, rotation, samples);
    for (int n = 0; n < 2; n++) {
        levels[n] = array(size, 2), pixels[n] = array(size, 1);
        synthesis_coarse(enter, channels, h, w, 0, h, bands[0], bands[1], bands[2], bands[3], low, x, stirred(scratch, &r));
        synthesis_fine(up, skip, channels, h, w, 0, h, x, samples, multiplier, y, stirred(scratch, &r));
        block(blocks, 2 * h, 2 * w, 0, 2 * h, y, multiplier, NULL, z, stirred(own, &r));
        synthesis_pixels(last, channels, 2 * w, 0, 2 * h, z, samples, levels[n], pixels[n], stirred(scratch, &r));
    }
    must(!memcmp(levels[0], levels[1], size * 2) && !memcmp(pixels[0], pixels[1], size), "scratch does not matter");
    filter(&r, channels, height, width, split, classes == 1 && take(in, 2), classes, rotation, levels[0]);
    for (int n = 0; n < VC_OCTAVES; n++) free(bands[n]);
    for (int n = 0; n < 2; n++) free(levels[n]), free(pixels[n]);
    free(low), free(multiplier), free(rotation), free(planes), free(samples), free(x), free(y), free(z);
    free(scratch.memory), free(own.memory);
    free_layers(&list);
}
