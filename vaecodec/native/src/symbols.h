// Symbols of coefficients: sorting by table and asymmetric numeral systems (ANS).
//
// Every coefficient has a symbol and a table index; with index 0 the symbol is 0 and is not coded.  Coded symbols are
// sorted by index, so that a run of them shares a table.  A symbol's position is its place in its table, whose last
// entry is the escape.  `table_of` maps an index to the table that codes it (scale offsets).

enum { VC_INDICES = 256, VC_SMALL = 24, VC_ANS_BITS = 24, VC_LOOKUP_BITS = 10, VC_SCAN = 8, VC_LIKELY = 5 << 21 };

static inline uint64_t vc_eight(const uint8_t *bytes) {
    uint64_t eight;
    memcpy(&eight, bytes, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    eight = __builtin_bswap64(eight);
#endif
    return eight;
}

// Bit 7 of each of eight bytes that is not 0, the first byte lowest.
static inline uint64_t vc_nonzero(const uint8_t *bytes) {
    const uint64_t rest = 0x7f7f7f7f7f7f7f7fu;
    uint64_t eight = vc_eight(bytes);
    return (((eight & rest) + rest) | eight) & ~rest;
}

// Places of indices that are not 0; each is written without a branch and stays where the next one is not.
static uint32_t vc_coded_places(int64_t n, const uint8_t *indices, uint32_t *places) {
    uint32_t found = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        if (!vc_eight(indices + i)) continue;
        for (int j = 0; j < 8; j++) {
            places[found] = (uint32_t)(i + j);
            found += indices[i + j] != 0;
        }
    }
    for (; i < n; i++) {
        places[found] = (uint32_t)i;
        found += indices[i] != 0;
    }
    return found;
}

// indices u8[n] -> order u32[n], of which the first m are places of indices that are not 0, sorted by index, stable;
// counts i32[256], counts[0] = 0; places u32[n] is scratch.  Returns m.
static int32_t sort_by_table(int64_t n, const uint8_t *indices, uint32_t *places, uint32_t *order, int32_t *counts) {
    // Four histograms, as an increment waits for the one before it in its own.
    int32_t parts[4][VC_INDICES] = {{0}};
    uint32_t next[VC_INDICES], begin = 0, total = vc_coded_places(n, indices, places);
    for (uint32_t k = 0; k < total; k++) parts[k & 3][indices[places[k]]]++;
    for (int t = 0; t < VC_INDICES; t++) {
        counts[t] = parts[0][t] + parts[1][t] + parts[2][t] + parts[3][t];
        next[t] = begin;
        begin += (uint32_t)counts[t];
    }
    for (uint32_t k = 0; k < total; k++) order[next[indices[places[k]]]++] = places[k];
    return (int32_t)total;
}

// Sorted positions i32[m] -> symbols i32[n], 0 where nothing is coded; escapes u32[m] receives the sorted places of
// escapes, whose symbols are to be replaced.  Returns their number.
static int32_t place_symbols(int64_t n, const int32_t *positions, const uint32_t *order, const int32_t *counts,
                             const int32_t *low, const int32_t *last, const uint8_t *table_of, int32_t *symbols,
                             uint32_t *escapes) {
    uint32_t begin = 0, found = 0;
    memset(symbols, 0, (size_t)n * sizeof *symbols);
    for (int t = 1; t < VC_INDICES; t++) {
        uint32_t end = begin + (uint32_t)counts[t];
        if (begin == end) continue;
        int32_t first = low[table_of[t]], escape = last[table_of[t]];
        for (uint32_t k = begin; k < end; k++) {
            symbols[order[k]] = vc_add(positions[k], first);
            escapes[found] = k;
            found += positions[k] == escape;
        }
        begin = end;
    }
    return (int32_t)found;
}

