/* Every format of a level: its packing, and its tiles of every width. */
#include "checkasm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { K_MAX = 8192 + 256 };

/* k of formats without blocks; else k in blocks, and K_MAX, which kernels take in pieces */
static const int short_rows[] = {1,  2,  3,  4,  5,  7,   8,   9,    15,
                                 16, 17, 31, 32, 33, 127, 513, 576,  2048, 8192};
static const int block_rows[] = {1, 2, 3, 4, 5, 7, 8, 18};

static int n_lengths(const struct pl_format *f)
{
    return f->block == 1 ? COUNT(short_rows) : COUNT(block_rows) + 1;
}

static int length(const struct pl_format *f, int i)
{
    if (f->block == 1)
        return short_rows[i];
    return i < COUNT(block_rows) ? f->block * block_rows[i] : K_MAX;
}

/* ---- rows of a file */

static size_t row_bytes(const struct pl_format *f, int k)
{
    return (size_t)(k / f->block) * (size_t)f->block_bytes;
}

enum weights { RANDOM, SCALES, BYTES_FF, BYTES_80, BYTES_7F, BYTES_00, BYTES_MIXED, N_WEIGHTS };

static const char *weights_name(const struct pl_format *f, int kind)
{
    static const char *const names[N_WEIGHTS] = {
        "random", "nasty scales", "ff", "80", "7f", "00", "7f, 80 and ff"};
    return f->block == 1 ? fill_names[kind] : names[kind];
}

static uint8_t weight_byte(enum weights kind)
{
    static const uint8_t same[N_WEIGHTS] = {0, 0, 0xff, 0x80, 0x7f, 0x00, 0};
    if (kind == RANDOM || kind == SCALES)
        return (uint8_t)rng();
    if (kind == BYTES_MIXED)
        return (uint8_t[]){0x7f, 0x80, 0xff}[rng_below(3)];
    return same[kind];
}

static uint16_t weight_scale(enum weights kind)
{
    static const uint16_t nasty[] = {0, 0x8000, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff};
    if (kind == SCALES)
        return nasty[rng_below(COUNT(nasty))];
    return ref_to_f16((float)(rng_between(-1, 1) * exp2(rng_between(-12, 2))));
}

static void fill_block(const struct pl_format *f, uint8_t *block, enum weights kind)
{
    const struct ref_format *const ref = ref_format(f->name);
    double w[BLOCK_MAX], mag[BLOCK_MAX], sum;
    do {
        for (int i = 0; i < f->block_bytes; i++)
            block[i] = weight_byte(kind);
        for (const int *at = ref->scales; *at >= 0; at++) {
            const uint16_t h = weight_scale(kind);
            memcpy(block + *at, &h, 2);
        }
        ref->decode(w, mag, block);
        sum = 0;
        for (int i = 0; i < f->block; i++)
            sum += fabs(w[i]);
        kind = RANDOM;  /* should it not be finite */
    } while (!isfinite(sum));
}

static void fill_row(const struct pl_format *f, uint8_t *row, int k, int kind)
{
    static float x[K_MAX];
    for (int i = 0; i < k && f->block > 1; i += f->block)
        fill_block(f, row + row_bytes(f, i), (enum weights)kind);
    if (f->block > 1)
        return;
    fill_floats(x, k, (enum fill)kind);
    for (int i = 0; i < k; i++) {
        const uint16_t h = strcmp(f->name, "BF16") == 0
                               ? ref_to_bf16(x[i])
                               : ref_to_f16(fmaxf(-65504, fminf(65504, x[i])));
        if (f->block_bytes == 4)
            memcpy(row + 4 * (size_t)i, x + i, 4);
        else
            memcpy(row + 2 * (size_t)i, &h, 2);
    }
}

/* A matrix of n_rows of a file, each off by one byte from alignment, and its panel. */
struct matrix {
    int k, n_rows;
    uint8_t **rows;
    void *panel;
};

static void pack(const struct pl_format *f, const struct matrix *m)
{
    f->pack(m->panel, (const uint8_t *const *)m->rows, m->n_rows, m->k);
}

