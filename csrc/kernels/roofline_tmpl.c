/* What this level can do at best, for measurements to be compared with: the instructions of the tiles
 * on registers and L1, and loads that do nothing else. */

enum { ROUNDS = 8, PEAK_TOKENS = 12 };  /* steps of a tile per iteration; tokens of a tile */

/* Numbers of either sign: as f32 and as pairs of bf16 of 1 to 4, as int8 any; the second half undoes the first,
 * for int32 sums not to overflow. Zeros would not do: AMX multiplies them up to 1.6 times as fast (Emerald Rapids). */
static void peak_operand(float sum, uint32_t *a, int n)
{
    uint32_t u = (uint32_t)sum + 1;
    for (int i = 0; i < n / 2; i++) {
        u = u * 1664525 + 1013904223;
        a[i] = 0x3f803f80 | (u >> 8 & 0x007f007f) | (u & 0x80000000) | (u >> 1 & 0x8000);
        a[i + n / 2] = ~a[i];
    }
}

#define PEAK_BEGIN(type, zero)                                                                  \
    type acc[PEAK_TOKENS];                                                                      \
    uint32_t a[ROUNDS][PEAK_TOKENS], weights[VL];                                               \
    peak_operand(*sum, a[0], ROUNDS * PEAK_TOKENS);                                             \
    peak_operand(*sum, weights, VL);                                                            \
    UNROLL for (int t = 0; t < PEAK_TOKENS; t++)                                                \
        acc[t] = zero

/* each: what is done before the ROUNDS steps */
#define PEAK_LOOP(each, step)                                                                   \
    for (int i = 0; i < n; i++) {                                                               \
        each;                                                                                   \
        for (int j = 0; j < ROUNDS; j++)                                                        \
            UNROLL for (int t = 0; t < PEAK_TOKENS; t++)                                        \
                acc[t] = step;                                                                  \
    }

static double peak_macs(int n, int k) { return (double)n * ROUNDS * PEAK_TOKENS * VL * k; }

static double peak_f32(float *sum, int n)
{
    PEAK_BEGIN(vf, vf_zero());
    const vf w = vf_set1((float)weights[0]);
    PEAK_LOOP(, vf_fma(w, vf_set1((float)(int32_t)a[j][t]), acc[t]))
    UNROLL for (int t = 0; t < PEAK_TOKENS; t++)
        *sum += vf_sum(acc[t]);
    return peak_macs(n, 1);
}

#if defined(HAVE_TILES)

/* Four sums of 16 x 16 under way, k multiply-adds of each per instruction. */
#define PEAK_TILES(name, dot, k)                                                                \
    static double name(float *sum, int n)                                                       \
    {                                                                                           \
        _Alignas(64) uint32_t y[2][16 * VL];                                                    \
        peak_operand(*sum, y[0], 2 * 16 * VL);                                                  \
        const struct tile_config c = {                                                          \
            .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}}; \
        tiles_begin(&c);                                                                        \
        tile_zero(0);                                                                           \
        tile_zero(1);                                                                           \
        tile_zero(2);                                                                           \
        tile_zero(3);                                                                           \
        tile_load(4, y[0], 64);                                                                 \
        tile_load(5, y[1], 64);                                                                 \
        for (int i = 0; i < n; i++) {                                                           \
            dot(0, 4, 5);                                                                       \
            dot(1, 4, 5);                                                                       \
            dot(2, 4, 5);                                                                       \
            dot(3, 4, 5);                                                                       \
        }                                                                                       \
        tile_store(0, y[0], 64);                                                                \
        tiles_end();                                                                            \
        *sum += (float)y[0][0];                                                                 \
        return 4.0 * n * 16 * 16 * (k);                                                         \
    }
PEAK_TILES(peak_bf16, tile_dot_bf16, 32)
PEAK_TILES(peak_i8, tile_dot_i8, 64)

#else

#if defined(HAVE_BF16_DOT)
static double peak_bf16(float *sum, int n)
{
    PEAK_BEGIN(vf, vf_zero());
    const vb w = vb_load(weights);
    PEAK_LOOP(, vf_dot_bf16(acc[t], w, (const uint32_t *)&a[j][t]))
    UNROLL for (int t = 0; t < PEAK_TOKENS; t++)
        *sum += vf_sum(acc[t]);
    return peak_macs(n, 2);
}
#else
#define peak_bf16 peak_f32
#endif

/* by 4-bit weights, which take the fewest instructions */
static double peak_i8(float *sum, int n)
{
    PEAK_BEGIN(d4, vi_set1(0));
    const vb w = vb_load(weights);
    const uint32_t(*again)[PEAK_TOKENS] = a;
    /* `again` is to be read anew, else products are computed once, and added n times */
    PEAK_LOOP(__asm__ volatile("" : "+r"(again)), d4_dot(acc[t], w, (const int8_t *)&again[j][t]))
    UNROLL for (int t = 0; t < PEAK_TOKENS; t++)
        *sum += (float)vi_sum(vi_from_d4(acc[t]));
    return peak_macs(n, 4);
}

#endif

/* One stream of loads over n bytes, a multiple of 4 vectors. */
static void read_through(float *sum, const void *p, size_t n)
{
    const char *const c = p;
    vb acc[4] = {vb_load(c), vb_load(c), vb_load(c), vb_load(c)};
    for (size_t i = 0; i < n; i += sizeof acc)
        UNROLL for (size_t j = 0; j < 4; j++) {
            fetch_ahead(c + i + j * sizeof(vb));
            acc[j] = vb_or(acc[j], vb_load(c + i + j * sizeof(vb)));
        }
    float x;
    acc[0] = vb_or(vb_or(acc[0], acc[1]), vb_or(acc[2], acc[3]));
    __builtin_memcpy(&x, &acc[0], sizeof x);
    *sum += x;
}
