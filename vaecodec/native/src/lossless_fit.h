// The fit of the lossless coder: weights of neighbouring samples by weighted least squares, for each block of a row.
//
// The memory of a plane is laid out here.  The definition is in vaecodec/native/reference/lossless.py.
#include "core.h"

enum {
    LL_FEATURES = 19,  // of the fit; the first LL_SERIAL are to the left in the row itself
    LL_SERIAL = 3,
    LL_PRODUCTS = (LL_FEATURES + 1) * (LL_FEATURES + 2) / 2,
    LL_RING = 16,  // rows of a plane that are kept; a power of two
    LL_PAD = 8,  // columns on both sides
    LL_BLOCK = 8,  // columns with the same weights
    LL_CONTEXTS = 7,
    LL_INPUTS = LL_CONTEXTS + 1,
    LL_CLASSES = 24,  // of local error
    LL_FITS = 3,  // at most
    LL_SIDES = 81,  // classes of a second mixer by class at levels above 0
    LL_DEEP_INPUTS = 16,  // of a mixer at levels 1 to 3
    LL_GUESSES = 5,  // at levels above 3
    LL_SHAPES = LL_FITS + 3 + LL_GUESSES,
    LL_DEEPEST_INPUTS = 24,  // of a mixer at levels above 3
    LL_HEIGHTS = 32,  // classes of a prediction, for a mixer at levels above 3
    LL_MAPS = 81,  // of odds to a probability, for each decision at levels above 3
    LL_MAP_POINTS = 33,
    LL_MAP_RATE = 12,
    LL_DEVIATIONS = 96,  // of each fit, of the final prediction, and of each guess
    LL_COUNTERS = 512 + 6 * 2048,  // contexts of all kinds
    LL_BIASES = 1024 + 1024 + 2048,
    LL_RIDGE = 200,
    LL_RATE = 20,  // of learning
    LL_COUNT_MAX = 250,
    LL_BIAS_COUNT_MAX = 255,
    LL_DEVIATION_COUNT_MAX = 100,
    LL_FINE = 3,  // bits of estimates below those of samples
    LL_WEIGHT_MAX = 1 << 20,
    // Places in the tables, which are u16 (reference/lossless.py: tables).
    LL_SQUASH = 3072,  // the middle of 6144
    LL_STRETCH = 6144,
    LL_RATES = LL_STRETCH + 4096,
    LL_RECIPROCALS = LL_RATES + 256,
    LL_SOFTPLUS = LL_RECIPROCALS + 4096,
    LL_GAPS = LL_SOFTPLUS + 3072,
    LL_TRUST = LL_GAPS + 3072,
    LL_SAMPLE_BYTES = 192,  // at most 48 decisions of a sample, each of at most 4 bytes
};

// (dx, dy) in the plane itself, and in the planes before; how many features of each a plane has.
static const int8_t ll_own[LL_FEATURES][2] = {
    {-1, 0},  {-2, 0},  {-3, 0},  {-1, -1}, {1, -1}, {0, -2},  {2, -1},  {-2, -1}, {-1, -2}, {1, -2},
    {2, -2},  {-2, -2}, {0, -3},  {3, -1},  {-3, -1}, {-1, -3}, {1, -3}, {-4, -1}, {4, -1}};
static const int8_t ll_other[7][2] = {{0, 0}, {-1, 0}, {1, 0}, {-1, -1}, {1, -1}, {-2, 0}, {2, 0}};
static const int8_t ll_numbers[3][3] = {{19, 0, 0}, {12, 7, 0}, {8, 6, 5}};

// What a fit learns from: blocks on each side, and how many sixteenths of its sums each row takes away.
typedef struct {
    int32_t radius, decay;
} ll_window;
static const ll_window ll_windows[LL_FITS + 1][LL_FITS] = {  // by the number of fits
    {{0}}, {{2, 4}}, {{1, 6}, {3, 1}}, {{1, 6}, {2, 4}, {4, 1}}};

