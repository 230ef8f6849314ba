// Lossless and near-lossless coding of samples: an online fit of weights, context mixing, and a binary range coder.
//
// One call codes some rows of one plane; its state is in the caller's memory.  Row y of a plane needs the rows above
// it, and row y of the planes before it that it sees (none, one or two).  All arithmetic is of integers, and sums that
// may wrap are unsigned: damaged streams decode to other samples, within the same memory.  The definition is in
// vaecodec/native/reference/lossless.py; lossless_fit.h and lossless_bits.h come first.
#include "core.h"

// ---- Contexts ----

// Four times the logarithm to base 2, plus 1, with a straight line between powers of two; 0 of 0.
VC_INLINE int32_t ll_log(int32_t x) {
    if (!x) return 0;
    const int32_t exponent = 31 - __builtin_clz((uint32_t)x);
    return 4 * exponent + (int32_t)(((uint64_t)(uint32_t)x << 2 >> exponent) & 3) + 1;
}

// One of nine classes of a difference.
VC_INLINE int32_t ll_nine(int32_t x) {
    const int32_t a = ll_abs(x), c = (a >= 2) + (a >= 6) + (a >= 14) + (a >= 32);
    return x < 0 ? 4 - c : 4 + c;
}

// Clip what the weights of a fit add to the sample above, of so many bits more, to a prediction in 1/64.
VC_INLINE int32_t ll_predicted(int64_t sum, int32_t N, int32_t maximum, int32_t fine) {
    sum = (sum >> (8 + fine)) + N * (64 >> fine);
    return (int32_t)(sum < 0 ? 0 : sum > maximum * 64 ? maximum * 64 : sum);
}

// The prediction of a fit at x of the row of `samples`.
VC_INLINE int32_t ll_prediction(const ll_plane *plane, int32_t fit, const int32_t *samples, int32_t x, int32_t N,
                                int32_t maximum, int32_t fine) {
    const int32_t *weights = plane->weights[fit] + x / LL_BLOCK;
    int64_t sum = plane->partial[fit][x];
    sum += (int64_t)(samples[x - 1] - N) * weights[0] + (int64_t)(samples[x - 2] - N) * weights[plane->blocks];
    sum += (int64_t)(samples[x - 3] - N) * weights[2 * plane->blocks];
    return ll_predicted(sum, N, maximum, fine);
}

// The errors of a fit around x, with weights; `all` for their energy, else for the weight of its prediction.
VC_INLINE int32_t ll_missed(const ll_plane *plane, int32_t fit, int32_t y, int32_t x, int all) {
    const int32_t *here = ll_line(plane->misses[fit], plane->stride, y) + x;
    const int32_t *above = ll_line(plane->misses[fit], plane->stride, y - 1) + x;
    const int32_t *above2 = ll_line(plane->misses[fit], plane->stride, y - 2) + x;
    if (all) return 4 * here[-1] + 4 * above[0] + 2 * above[-1] + 3 * above[1] + here[-2] + above2[0] + above[2];
    return 2 * here[-1] + 2 * above[0] + above[-1] + above[1] + here[-2] + above2[0];
}

// The mean of the predictions of fits, weighted by their squared errors around x.
VC_INLINE int32_t ll_blend(const ll_plane *plane, const int32_t *fitted, int32_t y, int32_t x, int32_t less) {
    if (plane->fits == 1) return fitted[0];
    int64_t total = 0, sum = 0;
    for (int32_t fit = 0; fit < plane->fits; fit++) {
        const int64_t missed = (ll_missed(plane, fit, y, x, 0) >> less) + 4;
        const int64_t weight = (1ll << 34) / (missed * missed) + 1;
        total += weight;
        sum += weight * fitted[fit];
    }
    return (int32_t)((sum + (total >> 1)) / total);
}