static void make_matrix(const struct pl_format *f, struct matrix *m, int kind)
{
    const size_t bytes = row_bytes(f, m->k);
    uint8_t *const file = buf((bytes + 1) * (size_t)m->n_rows - 1);
    m->rows = buf((size_t)m->n_rows * sizeof *m->rows);
    for (int r = 0; r < m->n_rows; r++) {
        m->rows[r] = file + (size_t)r * (bytes + 1);
        fill_row(f, m->rows[r], m->k, kind);
    }
    m->panel = buf(f->panel_bytes(m->k));
    pack(f, m);
}

/* a whole panel mostly, else a last one */
static int some_rows(int vl)
{
    return rng() & 1 ? vl : (int[]){1, vl - 1, 1 + rng_below(vl)}[rng_below(3)];
}

/* ---- pack, unpack, dequantize */

static void expect_decoded(const struct pl_format *f, const float *y, const uint8_t *row, int k)
{
    double w[BLOCK_MAX], mag[BLOCK_MAX];
    for (int i = 0; i < k; i++) {
        if (i % f->block == 0)
            ref_format(f->name)->decode(w, mag, row + row_bytes(f, i));
        expect("weight", i, y[i], w[i % f->block], 2 * EPS * mag[i % f->block]);
    }
}

static void check_pack(const struct pl_kernels *kn, const struct pl_format *f)
{
    for (int c = 0; c < n_lengths(f) * N_WEIGHTS; c++) {
        const int kind = c % N_WEIGHTS;
        struct matrix m = {.k = length(f, c / N_WEIGHTS), .n_rows = some_rows(kn->vl)};
        begin("k=%d n_rows=%d w=%s", m.k, m.n_rows, weights_name(f, kind));
        make_matrix(f, &m, kind);
        if (kind == RANDOM) {  /* any bits at all, infinities and NaN too */
            for (int r = 0; r < m.n_rows; r++)
                for (size_t i = 0; i < row_bytes(f, m.k); i++)
                    m.rows[r][i] = (uint8_t)rng();
            pack(f, &m);
        }
        float *const y = buf_loose(4 * (size_t)m.k), *const unpacked = buf_loose(4 * (size_t)m.k);
        for (int r = 0; r < kn->vl; r++) {
            f->unpack(unpacked, m.panel, r, m.k);
            if (r < m.n_rows) {
                f->dequantize(y, m.rows[r], m.k);
                expect_decoded(f, y, m.rows[r], m.k);
                expect_bits("unpacked weight", unpacked, y, m.k);
            }
            for (int i = 0; i < m.k && r >= m.n_rows; i++)
                expect("padding", i, unpacked[i], 0, 0);
        }
        end();
    }
}

/* ---- tiles */

/* the activations of a tile of one token, widened */
static void tile_values(double *x, enum pl_act act, const void *tile, int k)
{
    for (int i = 0; i < k; i++) {
        const char *const block = (const char *)tile + i / PL_I8_BLOCK * PL_I8_BLOCK_BYTES;
        if (act == PL_ACT_F32)
            x[i] = ((const float *)tile)[i];
        else if (act == PL_ACT_BF16)
            x[i] = ref_bf16(((const uint16_t *)tile)[i]);
        else
            x[i] = (double)*(const float *)(block + 32) * (int8_t)block[i % PL_I8_BLOCK];
    }
}

/* What f32 may add to the exact sum of these very terms.
 * f32: product and sum are rounded. bf16: both, twice per pair, and denormal operands or results
 * may count as zero. int8: the integers are exact; per group scales are multiplied and two terms
 * added to the sum, and where scales underflow, up to 2^20 integers with them. */
