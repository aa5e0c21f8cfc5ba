/* Attention of a tile of queries over one KV block. f32 FMA throughout: prefill and decode then give
 * the same bits. */

/* Vectors of a block under way at once. An FMA waits for the one before it as long as four others take, so one or two
 * queries need more sums than their own; the sums are the same. */
INLINE int at_once(const int nq, const int most)
{
    const int n = nq <= 2 ? 4 : nq <= QUERIES_ABREAST ? VECTORS_ABREAST : 1;
    return n < most ? n : most;
}

/* Of nq queries, how many go through a block together: as even parts as can be. Q8_0 is slow to read, so once. */
INLINE int group_of(const int nq, const int dtype)
{
    const int n_groups = dtype == PL_KV_Q8_0 ? 1 : (nq + QUERIES_ABREAST - 1) / QUERIES_ABREAST;
    return (nq + n_groups - 1) / n_groups;
}

/* acc [n][nq] += q . K over the dimensions [d0, d1), for n VL keys from key0 and nq of the queries q [head_dim][stride].
 * What is read is also asked for `ahead` bytes further on. */
INLINE void dot_keys(const int nq, const int stride, const int n, vf *acc, const float *q, const void *k, int key0,
                     int d0, int d1, ptrdiff_t ahead, const int dtype)
{
    q += d0 * stride;
    for (int d = d0; d < d1; d++, q += stride) {
        const size_t at = (size_t)d * PL_KV_BLOCK + (size_t)key0;
        vf kd[4];
        UNROLL for (int j = 0; j < n; j++)
            kd[j] = kv_load(k, at + (size_t)(j * VL), dtype);
        kv_fetch(k, at, n * VL, ahead, dtype);
        UNROLL for (int i = 0; i < nq; i++)
            UNROLL for (int j = 0; j < n; j++)
                acc[j * nq + i] = vf_fma(vf_set1(q[i]), kd[j], acc[j * nq + i]);
    }
}

/* s [nq][PL_KV_BLOCK] = q . K for n VL keys from key0 */
INLINE void scores(const int nq, const int stride, const int n, float *s, const float *q, const void *k, int key0,
                   int head_dim, ptrdiff_t ahead, const int dtype)
{
    vf acc[PL_QUERY_MAX];
    acc_zero(n * nq, acc);
    if (dtype != PL_KV_Q8_0)
        dot_keys(nq, stride, n, acc, q, k, key0, 0, head_dim, ahead, dtype);
    for (int d = 0; d < head_dim && dtype == PL_KV_Q8_0; d += KV_GROUP) {
        vf sum[PL_QUERY_MAX];
        acc_zero(n * nq, sum);
        dot_keys(nq, stride, n, sum, q, k, key0, d, d + KV_GROUP < head_dim ? d + KV_GROUP : head_dim, ahead, dtype);
        UNROLL for (int j = 0; j < n; j++) {
            const vf scale = vf_from_f16(kv_scales(k, head_dim) + d + key0 + j * VL);
            UNROLL for (int i = 0; i < nq; i++)
                acc[j * nq + i] = vf_fma(sum[j * nq + i], scale, acc[j * nq + i]);
        }
    }
    UNROLL for (int i = 0; i < nq; i++)
        UNROLL for (int j = 0; j < n; j++)
            vf_store(s + i * PL_KV_BLOCK + key0 + j * VL, acc[j * nq + i]);
}

/* The softmax of all queries takes three rounds: each of them alone would wait for itself. */

/* the largest of m and the visible s */
INLINE float visible_max(const float *s, float m, uint32_t visible)
{
    vf max = vf_set1(m);
    for (int i = 0; i < PL_KV_BLOCK; i += VL)
        max = vf_max(vf_select(vm_from_bits(visible >> i), vf_load(s + i), max), max);
    return vf_hmax(max);
}

/* s <- e^(s - m) where visible, else 0 */
INLINE void weigh(float *s, float m, uint32_t visible)
{
    for (int i = 0; i < PL_KV_BLOCK; i += VL)
        vf_store(s + i, vf_keep(vm_from_bits(visible >> i), vf_exp(vf_sub(vf_load(s + i), vf_set1(m)))));
}

INLINE float weight_sum(const float *s)
{
    vf sum = vf_load(s);
    for (int i = VL; i < PL_KV_BLOCK; i += VL)
        sum = vf_add(sum, vf_load(s + i));
    return vf_sum(sum);
}

INLINE float exp_one(float x)
{
    float y[VL];
    vf_store(y, vf_exp(vf_set1(x)));
    return y[0];
}

/* s <- e^(s - m') where visible, else 0; m <- m', c <- e^(m - m'), l <- l c + sum */
INLINE void softmax_step(const int nq, float *s, float *m, float *l, float *c, const uint32_t *visible)
{
    for (int i = 0; i < nq; i++) {
        const float max = visible_max(s + i * PL_KV_BLOCK, m[i], visible[i]);
        c[i] = m[i] - max;
        m[i] = max;
    }
    for (int i = 0; i < nq; i++)
        weigh(s + i * PL_KV_BLOCK, m[i], visible[i]);
    for (int i = 0; i < nq; i++) {
        c[i] = c[i] == 0.0f ? 1.0f : exp_one(c[i]);  /* seldom another, after the first blocks */
        l[i] = l[i] * c[i] + weight_sum(s + i * PL_KV_BLOCK);
    }
}

