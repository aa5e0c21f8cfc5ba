/* Q8_0: 32 weights w = d q. File: f16 d; int8 q[32].
 * Panel, per pair of blocks (the last may be single): q of each block as uint8 [8][VL][4], stored
 * +128, a vector being 4 consecutive k of VL rows; then d of each as f16 [VL]. Pairs keep the
 * vectors aligned. */

enum { Q8_0_QS = 32 * VL, Q8_0_BLOCK = 34 * VL };

static size_t q8_0_panel_bytes(int k) { return (size_t)(k / 32) * Q8_0_BLOCK; }

/* where block b of nb keeps its scales; its weights start at *qs */
INLINE const uint16_t *q8_0_block(const void *panel, int b, int nb, const uint8_t **qs)
{
    const uint8_t *const pair = (const uint8_t *)panel + (size_t)(b / 2) * 2 * Q8_0_BLOCK;
    const int blocks = b / 2 * 2 + 1 < nb ? 2 : 1;
    *qs = pair + b % 2 * Q8_0_QS;
    return (const uint16_t *)(pair + blocks * Q8_0_QS) + b % 2 * VL;
}

static void q8_0_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    for (int b = 0; b < k / 32; b++) {
        const uint8_t *qs;
        uint16_t *const d = (uint16_t *)q8_0_block(panel, b, k / 32, &qs);
        for (int r = 0; r < VL; r++) {
            const uint8_t *const src = r < n_rows ? rows[r] + (size_t)b * 34 : NULL;
            d[r] = src ? load_u16(src) : 0;
            for (int i = 0; i < 32; i++)
                ((uint8_t *)qs)[(i / 4 * VL + r) * 4 + i % 4] = src ? src[2 + i] ^ 128 : 128;
        }
    }
}

static void q8_0_unpack(float *y, const void *panel, int lane, int k)
{
    for (int i = 0; i < k; i++) {
        const uint8_t *qs;
        const float d = f16_to_f32(q8_0_block(panel, i / 32, k / 32, &qs)[lane]);
        y[i] = d * (float)(qs[(i % 32 / 4 * VL + lane) * 4 + i % 4] - 128);
    }
}

static void q8_0_dequantize(float *y, const uint8_t *row, int k)
{
    for (int i = 0; i < k; i++)
        y[i] = f16_to_f32(load_u16(row + (size_t)(i / 32) * 34)) * (float)(int8_t)row[(size_t)(i / 32) * 34 + 2 + i % 32];
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

INLINE void q8_0_step(const int nt, vf *acc, const uint8_t *qs, const uint16_t *scales, const char *x)
{
    const int8_t *const a = (const int8_t *)x;
    const float *const da = (const float *)(x + 32 * nt);
    const int32_t *const z = (const int32_t *)(da + 2 * nt);
    const vf d = vf_from_f16(scales);
    d8 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d8_init(z + t);
    for (int g = 0; g < 8; g++) {
        const w8 w = w8_from(vb_load(qs + g * 4 * VL));
        prefetch(qs + g * 4 * VL + AHEAD);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], w, a + 32 * t + 4 * g);
    }
    UNROLL for (int t = 0; t < nt; t++)
        acc[t] = vf_fma(vf_from_i(vi_from_d8(dot[t])), vf_mul(d, vf_set1(da[t])), acc[t]);
}

INLINE void q8_0_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    vf acc[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        acc[t] = vf_zero();
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const uint8_t *qs;
        const uint16_t *const d = q8_0_block(panel, b, k / 32, &qs);
        q8_0_step(nt, acc, qs, d, a);
    }
    UNROLL for (int t = 0; t < nt; t++)
        vf_store(y + t * VL, acc[t]);
}
TILES(q8_0_tile)

static const struct pl_format q8_0 = {"Q8_0", 32, 34, PL_ACT_I8, q8_0_panel_bytes, q8_0_pack, q8_0_unpack, q8_0_dequantize, q8_0_tiles, q8_0_quantize};
