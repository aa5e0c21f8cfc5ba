/* Attention over one KV block, and its merge. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

/* ---- attend */

/* A KV block with its contents as doubles, and nq queries with the state that they come with. */
struct scene {
    enum pl_kv_dtype dtype;
    int head_dim, v_dim, nq, n_keys;
    void *k, *v;
    float *q, *o, *m, *l;
    uint32_t *visible;
    double keys[PL_KV_BLOCK * REF_DIM_MAX], values[PL_KV_BLOCK * REF_DIM_MAX];
};
static struct scene scene;

static double put(void *p, int i, enum pl_kv_dtype dtype, float x)
{
    if (dtype == PL_KV_F32)
        return ((float *)p)[i] = x;
    const float within = isfinite(x) ? fmaxf(-65504, fminf(65504, x)) : x;
    const uint16_t h = dtype == PL_KV_F16 ? ref_to_f16(within) : ref_to_bf16(within);
    ((uint16_t *)p)[i] = h;
    return dtype == PL_KV_F16 ? ref_f16(h) : ref_bf16(h);
}

/* Q8_0, some scale and some bytes: how they came about is the store's matter. A NaN is that of the scale. */
static void put_q8_0(void *p, int is_value, int j, const float *row, int head_dim, int dim, double *y)
{
    for (int d = 0; d < head_dim; d++) {
        uint16_t *const scale = kv_scale(p, is_value, j, d, dim);
        if (d % 32 == 0)
            *scale = ref_to_f16(isfinite(row[d]) ? fmaxf(-500, fminf(500, row[d])) / 100 : row[d]);
        const int8_t q = (int8_t)(rng_below(255) - 127);
        ((int8_t *)p)[kv_index(is_value, j, d, dim)] = q;
        y[d] = q * ref_f16(*scale);
    }
}

static void put_row(struct scene *s, int is_value, int j, const float *row)
{
    void *const p = is_value ? s->v : s->k;
    double *const y = is_value ? s->values + j * s->v_dim : s->keys + j * s->head_dim;
    if (s->dtype == PL_KV_Q8_0) {
        put_q8_0(p, is_value, j, row, s->head_dim, is_value ? s->v_dim : s->head_dim, y);
        return;
    }
    for (int d = 0; d < s->head_dim; d++)
        y[d] = put(p, kv_index(is_value, j, d, s->v_dim), s->dtype, row[d]);
}

static void put_nan(struct scene *s, int j, float nan_or_inf)
{
    float row[REF_DIM_MAX];
    for (int d = 0; d < s->head_dim; d++)
        row[d] = nan_or_inf;
    put_row(s, 0, j, row);
    put_row(s, 1, j, row);
}

static void put_key(struct scene *s, int j, enum fill k_fill, enum fill v_fill)
{
    float row[REF_DIM_MAX];
    fill_floats(row, s->head_dim, k_fill);
    put_row(s, 0, j, row);
    fill_floats(row, s->head_dim, v_fill);
    put_row(s, 1, j, row);
}

/* keys 0 .. n_keys-1 by these fills; after them zeros as in a fresh block, or what an earlier
 * sequence left there */
static void fill_block(struct scene *s, enum fill k_fill, enum fill v_fill)
{
    memset(s->k, 0, pl_kv_bytes(s->dtype, s->head_dim));
    memset(s->v, 0, pl_kv_bytes(s->dtype, s->v_dim));
    memset(s->values, 0, sizeof s->values);
    for (int j = 0; j < s->n_keys; j++)
        put_key(s, j, k_fill, v_fill);
    const int stale = rng_below(3);
    for (int j = s->n_keys; j < PL_KV_BLOCK && stale == 1; j++)
        put_key(s, j, UNIFORM, UNIFORM);
    for (int j = s->n_keys; j < PL_KV_BLOCK && stale == 2; j++)
        put_nan(s, j, NAN);
}

static void make_scene(struct scene *s, enum pl_kv_dtype dtype, int head_dim, int nq)
{
    s->dtype = dtype;
    s->head_dim = head_dim;
    s->v_dim = pl_v_dim(head_dim);
    s->nq = nq;
    s->k = buf(pl_kv_bytes(dtype, head_dim));
    s->v = buf(pl_kv_bytes(dtype, s->v_dim));
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
    pl_attend_fn *const attend = kn->attend[s->dtype][s->nq];
    attend(s->o, s->m, s->l, s->q, s->k, s->v, s->head_dim, s->n_keys, s->visible, 0);
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
    pl_attend_fn *const attend = kn->attend[s->dtype][1];
    attend(y->o, &y->m, &y->l, q, s->k, s->v, s->head_dim, n_keys, s->visible + i, 0);
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
    ref_attend(&y, q, s->keys, s->values, s->head_dim, s->visible[i], s->dtype == PL_KV_Q8_0);
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

static void check_attend(const struct pl_kernels *kn, enum pl_kv_dtype dtype)
{
    struct scene *const s = &scene;
    for (int c = 0; c < N_HEAD_DIMS * (PL_KV_BLOCK + 1); c++) {
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
        make_scene(s, dtype, head_dim, nq);
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

#define CHECK_ATTEND(name, dtype)                                                               \
    static void check_attend_##name(const struct pl_kernels *kn, const struct pl_format *format) \
    {                                                                                           \
        (void)format;                                                                           \
        check_attend(kn, dtype);                                                                \
    }
CHECK_ATTEND(f16, PL_KV_F16)
CHECK_ATTEND(f32, PL_KV_F32)
CHECK_ATTEND(bf16, PL_KV_BF16)
CHECK_ATTEND(q8_0, PL_KV_Q8_0)

/* ---- attend_merge */

static void check_attend_merge(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    static struct ref_attend want;
    for (int c = 0; c < N_HEAD_DIMS * N_FILLS * 4; c++) {
        const int n = head_dims[c % N_HEAD_DIMS], empty = c / N_HEAD_DIMS % 4;
        const enum fill fill = (enum fill)(c / (N_HEAD_DIMS * 4));
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

const struct op attention_ops[] = {
    {"attend_f16", check_attend_f16},         {"attend_f32", check_attend_f32},
    {"attend_bf16", check_attend_bf16},       {"attend_q8_0", check_attend_q8_0},
    {"attend_merge", check_attend_merge},     {NULL, NULL},
};
