// Trellis-coded quantisation of the coefficients of a part: what symbols stand for, and which ones an encoder chooses.
//
// Coefficients whose table index is not 0 are coded, in strips of VC_STRIP.  Each strip begins in state 0, and a symbol
// leads from one of eight states to the next by its parity.  The state says which of two quantisers applies to a symbol
// of magnitude k, whose centroid c depends on its table, the quantiser, and whether k is 1:
//
//     even states   level 2 k d + c, or 0          odd states    level (2 k - 1) d + c, or 0          d = 45/64 steps
//
// ("dependent quantisation", Schwarz et al. 2019; the trellis is that of JPEG 2000 part 2.)

enum {
    VC_HALF_LEVEL = 45, VC_STRIP = 256, VC_STATES = 8, VC_COSTS = 16, VC_CENTROIDS = 4,
    VC_BLOCK = 32, VC_UNIT = 64, VC_SYMBOL_MAX = 65535
};

static const uint8_t vc_next[VC_STATES][2] = {{0, 1}, {2, 3}, {5, 4}, {6, 7}, {1, 0}, {3, 2}, {4, 5}, {7, 6}};

// The state after `count` symbols 0: states 0 and 7 stay, and the other six follow each other in a circle.
static inline unsigned vc_after_zeros(unsigned state, unsigned count) {
    for (count %= 6; count; count--) state = vc_next[state][0];
    return state;
}

// Magnitude of a level in values, of magnitude k of a symbol; `nudges` are the centroids of its table.
static inline int32_t vc_level(int32_t k, unsigned quantiser, const int8_t *nudges) {
    return k ? VC_HALF_LEVEL * (2 * k - (int32_t)quantiser) + nudges[2 * quantiser + (k > 1)] : 0;
}

static inline int32_t vc_magnitude(int32_t symbol) {
    uint32_t size = symbol < 0 ? 0u - (uint32_t)symbol : (uint32_t)symbol;
    return (int32_t)(size < VC_SYMBOL_MAX ? size : VC_SYMBOL_MAX);
}

// values i32[n], within +-limit, of symbols i32[n] with indices u8[n] below K, means loc i32[n], centroids i8[K, 4].
static int32_t symbol_values(int64_t n, const int32_t *symbols, const uint8_t *indices, const int32_t *loc,
                             const int8_t *centroids, int32_t limit, int32_t *restrict values) {
    unsigned state = 0, left = VC_STRIP;
    for (int64_t begin = 0; begin < n; begin += VC_BLOCK) {
        int count = n - begin < VC_BLOCK ? (int)(n - begin) : VC_BLOCK;
        const int32_t *s = symbols + begin, *mean = loc + begin;
        const uint8_t *index = indices + begin;
        int32_t *value = values + begin, any = 0;
        unsigned coded = 0;
        for (int i = 0; i < count; i++) any |= s[i];
        for (int i = 0; i < count; i++) coded += index[i] != 0;
        for (int i = 0; i < count; i++) value[i] = vc_clip(mean[i], -limit, limit);
        if (!any) {
            state = coded < left ? vc_after_zeros(state, coded) : vc_after_zeros(0, coded - left);
            left = coded < left ? left - coded : VC_STRIP - (coded - left);
            continue;
        }
        for (int i = 0; i < count; i++) {
            int32_t k = vc_magnitude(s[i]), level;
            if (index[i]) {
                level = vc_level(k, state & 1, centroids + VC_CENTROIDS * index[i]);
                state = vc_next[state][k & 1];
                if (!--left) state = 0, left = VC_STRIP;
            } else {
                level = VC_UNIT * k;
            }
            if (k) value[i] = vc_clip(vc_add(mean[i], s[i] < 0 ? -level : level), -limit, limit);
        }
    }
    return 0;
}

// Candidates of a coefficient: quantiser 0 with even and odd symbol, then quantiser 1.
enum { VC_CANDIDATES = 4 };

typedef struct {
    float cost[VC_CANDIDATES];
    int32_t k[VC_CANDIDATES];
} vc_choice;

// The cost of magnitude k by a table's row f32[16]; beyond it, costs go on as they rise at its end.
static inline float vc_cost(const float *row, int32_t k) {
    return k < VC_COSTS ? row[k] : row[VC_COSTS - 1] + (float)(k - (VC_COSTS - 1)) * (row[VC_COSTS - 1] - row[VC_COSTS - 2]);
}

static inline float vc_error(float size, int32_t k, unsigned quantiser, const int8_t *nudges) {
    float error = size - (float)vc_level(k, quantiser, nudges) * (1.0f / VC_UNIT);
    return error * error;
}

// The two levels beside |residual| of one quantiser, of which one symbol is even, and 0, which is even.
VC_INLINE void vc_candidates(float size, float price, unsigned quantiser, const int8_t *nudges, const float *row,
                             vc_choice *choice) {
    const float offset = quantiser ? (float)VC_HALF_LEVEL / VC_UNIT : 0.0f;
    int32_t k = (int32_t)((size + offset) * ((float)VC_UNIT / (2 * VC_HALF_LEVEL)));
    k = k < VC_SYMBOL_MAX - 1 ? k : VC_SYMBOL_MAX - 1;
    int32_t even = k + (k & 1), odd = k + 1 - (k & 1);
    float of_even = vc_error(size, even, quantiser, nudges) + price * vc_cost(row, even);
    float of_odd = vc_error(size, odd, quantiser, nudges) + price * vc_cost(row, odd);
    float of_zero = size * size + price * row[0];
    int zero = of_zero < of_even;
    choice->cost[2 * quantiser] = zero ? of_zero : of_even;
    choice->cost[2 * quantiser + 1] = of_odd;
    choice->k[2 * quantiser] = zero ? 0 : even;
    choice->k[2 * quantiser + 1] = odd;
}