// The inverse: symbols -> positions i32[m] and escapes, whose number is returned.  *uncodable receives the number of
// symbols of index 0 that are not 0 and of coded ones beyond +-65535.
static int32_t gather_symbols(int64_t n, const int32_t *symbols, const uint32_t *order, const int32_t *counts,
                              const int32_t *low, const int32_t *last, const uint8_t *table_of, int32_t *positions,
                              uint32_t *escapes, int32_t *uncodable) {
    uint32_t begin = 0, found = 0;
    int32_t wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += symbols[i] != 0;
    for (int t = 1; t < VC_INDICES; t++) {
        uint32_t end = begin + (uint32_t)counts[t];
        if (begin == end) continue;
        int32_t first = low[table_of[t]], escape = last[table_of[t]];
        for (uint32_t k = begin; k < end; k++) {
            int32_t symbol = symbols[order[k]];
            uint32_t position = (uint32_t)symbol - (uint32_t)first;
            int outside = position >= (uint32_t)escape;  // those below the table too: they wrap
            positions[k] = outside ? escape : (int32_t)position;
            escapes[found] = k;
            found += (uint32_t)outside;
            wrong += (symbol < -VC_SYMBOL_MAX || symbol > VC_SYMBOL_MAX) - (symbol != 0);
        }
        begin = end;
    }
    *uncodable = wrong;
    return (int32_t)found;
}

// Histogram i32[groups, K, 49] of coded symbols within +-24 by group and index, which must be zeros; large u32[n]
// receives the places of the others.  The groups u8[period] of places repeat.  Returns the number of large ones.
static int32_t count_symbols(int64_t n, const int32_t *symbols, const uint8_t *indices, int32_t scales, int32_t period,
                             const uint8_t *groups, int32_t *histogram, uint32_t *large) {
    uint32_t found = 0;
    int64_t row = 0;  // where the period of the place begins
    for (int64_t begin = 0; begin < n; begin += 8) {
        uint8_t eight[8] = {0};
        memcpy(eight, indices + begin, begin + 8 <= n ? 8 : (size_t)(n - begin));
        for (uint64_t left = vc_nonzero(eight); left; left &= left - 1) {
            int64_t i = begin + (__builtin_ctzll(left) >> 3);
            int32_t s = symbols[i];
            while (i - row >= period) row += period;
            if (s >= -VC_SMALL && s <= VC_SMALL)
                histogram[(2 * VC_SMALL + 1) * (scales * groups[i - row] + indices[i]) + s + VC_SMALL]++;
            else
                large[found++] = (uint32_t)i;
        }
    }
    return (int32_t)found;
}

// Table indices u8[n] shifted by offsets i8[period], which repeat, within 1..last; 0 stays.
static int32_t shift_indices(int64_t n, const uint8_t *indices, int32_t period, const int8_t *offsets, int32_t last,
                             uint8_t *out) {
    enum { PATTERN = 4096 };
    int16_t pattern[PATTERN];
    const int64_t length = PATTERN - PATTERN % period;
    for (int64_t k = 0; k < length; k++) pattern[k] = offsets[k % period];
    for (int64_t begin = 0; begin < n; begin += length) {
        const int64_t count = n - begin < length ? n - begin : length;
        for (int64_t k = 0; k < count; k++) {
            const int16_t index = indices[begin + k];
            int16_t shifted = (int16_t)(index + pattern[k]);
            shifted = shifted < 1 ? 1 : shifted;
            shifted = shifted > last ? (int16_t)last : shifted;
            out[begin + k] = (uint8_t)(index ? shifted : 0);
        }
    }
    return 0;
}

// The stack of section 4 of docs/reference/format.md: a state and words, of which the last is the next.  `memory` u64[2]
// holds the state and the number of words.
typedef struct {
    uint64_t state;
    int64_t count;
} vc_stack;

static inline vc_stack vc_stack_open(const uint64_t *memory) { return (vc_stack){memory[0], (int64_t)memory[1]}; }

static inline void vc_stack_close(vc_stack stack, uint64_t *memory) {
    memory[0] = stack.state;
    memory[1] = (uint64_t)stack.count;
}

static inline uint32_t vc_quantile(vc_stack stack) { return (uint32_t)stack.state & ((1u << VC_ANS_BITS) - 1); }