typedef struct {
    uint32_t low, high, code;
    int32_t started;
    uint64_t position;  // of the next byte to read
} ll_coder;

typedef struct {  // the memory of a plane
    ll_coder *coder;
    int32_t *samples, *errors;  // rings of rows: samples, with a bound estimates of them in eighths; errors in quarters
    int32_t *coded;  // samples of the row
    int32_t *sums[LL_FITS], *weights[LL_FITS];  // of products, and of features, by block
    int16_t *scaled;  // features of a row for the sums
    int32_t *scale;
    int64_t *partial[LL_FITS];  // predictions without the serial features
    int32_t *misses[LL_FITS];  // rings of rows at levels above 0: errors of each fit in quarters, without signs
    int32_t *deviations;  // pairs at levels above 0: mean error in 1/4096, count
    uint32_t *counters;  // 22 bits of probability, 10 of count
    int32_t *mixers;
    uint16_t *maps;  // [LL_MAPS, nodes, LL_MAP_POINTS]
    uint16_t *raw;
    int32_t *bias;  // pairs: mean in 1/4096, count
    ptrdiff_t stride, blocks, sums_stride;
    int32_t nodes, level, fits;
} ll_plane;

// Mixers of each node.
VC_INLINE int32_t ll_mixers(int32_t level) {
    return 1 + LL_CLASSES + (level ? LL_SIDES : 0) + (level > 3 ? LL_HEIGHTS : 0);
}

VC_INLINE int32_t ll_inputs(int32_t level) {
    return level > 3 ? LL_DEEPEST_INPUTS : level ? LL_DEEP_INPUTS : LL_INPUTS;
}

static size_t ll_layout(ll_plane *plane, uint8_t *memory, int32_t width, int32_t depth, int32_t level) {
    const size_t columns = ((size_t)width + 63) / 64 * 64, blocks = columns / LL_BLOCK;
    // Decisions, and as many at levels above 3 for the halves of buckets.
    const size_t nodes = (size_t)(depth > 8 ? 64 : 32) << (level > 3);
    size_t size = 0;
    plane->stride = (ptrdiff_t)columns + 2 * LL_PAD;
    plane->blocks = (ptrdiff_t)blocks;
    plane->sums_stride = (ptrdiff_t)blocks + 8;  // four of zeros before, and four after
    plane->nodes = (int32_t)nodes;
    plane->level = level;
    plane->fits = level > 3 ? level - 3 : level ? level : 1;
#define LL_TAKE(field, type, count)                                  \
    plane->field = memory ? (type *)(void *)(memory + size) : NULL; \
    size += ((count) * sizeof(type) + 63) / 64 * 64;
    LL_TAKE(coder, ll_coder, 1)
    LL_TAKE(samples, int32_t, LL_RING * (columns + 2 * LL_PAD))
    LL_TAKE(errors, int32_t, LL_RING * (columns + 2 * LL_PAD))
    LL_TAKE(coded, int32_t, columns)
    for (int n = 0; n < plane->fits; n++) {
        LL_TAKE(sums[n], int32_t, LL_PRODUCTS * (blocks + 8))
        LL_TAKE(weights[n], int32_t, LL_FEATURES * blocks)
        LL_TAKE(partial[n], int64_t, columns)
        LL_TAKE(misses[n], int32_t, level ? LL_RING * (columns + 2 * LL_PAD) : 0)
    }
    LL_TAKE(deviations, int32_t, level ? 2 * ((LL_FITS + 1 + LL_GUESSES) * LL_DEVIATIONS + 2 * 2048) : 0)
    LL_TAKE(scaled, int16_t, (LL_FEATURES + 1) * columns)
    LL_TAKE(scale, int32_t, columns)
    LL_TAKE(counters, uint32_t, LL_COUNTERS * nodes)
    LL_TAKE(mixers, int32_t, (size_t)ll_mixers(level) * nodes * (size_t)ll_inputs(level))
    LL_TAKE(maps, uint16_t, level > 3 ? LL_MAPS * nodes * LL_MAP_POINTS : 0)
    LL_TAKE(raw, uint16_t, nodes * 16 * 16)
    LL_TAKE(bias, int32_t, 2 * LL_BIASES)
#undef LL_TAKE
    return size;
}

