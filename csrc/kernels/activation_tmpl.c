/* Activations into the layout of a tile (kernels.h, enum pl_act). */

static void act_f32(void *tile, int t, int nt, const float *x, int k)
{
    float *const y = (float *)tile + t;
    for (int i = 0; i < k; i++)
        y[(size_t)i * nt] = x[i];
}

static inline uint32_t bf16_from_f32(float f)  /* nearest even; NaN stays NaN */
{
    uint32_t u;
    __builtin_memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return u >> 16 | 0x40;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

/* the same of a vector */
static inline void store_bf16(uint16_t *p, vf x)
{
    const vi u = vi_cast(x), top = vi_srl(u, 16);
    const vi rounded = vi_srl(vi_add(vi_add(u, vi_set1(0x7fff)), vi_and(top, vi_set1(1))), 16);
    const vf nan = vf_cast(vi_or(top, vi_set1(0x40)));
    vi_store_u16(p, vi_cast(vf_select(vm_eq(x, x), vf_cast(rounded), nan)));
}

static void act_bf16(void *tile, int t, int nt, const float *x, int k)
{
    uint16_t *y = (uint16_t *)tile + PL_BF16_BLOCK * t;
    for (int i = 0; i < k; i += PL_BF16_BLOCK, y += PL_BF16_BLOCK * nt)
        for (int j = 0; j < PL_BF16_BLOCK; j += VL) {
            const int left = k - i - j;
            store_bf16(y + j, left >= VL ? vf_load(x + i + j) : vf_load_n(x + i + j, left > 0 ? left : 0));
        }
}

static inline float f32_of_bits(int32_t u)
{
    float f;
    __builtin_memcpy(&f, &u, 4);
    return f;
}

static inline int32_t bits_of_f32(float f)
{
    int32_t u;
    __builtin_memcpy(&u, &f, 4);
    return u;
}

/* d = max|x| / 127 per block, of which the lowest two bits are cleared, for 1.5 x 2^23 d to be exact; what is no
 * smaller than 2^111, as floats' bits compare, be it infinite or NaN, makes d NaN and so the row's outputs */
static void act_i8(void *tile, int t, int nt, const float *x, int k)
{
    for (int b = 0; b < k / PL_I8_BLOCK; b++, x += PL_I8_BLOCK) {
        char *const base = (char *)tile + (size_t)b * PL_I8_BLOCK_BYTES * nt;
        float *const d = (float *)(base + 32 * nt), *const c = d + nt, *const s = c + nt;
        int32_t *const z = (int32_t *)(s + nt), *const z16 = z + nt;
        vf v[PL_I8_BLOCK / VL];
        vi top = vi_set1(0), sums = vi_set1(0);  /* sums: of the first 16 q, plus 2^16 times the second's */
        UNROLL for (int i = 0; i < PL_I8_BLOCK / VL; i++) {
            v[i] = vf_load(x + i * VL);
            top = vi_max(top, vi_and(vi_cast(v[i]), vi_set1(0x7fffffff)));
        }
        const float max = f32_of_bits(vi_hmax(top));
        /* below this 127 / max overflows; such a block contributes nothing a float could tell */
        const vf inv = vf_set1(max > 1e-36f ? 127.0f / max : 0.0f);
        UNROLL for (int i = 0; i < PL_I8_BLOCK / VL; i++) {
            const vi q = vi_max(vi_from_f(vf_mul(v[i], inv)), vi_set1(-127));  /* NaN: -127 */
            vi_store_i8((int8_t *)base + 32 * t + i * VL, q);
            sums = vi_add(sums, i * VL < 16 ? q : vi_sll(q, 16));
        }
        const int both = vi_sum(sums), first = (int16_t)both, second = (both - first) / 65536;
        d[t] = max < 0x1p111f ? f32_of_bits(bits_of_f32(max / 127.0f) & ~3) : __builtin_nanf("");
        c[t] = -0x1.8p23f * d[t];
        s[t] = d[t] * (float)(first + second);
        z[t] = z_of(first, second);
        z16[t] = DOT_START - 32 * first;
        z16[nt + t] = DOT_START - 32 * second;
    }
}
