/* Q4_K: 256 weights in 8 groups of 32, w = d sc q - dmin mn, q in 0..15, sc and mn of 6 bits.
 * File: f16 d, dmin; 12 bytes of sc and mn; uint8 qs[128], group 2i in the low and 2i+1 in the
 * high nibbles of qs[32 i ..].
 * Panel, per block: f16 d [VL], dmin [VL]; the 12 bytes as uint8 [12][VL]; nibbles as
 * uint8 [8 groups][4][VL][4]: vector v of a group holds its k 8v..8v+3 low, 8v+4..8v+7 high.
 * The bits of the file, no more. */

enum { Q4K_SC = 4 * VL, Q4K_QS = 16 * VL, Q4K_BLOCK = 144 * VL };

static size_t q4_k_panel_bytes(int k) { return (size_t)(k / 256) * Q4K_BLOCK; }

/* weight i of a file block, 0..15 */
static int q4_k_nibble(const uint8_t *block, int i)
{
    const uint8_t byte = block[16 + i / 64 * 32 + i % 32];
    return i / 32 % 2 ? byte >> 4 : byte & 15;
}

static void q4_k_pack_row(uint8_t *block, const uint8_t *src, int r)
{
    __builtin_memcpy(block + 2 * r, src, 2);
    __builtin_memcpy(block + 2 * VL + 2 * r, src + 2, 2);
    for (int i = 0; i < 12; i++)
        block[Q4K_SC + i * VL + r] = src[4 + i];
    for (int i = 0; i < 128; i++) {
        const int k = i / 16 * 32 + i / 4 % 4 * 8 + i % 4;
        block[Q4K_QS + (i / 4 * VL + r) * 4 + i % 4] =
            (uint8_t)(q4_k_nibble(src, k) | q4_k_nibble(src, k + 4) << 4);
    }
}

static void q4_k_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    static const uint8_t zero[144] = {0};
    for (int b = 0; b < k / 256; b++)
        for (int r = 0; r < VL; r++)
            q4_k_pack_row((uint8_t *)panel + (size_t)b * Q4K_BLOCK, r < n_rows ? rows[r] + (size_t)b * 144 : zero, r);
}

/* sc and mn of group j; p: 12 bytes, `stride` apart */
static void q4_k_scales(const uint8_t *p, int stride, int j, int *sc, int *mn)
{
    const int lo = p[j % 4 * stride], hi = p[(j % 4 + 4) * stride], top = p[(j % 4 + 8) * stride];
    *sc = j < 4 ? lo & 63 : (top & 15) | lo >> 6 << 4;
    *mn = j < 4 ? hi & 63 : top >> 4 | hi >> 6 << 4;
}

static void q4_k_unpack(float *y, const void *panel, int lane, int k)
{
    for (int i = 0; i < k; i++) {
        const uint8_t *const block = (const uint8_t *)panel + (size_t)(i / 256) * Q4K_BLOCK;
        int sc, mn;
        q4_k_scales(block + Q4K_SC + lane, VL, i / 32 % 8, &sc, &mn);
        const uint8_t byte = block[Q4K_QS + ((i % 256 / 8) * VL + lane) * 4 + i % 4];
        const float d = f16_to_f32(load_u16(block + 2 * lane)), dmin = f16_to_f32(load_u16(block + 2 * VL + 2 * lane));
        y[i] = d * (float)sc * (float)(i / 4 % 2 ? byte >> 4 : byte & 15) - dmin * (float)mn;
    }
}

static void q4_k_dequantize(float *y, const uint8_t *row, int k)
{
    for (int i = 0; i < k; i++) {
        const uint8_t *const block = row + (size_t)(i / 256) * 144;
        int sc, mn;
        q4_k_scales(block + 4, 1, i / 32 % 8, &sc, &mn);
        y[i] = f16_to_f32(load_u16(block)) * (float)sc * (float)q4_k_nibble(block, i % 256) - f16_to_f32(load_u16(block + 2)) * (float)mn;
    }
}

/* w = d sc, m = -dmin mn of group j, for VL rows */
INLINE void q4_k_group(const uint8_t *p, int j, vf d, vf dmin, vf *w, vf *m)
{
    const vi lo = vi_from_u8(p + j % 4 * VL), hi = vi_from_u8(p + (j % 4 + 4) * VL);
    vi sc = vi_and(lo, vi_set1(63)), mn = vi_and(hi, vi_set1(63));
    if (j >= 4) {
        const vi top = vi_from_u8(p + (j % 4 + 8) * VL);
        sc = vi_or(vi_and(top, vi_set1(15)), vi_sll(vi_srl(lo, 6), 4));
        mn = vi_or(vi_srl(top, 4), vi_sll(vi_srl(hi, 6), 4));
    }
    *w = vf_mul(d, vf_from_i(sc));
    *m = vf_mul(dmin, vf_from_i(mn));
}

INLINE void q4_k_step(const int nt, vf *acc, const uint8_t *qs, vf w, vf m, const char *x)
{
    const int8_t *const a = (const int8_t *)x;
    const float *const da = (const float *)(x + 32 * nt), *const s = da + nt;
    d4 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d4_zero();
    for (int v = 0; v < 4; v++) {
        const vb byte = vb_load(qs + v * 4 * VL);
        const vb lo = vb_lo4(byte), hi = vb_hi4(byte);
        prefetch(qs + v * 4 * VL + AHEAD);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_dot(dot[t], lo, a + 32 * t + 8 * v);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_dot(dot[t], hi, a + 32 * t + 8 * v + 4);
    }
    UNROLL for (int t = 0; t < nt; t++) {
        acc[t] = vf_fma(vf_from_i(vi_from_d4(dot[t])), vf_mul(w, vf_set1(da[t])), acc[t]);
        acc[t] = vf_fma(m, vf_set1(s[t]), acc[t]);
    }
}

INLINE void q4_k_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const uint8_t *p = panel;
    const char *a = x;
    vf acc[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        acc[t] = vf_zero();
    for (int b = 0; b < k / 256; b++, p += Q4K_BLOCK) {
        const vf d = vf_from_f16((const uint16_t *)p);
        const vf dmin = vf_sub(vf_zero(), vf_from_f16((const uint16_t *)p + VL));
        for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {
            vf w, m;
            q4_k_group(p + Q4K_SC, j, d, dmin, &w, &m);
            q4_k_step(nt, acc, p + Q4K_QS + j * 16 * VL, w, m, a);
        }
    }
    UNROLL for (int t = 0; t < nt; t++)
        vf_store(y + t * VL, acc[t]);
}
TILES(q4_k_tile)

static const struct pl_format q4_k = {"Q4_K", 256, 144, PL_ACT_I8, q4_k_panel_bytes, q4_k_pack, q4_k_unpack, q4_k_dequantize, q4_k_tiles, NULL};