static struct ref_dot dot_of(enum pl_act act, int group, const double *w, const double *mag,
                             const double *x, int k)
{
    struct ref_dot r = act == PL_ACT_F32    ? ref_dot(w, mag, x, k, 1, 1, 1)
                       : act == PL_ACT_BF16 ? ref_dot(w, mag, x, k, 1, 2, 2)
                                            : ref_dot(w, mag, x, k, group, 2, 5);
    r.tol += act == PL_ACT_F32 ? k * DENORMAL : k * NORMAL_MIN;
    for (int i = 0; i < k && act == PL_ACT_BF16; i++)
        r.tol += NORMAL_MIN * (fabs(w[i]) + fabs(x[i]));
    return r;
}

static void expect_dots(const struct pl_format *f, const struct matrix *m, const void *const *tiles,
                        int n_tokens, const float *y, int vl)
{
    static double w[K_MAX], mag[K_MAX], x[PL_TILE_MAX][K_MAX];
    for (int t = 0; t < n_tokens; t++)
        tile_values(x[t], f->act, tiles[t], m->k);
    for (int r = 0; r < m->n_rows; r++) {
        for (int i = 0; i < m->k; i += f->block)
            ref_format(f->name)->decode(w + i, mag + i, m->rows[r] + row_bytes(f, i));
        for (int t = 0; t < n_tokens; t++) {
            const struct ref_dot dot = dot_of(f->act, ref_format(f->name)->group, w, mag, x[t], m->k);
            if (dot.total < 1e38)  /* else its partial sums may overflow */
                expect("y", t * vl + r, y[t * vl + r], dot.y, dot.tol);
        }
    }
    for (int i = 0; i < n_tokens * vl; i++)
        if (i % vl >= m->n_rows)
            expect("padding", i, y[i], 0, 0);
}

static void *make_tile(const struct pl_kernels *kn, const struct pl_format *f, float *const *x,
                       int nt, int k)
{
    void *const tile = buf_loose(pl_act_bytes(f->act, k) * (size_t)nt);
    for (int t = 0; t < nt; t++)
        kn->act[f->act](tile, t, nt, x[t], k);
    return tile;
}

/* y [tile_max][vl], each token alone; tiles: what it was given */
static float *alone(const struct pl_kernels *kn, const struct pl_format *f, const struct matrix *m,
                    float *const *x, const void **tiles)
{
    const int max = kn->tile_max[f->act];
    float *const ys = buf_loose(4 * (size_t)(max * kn->vl));
    for (int t = 0; t < max; t++) {
        tiles[t] = make_tile(kn, f, x + t, 1, m->k);
        f->tile[1](ys + t * kn->vl, m->panel, f->panel_bytes(m->k), 1, tiles[t], m->k);
    }
    return ys;
}

enum { ADJACENT = 7 };

/* adjacent panels: those of m and of another matrix by turns */
static const char *by_turns(const struct pl_format *f, const struct matrix *m)
{
    struct matrix other = {.k = m->k, .n_rows = m->n_rows};
    const size_t bytes = f->panel_bytes(m->k);
    char *const panels = buf(ADJACENT * bytes);
    make_matrix(f, &other, UNIFORM);
    for (int p = 0; p < ADJACENT; p++)
        memcpy(panels + (size_t)p * bytes, p % 2 ? other.panel : m->panel, bytes);
    return panels;
}

/* a tile has the bits of each token alone, whatever the number of panels */
static void check_panels(const struct pl_kernels *kn, const struct pl_format *f, const char *panels, const void *tile,
                         int nt, int k, const float *ys)
{
    const size_t bytes = f->panel_bytes(k);
    const int n = nt * kn->vl, n_panels = rng_below(4) ? 1 : 2 + rng_below(ADJACENT - 1);
    float *const y = buf_loose(4 * (size_t)(n_panels * n)), *const other = buf_loose(4 * (size_t)n);
    char what[48];
    f->tile[nt](y, panels, bytes, n_panels, tile, k);
    f->tile[nt](other, panels + bytes, bytes, 1, tile, k);
    for (int p = 0; p < n_panels; p++) {
        snprintf(what, sizeof what, "y of a tile of %d, panel %d of %d", nt, p, n_panels);
        expect_bits(what, y + p * n, p % 2 ? other : ys, n);
    }
}

