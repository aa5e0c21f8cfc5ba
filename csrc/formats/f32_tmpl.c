/* F32. Panel: float [k][VL]. */

static size_t f32_panel_bytes(int k) { return (size_t)k * VL * 4; }

static void f32_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    float *const p = panel;
    for (int i = 0; i < k; i++)
        for (int r = 0; r < VL; r++) {
            float w = 0.0f;
            if (r < n_rows)
                __builtin_memcpy(&w, rows[r] + 4 * (size_t)i, 4);
            p[(size_t)i * VL + r] = w;
        }
}

static void f32_unpack(float *y, const void *panel, int lane, int k)
{
    for (int i = 0; i < k; i++)
        y[i] = ((const float *)panel)[(size_t)i * VL + lane];
}

static void f32_dequantize(float *y, const uint8_t *row, int k) { __builtin_memcpy(y, row, 4 * (size_t)k); }

INLINE vf f32_load(const void *p, int j)
{
    (void)j;
    return vf_load(p);
}
FLOATS_TILES(f32, 1, 4 * VL)

static const struct pl_format f32 = {"F32", 1, 4, PL_ACT_F32, f32_panel_bytes, f32_pack, f32_unpack, f32_dequantize, f32_tiles, NULL, NULL};
