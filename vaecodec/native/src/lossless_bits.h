// The decisions of the lossless coder: context mixing and a binary range coder.
//
// The definition is in vaecodec/native/reference/lossless.py; lossless_fit.h comes first.
#include "core.h"

// Logistic distributions around predictions, at levels above 0.
typedef struct {
    int32_t count, step;
    int32_t centre[LL_SHAPES];  // relative to the prediction as a sample, in 1/64
    int32_t inverse[LL_SHAPES];  // of the scale
    int32_t *deviation[LL_SHAPES];  // the mean error that the scale is from, and its count
} ll_shapes;

typedef struct {
    ll_coder coder;
    uint8_t *out;  // where an encoder writes
    const uint8_t *data;  // what a decoder reads; zeros follow
    uint64_t size;
    const uint16_t *tables;
    uint32_t *counters[LL_CONTEXTS];  // of the sample's contexts
    int32_t *mixer, *mixer_of_class, *mixer_of_sides, *mixer_of_height;
    uint16_t *maps;  // of the sample
    int32_t halves;  // first of the nodes for the halves of buckets
    uint16_t *raw;
    ll_shapes shapes;
} ll_bits;

// Code one decision that is 1 with a probability in 1/65536, 0 < probability < 65536.
VC_INLINE int32_t ll_code(ll_bits *b, int decode, int32_t bit, uint32_t probability) {
    const uint32_t middle = b->coder.low + (uint32_t)((uint64_t)(b->coder.high - b->coder.low) * probability >> 16);
    if (decode) bit = b->coder.code <= middle;
    b->coder.high = bit ? middle : b->coder.high;
    b->coder.low = bit ? b->coder.low : middle + 1;
    while (__builtin_expect((b->coder.low ^ b->coder.high) >> 24 == 0, 0)) {
        if (decode) {
            const uint8_t next = b->coder.position < b->size ? b->data[b->coder.position] : 0;
            b->coder.position++;
            b->coder.code = b->coder.code << 8 | next;
        } else {
            *b->out++ = (uint8_t)(b->coder.high >> 24);
        }
        b->coder.low <<= 8;
        b->coder.high = b->coder.high << 8 | 255;
    }
    return bit;
}

VC_INLINE int32_t ll_squash(const uint16_t *tables, int32_t x) {
    return tables[LL_SQUASH + vc_clip(x, -LL_SQUASH, LL_SQUASH - 1)];
}

