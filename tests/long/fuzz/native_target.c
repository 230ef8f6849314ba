// A libFuzzer target for the kernels that read a stranger's bytes: the lossless coder, the ANS coder, the sorting of
// symbols, the wavelet and, in native_networks.h, the networks and the restoration filter.  native.py compiles it with one kind of kernels, and makes tables.h of the NumPy reference.
//
// Sizes are within what the Python callers check.  Every array has an allocation of its own, whose ends the sanitizers
// watch.  What an encoder wrote must decode to the same samples; positions that were taken off a stack and put back must
// give the stack; the forward wavelet must undo the inverse one.
#include "kind.c"
#include "tables.h"

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const uint8_t *next;
    size_t left;
} input;

static uint32_t take(input *in, uint32_t below) {  // below at most 2^24
    uint32_t value = 0;
    for (int n = 0; n < 3; n++) {
        value = value << 8 | (in->left ? *in->next : 0);
        if (in->left) in->next++, in->left--;
        if (below <= 256u << 8 * n) break;
    }
    return value % below;
}

static void *array(size_t count, size_t size) {
    void *memory = malloc(count * size ? count * size : 1);  // not cleared: MSan reports what is read before it is written
    if (!memory) abort();
    return memory;
}

static int32_t *integers(input *in, size_t count) {
    int32_t *out = array(count, sizeof *out);
    for (size_t n = 0; n < count; n++) {
        const uint32_t kind = take(in, 8);
        out[n] = kind == 0   ? (int32_t)(take(in, 1u << 16) << 16 | take(in, 1u << 16))
                 : kind == 1 ? (take(in, 2) ? INT32_MIN : INT32_MAX)
                             : (int32_t)take(in, 64) - 32;
    }
    return out;
}

static void must(int condition, const char *text) {
    if (condition) return;
    fprintf(stderr, "failed: %s\n", text);
    abort();
}

// ---- The lossless coder ----

typedef struct {
    int32_t channels, depth, bound, level, height, width, wide;
} shape;

static const int32_t WIDTHS[] = {1, 2, 7, 16, 25, 65};

static shape take_shape(input *in) {
    shape s = {1 + (int32_t)take(in, 4), 1 + (int32_t)take(in, 16), 0, 0, 1 + (int32_t)take(in, 5), 0, 0};
    if (take(in, 2)) s.channels = 1;
    s.level = take(in, 2) ? 0 : (int32_t)take(in, 7);
    s.bound = take(in, 3) ? 0 : (int32_t)take(in, 17);
    s.width = WIDTHS[take(in, 32) ? take(in, 5) : 5];
    s.wide = s.depth > 8;
    return s;
}

// The state of all planes before the first row.  Its memory is kept and filled again: to allocate megabytes takes longer
// than to decode.  A smaller state lies at the end of it, and AddressSanitizer watches what is before and behind.
static uint8_t *planes_of(shape s, int64_t *size) {
    static uint8_t *starts[6][2][7], *memory[5];
    const size_t room = (size_t)s.channels * 64 * lossless_size(WIDTHS[5], 16, 6);
    int place = 0;
    while (WIDTHS[place] != s.width) place++;
    *size = 64 * (int64_t)lossless_size(s.width, s.depth, s.level);
    uint8_t **start = &starts[place][s.wide][s.level], *kept = memory[s.channels];
    if (!*start) lossless_start(*start = aligned_alloc(64, (size_t)*size), s.width, s.depth, s.level);
    if (!kept) kept = memory[s.channels] = aligned_alloc(64, room);
    const size_t before = room - (size_t)*size * (size_t)s.channels;
    must(before <= room - (size_t)*size, "no state is larger than that");
    ASAN_POISON_MEMORY_REGION(kept, before);
    ASAN_UNPOISON_MEMORY_REGION(kept + before, room - before);
    for (int32_t n = 0; n < s.channels; n++) memcpy(kept + before + n * *size, *start, (size_t)*size);
    return kept + before;
}

static int32_t seen_by(shape s, int32_t plane) { return s.channels < 3 || plane > 2 ? 0 : plane; }
static int32_t channel_of(shape s, int32_t plane) {
    static const int32_t order[] = {1, 0, 2, 3};
    return s.channels < 3 ? plane : order[plane];
}

