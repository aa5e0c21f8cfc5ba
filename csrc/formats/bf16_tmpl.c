/* BF16. Panel: uint32 [ceil(k/2)][VL], two consecutive k of a row, the lower in the low half. */

static size_t bf16_panel_bytes(int k) { return (size_t)((k + 1) / 2) * VL * 4; }

static void bf16_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    uint32_t *const p = panel;
    for (int i = 0; i < k; i += 2)
        for (int r = 0; r < VL; r++) {
            uint32_t pair = 0;
            if (r < n_rows)
                pair = load_u16(rows[r] + 2 * (size_t)i) | (i + 1 < k ? (uint32_t)load_u16(rows[r] + 2 * (size_t)i + 2) << 16 : 0);
            p[(size_t)(i / 2) * VL + r] = pair;
        }
}

static void bf16_unpack(float *y, const void *panel, int lane, int k)
{
    const uint32_t *const p = panel;
    for (int i = 0; i < k; i++)
        y[i] = bf16_to_f32((uint16_t)(p[(size_t)(i / 2) * VL + lane] >> (i % 2 * 16)));
}

static void bf16_dequantize(float *y, const uint8_t *row, int k)
{
    for (int i = 0; i < k; i++)
        y[i] = bf16_to_f32(load_u16(row + 2 * (size_t)i));
}

#if defined(HAVE_BF16_DOT)
#define BF16_ACT PL_ACT_BF16
INLINE void bf16_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const uint32_t *w = panel, *a = x;
    vf acc[PL_TILE_MAX];
    acc_zero(nt, acc);
    for (int i = 0; i < k; i += 2, w += VL, a += nt) {
        const vb wi = vb_load(w);
        prefetch((const char *)w + AHEAD);
        UNROLL for (int t = 0; t < nt; t++)
            acc[t] = vf_dot_bf16(acc[t], wi, a + t);
    }
    acc_store(nt, y, acc);
}
#else
#define BF16_ACT PL_ACT_F32
INLINE void bf16_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const uint32_t *w = panel;
    const float *a = x;
    vf acc[PL_TILE_MAX];
    acc_zero(nt, acc);
    for (int i = 0; i < k; i += 2, w += VL, a += 2 * nt) {
        const vb wi = vb_load(w);
        const vf lo = vf_bf16_lo(wi), hi = vf_bf16_hi(wi);
        prefetch((const char *)w + AHEAD);
        UNROLL for (int t = 0; t < nt; t++)
            acc[t] = vf_fma(vf_set1(a[t]), lo, acc[t]);
        if (i + 1 < k)
            UNROLL for (int t = 0; t < nt; t++)
                acc[t] = vf_fma(vf_set1(a[nt + t]), hi, acc[t]);
    }
    acc_store(nt, y, acc);
}
#endif
TILES(bf16_tile)

static const struct pl_format bf16 = {"BF16", 1, 2, BF16_ACT, bf16_panel_bytes, bf16_pack, bf16_unpack, bf16_dequantize, bf16_tiles, NULL};