// Place the shapes of a sample: one around each fit's prediction, three around the final one, one around each guess.
VC_INLINE void ll_place_shapes(const ll_plane *plane, ll_bits *b, const int32_t *fitted, int32_t mean,
                               const int32_t *guesses, int32_t prediction, int32_t y, int32_t x, int32_t o1,
                               int32_t log_all, const int32_t *contexts) {
    int32_t *final = plane->deviations + 2 * (LL_FITS * LL_DEVIATIONS + ll_min(log_all, LL_DEVIATIONS - 1));
    int32_t *others = plane->deviations + 2 * (LL_FITS + 1 + LL_GUESSES) * LL_DEVIATIONS;
    ll_shapes *shapes = &b->shapes;
    shapes->count = plane->fits + 3 + (guesses ? LL_GUESSES : 0);
    for (int32_t n = 0; n < shapes->count; n++) {
        const int32_t third = n - plane->fits;
        if (third < 0) {
            const int32_t class = ll_log((ll_missed(plane, n, y, x, 1) + 8 * o1) >> 3);
            shapes->deviation[n] = plane->deviations + 2 * (n * LL_DEVIATIONS + ll_min(class, LL_DEVIATIONS - 1));
        } else if (third < 3) {
            const int32_t place = third == 1 ? contexts[6] - 512 - 5 * 2048 : 2048 + contexts[1] - 512;
            shapes->deviation[n] = third ? others + 2 * place : final;
            if (!shapes->deviation[n][1]) shapes->deviation[n][0] = final[0];
        } else {
            shapes->deviation[n] = final + 2 * (third - 2) * LL_DEVIATIONS;
        }
        shapes->centre[n] = (third < 0 ? fitted[n] : third < 3 ? mean : guesses[third - 3]) - prediction * 64;
        shapes->inverse[n] = 27962027 / (shapes->deviation[n][0] + 341);
    }
}

// Learn the errors of fits, and the scales of shapes.
VC_INLINE void ll_learn_shapes(const ll_plane *plane, ll_bits *b, const int32_t *fitted, int32_t prediction,
                               int32_t coded, int32_t y, int32_t x) {
    for (int32_t fit = 0; fit < plane->fits; fit++)
        ll_line(plane->misses[fit], plane->stride, y)[x] = ll_abs(coded * 64 - fitted[fit]) >> 4;
    for (int32_t n = 0; n < b->shapes.count; n++) {
        int32_t *deviation = b->shapes.deviation[n];
        const int32_t error = ll_abs((coded - prediction) * 64 - b->shapes.centre[n]) * 64, count = deviation[1];
        deviation[0] += (int32_t)((int64_t)(error - deviation[0]) * b->tables[LL_RECIPROCALS + count + 2] >> 16);
        deviation[1] = count + (count < LL_DEVIATION_COUNT_MAX);
    }
}

// Estimate a sample that was coded within a bound, in eighths: of what its residual leaves open, what is near the mean.
VC_INLINE int32_t ll_estimate(int32_t coded, int32_t residual, int32_t mean, int32_t energy, int32_t bound,
                              int32_t maximum) {
    const int32_t half = 16 * bound + 8, share = (half << 8) / (half + energy + 4);  // half a step in 1/16, like energy
    const int32_t offset = half * share >> 9;
    const int32_t change = residual < 0 ? offset : residual ? -offset : (mean - coded * 64) * share >> 11;
    return vc_clip((coded << LL_FINE) + change, 0, maximum << LL_FINE);
}

