// The synthesis and analysis transforms beside their wavelet: what lies between planes of coefficients, the blocks of
// the networks (networks.h), and pixels.  A strip of rows at a time, so that threads can share an image.
//
// Letters: h, w cells of 16 x 16 pixels; fine cells are 8 x 8 pixels, 2h x 2w of them; C colours.
// Samples are int16 [16h, 16w, C] in units of 2^-14, on a scale of 1 for 255 levels, 0 in the middle of the range.
// Coefficients are planes of int32 in that unit: low [C, h, w], and of octave o bands[o] [3C, 8h >> o, 8w >> o].

enum { VC_OCTAVES = 4, VC_CELL = 16, VC_FINE = 8 };

VC_INLINE int16_t vc_narrow(int32_t x) { return (int16_t)(x < -32767 ? -32767 : x > 32767 ? 32767 : x); }

// ------------------------------------------------------------------------------------------------------------- colours

VC_INLINE void colors_of_row(const int channels, int w, size_t plane, const int32_t *restrict planes,
                             const int32_t *rotation, int16_t *restrict out) {
    for (int x = 0; x < w; x++)
        for (int c = 0; c < channels; c++) {
            int32_t sum = 1 << 13;
            for (int k = 0; k < channels; k++) sum = vc_add(sum, vc_mul(planes[k * plane + x], rotation[k * channels + c]));
            out[x * channels + c] = vc_narrow(sum >> 14);
        }
}
// planes int32 [C, H, W] of rotated colours -> samples int16 [H, W, C], rows [top, bottom); rotation int32 [C, C], unit
// 2^-14.
static int32_t inverse_colors(int32_t channels, int32_t height, int32_t width, int32_t top, int32_t bottom,
                              const int32_t *planes, const int32_t *rotation, int16_t *samples) {
    const size_t plane = (size_t)height * width;
    for (int y = top; y < bottom; y++) {
        const int32_t *in = planes + (size_t)y * width;
        int16_t *out = samples + (size_t)y * width * channels;
        if (channels == 3) colors_of_row(3, width, plane, in, rotation, out);
        else colors_of_row(channels, width, plane, in, rotation, out);
    }
    return 0;
}