static void decode_planes(shape s, const uint8_t *const *streams, const size_t *sizes, uint8_t *image, int32_t rows) {
    int64_t size;
    uint8_t *memory = planes_of(s, &size);
    for (int32_t top = 0; top < s.height; top += rows)
        for (int32_t n = 0; n < s.channels; n++)
            lossless_decode(memory, size, n, seen_by(s, n), s.width, s.depth, s.bound, s.level, top,
                            ll_min(top + rows, s.height), image, s.wide, s.channels, channel_of(s, n), LOSSLESS_TABLES,
                            streams[n], (int64_t)sizes[n]);
}

static void check_samples(shape s, const uint8_t *image) {
    for (int64_t n = 0; n < (int64_t)s.height * s.width * s.channels; n++)
        must(ll_load(image, s.wide, n) >> s.depth == 0, "samples fit their depth");
}

static void lossless_stream(input *in) {
    const shape s = take_shape(in);
    const size_t count = (size_t)s.height * s.width * s.channels, part = in->left / s.channels;
    const int32_t rows = 1 + (int32_t)take(in, 4);
    uint8_t *image = array(count, 1 + s.wide), *copies[4];
    size_t sizes[4];
    for (int32_t n = 0; n < s.channels; n++) {
        sizes[n] = part < in->left ? part : in->left;
        copies[n] = array(sizes[n], 1);
        memcpy(copies[n], in->next, sizes[n]);
        in->next += sizes[n], in->left -= sizes[n];
    }
    decode_planes(s, (const uint8_t *const *)copies, sizes, image, rows);
    check_samples(s, image);
    for (int32_t n = 0; n < s.channels; n++) free(copies[n]);
    free(image);
}

static void lossless_round_trip(input *in) {
    const shape s = take_shape(in);
    const size_t count = (size_t)s.height * s.width * s.channels;
    uint8_t *image = array(count, 1 + s.wide), *decoded = array(count, 1 + s.wide), *before = array(count, 1 + s.wide);
    const int smooth = (int)take(in, 2);
    int32_t value = 0;
    for (size_t n = 0; n < count; n++) {
        value = smooth ? value + (int32_t)take(in, 7) - 3 : (int32_t)take(in, 1u << 16);
        ll_store(image, s.wide, (ptrdiff_t)n, value & ((1 << s.depth) - 1));
    }
    memcpy(before, image, count * (1 + s.wide));
    uint8_t *streams[4];
    int64_t size;
    size_t sizes[4];
    uint8_t *memory = planes_of(s, &size);
    for (int32_t n = 0; n < s.channels; n++) {
        streams[n] = array((size_t)LL_SAMPLE_BYTES * s.width * s.height + 1, 1);
        sizes[n] = (size_t)lossless_encode(memory, size, n, seen_by(s, n), s.width, s.depth, s.bound, s.level, 0, s.height,
                                           image, s.wide, s.channels, channel_of(s, n), LOSSLESS_TABLES, streams[n], 1);
    }
    for (size_t n = 0; n < count; n++)
        must(ll_abs(ll_load(image, s.wide, (ptrdiff_t)n) - ll_load(before, s.wide, (ptrdiff_t)n)) <= s.bound,
             "errors are within the bound");
    decode_planes(s, (const uint8_t *const *)streams, sizes, decoded, 1 + (int32_t)(count & 1));
    must(!memcmp(image, decoded, count * (1 + s.wide)), "a decoder gets what the encoder got");
    for (int32_t n = 0; n < s.channels; n++) free(streams[n]);
    free(image), free(decoded), free(before);
}

// ---- The ANS coder ----

