/* The stores of the KV cache. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

const int head_dims[N_HEAD_DIMS] = {1,  2,  3,  7,  8,  9,  15, 16,  17, 31,
                                    33, 48, 64, 65, 80, 96, 127, 128, 256};

int kv_index(int is_value, int j, int d, int v_dim) { return is_value ? j * v_dim + d : d * PL_KV_BLOCK + j; }

uint16_t *kv_scale(void *p, int is_value, int j, int d, int dim)
{
    uint16_t *const scales = (uint16_t *)((char *)p + PL_KV_BLOCK * dim);
    return scales + (is_value ? j * ((dim + 31) / 32) + d / 32 : d / 32 * PL_KV_BLOCK + j);
}

/* element i of a block holds x, or what buf left there if x is NULL */
static void expect_stored(const char *what, const void *block, int i, enum pl_kv_dtype dtype, const float *x)
{
    if (dtype != PL_KV_F32) {
        const int f16 = dtype == PL_KV_F16;
        const uint16_t h = ((const uint16_t *)block)[i];
        const int ok = !x         ? h == 0xffff
                       : isnan(*x) ? isnan(f16 ? ref_f16(h) : ref_bf16(h))
                                   : h == (f16 ? ref_to_f16(*x) : ref_to_bf16(*x));
        if (!ok)
            fail("%s[%d] is %04x for %.9g", what, i, h, x ? *x : 0);
        return;
    }
    const uint8_t *const p = (const uint8_t *)block + 4 * (size_t)i;
    if (memcmp(p, x ? (const void *)x : "\xff\xff\xff\xff", 4) != 0)
        fail("%s[%d] is not %.9g", what, i, x ? *x : 0);
}

static void check_kv_store(const struct pl_kernels *kn, enum pl_kv_dtype dtype, int head_dim, const float *key,
                           const float *value)
{
    const int v_dim = pl_v_dim(head_dim), slot = rng_below(PL_KV_BLOCK);
    void *const k = buf(pl_kv_bytes(dtype, head_dim)), *const v = buf(pl_kv_bytes(dtype, v_dim));
    kn->kv_store[dtype](k, v, slot, key, value, head_dim);
    for (int d = 0; d < v_dim; d++)
        for (int s = 0; s < PL_KV_BLOCK; s++) {
            const int written = s == slot && d < head_dim;
            if (d < head_dim)
                expect_stored("k", k, d * PL_KV_BLOCK + s, dtype, written ? key + d : NULL);
            expect_stored("v", v, s * v_dim + d, dtype, written ? value + d : NULL);
        }
}

/* scale and bytes of one group of x as GGUF rounds them; a scale that is NaN if not all is finite */
static void expect_group(void *p, int is_value, int slot, int d0, int n, int dim, const float *x)
{
    float max = 0, finite = 0;
    for (int i = 0; i < n; i++) {
        max = fmaxf(max, fabsf(x[i]));
        finite += x[i] * 0;
    }
    const uint16_t h = *kv_scale(p, is_value, slot, d0, dim);
    if (isnan(finite)) {
        if (!isnan(ref_f16(h)))
            fail("a scale is %04x for what is not finite", h);
        return;
    }
    const float d = max / 127, id = d > 0 ? 1 / d : 0;
    if (h != ref_to_f16(d))
        fail("a scale is %04x for %.9g", h, d);
    for (int i = 0; i < n; i++) {
        const int q = ((int8_t *)p)[kv_index(is_value, slot, d0 + i, dim)];
        const float want = fabsf(x[i] * id) < 127.5f ? roundf(x[i] * id) : 0;
        if (q != (int)want)
            fail("%s[%d] is %d for %.9g of %.9g", is_value ? "v" : "k", d0 + i, q, x[i], max);
    }
}