// Lines of 64 bytes that a plane needs.
static int32_t lossless_size(int32_t width, int32_t depth, int32_t level) {
    ll_plane plane;
    return (int32_t)(ll_layout(&plane, NULL, width, depth, level) / 64);
}

// Make the state of a plane before its first row.
static int32_t lossless_start(uint8_t *memory, int32_t width, int32_t depth, int32_t level) {
    ll_plane plane;
    memset(memory, 0, ll_layout(&plane, memory, width, depth, level));
    plane.coder->high = 0xffffffff;
    for (int32_t n = 0; n < LL_COUNTERS * plane.nodes; n++) plane.counters[n] = 0x80000000;
    const int32_t inputs = ll_inputs(level), of_counters = level ? 4300 : 7000, of_shapes = level > 3 ? 3500 : 8000;
    const int32_t shapes = level ? plane.fits + 3 + (level > 3 ? LL_GUESSES : 0) : 0;
    for (int32_t n = 0; n < ll_mixers(level) * plane.nodes * inputs; n++) {
        const int32_t input = n % inputs, shape = input - LL_INPUTS;
        plane.mixers[n] = input < LL_CONTEXTS ? of_counters : shape >= 0 && shape < shapes ? of_shapes : 0;
    }
    for (int32_t n = 0; n < plane.nodes * 16 * 16; n++) plane.raw[n] = 32768;
    // What the errors of each class are about.
    for (int32_t n = 0; level && n < (LL_FITS + 1 + LL_GUESSES) * LL_DEVIATIONS; n++) {
        const int32_t class = n % LL_DEVIATIONS, octave = (class - 1) >> 2;
        plane.deviations[2 * n] = 819 + (class ? (128 * (4 + ((class - 1) & 3))) << (octave < 18 ? octave : 18) : 0);
    }
    return 0;
}

VC_INLINE int32_t ll_abs(int32_t x) { return x < 0 ? -x : x; }
VC_INLINE int32_t ll_min(int32_t a, int32_t b) { return a < b ? a : b; }
VC_INLINE int32_t ll_max(int32_t a, int32_t b) { return a > b ? a : b; }

// ---- The fit: weighted least squares for each block ----

// One block in each lane.  Vectors are as wide as registers, so that compilers keep them there.
#if !defined(VC_PLAIN) && defined(VC_512)
enum { LL_LANES = 8 };
#elif !defined(VC_PLAIN) && defined(VC_256)
enum { LL_LANES = 4 };
#elif !defined(VC_PLAIN)
enum { LL_LANES = 2 };
#else
enum { LL_LANES = 1 };
#endif
typedef int64_t ll_signed __attribute__((vector_size(8 * LL_LANES)));
typedef uint64_t ll_lanes __attribute__((vector_size(8 * LL_LANES)));
typedef double ll_doubles __attribute__((vector_size(8 * LL_LANES)));
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to inlined functions alone
#endif

VC_INLINE ll_lanes ll_all(uint64_t value) { return (ll_lanes){0} + value; }