VC_INLINE void rotate_pixels(const int channels, int w, size_t plane, const uint8_t *restrict in,
                             const int32_t *rotation, int32_t *restrict out) {
    for (int k = 0; k < channels; k++)
        for (int x = 0; x < w; x++) {
            int32_t sum = 0;
            for (int c = 0; c < channels; c++) sum += rotation[k * channels + c] * (2 * in[x * channels + c] - 255);
            // 257 / 8 is 2^14 / 510, all but.  Of three colours the product stays below 2^31.
            out[k * plane + x] = channels <= 3 ? (257 * sum + (1 << 16)) >> 17
                                               : (int32_t)((257 * (int64_t)sum + (1 << 16)) >> 17);
        }
}
// pixels uint8 [H, W, C] -> planes int32 [C, H, W] of rotated colours, rows [top, bottom).
static int32_t forward_colors(int32_t channels, int32_t height, int32_t width, int32_t top, int32_t bottom,
                              const uint8_t *pixels, const int32_t *rotation, int32_t *planes) {
    const size_t plane = (size_t)height * width;
    for (int y = top; y < bottom; y++) {
        const uint8_t *in = pixels + (size_t)y * width * channels;
        int32_t *out = planes + (size_t)y * width;
        if (channels == 3) rotate_pixels(3, width, plane, in, rotation, out);
        else rotate_pixels(channels, width, plane, in, rotation, out);
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------------- coefficients

// n coefficients for each cell of a line [w * n] -> places in a row of cells, `step` apart; n is 8, 4, 2 or 1.
VC_INLINE void to_cells(const int n, int w, const int16_t *restrict line, int16_t *restrict out, size_t step) {
    for (int i = 0; i < w; i++)
        for (int j = 0; j < n; j++) out[i * step + j] = line[i * n + j];
}
VC_INLINE void from_cells(const int n, int w, const int16_t *restrict in, size_t step, int32_t *restrict line) {
    for (int i = 0; i < w; i++)
        for (int j = 0; j < n; j++) line[i * n + j] = vc_add(line[i * n + j], in[i * step + j]);
}
// Row r of cells: its coefficients [w, 256 C], octave by octave, plane by plane, in units of 2^-11.
static void cells_of_row(int channels, int h, int w, int r, const int32_t *const *bands, const int32_t *low,
                         int16_t *line, int16_t *out, size_t step) {
    for (int octave = 0; octave <= VC_OCTAVES; octave++) {
        const int n = octave < VC_OCTAVES ? VC_FINE >> octave : 1;
        const int planes = octave < VC_OCTAVES ? 3 * channels : channels;
        const int32_t *source = octave < VC_OCTAVES ? bands[octave] : low;
        for (int p = 0; p < planes; p++)
            for (int i = 0; i < n; i++, out += n) {
                const int32_t *restrict in = source + ((size_t)p * h * n + (size_t)r * n + i) * w * n;
                for (int x = 0; x < w * n; x++) line[x] = vc_narrow(vc_add(in[x], 4) >> 3);
                if (n == 8) to_cells(8, w, line, out, step);
                else if (n == 4) to_cells(4, w, line, out, step);
                else if (n == 2) to_cells(2, w, line, out, step);
                else to_cells(1, w, line, out, step);
            }
    }
}

typedef struct { int16_t *line, *in, *out; } vc_rows;
static inline void rows_take(vc_arena *arena, vc_rows *rows, int w, int line, int inputs, int channels) {
    rows->line = vc_take(arena, (size_t)w * line * sizeof(int16_t));
    rows->in = vc_take(arena, (size_t)w * vc_stride(inputs) * sizeof(int16_t));
    rows->out = vc_take(arena, (size_t)w * vc_stride(channels) * sizeof(int16_t));
}
// Lines of 64 bytes for any kernel below, of w cells in a row.
static int32_t transform_scratch(int32_t w, int32_t channels, int32_t coarse, int32_t fine) {
    vc_arena arena = {0};
    vc_rows rows;
    const int widest = 256 * channels > coarse ? 256 * channels : coarse;
    rows_take(&arena, &rows, w, VC_CELL * channels, widest > 4 * fine ? widest : 4 * fine,
              widest > 4 * fine ? widest : 4 * fine);
    rows_take(&arena, &rows, 2 * w, VC_CELL * channels, 64 * channels > fine ? 64 * channels : fine,
              64 * channels > fine ? 64 * channels : fine);
    return vc_lines(&arena) + (int32_t)(vc_stride(fine) * 8 / 64) + 2;
}

// Coefficients -> out int16 [h, w, coarse], rows [top, bottom): the first layer of the synthesis.
static int32_t synthesis_coarse(const void *layer, int32_t channels, int32_t h, int32_t w, int32_t top, int32_t bottom,
                                const int32_t *band0, const int32_t *band1, const int32_t *band2,
                                const int32_t *band3, const int32_t *low, int16_t *out, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const int32_t *bands[VC_OCTAVES] = {band0, band1, band2, band3};
    const size_t step = vc_step(p->inputs), line = (size_t)w * p->channels;
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, VC_CELL * channels, p->inputs, p->channels);
    for (int r = top; r < bottom; r++) {
        cells_of_row(channels, h, w, r, bands, low, rows.line, rows.in, step);
        int16_t *row = out + r * line, *made = vc_target(row, p->channels, rows.out);
        vc_dense_plain(p, w, rows.in, step, made, vc_step(p->channels));
        vc_close(made, w, p->channels, row);
    }
    return 0;
}

// A row of fine cells: its samples [w, 64 C], each cell's 8 x 8 in rows.
static void fine_cells_of_row(int channels, int w, int r, const int16_t *samples, int16_t *out, size_t step) {
    const size_t line = (size_t)w * VC_FINE * channels, run = (size_t)VC_FINE * channels;
    for (int y = 0; y < VC_FINE; y++) {
        const int16_t *in = samples + ((size_t)r * VC_FINE + y) * line;
        for (int i = 0; i < w; i++) __builtin_memcpy(out + i * step + y * run, in + i * run, run * sizeof *in);
    }
}

// x int16 [h, w, coarse] and samples -> out int16 [2h, 2w, fine], of the rows [top, bottom) of x: from the coarse half of
// the network and the linear synthesis to the fine half; `multiplier` int32 [fine], unit 2^-12.
static int32_t synthesis_fine(const void *coarse_layer, const void *skip_layer, int32_t channels, int32_t h, int32_t w,
                              int32_t top, int32_t bottom, const int16_t *x, const int16_t *samples,
                              const int32_t *multiplier, int16_t *out, void *scratch) {
    const vc_dense *coarse = vc_dense_at(coarse_layer), *skip = vc_dense_at(skip_layer);
    const int fine = skip->channels;
    const size_t in_step = vc_step(coarse->inputs), out_step = vc_step(coarse->channels), step = vc_step(fine);
    vc_arena arena = vc_arena_of(scratch);
    vc_rows wide, narrow;
    rows_take(&arena, &wide, w, 1, coarse->inputs, coarse->channels);
    rows_take(&arena, &narrow, 2 * w, (int)vc_stride(fine), skip->inputs, fine);
    const int32_t *padded = vc_padded(multiplier, fine, &arena);
    (void)h;
    for (int r = top; r < bottom; r++) {
        const int16_t *in = vc_open(x + (size_t)r * w * coarse->inputs, w, coarse->inputs, wide.in);
        vc_dense_plain(coarse, w, in, in_step, wide.out, out_step);
        for (int v = 0; v < 2; v++) {
            for (int i = 0; i < 2 * w; i++)  // place (v, i % 2) of cell i / 2
                __builtin_memcpy(narrow.line + i * step, wide.out + i / 2 * out_step + (size_t)(2 * v + i % 2) * fine,
                                 (size_t)fine * sizeof(int16_t));
            fine_cells_of_row(channels, 2 * w, 2 * r + v, samples, narrow.in, vc_step(skip->inputs));
            int16_t *row = out + (size_t)(2 * r + v) * 2 * w * fine, *made = vc_target(row, fine, narrow.out);
            vc_dense_add_mul(skip, 2 * w, narrow.in, vc_step(skip->inputs), narrow.line, step, padded, made, step);
            vc_close(made, 2 * w, fine, row);
        }
    }
    return 0;
}

// x int16 [h2, w2, fine] and samples -> levels int16 [8 h2, 8 w2, C], unit 2^-6, and their pixels uint8, of the rows [top,
// bottom) of fine cells; either may be NULL.
static int32_t synthesis_pixels(const void *layer, int32_t channels, int32_t w, int32_t top, int32_t bottom,
                                const int16_t *x, const int16_t *samples, int16_t *levels, uint8_t *pixels,
                                void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const size_t step = vc_step(p->channels), run = (size_t)VC_FINE * channels, line = w * run;
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, VC_FINE * channels, p->inputs, p->channels);
    for (int r = top; r < bottom; r++) {
        const int16_t *in = vc_open(x + (size_t)r * w * p->inputs, w, p->inputs, rows.in);
        vc_dense_plain(p, w, in, vc_step(p->inputs), rows.out, step);
        for (int y = 0; y < VC_FINE; y++) {
            const size_t from = ((size_t)r * VC_FINE + y) * line;
            int16_t *restrict made = levels ? levels + from : rows.line;
            for (int i = 0; i < w; i++)
                __builtin_memcpy(rows.line + i * run, rows.out + i * step + y * run, run * sizeof(int16_t));
            const int16_t *restrict added = rows.line, *restrict linear = samples + from;
            if (levels) {
                for (size_t n = 0; n < line; n++) made[n] = vc_narrow((255 * (linear[n] + added[n]) + 128) >> 8);
            }
            uint8_t *restrict out = pixels + from;
            for (size_t n = 0; pixels && n < line; n++) {
                const int32_t level = vc_narrow((255 * (linear[n] + added[n]) + 128) >> 8), t = (level + 8192) >> 6;
                out[n] = (uint8_t)(t < 0 ? 0 : t > 255 ? 255 : t);
            }
        }
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------------------ analysis

// pixels uint8 [8 h2, 8 w2, C] -> out int16 [h2, w2, fine], rows [top, bottom) of fine cells; multiplier int32 [fine].
static int32_t analysis_fine(const void *layer, int32_t channels, int32_t w, int32_t top, int32_t bottom,
                             const uint8_t *pixels, const int32_t *multiplier, int16_t *out, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const int fine = p->channels;
    const size_t step = vc_step(p->inputs), run = (size_t)VC_FINE * channels, line = w * run;
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, VC_FINE * channels, p->inputs, fine);
    const int32_t *padded = vc_padded(multiplier, fine, &arena);
    int16_t *zero = vc_take(&arena, vc_stride(fine) * sizeof *zero);
    __builtin_memset(zero, 0, vc_stride(fine) * sizeof *zero);
    for (int r = top; r < bottom; r++) {
        for (int y = 0; y < VC_FINE; y++) {
            const uint8_t *restrict in = pixels + ((size_t)r * VC_FINE + y) * line;
            for (size_t n = 0; n < line; n++) rows.line[n] = (int16_t)(64 * (2 * in[n] - 255));
            for (int i = 0; i < w; i++)
                __builtin_memcpy(rows.in + i * step + y * run, rows.line + i * run, run * sizeof(int16_t));
        }
        int16_t *row = out + (size_t)r * w * fine, *made = vc_target(row, fine, rows.out);
        vc_dense_add_mul(p, w, rows.in, step, zero, 0, padded, made, vc_step(fine));
        vc_close(made, w, fine, row);
    }
    return 0;
}

// x int16 [2h, 2w, fine] -> out int16 [h, w, coarse], rows [top, bottom) of out.
static int32_t analysis_coarse(const void *layer, int32_t w, int32_t top, int32_t bottom, const int16_t *x,
                               int16_t *out, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    const size_t step = vc_step(p->inputs), pair = (size_t)p->inputs / 2;
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, 1, p->inputs, p->channels);
    for (int r = top; r < bottom; r++) {
        for (int v = 0; v < 2; v++)
            for (int i = 0; i < w; i++)
                __builtin_memcpy(rows.in + i * step + v * pair, x + ((size_t)(2 * r + v) * w + i) * pair,
                                 pair * sizeof *x);
        int16_t *row = out + (size_t)r * w * p->channels, *made = vc_target(row, p->channels, rows.out);
        vc_dense_plain(p, w, rows.in, step, made, vc_step(p->channels));
        vc_close(made, w, p->channels, row);
    }
    return 0;
}

