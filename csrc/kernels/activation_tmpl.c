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

static inline float without_two_bits(float f)
{
    uint32_t u;
    __builtin_memcpy(&u, &f, 4);
    u &= ~3u;
    __builtin_memcpy(&f, &u, 4);
    return f;
}

/* d = max|x| / 127 per block, of which the lowest two bits are cleared, for 1.5 x 2^23 d to be exact; a NaN, an
 * infinity or what comes near one (2.6e33) in a block makes d NaN and so the row's outputs */
static void act_i8(void *tile, int t, int nt, const float *x, int k)
{
    for (int b = 0; b < k / PL_I8_BLOCK; b++, x += PL_I8_BLOCK) {
        char *const base = (char *)tile + (size_t)b * PL_I8_BLOCK_BYTES * nt;
        float *const d = (float *)(base + 32 * nt), *const c = d + nt, *const s = c + nt;
        int32_t *const z = (int32_t *)(s + nt), *const z16 = z + nt;
        vf amax = vf_zero(), finite = vf_zero();
        for (int i = 0; i < PL_I8_BLOCK; i += VL) {
            amax = vf_max(vf_abs(vf_load(x + i)), amax);
            finite = vf_fma(vf_mul(vf_load(x + i), vf_set1(0x1p17f)), vf_zero(), finite);
        }
        const float max = vf_hmax(amax), scale = without_two_bits(max / 127.0f);
        /* below this 127 / max overflows; such a block contributes nothing a float could tell */
        const vf inv = vf_set1(max > 1e-36f ? 127.0f / max : 0.0f);
        vi sums[2] = {vi_set1(0), vi_set1(0)};
        for (int i = 0; i < PL_I8_BLOCK; i += VL) {
            const vf v = vf_mul(vf_load(x + i), inv);
            const vi q = vi_from_f(vf_min(vf_max(v, vf_set1(-127.0f)), vf_set1(127.0f)));  /* NaN: -127 */
            vi_store_i8((int8_t *)base + 32 * t + i, q);
            sums[i / 16] = vi_add(sums[i / 16], q);
        }
        const int first = vi_sum(sums[0]), second = vi_sum(sums[1]), total = first + second;
        d[t] = scale + vf_sum(finite);
        c[t] = -0x1.8p23f * d[t];
        s[t] = d[t] * (float)total;
        z[t] = z_of(first, second);
        z16[t] = DOT_START - 32 * first;
        z16[nt + t] = DOT_START - 32 * second;
    }
}
