/* Attention over one KV block, its merge, and the cache's stores. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

static const int head_dims[] = {1,  2,  3,  7,  8,  9,  15, 16,  17, 31,
                                33, 48, 64, 65, 80, 96, 127, 128, 256};

/* ---- attend */

/* A KV block with its contents as doubles, and nq queries with the state that they come with. */
struct scene {
    int f16, head_dim, v_dim, nq, n_keys;
    void *k, *v;
    float *q, *o, *m, *l;
    uint32_t *visible;
    double keys[PL_KV_BLOCK * REF_DIM_MAX], values[PL_KV_BLOCK * REF_DIM_MAX];
};
static struct scene scene;

static double put(void *p, int i, int f16, float x)
{
    if (!f16)
        return ((float *)p)[i] = x;
    const uint16_t h = ref_to_f16(isfinite(x) ? fmaxf(-65504, fminf(65504, x)) : x);
    ((uint16_t *)p)[i] = h;
    return ref_f16(h);
}

static void put_nan(struct scene *s, int j, float nan_or_inf)
{
    for (int d = 0; d < s->head_dim; d++) {
        put(s->k, d * PL_KV_BLOCK + j, s->f16, nan_or_inf);
        put(s->v, j * s->v_dim + d, s->f16, nan_or_inf);
    }
}

static void put_key(struct scene *s, int j, enum fill k_fill, enum fill v_fill)
{
    float row[REF_DIM_MAX];
    fill_floats(row, s->head_dim, k_fill);
    for (int d = 0; d < s->head_dim; d++)
        s->keys[j * s->head_dim + d] = put(s->k, d * PL_KV_BLOCK + j, s->f16, row[d]);
    fill_floats(row, s->head_dim, v_fill);
    for (int d = 0; d < s->head_dim; d++)
        s->values[j * s->v_dim + d] = put(s->v, j * s->v_dim + d, s->f16, row[d]);
}

/* keys 0 .. n_keys-1 by these fills; after them zeros as in a fresh block, or what an earlier
 * sequence left there */
static void fill_block(struct scene *s, enum fill k_fill, enum fill v_fill)
{
    memset(s->k, 0, (size_t)s->head_dim * PL_KV_BLOCK * (s->f16 ? 2 : 4));
    memset(s->v, 0, (size_t)s->v_dim * PL_KV_BLOCK * (s->f16 ? 2 : 4));
    memset(s->values, 0, sizeof s->values);
    for (int j = 0; j < s->n_keys; j++)
        put_key(s, j, k_fill, v_fill);
    const int stale = rng_below(3);
    for (int j = s->n_keys; j < PL_KV_BLOCK && stale == 1; j++)
        put_key(s, j, UNIFORM, UNIFORM);
    for (int j = s->n_keys; j < PL_KV_BLOCK && stale == 2; j++)
        put_nan(s, j, NAN);
}

static void make_scene(struct scene *s, int f16, int head_dim, int nq)
{
    const size_t bytes = (size_t)PL_KV_BLOCK * (f16 ? 2 : 4);
    s->f16 = f16;
    s->head_dim = head_dim;
    s->v_dim = pl_v_dim(head_dim);
    s->nq = nq;
    s->k = buf(head_dim * bytes);
    s->v = buf(s->v_dim * bytes);
    s->q = buf_loose(4 * (size_t)(head_dim * nq));
    s->visible = buf(sizeof(uint32_t) * (size_t)nq);
    s->o = buf_floats(nq * s->v_dim, ZEROS);
    s->l = buf_floats(nq, ZEROS);
    s->m = buf_floats(nq, ZEROS);
    for (int i = 0; i < nq; i++)
        s->m[i] = -1e30f;
}

static void fill_queries(struct scene *s, enum fill fill, float gain)
{
    float row[REF_DIM_MAX];
    for (int i = 0; i < s->nq; i++) {
        fill_floats(row, s->head_dim, fill);
        for (int d = 0; d < s->head_dim; d++)
            s->q[d * s->nq + i] = row[d] * gain;
    }
}

