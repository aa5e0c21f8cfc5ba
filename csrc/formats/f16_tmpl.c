/* F16. Panel: f16 [k][VL]. */

static size_t f16_panel_bytes(int k) { return (size_t)k * VL * 2; }

static void f16_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    uint16_t *const p = panel;
    for (int i = 0; i < k; i++)
        for (int r = 0; r < VL; r++)
            p[(size_t)i * VL + r] = r < n_rows ? load_u16(rows[r] + 2 * (size_t)i) : 0;
}

static void f16_unpack(float *y, const void *panel, int lane, int k)
{
    for (int i = 0; i < k; i++)
        y[i] = f16_to_f32(((const uint16_t *)panel)[(size_t)i * VL + lane]);
}

static void f16_dequantize(float *y, const uint8_t *row, int k)
{
    for (int i = 0; i < k; i++)
        y[i] = f16_to_f32(load_u16(row + 2 * (size_t)i));
}

INLINE vf f16_load(const void *p, int j)
{
    (void)j;
    return vf_from_f16(p);
}
FLOATS_TILES(f16, 1, 2 * VL)

static const struct pl_format f16 = {"F16", 1, 2, PL_ACT_F32, f16_panel_bytes, f16_pack, f16_unpack, f16_dequantize, f16_tiles, NULL, NULL};