/* so has one that multiplies expanded panels, if the format has them */
static void check_expanded(const struct pl_kernels *kn, const struct pl_format *f, const char *panels, const void *tile,
                           int nt, int k)
{
    if (!f->expanded)
        return;
    enum { N = 3 };
    const size_t bytes = f->panel_bytes(k), expanded_bytes = f->expanded->panel_bytes(k);
    const int n = N * nt * kn->vl;
    char *const expanded = buf(N * expanded_bytes);
    float *const y = buf_loose(4 * (size_t)n), *const other = buf_loose(4 * (size_t)n);
    if (expanded_bytes % 64)
        fail("expanded panels of %zu bytes", expanded_bytes);
    for (int p = 0; p < N; p++)
        f->expanded->expand(expanded + (size_t)p * expanded_bytes, panels + (size_t)p * bytes, k);
    f->tile[nt](other, panels, bytes, N, tile, k);
    f->expanded->tile[nt](y, expanded, expanded_bytes, N, tile, k);
    expect_bits("y of expanded panels", y, other, n);
}

static void check_tile(const struct pl_kernels *kn, const struct pl_format *f)
{
    const int max = kn->tile_max[f->act];
    for (int c = 0; c < n_lengths(f) * N_WEIGHTS; c++) {
        const int kind = c % N_WEIGHTS;
        struct matrix m = {.k = length(f, c / N_WEIGHTS), .n_rows = some_rows(kn->vl)};
        float *x[PL_TILE_MAX];
        const void *tiles[PL_TILE_MAX];
        begin("k=%d n_rows=%d w=%s", m.k, m.n_rows, weights_name(f, kind));
        make_matrix(f, &m, kind);
        for (int t = 0; t < max; t++)  /* every fill beside every other */
            x[t] = buf_floats(m.k, (enum fill)((t + c) % N_FILLS));
        const float *const ys = alone(kn, f, &m, x, tiles);
        expect_dots(f, &m, tiles, max, ys, kn->vl);
        const char *const panels = by_turns(f, &m);
        for (int nt = 1; nt <= max; nt++) {
            const int first = rng_below(max - nt + 1);
            const void *const tile = make_tile(kn, f, x + first, nt, m.k);
            check_panels(kn, f, panels, tile, nt, m.k, ys + first * kn->vl);
            check_expanded(kn, f, panels, tile, nt, m.k);
        }
        end();
    }
}

/* a token that is not finite has outputs that say so, and its neighbours keep their bits */
static void check_nan(const struct pl_kernels *kn, const struct pl_format *f)
{
    const int max = kn->tile_max[f->act];
    for (int c = 0; c < 4 * max; c++) {
        const int nt = 1 + c % max, bad = rng_below(nt), inf = c / max % 2;
        struct matrix m = {.k = length(f, rng_below(n_lengths(f) - 2)), .n_rows = kn->vl};
        float *x[PL_TILE_MAX];
        const void *tiles[PL_TILE_MAX];
        begin("k=%d nt=%d %s in token %d", m.k, nt, inf ? "inf" : "NaN", bad);
        make_matrix(f, &m, UNIFORM);
        for (int t = 0; t < max; t++)
            x[t] = buf_floats(m.k, UNIFORM);
        const float *const ys = alone(kn, f, &m, x, tiles);
        x[bad][rng_below(m.k)] = inf ? INFINITY : NAN;
        float *const y = buf_loose(4 * (size_t)(nt * kn->vl));
        f->tile[nt](y, m.panel, f->panel_bytes(m.k), 1, make_tile(kn, f, x, nt, m.k), m.k);
        for (int t = 0; t < nt; t++)
            if (t != bad)
                expect_bits("neighbour", y + t * kn->vl, ys + t * kn->vl, kn->vl);
        for (int r = 0; r < kn->vl; r++)
            if (isfinite(y[bad * kn->vl + r]))
                fail("row %d of the bad token is %g", r, y[bad * kn->vl + r]);
        end();
    }
}

const struct op format_ops[] = {
    {".pack", check_pack},
    {".tile", check_tile},
    {".nan", check_nan},
    {NULL, NULL},
};