static void attend_tile(const struct pl_kernels *kn, struct scene *s)
{
    pl_attend_fn *const attend = kn->attend[s->f16 ? PL_KV_F16 : PL_KV_F32][s->nq];
    attend(s->o, s->m, s->l, s->q, s->k, s->v, s->head_dim, s->n_keys, s->visible);
}

/* query i from the state (o, m, l) before, alone */
struct single { float o[REF_DIM_MAX], m, l; };
enum mask { CAUSAL, WINDOW, ANY, N_MASKS };
static const char *const mask_names[N_MASKS] = {"causal", "window", "any"};

static uint32_t first_keys(int n)
{
    return n <= 0 ? 0 : n >= 32 ? ~UINT32_C(0) : (UINT32_C(1) << n) - 1;
}

/* keys to look at for these to be among them */
static int bits_of(uint32_t visible) { return visible ? 32 - __builtin_clz(visible) : 0; }

static void attend_alone(const struct pl_kernels *kn, const struct scene *s, struct single *y,
                         int i, int n_keys)
{
    float q[REF_DIM_MAX];
    for (int d = 0; d < s->head_dim; d++)
        q[d] = s->q[d * s->nq + i];
    pl_attend_fn *const attend = kn->attend[s->f16 ? PL_KV_F16 : PL_KV_F32][1];
    attend(y->o, &y->m, &y->l, q, s->k, s->v, s->head_dim, n_keys, s->visible + i);
}

static void expect_state(const char *what, const struct scene *s, int i, const struct single *y)
{
    expect_bits(what, s->o + i * s->v_dim, y->o, s->v_dim);
    expect_bits("m", s->m + i, &y->m, 1);
    expect_bits("l", s->l + i, &y->l, 1);
}

static void expect_equation(const struct scene *s, int i, const struct single *before)
{
    static struct ref_attend y;
    double q[REF_DIM_MAX];
    for (int d = 0; d < s->head_dim; d++)
        q[d] = s->q[d * s->nq + i];
    y.m = before->m;
    y.l = before->l;
    for (int d = 0; d < s->v_dim; d++)
        y.o[d] = before->o[d];
    ref_attend(&y, q, s->keys, s->values, s->head_dim, s->visible[i]);
    expect("m", i, s->m[i], y.m, y.m_tol);
    expect("l", i, s->l[i], y.l, y.l_tol);
    for (int d = 0; d < s->v_dim; d++)
        expect("o", i * s->v_dim + d, s->o[i * s->v_dim + d], y.o[d], y.o_tol[d]);
    for (int d = s->head_dim; d < s->v_dim; d++)
        expect("o's padding", d, s->o[i * s->v_dim + d], 0, 0);
}

/* one block: the equation, and the bits of each query alone, with its masked keys and without */
static void attend_and_check(const struct pl_kernels *kn, struct scene *s)
{
    static struct single before[PL_QUERY_MAX], one[PL_QUERY_MAX];
    for (int i = 0; i < s->nq; i++) {
        memcpy(before[i].o, s->o + i * s->v_dim, 4 * (size_t)s->v_dim);
        before[i].m = s->m[i];
        before[i].l = s->l[i];
        one[i] = before[i];
    }
    attend_tile(kn, s);
    for (int i = 0; i < s->nq; i++) {
        expect_equation(s, i, &before[i]);
        attend_alone(kn, s, &one[i], i, s->n_keys);
        expect_state("o alone", s, i, &one[i]);
        one[i] = before[i];
        attend_alone(kn, s, &one[i], i, bits_of(s->visible[i]));
        expect_state("o alone, unmasked", s, i, &one[i]);
        if (s->visible[i] == 0)
            expect_state("o of no keys", s, i, &before[i]);
    }
}

/* what the queries of a tile see: all up to a diagonal, a window of that, or anything */
static void set_visible(struct scene *s, enum mask mask)
{
    const int window = 1 + rng_below(PL_KV_BLOCK);
    for (int i = 0; i < s->nq; i++) {
        const int v = s->n_keys - s->nq + 1 + i;
        s->visible[i] = first_keys(mask == ANY ? s->n_keys : v);
        if (mask == WINDOW)
            s->visible[i] &= ~first_keys(v - window);
        else if (mask == ANY)
            s->visible[i] &= rng() & 1 ? first_keys(rng_below(s->n_keys + 1)) : (uint32_t)rng();
    }
}