// State t follows from states t / 2 and t / 2 + 4, by these candidates.
static const uint8_t vc_from_low[VC_STATES] = {0, 1, 2, 3, 1, 0, 2, 3};
static const uint8_t vc_from_high[VC_STATES] = {1, 0, 3, 2, 0, 1, 3, 2};

// One coefficient more: the least cost of every state, and a bit for each, whether it follows from the higher one.
VC_INLINE unsigned vc_advance(float *restrict cost, const float *c) {
    float low[VC_STATES], high[VC_STATES];
    unsigned decisions = 0;
    for (int t = 0; t < VC_STATES; t++) low[t] = cost[t >> 1] + c[vc_from_low[t]];
    for (int t = 0; t < VC_STATES; t++) high[t] = cost[4 + (t >> 1)] + c[vc_from_high[t]];
    for (int t = 0; t < VC_STATES; t++) decisions |= (unsigned)(high[t] < low[t]) << t;
    for (int t = 0; t < VC_STATES; t++) cost[t] = high[t] < low[t] ? high[t] : low[t];
    return decisions;
}

// The magnitudes k i32[m] of least cost of a strip, m <= VC_STRIP.
static void vc_trellis(int m, const float *sizes, const float *prices, const uint8_t *tables, const int8_t *centroids,
                       const float *costs, int32_t *k) {
    vc_choice choices[VC_STRIP];
    uint8_t decisions[VC_STRIP];
    float cost[VC_STATES] = {0, 1e30f, 1e30f, 1e30f, 1e30f, 1e30f, 1e30f, 1e30f};
    for (int i = 0; i < m; i++) {
        const int8_t *nudges = centroids + VC_CENTROIDS * tables[i];
        const float *row = costs + VC_COSTS * tables[i];
        vc_candidates(sizes[i], prices[i], 0, nudges, row, choices + i);
        vc_candidates(sizes[i], prices[i], 1, nudges, row, choices + i);
        decisions[i] = (uint8_t)vc_advance(cost, choices[i].cost);
    }
    unsigned state = 0;
    for (unsigned t = 1; t < VC_STATES; t++)
        if (cost[t] < cost[state]) state = t;
    for (int i = m - 1; i >= 0; i--) {
        unsigned from_high = decisions[i] >> state & 1;
        k[i] = choices[i].k[from_high ? vc_from_high[state] : vc_from_low[state]];
        state = state / 2 + 4 * from_high;
    }
}

// The residual of index 0 from which on there is a symbol, and one beyond which there is no larger symbol.
#define VC_OUTLIER 2.5f
#define VC_LARGE 131072.0f

static inline float vc_size(float target, int32_t loc) {
    float size = (float)loc * (-1.0f / VC_UNIT) + target;
    size = size < 0 ? -size : size;
    return size < VC_LARGE ? size : size == size ? VC_LARGE : 0.0f;
}

static inline int32_t vc_signed(int32_t k, float target, int32_t loc) {
    return (float)loc * (-1.0f / VC_UNIT) + target < 0 ? -k : k;
}

// Symbols i32[n] of target f32[n], in quantisation steps, with indices u8[n] below K, means loc i32[n] (unit 2^-6) and
// centroids i8[K, 4], such that squared errors and costs f32[K, 16] of magnitudes are least in sum.  Costs count
// prices[i] times, prices f32[n] or null for 1.
static int32_t quantise(int64_t n, const float *target, const uint8_t *indices, const int32_t *loc,
                        const int8_t *centroids, const float *costs, const float *prices, int32_t *restrict symbols) {
    uint32_t places[VC_STRIP];
    float sizes[VC_STRIP], strip_prices[VC_STRIP];
    uint8_t tables[VC_STRIP];
    int32_t k[VC_STRIP];
    for (int64_t i = 0; i < n;) {
        int m = 0;
        for (; i < n && m < VC_STRIP; i++) {
            symbols[i] = 0;
            if (indices[i]) {
                places[m] = (uint32_t)i;
                tables[m] = indices[i];
                strip_prices[m] = prices ? prices[i] : 1.0f;
                sizes[m++] = vc_size(target[i], loc[i]);
            } else {
                float size = vc_size(target[i], loc[i]);
                int32_t near = (int32_t)((size + 8388608.0f) - 8388608.0f);  // halves to even; SSE2 has no rintf
                near = near < VC_SYMBOL_MAX ? near : VC_SYMBOL_MAX;
                if (size >= VC_OUTLIER) symbols[i] = vc_signed(near, target[i], loc[i]);
            }
        }
        vc_trellis(m, sizes, strip_prices, tables, centroids, costs, k);
        for (int j = 0; j < m; j++) symbols[places[j]] = vc_signed(k[j], target[places[j]], loc[places[j]]);
    }
    return 0;
}

#define TRELLIS_KERNELS(X) X(symbol_values) X(quantise)