// Products of the lower 32 bits of each lane.
VC_INLINE ll_lanes ll_mul(ll_lanes a, ll_lanes b) {
#if !defined(VC_PLAIN) && defined(VC_512)
    return (ll_lanes)_mm512_mul_epi32((__m512i)a, (__m512i)b);
#elif !defined(VC_PLAIN) && defined(VC_256)
    return (ll_lanes)_mm256_mul_epi32((__m256i)a, (__m256i)b);
#elif !defined(VC_PLAIN) && (defined(__x86_64__) || defined(_M_X64))
    // An unsigned product, less what negative factors have too much.
    const __m128i x = (__m128i)a, y = (__m128i)b;
    const __m128i signs = _mm_srai_epi32(x, 31), others = _mm_srai_epi32(y, 31);
    const __m128i more = _mm_add_epi32(_mm_and_si128(signs, y), _mm_and_si128(others, x));
    return (ll_lanes)_mm_sub_epi64(_mm_mul_epu32(x, y), _mm_slli_epi64(more, 32));
#elif !defined(VC_PLAIN) && defined(__aarch64__)
    return (ll_lanes)vmull_s32(vmovn_s64((int64x2_t)a), vmovn_s64((int64x2_t)b));
#else
    ll_lanes out;
    for (int n = 0; n < LL_LANES; n++) out[n] = (uint64_t)((int64_t)(int32_t)(uint32_t)a[n] * (int32_t)(uint32_t)b[n]);
    return out;
#endif
}

// Arithmetic right shift, of which x86 has none for 64 bits before AVX-512.
VC_INLINE ll_lanes ll_shift(ll_lanes a, ll_lanes bits) {
    const ll_lanes sign = ll_all(1ull << 63);
    return ((a ^ sign) >> bits) - (sign >> bits);
}

// Clip signed lanes.
VC_INLINE ll_lanes ll_clip(ll_lanes a, ll_lanes low, ll_lanes high) {
    ll_lanes mask = (ll_lanes)((ll_signed)a < (ll_signed)low);
    a = (a & ~mask) | (low & mask);
    mask = (ll_lanes)((ll_signed)a > (ll_signed)high);
    return (a & ~mask) | (high & mask);
}

// The number of bits of 8 <= a < 2^55, from the exponent of the double a >> 3, which is exact.
VC_INLINE ll_lanes ll_bits_of(ll_lanes a) {
    const ll_doubles unit = (ll_doubles){0} + 0x1p52;
    return ((ll_lanes)((ll_doubles)(a >> 3 | (ll_lanes)unit) - unit) >> 52) - (1023 - 4);
}

// sum += the products of four pairs of int16, for eight blocks.
VC_INLINE void ll_add_products(int32_t *sums, const int16_t *a, const int16_t *b, ptrdiff_t stride, int32_t decay) {
#if !defined(VC_PLAIN) && (defined(VC_256) || defined(VC_512))
    __m256i s = _mm256_loadu_si256((const __m256i *)sums);
    s = _mm256_sub_epi32(s, _mm256_mullo_epi32(_mm256_srai_epi32(s, 4), _mm256_set1_epi32(decay)));
    for (int pair = 0; pair < 4; pair++)
        s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)(a + pair * stride)),
                                                  _mm256_loadu_si256((const __m256i *)(b + pair * stride))));
    _mm256_storeu_si256((__m256i *)sums, s);
#else
    for (int n = 0; n < 8; n++) {
        int32_t sum = sums[n] - (sums[n] >> 4) * decay;
        for (int pair = 0; pair < 4; pair++)
            sum += a[pair * stride + 2 * n] * b[pair * stride + 2 * n] +
                   a[pair * stride + 2 * n + 1] * b[pair * stride + 2 * n + 1];
        sums[n] = sum;
    }
#endif
}

VC_INLINE int32_t ll_product(int32_t i, int32_t j) { return i * (2 * (LL_FEATURES + 1) - i + 1) / 2 + j - i; }

// The sums of blocks at i, j, each with those of neighbours on both sides.
VC_INLINE ll_lanes ll_load_sums(const int32_t *sums, ptrdiff_t stride, int32_t radius, int32_t i, int32_t j) {
    const int32_t *from = sums + ll_product(i, j) * stride + 4 - radius;
#if !defined(VC_PLAIN) && defined(VC_256)
    __m128i sum = _mm_loadu_si128((const __m128i *)from);
    for (int n = 1; n <= 2 * radius; n++) sum = _mm_add_epi32(sum, _mm_loadu_si128((const __m128i *)(from + n)));
    return (ll_lanes)_mm256_cvtepi32_epi64(sum);
#else
    ll_lanes out;
    for (int n = 0; n < LL_LANES; n++) {
        int32_t sum = 0;
        for (int block = 0; block <= 2 * radius; block++) sum += from[n + block];
        out[n] = (uint64_t)(int64_t)sum;
    }
    return out;
#endif
}