/* keys that nobody but the last query sees are not finite: the others must not notice */
static void check_hidden_nan(const struct pl_kernels *kn, struct scene *s)
{
    static struct single clean[PL_QUERY_MAX];
    for (int i = 0; i < s->nq; i++) {
        s->visible[i] = first_keys(i == s->nq - 1 ? s->n_keys : rng_below(s->n_keys));
        memcpy(clean[i].o, s->o + i * s->v_dim, 4 * (size_t)s->v_dim);
        clean[i].m = s->m[i];
        clean[i].l = s->l[i];
        attend_alone(kn, s, &clean[i], i, bits_of(s->visible[i]));
    }
    put_nan(s, s->n_keys - 1, rng() & 1 ? NAN : INFINITY);
    attend_tile(kn, s);
    for (int i = 0; i + 1 < s->nq; i++)
        expect_state("o beside a NaN key", s, i, &clean[i]);
    if (isfinite(s->o[(s->nq - 1) * s->v_dim]))
        fail("a NaN key was lost");
}

static void check_attend(const struct pl_kernels *kn, int f16)
{
    struct scene *const s = &scene;
    for (int c = 0; c < COUNT(head_dims) * (PL_KV_BLOCK + 1); c++) {
        const int head_dim = head_dims[c / (PL_KV_BLOCK + 1)], n_keys = c % (PL_KV_BLOCK + 1);
        const int nq = 1 + c % PL_QUERY_MAX;
        const enum mask mask = (enum mask)rng_below(N_MASKS);
        const enum fill q_fill = c % 2 ? UNIFORM : (enum fill)rng_below(N_FILLS);
        const enum fill k_fill = c % 2 ? UNIFORM : (enum fill)rng_below(N_FILLS);
        const enum fill v_fill = (enum fill)rng_below(N_FILLS);
        const float gain = (float[]){0.1f, 1, 8}[rng_below(3)];
        begin("head_dim=%d nq=%d n_keys=%d %s q=%s*%g k=%s v=%s", head_dim, nq, n_keys,
              mask_names[mask], fill_names[q_fill], gain, fill_names[k_fill],
              fill_names[v_fill]);
        make_scene(s, f16, head_dim, nq);
        fill_queries(s, q_fill, gain);
        s->n_keys = 1 + rng_below(PL_KV_BLOCK);  /* a block before, so that there is a state */
        fill_block(s, UNIFORM, UNIFORM);
        set_visible(s, ANY);
        attend_and_check(kn, s);
        s->n_keys = n_keys;
        fill_block(s, k_fill, v_fill);
        set_visible(s, mask);
        attend_and_check(kn, s);
        memset(s->visible, 0, sizeof(uint32_t) * (size_t)nq);  /* a block of the future: no trace */
        attend_and_check(kn, s);
        if (n_keys) {
            fill_block(s, UNIFORM, UNIFORM);
            check_hidden_nan(kn, s);
        }
        end();
    }
}

static void check_attend_f16(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    check_attend(kn, 1);
}

static void check_attend_f32(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    check_attend(kn, 0);
}

/* ---- attend_merge */