// Code a row of a plane; plane->coded has its samples to encode, or gets those decoded.
VC_INLINE void ll_row(const ll_plane *planes, ll_bits *b, int decode, int deep, int32_t seen, int32_t depth,
                      int32_t bound, int32_t y, int32_t width) {
    const ll_plane *plane = planes;
    const ptrdiff_t stride = plane->stride;
    const int32_t maximum = (1 << depth) - 1, step = 2 * bound + 1;
    const int32_t fine = bound ? LL_FINE : 0, unit = 64 >> fine;  // of samples, in 1/64
    const int32_t less = depth > 8 ? (depth - 8) >> 1 : 0, drop = depth > 12 ? depth - 12 : 0;
    int32_t *samples = ll_line(plane->samples, stride, y), *errors = ll_line(plane->errors, stride, y);
    const int32_t *above = ll_line(plane->samples, stride, y - 1), *above2 = ll_line(plane->samples, stride, y - 2);
    const int32_t *errors1 = ll_line(plane->errors, stride, y - 1), *errors2 = ll_line(plane->errors, stride, y - 2);
    // The planes before; where none is seen, any row: its values are multiplied by 0 or not chosen.
    const ll_plane *before = seen ? planes - 1 : planes, *first = seen > 1 ? planes - 2 : before;
    const int32_t *other = ll_line(before->samples, stride, y), *other_above = ll_line(before->samples, stride, y - 1);
    const int32_t *first_samples = ll_line(first->samples, stride, y);
    const int32_t *first_above = ll_line(first->samples, stride, y - 1);
    const int32_t *other_errors = ll_line(before->errors, stride, y), *first_errors = ll_line(first->errors, stride, y);
    for (int32_t x = 0; x < width; x++) {
        const int32_t value = plane->coded[x], W = samples[x - 1], WW = samples[x - 2], N = above[x], NW = above[x - 1];
        const int32_t NE = above[x + 1], NN = above2[x];
        // Prediction, in 1/64.
        int32_t mean, fitted[LL_FITS];
        if (y) {
            fitted[0] = ll_prediction(plane, 0, samples, x, N, maximum, fine);
            for (int32_t fit = 1; deep && fit < plane->fits; fit++)
                fitted[fit] = ll_prediction(plane, fit, samples, x, N, maximum, fine);
            mean = deep ? ll_blend(plane, fitted, y, x, less) : fitted[0];
        } else {
            mean = unit * (seen ? vc_clip(W + other[x] - other[x - 1], 0, maximum << fine) : W);
            for (int32_t fit = 0; fit < LL_FITS; fit++) fitted[fit] = mean;
        }
        // Errors of the neighbours, in quarters.
        const int32_t eW = ll_abs(errors[x - 1]), eWW = ll_abs(errors[x - 2]), eN = ll_abs(errors1[x]);
        const int32_t eNW = ll_abs(errors1[x - 1]), eNE = ll_abs(errors1[x + 1]), eNEE = ll_abs(errors1[x + 2]);
        const int32_t eNN = ll_abs(errors2[x]), eNNE = ll_abs(errors2[x + 1]);
        const int32_t o1 = seen > 0 ? ll_abs(other_errors[x]) : 0, o2 = seen > 1 ? ll_abs(first_errors[x]) : 0;
        const int32_t own = (4 * eW + 4 * eN + 2 * eNW + 3 * eNE + eWW + eNN + eNEE) >> 2;
        const int32_t all = seen == 0 ? own : seen == 1 ? (2 * own + 8 * o1) >> 2 : (2 * own + 4 * o1 + 4 * o2) >> 2;
        const int32_t log_own = ll_log(own >> 1), log_all = ll_log(all >> 1);
        const int32_t texture = (W * unit > mean) | (N * unit > mean) << 1 | (NW * unit > mean) << 2 |
                                (NE * unit > mean) << 3 | (WW * unit > mean) << 4 | (NN * unit > mean) << 5;
        // Bias: the mean of three means of earlier errors, in 1/4096.
        const int32_t side = seen ? other_errors[x] : errors1[x + 1];
        int32_t *bias[3] = {
            plane->bias + 2 * (texture * 16 + ll_min(log_own >> 2, 15)),
            plane->bias + 2 * (1024 + ll_nine(errors[x - 1] >> (1 + less)) * 81 +
                               ll_nine(errors1[x] >> (1 + less)) * 9 + ll_nine(side >> (1 + less))),
            plane->bias + 2 * (2048 + ll_nine((N * unit - mean) >> (5 + less)) * 81 +
                               ll_nine((W * unit - mean) >> (5 + less)) * 9 +
                               ll_nine((NE * unit - mean) >> (5 + less))),
        };
        const int32_t unbiased = mean;
        mean += (int32_t)(((int64_t)bias[0][0] + bias[1][0] + bias[2][0]) * 21846 >> 22);
        mean = vc_clip(mean, 0, maximum * 64);
        const int32_t prediction = (mean + 32) >> 6, fraction = (mean - prediction * 64 + 32) >> 3;
        // Contexts.
        const int32_t high = ll_max(W, N), low = ll_min(W, N);
        int32_t median = NW >= high ? low : NW <= low ? high : W + N - NW;
        if (seen) {
            const int32_t a = W - other[x - 1], c = N - other_above[x], d = NW - other_above[x - 1];
            const int32_t upper = ll_max(a, c), lower = ll_min(a, c);
            median = other[x] + (d >= upper ? lower : d <= lower ? upper : a + c - d);
        }
        const int32_t activity = ll_abs(W - NW) + ll_abs(N - NW) + ll_abs(N - NE) + ll_abs(W - WW) + ll_abs(N - NN);
        const int32_t log_activity = ll_min(ll_log(activity >> (less + fine)), 40), half = ll_min(log_all >> 1, 15);
        const int32_t g1 = ll_min(ll_log(o1 >> less) >> 2, 8), g2 = ll_min(ll_log(o2 >> less) >> 2, 8);
        const int32_t s1 = seen > 0 ? other_errors[x] : errors[x - 1], s2 = seen > 1 ? first_errors[x] : errors1[x];
        const int32_t dN = ll_nine((N * unit - mean) >> (5 + less)), dW = ll_nine((W * unit - mean) >> (5 + less));
        const int32_t contexts[LL_CONTEXTS] = {
            ll_min(log_all, 63) * 8 + fraction,
            512 + (seen ? (ll_min(log_own >> 1, 23) * 9 + g1) * 9 + g2 : log_activity * 48 + ll_min(log_all, 47)),
            512 + 2048 + (dN * 9 + dW) * 16 + half,
            512 + 2 * 2048 + ((vc_clip((s1 + (2 << less)) >> (2 + less), -8, 8) + 8) * 7 +
                              vc_clip((s2 + (4 << less)) >> (3 + less), -3, 3) + 3) * 16 + half,
            512 + 3 * 2048 + (vc_clip((median * unit - mean) >> (5 + less), -7, 7) + 7) * 128 + half * 8 + fraction,
            512 + 4 * 2048 + (depth > 8 ? prediction >> (depth - 8) : prediction) * 8 + ll_min(log_all >> 2, 7),
            512 + 5 * 2048 + (vc_clip(ll_log((eNW + eNN + eNNE) >> less) >> 1, 4, 19) - 4) * 128 +
                (vc_clip(ll_log((eW + eWW) >> less) >> 1, 4, 19) - 4) * 8 +
                vc_clip(ll_log((eN + eNE + eNEE) >> less) >> 2, 2, 9) - 2,
        };
        for (int n = 0; n < LL_CONTEXTS; n++) {
            b->counters[n] = plane->counters + (ptrdiff_t)contexts[n] * plane->nodes;
            __builtin_prefetch(b->counters[n]);
        }
        const int32_t class = ll_min(log_all >> 1, LL_CLASSES - 1);
        const int32_t inputs = deep > 1 ? LL_DEEPEST_INPUTS : deep ? LL_DEEP_INPUTS : LL_INPUTS;
        b->mixer_of_class = plane->mixers + (1 + class) * plane->nodes * inputs;
        if (deep) {
            b->mixer_of_sides = plane->mixers + (1 + LL_CLASSES + dN * 9 + dW) * plane->nodes * inputs;
            // Guesses: without a fit, by the change of a plane before or along a line.
            const int32_t guesses[LL_GUESSES] = {
                unit * median,
                unit * (seen ? W + other[x] - other[x - 1] : 2 * W - WW),
                unit * (seen ? N + other[x] - other_above[x] : 2 * N - NN),
                unit * (seen > 1 ? W + first_samples[x] - first_samples[x - 1] : W + NE - N),
                unit * (seen > 1 ? N + first_samples[x] - first_above[x] : W + N - NW),
            };
            if (deep > 1) {
                const int32_t dWW = ll_nine((WW * unit - mean) >> (5 + less));
                const int32_t dNE = ll_nine((NE * unit - mean) >> (5 + less)), height = prediction << 5 >> depth;
                b->mixer_of_height = plane->mixers + (1 + LL_CLASSES + LL_SIDES + height) * plane->nodes * inputs;
                b->maps = plane->maps + (ptrdiff_t)(dWW * 9 + dNE) * plane->nodes * LL_MAP_POINTS;
            }
            ll_place_shapes(plane, b, fitted, mean, deep > 1 ? guesses : NULL, prediction, y, x, o1, log_all, contexts);
        }
        b->raw = plane->raw + (class & 15) * 16;
        // The residual, quantised to steps of 2 * bound + 1.
        int32_t residual = 0;
        if (!decode) {
            residual = value - prediction;
            if (bound) residual = (residual < 0 ? residual - bound : residual + bound) / step;
        }
        residual = ll_residual(b, decode, deep, depth, residual);
        const int32_t coded = vc_clip(prediction + residual * step, 0, maximum);
        plane->coded[x] = coded;
        samples[x] = bound ? ll_estimate(coded, residual, mean, all, bound, maximum) : coded;
        // Learn.
        if (deep) ll_learn_shapes(plane, b, fitted, prediction, coded, y, x);
        errors[x] = (coded * 64 - mean) >> 4;
        const int32_t error = (coded * 64 - unbiased) * 64;
        for (int n = 0; n < 3; n++) {
            const int32_t count = bias[n][1];
            bias[n][0] += (int32_t)((int64_t)(error - bias[n][0]) * b->tables[LL_RECIPROCALS + count + 2] >> 16);
            bias[n][1] = count + (count < LL_BIAS_COUNT_MAX);
        }
        const int32_t spread = (((eW + eN + eNW + eNE) >> 2) + (ll_abs(errors[x]) >> 1)) >> drop;
        plane->scale[x] = 4 * b->tables[LL_RECIPROCALS + ll_min(4 + spread, 4095)];
    }
}