enum { LL_TILE = 4 };  // columns of a row of the factor that are computed at once, in registers

// Solve a block in each lane: Cholesky's factors have 27 bits, inverse pivots 30.
static void ll_solve(const int32_t *sums, ptrdiff_t sums_stride, int32_t radius, int32_t *weights, ptrdiff_t stride) {
    ll_lanes factor[LL_FEATURES][LL_FEATURES + 1], inverse[LL_FEATURES], half[LL_FEATURES], largest = ll_all(0);
    for (int i = 0; i <= LL_FEATURES; i++) {
        const ll_lanes diagonal = ll_load_sums(sums, sums_stride, radius, i, i);
        largest = ll_clip(largest, diagonal, ll_all(INT64_MAX));
    }
    const ll_lanes shift = 54 - ll_bits_of(largest + LL_RIDGE), ridge = ll_all(LL_RIDGE) << shift;
    for (int j = 0; j < LL_FEATURES; j++) {
        ll_lanes root = ll_all(0);
        for (int start = j; start <= LL_FEATURES; start += LL_TILE) {
            ll_lanes rest[LL_TILE];
            int column[LL_TILE];  // the last one again where the row has no more
            for (int i = 0; i < LL_TILE; i++) {
                column[i] = ll_min(start + i, LL_FEATURES);
                rest[i] = ll_load_sums(sums, sums_stride, radius, j, column[i]) << shift;
            }
            for (int k = 0; k < j; k++)
                for (int i = 0; i < LL_TILE; i++) rest[i] -= ll_mul(factor[k][j], factor[k][column[i]]);
            if (start == j) {
                const ll_lanes pivot = ll_clip(rest[0] + ridge, ridge >> 6, ll_all(1ull << 54));
                half[j] = (62 - ll_bits_of(pivot)) >> 1;
                const ll_lanes mantissa = (pivot << (half[j] * 2)) >> 31;
                // 1 / sqrt by Newton's method from a line, in units of 2^-29; the mantissa is 2^31 v, 1/4 <= v < 1.
                root = 1148903751ull - (ll_mul(mantissa, ll_all(644245094)) >> 31);
                for (int step = 0; step < 3; step++) {
                    const ll_lanes product = ll_mul(ll_mul(root, root) >> 30, mantissa) >> 31;
                    root = ll_mul(root, (3ull << 28) - product) >> 29;
                }
                inverse[j] = root;
            }
            // Only the lower 32 bits of what a shift leaves count: logical shifts do.
            for (int i = 0; i < LL_TILE; i++)
                factor[j][column[i]] = ll_mul(rest[i] >> (28 - half[j]), root) >> 32;
        }
    }
    ll_lanes solved[LL_FEATURES];
    for (int j = LL_FEATURES - 1; j >= 0; j--) {
        ll_lanes sum = ll_mul(factor[j][LL_FEATURES], ll_all(1 << 16));
        for (int i = j + 1; i < LL_FEATURES; i++) sum -= ll_mul(factor[j][i], solved[i]);
        sum = ll_clip(ll_shift(sum, 20 - half[j]), -ll_all(INT32_MAX), ll_all(INT32_MAX));
        solved[j] = ll_clip(ll_shift(ll_mul(sum, inverse[j]), ll_all(40)), -ll_all(1 << 19), ll_all(1 << 19));
        for (int n = 0; n < LL_LANES; n++) weights[j * stride + n] = (int32_t)((int64_t)solved[j][n] >> 2);
    }
}

