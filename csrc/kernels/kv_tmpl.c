/* The KV cache's values: how each type is stored and read (kernels.h, enum pl_kv_dtype). */

enum { KV_GROUP = 32 };  /* dimensions that share a scale of Q8_0: as many as a block has tokens */

/* VL values from the i-th on; of Q8_0 without their scale */
INLINE vf kv_load(const void *p, size_t i, const int dtype)
{
    switch (dtype) {
    case PL_KV_F16: return vf_from_f16((const uint16_t *)p + i);
    case PL_KV_F32: return vf_load((const float *)p + i);
    case PL_KV_BF16: return vf_from_bf16((const uint16_t *)p + i);
    default: return vf_from_i(vi_from_i8((const uint8_t *)p + i));
    }
}

/* the scales that follow PL_KV_BLOCK vectors of dim int8 */
static inline const uint16_t *kv_scales(const void *p, int dim) { return (const uint16_t *)((const char *)p + PL_KV_BLOCK * dim); }

/* asks for the lines that n values from the i-th on have `ahead` bytes further on; a line may be asked for again */
INLINE void kv_fetch(const void *p, size_t i, const int n, ptrdiff_t ahead, const int dtype)
{
    const int size = dtype == PL_KV_F32 ? 4 : dtype == PL_KV_Q8_0 ? 1 : 2;
    const char *const at = (const char *)p + i * (size_t)size;
    for (int j = 0; j < n * size; j += 64)
        prefetch_l2(at + j + ahead);
}

/* VL dimensions, from d on, of a key's value */
INLINE vf kv_value(const void *v, int key, int d, int v_dim, const int dtype)
{
    const vf x = kv_load(v, (size_t)key * (size_t)v_dim + (size_t)d, dtype);
    if (dtype != PL_KV_Q8_0)
        return x;
    const int n_groups = (v_dim + KV_GROUP - 1) / KV_GROUP;
    return vf_mul(x, vf_set1(f16_to_f32(kv_scales(v, v_dim)[key * n_groups + d / KV_GROUP])));
}

#define KV_STORE(kv, type, from)                                                                \
    static void kv_store_##kv(void *k, void *v, int slot, const float *key, const float *value, int head_dim) \
    {                                                                                           \
        const int v_dim = pl_v_dim(head_dim);                                                   \
        for (int d = 0; d < head_dim; d++)                                                      \
            ((type *)k)[d * PL_KV_BLOCK + slot] = (type)from(key[d]);                           \
        for (int d = 0; d < head_dim; d++)                                                      \
            ((type *)v)[slot * v_dim + d] = (type)from(value[d]);                               \
    }
KV_STORE(f16, uint16_t, f32_to_f16)
KV_STORE(f32, float, )
KV_STORE(bf16, uint16_t, bf16_from_f32)

/* q [n] int8 at that stride, n <= KV_GROUP; returns the scale. One that is not finite makes the scale NaN, so
 * that it is not lost. */
static uint16_t kv_quantize(uint8_t *q, int stride, const float *x, int n)
{
    float padded[KV_GROUP] = {0}, finite = 0.0f;
    uint8_t block[2 + KV_GROUP];
    for (int i = 0; i < n; i++) {
        padded[i] = x[i];
        finite += x[i] * 0.0f;
    }
    q8_0_quantize(block, padded, KV_GROUP);
    for (int i = 0; i < n; i++)
        q[i * stride] = block[2 + i];
    return finite == 0.0f ? load_u16(block) : f32_to_f16(finite);
}

static void kv_store_q8_0(void *k, void *v, int slot, const float *key, const float *value, int head_dim)
{
    const int v_dim = pl_v_dim(head_dim), n_groups = (v_dim + KV_GROUP - 1) / KV_GROUP;
    uint16_t *const k_scales = (uint16_t *)((char *)k + PL_KV_BLOCK * head_dim);
    uint16_t *const v_scales = (uint16_t *)((char *)v + PL_KV_BLOCK * v_dim);
    for (int d = 0; d < head_dim; d += KV_GROUP) {
        const int n = head_dim - d < KV_GROUP ? head_dim - d : KV_GROUP;
        k_scales[d + slot] = kv_quantize((uint8_t *)k + d * PL_KV_BLOCK + slot, PL_KV_BLOCK, key + d, n);
        v_scales[slot * n_groups + d / KV_GROUP] = kv_quantize((uint8_t *)v + slot * v_dim + d, 1, value + d, n);
    }
}
