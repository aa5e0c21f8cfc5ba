/* BF16. Panel: uint32 [k/2][VL], two consecutive k of a row, the lower in the low half; k rounded up to
 * PL_BF16_BLOCK. */

enum { BF16_PAIRS = PL_BF16_BLOCK / 2 };  /* per block */

static int bf16_blocks(int k) { return (k + PL_BF16_BLOCK - 1) / PL_BF16_BLOCK; }

static size_t bf16_panel_bytes(int k) { return (size_t)bf16_blocks(k) * BF16_PAIRS * VL * 4; }

static void bf16_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    uint32_t *const p = panel;
    for (int i = 0; i < bf16_blocks(k) * PL_BF16_BLOCK; i += 2)
        for (int r = 0; r < VL; r++) {
            uint32_t pair = 0;
            if (r < n_rows && i < k)
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

static void bf16_quantize(uint8_t *row, const float *x, int k)
{
    for (int i = 0; i < k; i++) {
        const uint16_t h = (uint16_t)bf16_from_f32(x[i]);
        __builtin_memcpy(row + 2 * (size_t)i, &h, 2);
    }
}

#if defined(HAVE_TILES)
#define BF16_ACT PL_ACT_BF16
/* Tiles 0, 1: sums; 2, 3: activations; 4: weights. Tokens are in one or two groups; where two overlap by a
 * token, both sum it. */
static void bf16_tile(int nt, float *y, const void *panel, const void *x, int k)
{
    const int rows = group_rows(nt), two = n_groups(nt) > 1;
    const uint8_t n = (uint8_t)rows;
    const struct tile_config c = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64}, .rows = {n, n, n, n, BF16_PAIRS}};
    const uint16_t *a = x;
    const char *w = panel;
    tiles_begin(&c);
    tile_zero(0);
    tile_zero(1);
    for (int i = 0; i < bf16_blocks(k); i++, w += BF16_PAIRS * VL * 4, a += nt * PL_BF16_BLOCK) {
        for (int j = 0; j < BF16_PAIRS; j++)
            prefetch(w + j * VL * 4 + AHEAD);
        tile_load(4, w, 64);
        tile_load(2, a, 64);
        tile_dot_bf16(0, 2, 4);
        if (two) {
            tile_load(3, a + (nt - rows) * PL_BF16_BLOCK, 64);
            tile_dot_bf16(1, 3, 4);
        }
    }
    tile_store(0, y, 64);
    if (two)
        tile_store(1, y + (nt - rows) * VL, 64);
    tiles_end();
}
ALL_TILES(bf16_tile, bf16_tile)
#elif defined(HAVE_BF16_DOT)
#define BF16_ACT PL_ACT_BF16
INLINE void bf16_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const uint32_t *w = panel, *a = x;
    vf acc[PL_TILE_MAX];
    acc_zero(nt, acc);
    for (int i = 0; i < bf16_blocks(k); i++, a += nt * BF16_PAIRS)
        for (int j = 0; j < BF16_PAIRS; j++, w += VL) {
            const vb wi = vb_load(w);
            prefetch((const char *)w + AHEAD);
            UNROLL for (int t = 0; t < nt; t++)
                acc[t] = vf_dot_bf16(acc[t], wi, a + BF16_PAIRS * t + j);
        }
    acc_store(nt, y, acc);
}
TILES(bf16_tile)
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
TILES(bf16_tile)
#endif

static const struct pl_format bf16 = {"BF16", 1, 2, BF16_ACT, bf16_panel_bytes, bf16_pack, bf16_unpack, bf16_dequantize, bf16_tiles, bf16_quantize};