// Where the features of a row are, and the samples above that they are relative to; the last is the sample itself.
typedef struct {
    const int32_t *at[LL_FEATURES + 1], *above[LL_FEATURES + 1];
} ll_features;

VC_INLINE int32_t *ll_line(int32_t *ring, ptrdiff_t stride, int32_t y) {
    return ring + (y & (LL_RING - 1)) * stride + LL_PAD;
}

static ll_features ll_place_features(const ll_plane *planes, int32_t seen, int32_t y) {
    ll_features features;
    int32_t count = 0;
    for (int32_t back = 0; back <= seen; back++)
        for (int32_t n = 0; n < ll_numbers[seen][back]; n++, count++) {
            const int8_t *offset = back ? ll_other[n] : ll_own[n];
            const ll_plane *plane = planes - back;
            features.at[count] = ll_line(plane->samples, plane->stride, y + offset[1]) + offset[0];
            features.above[count] = ll_line(plane->samples, plane->stride, y - 1);
        }
    features.at[count] = ll_line(planes->samples, planes->stride, y);
    features.above[count] = ll_line(planes->samples, planes->stride, y - 1);
    return features;
}

// Learn from a complete row: add its products to the sums of each block, and solve all blocks.
static void ll_fit(const ll_plane *plane, const ll_features *features, int32_t width, int32_t depth, int32_t fine) {
    const ptrdiff_t blocks = plane->blocks, stride = 2 * blocks;
    const int32_t drop = depth > 12 ? depth - 12 : 0;
    for (int f = 0; f <= LL_FEATURES; f++) {
        const int32_t *at = features->at[f], *above = features->above[f];
        int16_t *out = plane->scaled + f * 4 * stride;
        int16_t row[64];
        for (ptrdiff_t x0 = 0; x0 < 8 * blocks; x0 += 64) {
            const ptrdiff_t end = width - x0;
            for (int x = 0; x < 64; x++) {
                const int32_t value = ((at[x0 + x] - above[x0 + x]) >> drop) * plane->scale[x0 + x] >> (12 + fine);
                row[x] = (int16_t)(x < end ? vc_clip(value, -511, 511) : 0);
            }
            for (int pair = 0; pair < 4; pair++)
                for (int block = 0; block < 8; block++)
                    memcpy(out + pair * stride + 2 * (x0 / 8 + block), row + 8 * block + 2 * pair, 4);
        }
    }
    for (int fit = 0; fit < plane->fits; fit++) {
        const ll_window window = ll_windows[plane->fits][fit];
        int32_t *sums = plane->sums[fit];
        for (ptrdiff_t block = 0; block < blocks; block += 8) {
            const int16_t *scaled = plane->scaled + 2 * block;
            for (int i = 0; i <= LL_FEATURES; i++)
                for (int j = i; j <= LL_FEATURES; j++)
                    ll_add_products(sums + ll_product(i, j) * plane->sums_stride + block + 4, scaled + i * 4 * stride,
                                    scaled + j * 4 * stride, stride, window.decay);
        }
        for (ptrdiff_t block = 0; block < blocks; block += LL_LANES)
            ll_solve(sums + block, plane->sums_stride, window.radius, plane->weights[fit] + block, blocks);
    }
}

// What the features above and in other planes add to the predictions of a row, in 1/2^14.
static void ll_predict(const ll_plane *plane, const ll_features *features, int32_t fit) {
    for (ptrdiff_t block = 0; block < plane->blocks; block++) {
        int64_t sums[LL_BLOCK] = {0};
        for (int f = LL_SERIAL; f < LL_FEATURES; f++) {
            const int32_t *at = features->at[f] + 8 * block, *above = features->above[f] + 8 * block;
            const int64_t weight = plane->weights[fit][f * plane->blocks + block];
            for (int x = 0; x < LL_BLOCK; x++) sums[x] += (int64_t)(at[x] - above[x]) * weight;
        }
        memcpy(plane->partial[fit] + 8 * block, sums, sizeof sums);
    }
}