static void ans_runs(input *in) {
    const int64_t tables = 1 + take(in, 3), runs = take(in, 4);
    int64_t offsets[4] = {0}, total = 0;
    uint32_t *bounds = array((size_t)tables * 41, sizeof *bounds);
    for (int64_t t = 0; t < tables; t++) {
        const int64_t entries = 1 + take(in, 40);
        uint32_t left = 1u << VC_ANS_BITS, *edges = bounds + offsets[t];
        edges[0] = 0;
        for (int64_t k = 0; k < entries; k++) {
            const uint32_t most = left - (uint32_t)(entries - 1 - k);
            const uint32_t size = k == entries - 1 ? left : take(in, 3) ? 1 + take(in, most) / 8 : 1;
            edges[k + 1] = edges[k] + size;
            left -= size;
        }
        offsets[t + 1] = offsets[t] + entries + 1;
    }
    uint16_t *lookup = array((size_t)tables * VC_SLOTS, sizeof *lookup);
    ans_lookup(tables, offsets, bounds, lookup);
    int32_t used[3], counts[3];
    for (int64_t r = 0; r < runs; r++) {
        used[r] = (int32_t)take(in, (uint32_t)tables);
        counts[r] = (int32_t)take(in, 60);
        total += counts[r];
    }
    const size_t words_given = in->left / 4;
    uint32_t *words = array(words_given + (size_t)total, sizeof *words), *before = array(words_given, sizeof *words);
    memcpy(words, in->next, 4 * words_given);
    memcpy(before, words, 4 * words_given);
    uint64_t memory[2] = {0, words_given};
    for (int n = 0; n < 2 && memory[1]; n++) memory[0] = memory[0] << 32 | words[--memory[1]];
    const uint64_t given[2] = {memory[0], memory[1]};
    int32_t *positions = array((size_t)total, sizeof *positions);
    ans_decode(memory, words, runs, used, counts, offsets, bounds, lookup, positions);
    const int whole = given[0] >> 32 && memory[0] >> 32;  // a stack that ran empty does not remember its zeros
    must(!ans_encode(memory, words, runs, used, counts, offsets, bounds, total, positions), "positions can be coded");
    if (whole) {
        must(memory[0] == given[0] && memory[1] == given[1], "the stack is as before");
        must(!memcmp(words, before, 4 * memory[1]), "the words are as before");
    }
    if (total) {
        positions[total / 2] = (int32_t)(take(in, 2) ? 41 : -1);
        must(ans_encode(memory, words, runs, used, counts, offsets, bounds, total, positions), "others are refused");
    }
    free(bounds), free(lookup), free(words), free(before), free(positions);
}

static void ans_others(input *in) {
    const int32_t n = (int32_t)take(in, 40), entries = 1 + (int32_t)take(in, 9), bits = 1 + (int32_t)take(in, 24);
    uint32_t *bounds = array((size_t)n * (entries + 1), sizeof *bounds);
    for (int32_t k = 0; k < n; k++) {
        uint32_t *edges = bounds + k * (entries + 1);
        edges[0] = 0;
        for (int32_t i = 1; i <= entries; i++)
            edges[i] = i == entries ? 1u << VC_ANS_BITS : edges[i - 1] + 1 + take(in, 1u << 21);
    }
    const size_t given = in->left / 4;
    uint32_t *words = array(given + 2 * (size_t)n, sizeof *words);
    int32_t *positions = array((size_t)n, sizeof *positions), *numbers = array((size_t)n, sizeof *numbers);
    memcpy(words, in->next, 4 * given);
    uint64_t memory[2] = {0, given};
    for (int k = 0; k < 2 && memory[1]; k++) memory[0] = memory[0] << 32 | words[--memory[1]];
    const uint64_t before[2] = {memory[0], memory[1]};
    ans_decode_each(memory, words, n, entries, bounds, positions);
    ans_decode_uniform(memory, words, n, bits, numbers);
    const int whole = before[0] >> 32 && memory[0] >> 32;
    must(!ans_encode_uniform(memory, words, n, bits, numbers), "numbers can be coded");
    must(!ans_encode_each(memory, words, n, entries, bounds, positions), "positions can be coded");
    if (whole) must(memory[0] == before[0] && memory[1] == before[1], "the stack is as before");
    free(bounds), free(words), free(positions), free(numbers);
}

// ---- Symbols ----