// The sum of eight products.
VC_INLINE int32_t ll_dot(const int32_t *weights, const int32_t *inputs) {
#if !defined(VC_PLAIN) && (defined(VC_256) || defined(VC_512))
    const __m256i w = _mm256_loadu_si256((const __m256i *)weights), x = _mm256_loadu_si256((const __m256i *)inputs);
    const __m256i products = _mm256_mullo_epi32(_mm256_srai_epi32(w, 4), x);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(products), _mm256_extracti128_si256(products, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
#else
    int32_t sum = 0;
    for (int n = 0; n < LL_INPUTS; n++) sum += (weights[n] >> 4) * inputs[n];  // below 8 * 2^16 * 2^12
    return sum;
#endif
}

VC_INLINE void ll_learn(int32_t *weights, const int32_t *inputs, int32_t error) {
#if !defined(VC_PLAIN) && (defined(VC_256) || defined(VC_512))
    const __m256i x = _mm256_loadu_si256((const __m256i *)inputs), limit = _mm256_set1_epi32(LL_WEIGHT_MAX);
    __m256i w = _mm256_loadu_si256((const __m256i *)weights);
    const __m256i change = _mm256_mullo_epi32(x, _mm256_set1_epi32(error));
    w = _mm256_add_epi32(w, _mm256_srai_epi32(_mm256_add_epi32(change, _mm256_set1_epi32(512)), 10));
    w = _mm256_max_epi32(_mm256_min_epi32(w, limit), _mm256_sub_epi32(_mm256_setzero_si256(), limit));
    _mm256_storeu_si256((__m256i *)weights, w);
#else
    for (int n = 0; n < LL_INPUTS; n++)
        weights[n] = vc_clip(weights[n] + ((inputs[n] * error + 512) >> 10), -LL_WEIGHT_MAX, LL_WEIGHT_MAX);
#endif
}

// Counters of a decision's contexts, and an unused one.
#if !defined(VC_PLAIN) && (defined(VC_256) || defined(VC_512))
typedef __m256i ll_counters;

VC_INLINE __m256i ll_look_up(const uint16_t *table, __m256i n) {  // in the lower halves of the lanes
    return _mm256_i32gather_epi32((const int *)(const void *)table, n, 2);
}

VC_INLINE ll_counters ll_read(const ll_bits *b, int32_t node) {
    uint32_t *const *at = b->counters;
#define LL_AT(n) (int32_t)at[n][node]
    const __m256i c = _mm256_setr_epi32(LL_AT(0), LL_AT(1), LL_AT(2), LL_AT(3), LL_AT(4), LL_AT(5), LL_AT(6), 0);
#undef LL_AT
    const __m256i first = _mm256_set1_epi32((int32_t)(at[0][node] & ~1023u));
    const __m256i new = _mm256_cmpeq_epi32(_mm256_slli_epi32(c, 22), _mm256_setzero_si256());
    return _mm256_blendv_epi8(c, first, new);
}

// The logarithms of odds by the counters, with `trust` by their counts as well, and a constant.
VC_INLINE void ll_ask(const ll_bits *b, ll_counters c, int trust, int32_t *inputs) {
    __m256i x = ll_look_up(b->tables + LL_STRETCH, _mm256_srli_epi32(c, 20));
    x = _mm256_srai_epi32(_mm256_slli_epi32(x, 16), 16);
    if (trust) {
        __m256i factor = ll_look_up(b->tables + LL_TRUST, _mm256_and_si256(c, _mm256_set1_epi32(255)));
        factor = _mm256_and_si256(factor, _mm256_set1_epi32(0xffff));
        x = _mm256_srai_epi32(_mm256_mullo_epi32(x, factor), 8);
    }
    _mm256_store_si256((__m256i *)inputs, _mm256_blend_epi32(x, _mm256_set1_epi32(256), 1 << LL_CONTEXTS));
}

// Take what a decision says into the counters of its contexts.
VC_INLINE void ll_count(const ll_bits *b, ll_counters c, int32_t node, int32_t bit) {
    uint32_t out[8] __attribute__((aligned(32)));
    const __m256i count = _mm256_and_si256(c, _mm256_set1_epi32(1023));
    const __m256i target = _mm256_set1_epi32(bit ? (1 << 22) - 1 : 0);
    __m256i rate = ll_look_up(b->tables + LL_RATES, _mm256_and_si256(c, _mm256_set1_epi32(255)));
    rate = _mm256_and_si256(rate, _mm256_set1_epi32(0xffff));
    __m256i p = _mm256_srli_epi32(c, 10);
    const __m256i change = _mm256_mullo_epi32(_mm256_srai_epi32(_mm256_sub_epi32(target, p), 7), rate);
    p = _mm256_add_epi32(p, _mm256_srai_epi32(change, 9));
    const __m256i more = _mm256_cmpgt_epi32(_mm256_set1_epi32(LL_COUNT_MAX), count);  // -1 where there is room
    p = _mm256_or_si256(_mm256_slli_epi32(p, 10), _mm256_sub_epi32(count, more));
    _mm256_store_si256((__m256i *)out, p);
    for (int n = 0; n < LL_CONTEXTS; n++) b->counters[n][node] = out[n];
}
#else
typedef struct {
    uint32_t of[LL_CONTEXTS];
} ll_counters;

VC_INLINE ll_counters ll_read(const ll_bits *b, int32_t node) {
    ll_counters c;
    for (int n = 0; n < LL_CONTEXTS; n++) c.of[n] = b->counters[n][node];
    for (int n = 1; n < LL_CONTEXTS; n++) c.of[n] = c.of[n] & 1023 ? c.of[n] : c.of[0] & ~1023u;
    return c;
}

// The logarithms of odds by the counters, with `trust` by their counts as well, and a constant.
VC_INLINE void ll_ask(const ll_bits *b, ll_counters c, int trust, int32_t *inputs) {
    for (int n = 0; n < LL_CONTEXTS; n++) {
        inputs[n] = (int16_t)b->tables[LL_STRETCH + (c.of[n] >> 20)];
        if (trust) inputs[n] = inputs[n] * b->tables[LL_TRUST + (c.of[n] & 255)] >> 8;
    }
    inputs[LL_CONTEXTS] = 256;
}

// Take what a decision says into the counters of its contexts.
VC_INLINE void ll_count(const ll_bits *b, ll_counters c, int32_t node, int32_t bit) {
    const int32_t target = bit ? (1 << 22) - 1 : 0;
    for (int n = 0; n < LL_CONTEXTS; n++) {
        const uint32_t count = c.of[n] & 1023;
        int32_t p = (int32_t)(c.of[n] >> 10);
        p += ((target - p) >> 7) * b->tables[LL_RATES + (count & 255)] >> 9;
        b->counters[n][node] = (uint32_t)p << 10 | (count + (count < LL_COUNT_MAX));
    }
}
#endif

// ln(1 + exp(-x)), in 1/256.
VC_INLINE int32_t ll_softplus(const uint16_t *tables, int32_t x) {
    const int32_t size = ll_abs(x);
    return (size < 3072 ? tables[LL_SOFTPLUS + size] : 0) - ll_min(x, 0);
}

// ln(exp(x) - 1), in 1/256, x >= 0.
VC_INLINE int32_t ll_gap(const uint16_t *tables, int32_t x) { return x < 3072 ? x - tables[LL_GAPS + x] : x; }

// A distance in 1/64, by its scale, in 1/256.
VC_INLINE int32_t ll_place(const ll_shapes *shapes, int32_t n, int32_t distance) {
    const int64_t place = (int64_t)distance * shapes->inverse[n] >> 10;
    return (int32_t)(place < -(1 << 20) ? -(1 << 20) : place > 1 << 20 ? 1 << 20 : place);
}

// The logarithm of the odds of a decision where residuals are logistic around a centre, in 1/256.
VC_INLINE int32_t ll_shape(const ll_bits *b, int deep, int32_t n, int32_t node) {
    const int32_t step = b->shapes.step, centre = b->shapes.centre[n];
    if (deep > 1 && node >= b->halves) {
        const int32_t bucket = (node - b->halves) >> 1, side = node & 1 ? -centre : centre;
        const int32_t start = (2 + (bucket & 1)) << (bucket >> 1), size = 1 << (bucket >> 1);
        const int32_t near = ll_place(&b->shapes, n, (64 * start - 96) * step - side);
        const int32_t middle = ll_place(&b->shapes, n, (64 * start + 32 * size - 96) * step - side);
        const int32_t far = ll_place(&b->shapes, n, (64 * (start + size) - 96) * step - side);
        const int32_t upper = middle + ll_gap(b->tables, far - middle) - ll_softplus(b->tables, -far);
        const int32_t lower = near + ll_gap(b->tables, middle - near) - ll_softplus(b->tables, -near);
        return vc_clip(upper - lower, -2047, 2047);
    }
    if (node < 2) {
        const int32_t low = ll_place(&b->shapes, n, -32 * step - centre);
        const int32_t high = ll_place(&b->shapes, n, 32 * step - centre);
        const int32_t upper = ll_softplus(b->tables, low), lower = ll_softplus(b->tables, -high);
        if (node) return vc_clip(lower - upper, -2047, 2047);
        const int32_t rest = upper + ll_softplus(b->tables, upper - lower);
        return vc_clip(ll_gap(b->tables, high - low) - rest, -2047, 2047);
    }
    const int32_t bucket = (node - 2) >> 1, side = node & 1 ? -centre : centre;
    const int32_t start = (2 + (bucket & 1)) << (bucket >> 1), next = (2 + ((bucket + 1) & 1)) << ((bucket + 1) >> 1);
    const int32_t near = ll_place(&b->shapes, n, (64 * start - 96) * step - side);
    const int32_t far = ll_place(&b->shapes, n, (64 * next - 96) * step - side);
    return vc_clip(ll_softplus(b->tables, near) - ll_gap(b->tables, far - near), -2047, 2047);
}

// Mix the probability of a decision with that of a map, which learns from it.
VC_INLINE int32_t ll_code_mapped(ll_bits *b, int decode, int32_t node, int32_t bit, int32_t odds) {
    const int32_t place = vc_clip(odds, -2047, 2047) + 2048, rest = place & 127;
    uint16_t *map = b->maps + node * LL_MAP_POINTS + (place >> 7);
    const int32_t mapped = (map[0] * (128 - rest) + map[1] * rest) >> 7;
    const int32_t probability = vc_clip((ll_squash(b->tables, odds) + mapped) >> 1, 16, 65520);
    bit = ll_code(b, decode, bit, (uint32_t)probability);
    map += rest >= 64;
    *map = (uint16_t)(*map + (((bit ? 65535 : 0) - *map) * LL_MAP_RATE >> 10));
    return bit;
}

// Code a decision at a level above 0, and above 3 (deep = 2): with inputs from shapes as well, and more mixers.
VC_INLINE int32_t ll_decide_deep(ll_bits *b, int decode, int deep, int32_t node, int32_t bit) {
    const ll_counters counters = ll_read(b, node);
    const int mixers = deep > 1 ? 4 : 3, width = deep > 1 ? LL_DEEPEST_INPUTS : LL_DEEP_INPUTS;
    int32_t inputs[LL_DEEPEST_INPUTS] __attribute__((aligned(32))) = {0};
    ll_ask(b, counters, 1, inputs);
    for (int n = 0; n < b->shapes.count; n++) inputs[LL_INPUTS + n] = ll_shape(b, deep, n, node);
    int32_t *weights[4] = {b->mixer, b->mixer_of_class, b->mixer_of_sides, b->mixer_of_height}, odds[4];
    int64_t total = 0;
    for (int n = 0; n < mixers; n++) {
        int64_t sum = 0;
        weights[n] += width * node;
        for (int eight = 0; eight < width; eight += 8) sum += ll_dot(weights[n] + eight, inputs + eight);
        total += odds[n] = (int32_t)(sum >> 12);
    }
    if (deep > 1)
        bit = ll_code_mapped(b, decode, node, bit, (int32_t)(total >> 2));
    else
        bit = ll_code(b, decode, bit, (uint32_t)ll_squash(b->tables, (int32_t)(total * 21846 >> 16)));
    for (int n = 0; n < mixers; n++) {
        const int32_t error = (bit * 65536 - ll_squash(b->tables, odds[n])) * LL_RATE >> 10;
        for (int eight = 0; eight < width; eight += 8) ll_learn(weights[n] + eight, inputs + eight, error);
    }
    ll_count(b, counters, node, bit);
    return bit;
}

// Code a decision with a probability mixed from those of the contexts, and learn from it.
VC_INLINE int32_t ll_decide(ll_bits *b, int decode, int deep, int32_t node, int32_t bit) {
    if (deep) return ll_decide_deep(b, decode, deep, node, bit);
    const ll_counters counters = ll_read(b, node);
    int32_t inputs[LL_INPUTS] __attribute__((aligned(32)));
    ll_ask(b, counters, 0, inputs);
    int32_t *first = b->mixer + LL_INPUTS * node, *second = b->mixer_of_class + LL_INPUTS * node;
    const int32_t x = ll_dot(first, inputs) >> 12, y = ll_dot(second, inputs) >> 12;
    bit = ll_code(b, decode, bit, (uint32_t)ll_squash(b->tables, (x + y) >> 1));
    ll_learn(first, inputs, (bit * 65536 - ll_squash(b->tables, x)) * LL_RATE >> 10);
    ll_learn(second, inputs, (bit * 65536 - ll_squash(b->tables, y)) * LL_RATE >> 10);
    ll_count(b, counters, node, bit);
    return bit;
}

VC_INLINE int32_t ll_raw(ll_bits *b, int decode, uint16_t *probability, int32_t bit) {
    bit = ll_code(b, decode, bit, (uint32_t)vc_clip(*probability, 64, 65472));
    *probability = (uint16_t)(*probability + (((bit ? 65535 : 0) - *probability) >> 6));
    return bit;
}

// Code a residual: zero or not, the sign, the bucket in unary, and the bits within it.  Above level 3 the first of
// these, which says in which half of the bucket it is, is a decision.
// Magnitude + 1 is a float with one bit of mantissa in the bucket: (2 + bucket % 2) << bucket / 2, and further bits.
VC_INLINE int32_t ll_residual(ll_bits *b, int decode, int deep, int32_t depth, int32_t residual) {
    if (ll_decide(b, decode, deep, 0, residual == 0)) return 0;
    const int32_t negative = ll_decide(b, decode, deep, 1, residual < 0), last = 2 * (depth - 1);
    const int32_t magnitude = ll_abs(residual) + 1;
    int32_t bucket = 0;
    while (bucket < last) {
        const int32_t next = (2 + ((bucket + 1) & 1)) << ((bucket + 1) >> 1);
        if (!ll_decide(b, decode, deep, 2 + 2 * bucket + negative, magnitude >= next)) break;
        bucket++;
    }
    const int32_t bits = bucket >> 1, start = (2 + (bucket & 1)) << bits;
    int32_t rest = 0;
    uint16_t *raw = b->raw + (2 * bucket + negative) * 256;
    for (int32_t n = 0; n < bits; n++) {
        const int32_t place = n == 0 ? 0 : n == 1 ? 1 + rest : n + 1, bit = (magnitude - start) >> (bits - 1 - n) & 1;
        if (deep > 1 && !n)
            rest = ll_decide_deep(b, decode, deep, b->halves + 2 * bucket + negative, bit);
        else
            rest = 2 * rest + ll_raw(b, decode, raw + place, bit);
    }
    return negative ? 1 - start - rest : start + rest - 1;
}
