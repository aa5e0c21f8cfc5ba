/* Activations into tiles: token t of nt is written where kernels.h says, and nothing else is. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

enum { UNTOUCHED = 0xff };  /* what buf leaves in a tile */

static int is_untouched(const void *p, size_t bytes)
{
    const uint8_t *const b = p;
    for (size_t i = 0; i < bytes; i++)
        if (b[i] != UNTOUCHED)
            return 0;
    return 1;
}

static void check_act_f32(const struct pl_kernels *kn, const struct pl_format *format)
{
    static const int ks[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 127, 576, 2048};
    (void)format;
    for (int c = 0; c < COUNT(ks) * PL_TILE_MAX; c++) {
        const int k = ks[c / PL_TILE_MAX], nt = 1 + c % PL_TILE_MAX, t = rng_below(nt);
        const enum fill fill = (enum fill)rng_below(N_FILLS);
        begin("k=%d nt=%d t=%d x=%s", k, nt, t, fill_names[fill]);
        float *const x = buf_floats(k, fill);
        float *const tile = buf(pl_act_bytes(PL_ACT_F32, k) * (size_t)nt);
        x[rng_below(k)] = (float[]){NAN, INFINITY, -0.0f, 1}[rng_below(4)];
        kn->act[PL_ACT_F32](tile, t, nt, x, k);
        for (int i = 0; i < k * nt; i++)
            if (i % nt == t ? !same_float(tile[i], x[i / nt]) : !is_untouched(tile + i, 4))
                fail("tile[%d][%d] is %g, x %g", i / nt, i % nt, tile[i], x[i / nt]);
        end();
    }
}

static int is_bf16(unsigned h, float x)
{
    return isnan(x) ? isnan(ref_bf16((uint16_t)h)) : h == ref_to_bf16(x);
}

/* fills that bf16 rounding is about: halfway, one below and one above it */
static void fill_near_ties(float *x, int n)
{
    for (int i = 0; i < n; i++) {
        const uint32_t u = (uint32_t)(rng() << 16) + 0x8000 + (uint32_t)(rng_below(3) - 1);
        memcpy(x + i, &u, 4);
    }
}

static void check_act_bf16(const struct pl_kernels *kn, const struct pl_format *format)
{
    static const int ks[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 127, 576, 2048};
    (void)format;
    for (int c = 0; c < COUNT(ks) * PL_TILE_MAX; c++) {
        const int k = ks[c / PL_TILE_MAX], nt = 1 + c % PL_TILE_MAX, t = rng_below(nt);
        const int fill = rng_below(N_FILLS + 2);
        begin("k=%d nt=%d t=%d x=%s", k, nt, t, fill < N_FILLS ? fill_names[fill] : "ties");
        float *const x = buf_floats(k, fill < N_FILLS ? (enum fill)fill : ZEROS);
        uint16_t *const tile = buf(pl_act_bytes(PL_ACT_BF16, k) * (size_t)nt);
        if (fill >= N_FILLS)
            fill_near_ties(x, k);
        kn->act[PL_ACT_BF16](tile, t, nt, x, k);
        for (int i = 0; i < (k + PL_BF16_BLOCK - 1) / PL_BF16_BLOCK * PL_BF16_BLOCK; i++)
            for (int j = 0; j < nt; j++) {
                const uint16_t *const at = tile + (i / PL_BF16_BLOCK * nt + j) * PL_BF16_BLOCK + i % PL_BF16_BLOCK;
                const float want = i < k ? x[i] : 0.0f;
                if (j == t ? !is_bf16(*at, want) : !is_untouched(at, 2))
                    fail("k %d of token %d is %04x of %g", i, j, *at, want);
            }
        end();
    }
}

/* what the level's dot products start from (simd/scalar.h, DOT_START) */
static int32_t dot_start(const struct pl_kernels *kn)
{
    const char *const from_zero[] = {"scalar", "avx2", "avx512-bf16"};
    for (int i = 0; i < COUNT(from_zero); i++)
        if (!strcmp(kn->name, from_zero[i]))
            return 0;
    return 0x4b400000;
}

/* max / 127 with two bits of its mantissa cleared */
static float scale_of(float max)
{
    const float d = max / 127.0f;
    uint32_t u;
    memcpy(&u, &d, 4);
    u &= ~3u;
    float cleared;
    memcpy(&cleared, &u, 4);
    return cleared;
}