/* o [nq][v_dim] <- o c + s . V for n VL dimensions from d. seen: keys that every query sees; elsewhere a hidden NaN
 * times 0 would be NaN. */
INLINE void add_values(const int nq, const int n, float *o, const float *s, const float *c, const void *v, int d, int v_dim,
                       int n_keys, const uint32_t *visible, uint32_t seen, ptrdiff_t ahead, const int dtype)
{
    vf acc[PL_QUERY_MAX], vd[4];
    UNROLL for (int i = 0; i < nq; i++)
        UNROLL for (int j = 0; j < n; j++)
            acc[j * nq + i] = vf_mul(vf_load(o + i * v_dim + d + j * VL), vf_set1(c[i]));
    for (int key = 0; key < n_keys; key++, s++) {
        UNROLL for (int j = 0; j < n; j++)
            vd[j] = kv_value(v, key, d + j * VL, v_dim, dtype);
        kv_fetch(v, (size_t)(key * v_dim + d), n * VL, ahead, dtype);
        if (seen >> key & 1)
            UNROLL for (int i = 0; i < nq; i++)
                UNROLL for (int j = 0; j < n; j++)
                    acc[j * nq + i] = vf_fma(vf_set1(s[i * PL_KV_BLOCK]), vd[j], acc[j * nq + i]);
        else
            UNROLL for (int i = 0; i < nq; i++)
                if (visible[i] >> key & 1)
                    UNROLL for (int j = 0; j < n; j++)
                        acc[j * nq + i] = vf_fma(vf_set1(s[i * PL_KV_BLOCK]), vd[j], acc[j * nq + i]);
    }
    UNROLL for (int i = 0; i < nq; i++)
        UNROLL for (int j = 0; j < n; j++)
            vf_store(o + i * v_dim + d + j * VL, acc[j * nq + i]);
}

INLINE void attend(const int nq, float *o, float *m, float *l, const float *q, const void *k, const void *v,
                   int head_dim, int n_keys, const uint32_t *visible, ptrdiff_t ahead, const int dtype)
{
    _Alignas(64) float s[PL_QUERY_MAX * PL_KV_BLOCK];
    float c[PL_QUERY_MAX];
    const int v_dim = pl_v_dim(head_dim);
    const int g = group_of(nq, dtype), n_k = at_once(g, PL_KV_BLOCK / VL), n_v = at_once(g, 4);
    UNROLL for (int i = 0; i < nq; i += g)
        for (int key = 0; key < PL_KV_BLOCK; key += n_k * VL)
            scores(nq - i < g ? nq - i : g, nq, n_k, s + i * PL_KV_BLOCK, q + i, k, key, head_dim, ahead, dtype);
    uint32_t seen = ~UINT32_C(0);
    for (int i = 0; i < nq; i++)
        seen &= visible[i];
    softmax_step(nq, s, m, l, c, visible);
    UNROLL for (int i = 0; i < nq; i += g) {
        const int n = nq - i < g ? nq - i : g;
        float *const to = o + i * v_dim;
        const float *const by = s + i * PL_KV_BLOCK;
        int d = 0;
        for (; d + n_v * VL <= v_dim; d += n_v * VL)
            add_values(n, n_v, to, by, c + i, v, d, v_dim, n_keys, visible + i, seen, ahead, dtype);
        for (; d < v_dim; d += VL)
            add_values(n, 1, to, by, c + i, v, d, v_dim, n_keys, visible + i, seen, ahead, dtype);
    }
}

#define ATTEND(kv, n)                                                                            \
    static void attend_##kv##_##n(float *o, float *m, float *l, const float *q, const void *k, const void *v, \
                                  int head_dim, int n_keys, const uint32_t *visible, ptrdiff_t ahead)  \
    {                                                                                            \
        attend(n, o, m, l, q, k, v, head_dim, n_keys, visible, ahead, PL_KV_##kv);               \
    }
#define ATTENDS(kv, name)                                                                        \
    EACH_WIDTH(ATTEND, kv)                                                                       \
    static pl_attend_fn *const name[PL_QUERY_MAX + 1] = {NULL, WIDTHS(attend_##kv)};
ATTENDS(F16, attend_f16s)
ATTENDS(F32, attend_f32s)
ATTENDS(BF16, attend_bf16s)
ATTENDS(Q8_0, attend_q8_0s)

static void attend_merge(float *m, float *l, float *o, float m2, float l2, const float *o2, int n)
{
    const float max = *m > m2 ? *m : m2, c = exp_one(*m - max), c2 = exp_one(m2 - max);
    *l = *l * c + l2 * c2;
    *m = max;
    int i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(o + i, vf_fma(vf_load(o2 + i), vf_set1(c2), vf_mul(vf_load(o + i), vf_set1(c))));
    if (i < n)
        vf_store_n(o + i, vf_fma(vf_load_n(o2 + i, n - i), vf_set1(c2), vf_mul(vf_load_n(o + i, n - i), vf_set1(c))), n - i);
}