// ---- Rows ----

VC_INLINE int32_t ll_load(const uint8_t *samples, int32_t wide, ptrdiff_t n) {
    uint16_t value;
    if (!wide) return samples[n];
    memcpy(&value, samples + 2 * n, 2);
    return value;
}

VC_INLINE void ll_store(uint8_t *samples, int32_t wide, ptrdiff_t n, int32_t value) {
    const uint16_t two = (uint16_t)value;
    if (wide)
        memcpy(samples + 2 * n, &two, 2);
    else
        samples[n] = (uint8_t)value;
}

VC_INLINE void ll_fill(int32_t *line, ptrdiff_t first, ptrdiff_t end, int32_t value) {
    for (ptrdiff_t x = first; x < end; x++) line[x] = value;
}

VC_INLINE void ll_rows(int decode, int deep, uint8_t *memory, int64_t plane_size, int32_t index, int32_t seen,
                       int32_t width, int32_t depth, int32_t bound, int32_t level, int32_t top, int32_t bottom,
                       uint8_t *image, int32_t wide, int32_t channels, int32_t channel, const uint16_t *tables,
                       ll_bits *b) {
    ll_plane planes[4], *plane = planes + index;
    for (int32_t n = index - seen; n <= index; n++) ll_layout(planes + n, memory + n * plane_size, width, depth, level);
    b->coder = *plane->coder;
    b->tables = tables;
    b->mixer = plane->mixers;
    b->shapes.step = 2 * bound + 1;
    b->halves = plane->nodes / 2;
    for (ptrdiff_t n = 0; deep > 1 && !top && n < (ptrdiff_t)LL_MAPS * plane->nodes * LL_MAP_POINTS; n++)
        plane->maps[n] = (uint16_t)ll_squash(tables, vc_clip(128 * (int32_t)(n % LL_MAP_POINTS) - 2048, -2047, 2047));
    if (decode && !b->coder.started) {
        for (; b->coder.position < 4; b->coder.position++)
            b->coder.code = b->coder.code << 8 | (b->coder.position < b->size ? b->data[b->coder.position] : 0);
        b->coder.started = 1;
    }
    const ptrdiff_t stride = plane->stride, end = stride - LL_PAD;
    const int32_t maximum = (1 << depth) - 1, fine = bound ? LL_FINE : 0;
    for (int32_t y = top; y < bottom; y++) {
        int32_t *line = ll_line(plane->samples, stride, y), *errors = ll_line(plane->errors, stride, y);
        uint8_t *row = image + ((ptrdiff_t)y * width * channels + channel) * (wide ? 2 : 1);
        const int32_t start = y      ? ll_line(plane->samples, stride, y - 1)[0]
                              : seen ? ll_line(planes[index - 1].samples, stride, 0)[0]
                                     : 1 << (depth - 1 + fine);
        if (!y)
            for (int32_t back = 1; back <= 3; back++)
                ll_fill(ll_line(plane->samples, stride, -back), -LL_PAD, end, start);
        ll_fill(line, -LL_PAD, 0, start);
        ll_fill(errors, -LL_PAD, 0, y ? ll_line(plane->errors, stride, y - 1)[0] : 0);
        if (!decode)
            for (int32_t x = 0; x < width; x++)
                plane->coded[x] = ll_min(ll_load(row, wide, (ptrdiff_t)x * channels), maximum);
        const ll_features features = ll_place_features(plane, seen, y);
        for (int32_t fit = 0; fit < plane->fits; fit++) {
            if (y) ll_predict(plane, &features, fit);
            if (deep) {
                const int32_t start = y ? ll_line(plane->misses[fit], stride, y - 1)[0] : 0;
                ll_fill(ll_line(plane->misses[fit], stride, y), -LL_PAD, 0, start);
            }
        }
        ll_row(plane, b, decode, deep, seen, depth, bound, y, width);
        ll_fill(line, width, end, line[width - 1]);
        ll_fill(errors, width, end, errors[width - 1]);
        for (int32_t fit = 0; deep && fit < plane->fits; fit++) {
            int32_t *misses = ll_line(plane->misses[fit], stride, y);
            ll_fill(misses, width, end, misses[width - 1]);
        }
        if (decode || bound)
            for (int32_t x = 0; x < width; x++) ll_store(row, wide, (ptrdiff_t)x * channels, plane->coded[x]);
        ll_fit(plane, &features, width, depth, fine);
    }
    *plane->coder = b->coder;
}