// Take the entry [start, start + size) off the stack, which was found to hold the quantile.
static inline void vc_stack_take(vc_stack *stack, const uint32_t *words, uint32_t start, uint32_t size) {
    uint64_t state = (stack->state >> VC_ANS_BITS) * size + (vc_quantile(*stack) - start);
    if (state >> 32 == 0 && stack->count > 0) state = state << 32 | words[--stack->count];
    stack->state = state;
}

static inline void vc_put(vc_stack *stack, uint32_t *words, uint32_t start, uint32_t size) {
    if (stack->state >> (64 - VC_ANS_BITS) >= size) {
        words[stack->count++] = (uint32_t)stack->state;
        stack->state >>= 32;
    }
    stack->state = (stack->state / size << VC_ANS_BITS) + stack->state % size + start;
}

// The entry between first and last whose bounds enclose a quantile.  A few are tried in turn; then bisection, since
// thousands of rare entries may share a slot of the lookup table.
static inline int32_t vc_find(const uint32_t *bounds, int32_t first, int32_t last, uint32_t quantile) {
    for (int k = 0; k < VC_SCAN && first < last; k++, first++)
        if (quantile < bounds[first + 1]) return first;
    while (first < last) {
        int32_t middle = (first + last) >> 1;
        if (quantile < bounds[middle + 1])
            last = middle;
        else
            first = middle + 1;
    }
    return first;
}

enum { VC_SLOTS = (1 << VC_LOOKUP_BITS) + 1 };

// lookup u16[tables, 1025]: the entry that holds quantile k << 14; the last of each is the table's last entry.  Table
// t has the bounds from bounds[offsets[t]] = 0 to bounds[offsets[t + 1] - 1] = 2^24.
static int32_t ans_lookup(int64_t tables, const int64_t *offsets, const uint32_t *bounds, uint16_t *lookup) {
    for (int64_t t = 0; t < tables; t++, lookup += VC_SLOTS) {
        const uint32_t *edges = bounds + offsets[t];
        int64_t last = offsets[t + 1] - offsets[t] - 2, entry = 0;
        for (int slot = 0; slot < VC_SLOTS - 1; slot++) {
            while (edges[entry + 1] <= (uint32_t)slot << (VC_ANS_BITS - VC_LOOKUP_BITS)) entry++;
            lookup[slot] = (uint16_t)entry;
        }
        lookup[VC_SLOTS - 1] = (uint16_t)last;
    }
    return 0;
}

// Take `count` positions of one table off the stack.  Where `likely` is not negative it is tried first: as processors
// predict that branch, the next state does not wait for the lookup.
VC_INLINE vc_stack vc_take_run(vc_stack stack, const uint32_t *words, const uint32_t *edges,
                                      const uint16_t *slots, int32_t likely, int32_t count, int32_t *positions) {
    uint32_t start = likely < 0 ? 0 : edges[likely], size = likely < 0 ? 0 : edges[likely + 1] - start;
    for (int32_t k = 0; k < count; k++) {
        uint32_t quantile = vc_quantile(stack);
        if (likely >= 0 && quantile - start < size) {
            vc_stack_take(&stack, words, start, size);
            positions[k] = likely;
            continue;
        }
        const uint16_t *slot = slots + (quantile >> (VC_ANS_BITS - VC_LOOKUP_BITS));
        int32_t entry = vc_find(edges, slot[0], slot[1], quantile);
        vc_stack_take(&stack, words, edges[entry], edges[entry + 1] - edges[entry]);
        positions[k] = entry;
    }
    return stack;
}