// x int16 [h, w, coarse]: the last layer of the analysis, rows [top, bottom), added to the coefficients.
static int32_t analysis_latents(const void *layer, int32_t channels, int32_t h, int32_t w, int32_t top, int32_t bottom,
                                const int16_t *x, int32_t *band0, int32_t *band1, int32_t *band2, int32_t *band3,
                                int32_t *low, void *scratch) {
    const vc_dense *p = vc_dense_at(layer);
    int32_t *bands[VC_OCTAVES] = {band0, band1, band2, band3};
    const size_t step = vc_step(p->channels);
    vc_arena arena = vc_arena_of(scratch);
    vc_rows rows;
    rows_take(&arena, &rows, w, 1, p->inputs, p->channels);
    for (int r = top; r < bottom; r++) {
        const int16_t *in = vc_open(x + (size_t)r * w * p->inputs, w, p->inputs, rows.in);
        vc_dense_plain(p, w, in, vc_step(p->inputs), rows.out, step);
        const int16_t *from = rows.out;
        for (int octave = 0; octave <= VC_OCTAVES; octave++) {
            const int n = octave < VC_OCTAVES ? VC_FINE >> octave : 1;
            int32_t *target = octave < VC_OCTAVES ? bands[octave] : low;
            for (int plane = 0; plane < (octave < VC_OCTAVES ? 3 * channels : channels); plane++)
                for (int i = 0; i < n; i++, from += n) {
                    int32_t *line = target + ((size_t)plane * h * n + (size_t)r * n + i) * w * n;
                    if (n == 8) from_cells(8, w, from, step, line);
                    else if (n == 4) from_cells(4, w, from, step, line);
                    else if (n == 2) from_cells(2, w, from, step, line);
                    else from_cells(1, w, from, step, line);
                }
        }
    }
    return 0;
}

#define TRANSFORM_KERNELS(X)                                                                            \
    X(inverse_colors) X(forward_colors) X(transform_scratch) X(synthesis_coarse) X(synthesis_fine)      \
    X(synthesis_pixels) X(analysis_fine) X(analysis_coarse) X(analysis_latents)