static void symbols_of_tables(input *in) {
    const int64_t n = take(in, 300);
    const int32_t tables = 1 + (int32_t)take(in, 256);
    uint8_t *indices = array((size_t)n, 1), table_of[VC_INDICES];
    int8_t *centroids = array((size_t)tables * VC_CENTROIDS, 1);
    int32_t *low = array((size_t)tables, 4), *last = array((size_t)tables, 4), counts[VC_INDICES], uncodable;
    for (int64_t k = 0; k < n; k++) indices[k] = (uint8_t)(take(in, 2) ? take(in, (uint32_t)tables) : 0);
    for (int t = 0; t < VC_INDICES; t++) table_of[t] = (uint8_t)((t * 7 + n) % tables);
    for (int t = 0; t < tables; t++) low[t] = -(int32_t)(t % 60), last[t] = 1 + t % 100;
    for (int t = 0; t < tables * VC_CENTROIDS; t++) centroids[t] = (int8_t)take(in, 256);
    int32_t *symbols = integers(in, (size_t)n), *placed = array((size_t)n, 4), *values = array((size_t)n, 4);
    int32_t *loc = array((size_t)n, 4), *histogram = calloc((size_t)tables * 3, 4 * (2 * VC_SMALL + 1));
    const int32_t period = 1 + (int32_t)take(in, 4);  // as many centroids as there are at least
    const uint8_t groups[4] = {0, 1, 2, 1};
    for (int64_t k = 0; k < n; k++) symbols[k] = indices[k] ? symbols[k] : 0, loc[k] = (int32_t)take(in, 4000) - 2000;
    uint32_t *places = array((size_t)n, 4), *order = array((size_t)n, 4), *large = array((size_t)n, 4);
    const int32_t coded = sort_by_table(n, indices, places, order, counts);
    int32_t *positions = array((size_t)coded, 4);
    uint32_t *escapes = array((size_t)coded, 4), *again = array((size_t)coded, 4);
    const int32_t found =
        gather_symbols(n, symbols, order, counts, low, last, table_of, positions, escapes, &uncodable);
    must(place_symbols(n, positions, order, counts, low, last, table_of, placed, again) == found, "as many escapes");
    for (int32_t k = 0; k < found; k++) placed[order[escapes[k]]] = symbols[order[escapes[k]]];
    must(!memcmp(placed, symbols, 4 * (size_t)n), "symbols are back in their places");
    symbol_values(n, symbols, indices, loc, centroids, 1 << 16, values);
    for (int64_t k = 0; k < n; k++) must(values[k] >= -(1 << 16) && values[k] <= 1 << 16, "values are within the limit");
    count_symbols(n, symbols, indices, tables, period, groups, histogram, large);
    shift_indices(n, indices, period, centroids, tables > 1 ? tables - 1 : 1, indices);
    for (int64_t k = 0; k < n; k++) must(indices[k] < (tables > 1 ? tables : 2), "shifted indices are in range");
    free(indices), free(centroids), free(low), free(last), free(symbols), free(placed), free(values), free(loc);
    free(histogram), free(places), free(order), free(large), free(positions), free(escapes), free(again);
}

// ---- The wavelet ----

static void wavelet(input *in) {
    const int32_t channels = 1 + (int32_t)take(in, 3), height = 1 + (int32_t)take(in, 20), width = 1 + (int32_t)take(in, 40);
    const int32_t h = (height + 1) / 2, w = (width + 1) / 2, even = width + width % 2;
    const size_t plane = (size_t)h * w;
    int32_t *samples = integers(in, (size_t)channels * height * width), *back = array((size_t)channels * height * width, 4);
    int32_t *low = array(channels * plane, 4), *bands = array(3 * channels * plane, 4), *scratch = array(8 * even, 4);
    forward_dwt(channels, height, width, samples, (int64_t)height * width, width, low, plane, w, bands, plane, w, scratch);
    inverse_dwt(channels, height, width, 0, 0, low, plane, w, bands, plane, w, back, (int64_t)height * width, width, scratch);
    must(!memcmp(samples, back, 4 * (size_t)channels * height * width), "the wavelet is undone");
    free(samples), free(back), free(low), free(bands), free(scratch);
}

#include "native_networks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    switch (take(&in, 11)) {
        case 0: case 1: lossless_stream(&in); break;
        case 2: lossless_round_trip(&in); break;
        case 3: case 4: ans_runs(&in); break;
        case 5: ans_others(&in); break;
        case 6: symbols_of_tables(&in); break;
        case 7: wavelet(&in); break;
        case 8: case 9: prior_octave(&in); break;
        default: synthesis(&in); break;
    }
    return 0;
}