/* d = max|x| / 127 (scale_of), q the nearest to x / d, and from these c, s, z and z16 exactly */
static void expect_i8_block(const struct pl_kernels *kn, const float *x, const int8_t *q, float d, float c, float s,
                            const int32_t z[3])
{
    float max = 0;
    int finite = 1, sum = 0, first = 0;
    for (int i = 0; i < PL_I8_BLOCK; i++) {
        max = fmaxf(max, fabsf(x[i]));
        sum += q[i];
        first += i < 16 ? q[i] : 0;
        if (!(fabsf(x[i]) < 0x1p111f))
            finite = 0;
    }
    if (!finite) {
        if (!isnan(d))
            fail("d is %g in a block that is not finite", d);
        for (int i = 0; i < PL_I8_BLOCK; i++)
            if (q[i] == -128)
                fail("q[%d] is -128", i);  /* outside of what the dot products take */
        return;
    }
    const int32_t pair = (int32_t)((uint32_t)(-8 * first) & 0xffff) | (int32_t)((uint32_t)(-8 * (sum - first)) << 16);
    const int32_t start = dot_start(kn);
    if (d != scale_of(max) || (double)c != -0x1.8p23 * (double)d || s != d * (float)sum)
        fail("d %g, c %g, s %g of max %g, sum %d", d, c, s, max, sum);
    if (z[0] != (strcmp(kn->name, "avx2") ? start - 128 * sum : pair))
        fail("z %d of sum %d", z[0], sum);
    if (z[1] != start - 32 * first || z[2] != start - 32 * (sum - first))
        fail("z16 %d, %d of sums %d, %d", z[1], z[2], first, sum - first);
    for (int i = 0; i < PL_I8_BLOCK; i++) {
        /* x * (127 / max) is rounded twice; below 1e-36 all is zero */
        const double want = max > 0 ? x[i] * 127.0 / max : 0;
        const double tol = 0.5 + 127 * 2.01 * EPS;
        if (!(fabs(q[i] - want) <= tol) && !(max <= 1e-36f && q[i] == 0))
            fail("q[%d] is %d, not %.9g", i, q[i], want);
    }
}

static void check_act_i8(const struct pl_kernels *kn, const struct pl_format *format)
{
    static const int blocks[] = {1, 2, 3, 7, 8, 18, 64};
    (void)format;
    for (int c = 0; c < COUNT(blocks) * PL_TILE_MAX * N_FILLS; c++) {
        const int nb = blocks[c % COUNT(blocks)], k = nb * PL_I8_BLOCK;
        const int nt = 1 + c / COUNT(blocks) % PL_TILE_MAX, t = rng_below(nt);
        const enum fill fill = (enum fill)(c / (COUNT(blocks) * PL_TILE_MAX));
        const float odd = (float[]){NAN, INFINITY, -INFINITY, 3e38f, 0x1p111f, 0x1.fffffep110f, 1e-45f, 1, 0, 0}[rng_below(10)];
        begin("k=%d nt=%d t=%d x=%s one=%g", k, nt, t, fill_names[fill], odd);
        float *const x = buf_floats(k, fill);
        char *const tile = buf(pl_act_bytes(PL_ACT_I8, k) * (size_t)nt);
        if (odd != 0)
            x[rng_below(k)] = odd;
        if (fill == UNIFORM)  /* multiples of a half, so ties */
            for (int i = 0; i < k; i++)
                x[i] = i % 32 ? (float)(rng_below(509) - 254) / 2 : 127;
        kn->act[PL_ACT_I8](tile, t, nt, x, k);
        for (int b = 0; b < nb; b++)
            for (int j = 0; j < nt; j++) {
                const char *const block = tile + (size_t)b * PL_I8_BLOCK_BYTES * nt;
                const float *const d = (const float *)(block + 32 * nt) + j, *const c = d + nt, *const s = c + nt;
                const int32_t *const at = (const int32_t *)(s + nt), z[3] = {at[0], at[nt], at[2 * nt]};
                const int8_t *const q = (const int8_t *)block + 32 * j;
                if (j == t)
                    expect_i8_block(kn, x + b * PL_I8_BLOCK, q, *d, *c, *s, z);
                else if (!is_untouched(q, 32) || !is_untouched(d, 4) || !is_untouched(c, 4) ||
                         !is_untouched(s, 4) || !is_untouched(z, sizeof z))
                    fail("wrote to token %d", j);
            }
        end();
    }
}

const struct op activation_ops[] = {
    {"act_f32", check_act_f32},
    {"act_bf16", check_act_bf16},
    {"act_i8", check_act_i8},
    {NULL, NULL},
};