// Take runs off the stack: counts[r] positions of table used[r] each.
static int32_t ans_decode(uint64_t *memory, const uint32_t *words, int64_t runs, const int32_t *used,
                          const int32_t *counts, const int64_t *offsets, const uint32_t *bounds,
                          const uint16_t *lookup, int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t r = 0; r < runs; r++) {
        const uint32_t *edges = bounds + offsets[used[r]];
        const uint16_t *slots = lookup + (int64_t)VC_SLOTS * used[r], *middle = slots + VC_SLOTS / 2;
        int32_t likely = vc_find(edges, middle[0], middle[1], 1u << (VC_ANS_BITS - 1));
        if (edges[likely + 1] - edges[likely] >= VC_LIKELY)
            stack = vc_take_run(stack, words, edges, slots, likely, counts[r], positions);
        else
            stack = vc_take_run(stack, words, edges, slots, -1, counts[r], positions);
        positions += counts[r];
    }
    vc_stack_close(stack, memory);
    return 0;
}

// Put the same runs onto the stack, the last position first; `words` has room for a word a position.  Returns 1
// where a position is not in its table.
static int32_t ans_encode(uint64_t *memory, uint32_t *words, int64_t runs, const int32_t *used, const int32_t *counts,
                          const int64_t *offsets, const uint32_t *bounds, int64_t total, const int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t r = runs - 1; r >= 0; r--) {
        const uint32_t *edges = bounds + offsets[used[r]];
        int64_t length = offsets[used[r] + 1] - offsets[used[r]] - 1;
        for (int32_t k = counts[r]; k > 0; k--) {
            int64_t entry = positions[--total];
            if (entry < 0 || entry >= length) return 1;
            vc_put(&stack, words, edges[entry], edges[entry + 1] - edges[entry]);
        }
    }
    vc_stack_close(stack, memory);
    return 0;
}

// n positions of a table each: bounds u32[n, entries + 1].
static int32_t ans_decode_each(uint64_t *memory, const uint32_t *words, int64_t n, int32_t entries,
                               const uint32_t *bounds, int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t k = 0; k < n; k++, bounds += entries + 1) {
        int32_t entry = vc_find(bounds, 0, entries - 1, vc_quantile(stack));
        vc_stack_take(&stack, words, bounds[entry], bounds[entry + 1] - bounds[entry]);
        positions[k] = entry;
    }
    vc_stack_close(stack, memory);
    return 0;
}

static int32_t ans_encode_each(uint64_t *memory, uint32_t *words, int64_t n, int32_t entries, const uint32_t *bounds,
                               const int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t k = n - 1; k >= 0; k--) {
        const uint32_t *edges = bounds + k * (entries + 1);
        if (positions[k] < 0 || positions[k] >= entries) return 1;
        vc_put(&stack, words, edges[positions[k]], edges[positions[k] + 1] - edges[positions[k]]);
    }
    vc_stack_close(stack, memory);
    return 0;
}

// n positions below 2^bits, bits 1..24, all equally likely.
static int32_t ans_decode_uniform(uint64_t *memory, const uint32_t *words, int64_t n, int32_t bits,
                                  int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t k = 0; k < n; k++) {
        uint32_t entry = vc_quantile(stack) >> (VC_ANS_BITS - bits);
        vc_stack_take(&stack, words, entry << (VC_ANS_BITS - bits), 1u << (VC_ANS_BITS - bits));
        positions[k] = (int32_t)entry;
    }
    vc_stack_close(stack, memory);
    return 0;
}

static int32_t ans_encode_uniform(uint64_t *memory, uint32_t *words, int64_t n, int32_t bits,
                                  const int32_t *positions) {
    vc_stack stack = vc_stack_open(memory);
    for (int64_t k = n - 1; k >= 0; k--) {
        if (positions[k] < 0 || positions[k] >> bits) return 1;
        vc_put(&stack, words, (uint32_t)positions[k] << (VC_ANS_BITS - bits), 1u << (VC_ANS_BITS - bits));
    }
    vc_stack_close(stack, memory);
    return 0;
}

#define SYMBOL_KERNELS(X)                                                                                          \
    X(sort_by_table) X(place_symbols) X(gather_symbols) X(count_symbols) X(shift_indices)                          \
    X(ans_lookup) X(ans_decode) X(ans_encode) X(ans_decode_each) X(ans_encode_each) X(ans_decode_uniform)          \
    X(ans_encode_uniform)