/* what other tokens have is left as it was */
static void expect_others(void *p, int is_value, int slot, int head_dim, int dim)
{
    for (int s = 0; s < PL_KV_BLOCK; s++)
        for (int d = 0; d < dim; d++) {
            if (s == slot && d < head_dim)
                continue;
            if (((uint8_t *)p)[kv_index(is_value, s, d, dim)] != 0xff)
                fail("value %d of token %d was written", d, s);
            if (s != slot && *kv_scale(p, is_value, s, d, dim) != 0xffff)
                fail("scale %d of token %d was written", d / 32, s);
        }
}

static void check_kv_store_q8_0_dim(const struct pl_kernels *kn, int head_dim, const float *key, const float *value)
{
    const int v_dim = pl_v_dim(head_dim), slot = rng_below(PL_KV_BLOCK);
    void *const k = buf(pl_kv_bytes(PL_KV_Q8_0, head_dim)), *const v = buf(pl_kv_bytes(PL_KV_Q8_0, v_dim));
    kn->kv_store[PL_KV_Q8_0](k, v, slot, key, value, head_dim);
    for (int d = 0; d < head_dim; d += 32) {
        const int n = head_dim - d < 32 ? head_dim - d : 32;
        expect_group(k, 0, slot, d, n, head_dim, key + d);
        expect_group(v, 1, slot, d, n, v_dim, value + d);
    }
    expect_others(k, 0, slot, head_dim, head_dim);
    expect_others(v, 1, slot, head_dim, v_dim);
}

static void check_kv_store_dims(const struct pl_kernels *kn, enum pl_kv_dtype dtype)
{
    for (int c = 0; c < N_HEAD_DIMS * N_FILLS; c++) {
        const int head_dim = head_dims[c / N_FILLS];
        const enum fill fill = (enum fill)(c % N_FILLS);
        begin("head_dim=%d x=%s", head_dim, fill_names[fill]);
        float *const key = buf_floats(head_dim, fill), *const value = buf_floats(head_dim, fill);
        key[rng_below(head_dim)] = (float[]){NAN, INFINITY, -INFINITY, -0.0f}[rng_below(4)];
        if (dtype == PL_KV_Q8_0)
            check_kv_store_q8_0_dim(kn, head_dim, key, value);
        else
            check_kv_store(kn, dtype, head_dim, key, value);
        end();
    }
}

#define CHECK_KV_STORE(name, dtype)                                                              \
    static void check_kv_store_##name(const struct pl_kernels *kn, const struct pl_format *format) \
    {                                                                                           \
        (void)format;                                                                           \
        check_kv_store_dims(kn, dtype);                                                         \
    }
CHECK_KV_STORE(f32, PL_KV_F32)
CHECK_KV_STORE(bf16, PL_KV_BF16)
CHECK_KV_STORE(q8_0, PL_KV_Q8_0)

/* every f16, and halfway to its neighbour with the floats next to that */
static void check_kv_store_f16(const struct pl_kernels *kn, const struct pl_format *format)
{
    enum { N = 16, POINTS = 4 };
    (void)format;
    check_kv_store_dims(kn, PL_KV_F16);
    for (unsigned h = 0; h < 0x7c00; h += N) {
        begin("f16 %04x and on", h);
        float *const key = buf_loose(4 * N * POINTS), *const value = buf_loose(4 * N * POINTS);
        for (int i = 0; i < N * POINTS; i++) {
            const double a = ref_f16((uint16_t)(h + (unsigned)i / POINTS));
            const double step = a < 0x1p-14 ? 0x1p-24 : ldexp(1, ilogb(a) - 10);
            const float half = (float)(a + step / 2);
            const float at[] = {(float)a, nextafterf(half, 0), half, nextafterf(half, INFINITY)};
            key[i] = at[i % POINTS];
            value[i] = -key[i];
        }
        check_kv_store(kn, PL_KV_F16, N * POINTS, key, value);
        end();
    }
}

const struct op kv_ops[] = {
    {"kv_store_f16", check_kv_store_f16},   {"kv_store_f32", check_kv_store_f32},
    {"kv_store_bf16", check_kv_store_bf16}, {"kv_store_q8_0", check_kv_store_q8_0},
    {NULL, NULL},
};
