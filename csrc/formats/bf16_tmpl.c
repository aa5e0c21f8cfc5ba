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

enum { BF16_PIECE = 8 };  /* blocks of 32 tokens that stay in L1 while panels pass by: 16 KiB */

/* What two groups will read soon: `lines` of 64 bytes are fetched with each block. */
struct soon { const char *at; int lines; };

/* Of one panel, blocks [first, end). Tiles 0, 1: sums; 2, 3: activations; 4: weights. Tokens are in one or two
 * groups; where two overlap by a token, both sum it. */
INLINE void bf16_piece(const int two, int nt, float *y, const char *w, const uint16_t *a, int first, int end, struct soon *soon)
{
    const int second = nt - group_rows(nt);
    if (first == 0) {
        tile_zero(0);
        tile_zero(1);
    } else {
        tile_load(0, y, 64);
        if (two)
            tile_load(1, y + second * VL, 64);
    }
    w += (size_t)first * BF16_PAIRS * VL * 4;
    a += (size_t)first * (size_t)nt * PL_BF16_BLOCK;
    for (int i = first; i < end; i++, w += BF16_PAIRS * VL * 4, a += nt * PL_BF16_BLOCK) {
        if (two)
            for (int j = 0; j < soon->lines; j++, soon->at += 64)
                prefetch_l2(soon->at);
        else
            for (int j = 0; j < BF16_PAIRS; j++)
                fetch_ahead(w + 64 * j);
        tile_load(4, w, 64);
        tile_load(2, a, 64);
        tile_dot_bf16(0, 2, 4);
        if (two) {
            tile_load(3, a + second * PL_BF16_BLOCK, 64);
            tile_dot_bf16(1, 3, 4);
        }
    }
    if (two)
        tile_store(1, y + second * VL, 64);
    tile_store(0, y, 64);
}

/* One group waits for weights to come from memory, two for activations to come from L3, where those of a long
 * prompt are: their next piece, or the next tile, lies behind this one. */
static void bf16_panels(const int nt, float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k)
{
    const int two = n_groups(nt) > 1, n = bf16_blocks(k), step = two ? BF16_PIECE : n;
    const uint8_t rows = (uint8_t)group_rows(nt);
    const struct tile_config c = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64}, .rows = {rows, rows, rows, rows, BF16_PAIRS}};
    tiles_begin(&c);
    for (int first = 0; first < n; first += step) {
        const int end = first + step < n ? first + step : n;
        struct soon soon = {(const char *)x + (size_t)(end * nt) * PL_BF16_BLOCK * 2, (nt + n_panels - 1) / n_panels};
        for (int p = 0; p < n_panels; p++) {
            const char *const w = (const char *)panels + (size_t)p * panel_bytes;
            if (two)
                bf16_piece(1, nt, y + p * nt * VL, w, x, first, end, &soon);
            else
                bf16_piece(0, nt, y + p * nt * VL, w, x, first, end, NULL);
        }
    }
    tiles_end();
}
#define BF16_TILE(n) WIDE(bf16_tile, bf16_panels, n)
BF16_TILE(1) BF16_TILE(2) BF16_TILE(3) BF16_TILE(4) BF16_TILE(5) BF16_TILE(6)
BF16_TILE(7) BF16_TILE(8) BF16_TILE(9) BF16_TILE(10) BF16_TILE(11) BF16_TILE(12)
ALL_TILES(bf16_tile, bf16_panels)
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
            fetch_ahead(w);
            UNROLL for (int t = 0; t < nt; t++)
                acc[t] = vf_dot_bf16(acc[t], wi, a + BF16_PAIRS * t + j);
        }
    acc_store(nt, y, acc);
}
TILES(bf16_tile)
#else
#define BF16_ACT PL_ACT_F32
INLINE vf bf16_load(const void *p, int j)
{
    return j ? vf_bf16_hi(vb_load(p)) : vf_bf16_lo(vb_load(p));
}
FLOATS_TILES(bf16, 2, 4 * VL)
#endif

static const struct pl_format bf16 = {"BF16", 1, 2, BF16_ACT, bf16_panel_bytes, bf16_pack, bf16_unpack, bf16_dequantize, bf16_tiles, NULL, bf16_quantize};
