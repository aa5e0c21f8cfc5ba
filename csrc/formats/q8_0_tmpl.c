/* Q8_0: 32 weights w = d q, stored +128 in panels. File: f16 d; int8 q[32]. */

static void q8_0_read(uint8_t *q, const uint8_t *block)
{
    for (int i = 0; i < 32; i++)
        q[i] = block[2 + i] ^ 128;
}

static void q8_0_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)(q[i] - 128);
}

/* d = max |x| / 127, q = x / d to the nearest, halves away from zero */
static void q8_0_quantize(uint8_t *row, const float *x, int k)
{
    for (int b = 0; b < k / 32; b++, x += 32, row += 34) {
        float max = 0.0f;
        int8_t q[32];
        for (int i = 0; i < 32; i++)
            max = __builtin_fabsf(x[i]) > max ? __builtin_fabsf(x[i]) : max;
        const float d = max / 127.0f, id = d > 0.0f ? 1.0f / d : 0.0f;
        for (int i = 0; i < 32; i++)
            q[i] = (int8_t)(__builtin_fabsf(x[i] * id) < 127.5f ? __builtin_roundf(x[i] * id) : 0.0f);
        const uint16_t h = f32_to_f16(d);
        __builtin_memcpy(row, &h, 2);
        __builtin_memcpy(row + 2, q, 32);
    }
}

BLOCKS(q8_0, 32, 34, .unit = 32, .low = 8, .halves = 0, .n_halves = 1)

#if defined(HAVE_TILES) || defined(EXPANDS)
INLINE void put8(int8_t *q, const uint8_t *p)
{
    for (int v = 0; v < 8; v++, p += 4 * VL, q += 4 * VL) {
        fetch_ahead(p);
        vb_store(q, deferred(vb_load(p)));
    }
}
#endif

INLINE void q8_0_step(const int nt, struct sums *sums, const uint8_t *p, vf w, const char *x)
{
    DEFER(nt, sums, put8(q, p), SCALED, w, w, x);
    const struct acts a = acts_of(nt, x);
    d8 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d8_init(a.z + t);
    for (int g = 0; g < 8; g++, p += 4 * VL) {
        const w8 u = w8_from(vb_load(p));
        fetch(p, nt > 1 ? AHEAD_L2 : AHEAD_NEAR);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], u, a.q + 32 * t + 4 * g);
    }
    UNROLL for (int t = 0; t < nt; t++)
        sums->y[t] = add_dot(sums->y[t], w, vi_from_d8(dot[t]), &a, t);
}

INLINE void q8_0_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&q8_0_blocks, panel, b, k / 32);
        q8_0_step(nt, &sums, block.q, vf_from_f16(block.halves), a);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q8_0, "Q8_0", SCALED, q8_0_quantize)