static void check_attend_merge(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    static struct ref_attend want;
    for (int c = 0; c < COUNT(head_dims) * N_FILLS * 4; c++) {
        const int n = head_dims[c % COUNT(head_dims)], empty = c / COUNT(head_dims) % 4;
        const enum fill fill = (enum fill)(c / (COUNT(head_dims) * 4));
        const enum fill fill2 = (enum fill)rng_below(N_FILLS);
        begin("n=%d o=%s o2=%s%s%s", n, fill_names[fill], fill_names[fill2],
              empty & 1 ? " first empty" : "", empty & 2 ? " second empty" : "");
        float *const o = buf_floats(n, empty & 1 ? ZEROS : fill);
        const float *const o2 = buf_floats(n, empty & 2 ? ZEROS : fill2);
        float *const m = buf_floats(1, ZEROS), *const l = buf_floats(1, ZEROS);
        float before[REF_DIM_MAX];
        *m = empty & 1 ? -1e30f : (float)rng_between(-50, 50);
        *l = empty & 1 ? 0.0f : (float)rng_between(1, 100);
        const float m2 = empty & 2 ? -1e30f : (float)rng_between(-50, 50);
        const float l2 = empty & 2 ? 0.0f : (float)rng_between(1, 100);
        want.m = *m;
        want.l = *l;
        for (int i = 0; i < n; i++)
            want.o[i] = before[i] = o[i];
        ref_attend_merge(&want, o2, m2, l2, n);
        kn->attend_merge(m, l, o, m2, l2, o2, n);
        expect("m", 0, *m, want.m, 0);
        expect("l", 0, *l, want.l, want.l_tol);
        for (int i = 0; i < n; i++) {
            expect("o", i, o[i], want.o[i], want.o_tol[i]);
            if (empty & 2)
                expect("o + nothing", i, o[i], before[i], 0);
        }
        end();
    }
}

/* ---- kv_store */

/* element i of a block holds x, or what buf left there if x is NULL */
static void expect_stored(const char *what, const void *block, int i, int f16, const float *x)
{
    if (f16) {
        const uint16_t h = ((const uint16_t *)block)[i];
        const int ok = !x ? h == 0xffff : isnan(*x) ? isnan(ref_f16(h)) : h == ref_to_f16(*x);
        if (!ok)
            fail("%s[%d] is %04x for %.9g", what, i, h, x ? *x : 0);
        return;
    }
    const uint8_t *const p = (const uint8_t *)block + 4 * (size_t)i;
    if (memcmp(p, x ? (const void *)x : "\xff\xff\xff\xff", 4) != 0)
        fail("%s[%d] is not %.9g", what, i, x ? *x : 0);
}

static void check_kv_store(const struct pl_kernels *kn, int f16, int head_dim, const float *key,
                           const float *value)
{
    const int v_dim = pl_v_dim(head_dim), slot = rng_below(PL_KV_BLOCK);
    const size_t bytes = (size_t)PL_KV_BLOCK * (f16 ? 2 : 4);
    void *const k = buf(head_dim * bytes), *const v = buf(v_dim * bytes);
    kn->kv_store[f16 ? PL_KV_F16 : PL_KV_F32](k, v, slot, key, value, head_dim);
    for (int d = 0; d < v_dim; d++)
        for (int s = 0; s < PL_KV_BLOCK; s++) {
            const int written = s == slot && d < head_dim;
            if (d < head_dim)
                expect_stored("k", k, d * PL_KV_BLOCK + s, f16, written ? key + d : NULL);
            expect_stored("v", v, s * v_dim + d, f16, written ? value + d : NULL);
        }
}

static void check_kv_store_dims(const struct pl_kernels *kn, int f16)
{
    for (int c = 0; c < COUNT(head_dims) * N_FILLS; c++) {
        const int head_dim = head_dims[c / N_FILLS];
        const enum fill fill = (enum fill)(c % N_FILLS);
        begin("head_dim=%d x=%s", head_dim, fill_names[fill]);
        float *const key = buf_floats(head_dim, fill), *const value = buf_floats(head_dim, fill);
        key[rng_below(head_dim)] = (float[]){NAN, INFINITY, -INFINITY, -0.0f}[rng_below(4)];
        check_kv_store(kn, f16, head_dim, key, value);
        end();
    }
}

static void check_kv_store_f32(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    check_kv_store_dims(kn, 0);
}

/* every f16, and halfway to its neighbour with the floats next to that */
static void check_kv_store_f16(const struct pl_kernels *kn, const struct pl_format *format)
{
    enum { N = 16, POINTS = 4 };
    (void)format;
    check_kv_store_dims(kn, 1);
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
        check_kv_store(kn, 1, N * POINTS, key, value);
        end();
    }
}

const struct op attention_ops[] = {
    {"attend_f16", check_attend_f16},         {"attend_f32", check_attend_f32},
    {"attend_merge", check_attend_merge},     {"kv_store_f16", check_kv_store_f16},
    {"kv_store_f32", check_kv_store_f32},     {NULL, NULL},
};