// Encode rows top..bottom-1 of a plane into at most LL_SAMPLE_BYTES a sample; returns their number.
//
// memory has the planes of lossless_start, plane_size bytes apart; this one is the index-th, and sees `seen` before it.
// image is u8 or, where `wide`, u16 [H, width, channels].  With a bound above 0 it gets the samples that decoders get.
static int32_t lossless_encode(uint8_t *memory, int64_t plane_size, int32_t index, int32_t seen, int32_t width,
                               int32_t depth, int32_t bound, int32_t level, int32_t top, int32_t bottom,
                               uint8_t *image, int32_t wide, int32_t channels, int32_t channel, const uint16_t *tables,
                               uint8_t *out, int32_t last) {
    ll_bits bits = {.out = out};
    if (level > 3)
        ll_rows(0, 2, memory, plane_size, index, seen, width, depth, bound, level, top, bottom, image, wide, channels,
                channel, tables, &bits);
    else if (level)
        ll_rows(0, 1, memory, plane_size, index, seen, width, depth, bound, level, top, bottom, image, wide, channels,
                channel, tables, &bits);
    else
        ll_rows(0, 0, memory, plane_size, index, seen, width, depth, bound, 0, top, bottom, image, wide, channels,
                channel, tables, &bits);
    if (last) *bits.out++ = (uint8_t)(bits.coder.high >> 24);  // zeros follow it: a number from low to high
    return (int32_t)(bits.out - out);
}

// Decode rows top..bottom-1 of a plane; returns 1 if more than three bytes beyond the stream's end were read, else 0.
static int32_t lossless_decode(uint8_t *memory, int64_t plane_size, int32_t index, int32_t seen, int32_t width,
                               int32_t depth, int32_t bound, int32_t level, int32_t top, int32_t bottom,
                               uint8_t *image, int32_t wide, int32_t channels, int32_t channel, const uint16_t *tables,
                               const uint8_t *data, int64_t size) {
    ll_bits bits = {.data = data, .size = (uint64_t)size};
    if (level > 3)
        ll_rows(1, 2, memory, plane_size, index, seen, width, depth, bound, level, top, bottom, image, wide, channels,
                channel, tables, &bits);
    else if (level)
        ll_rows(1, 1, memory, plane_size, index, seen, width, depth, bound, level, top, bottom, image, wide, channels,
                channel, tables, &bits);
    else
        ll_rows(1, 0, memory, plane_size, index, seen, width, depth, bound, 0, top, bottom, image, wide, channels,
                channel, tables, &bits);
    return bits.coder.position > (uint64_t)size + 3;
}

#define LOSSLESS_KERNELS(X) X(lossless_size) X(lossless_start) X(lossless_encode) X(lossless_decode)
