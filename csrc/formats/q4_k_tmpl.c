/* Q4_K: 256 weights in 8 groups of 32, w = d sc q - dmin mn, q in 0..15, sc and mn of 6 bits.
 * File: f16 d, dmin; 12 bytes of sc and mn; uint8 qs[128], group 2i in the low and 2i+1 in the
 * high nibbles of qs[32 i ..]. */

/* 32 bytes hold two groups of 32 */
static void read_k_nibbles(uint8_t *q, const uint8_t *qs)
{
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++) {
            q[64 * j + i] = qs[32 * j + i] & 15;
            q[64 * j + 32 + i] = qs[32 * j + i] >> 4;
        }
}

static void q4_k_read(uint8_t *q, const uint8_t *block) { read_k_nibbles(q, block + 16); }

static void q4_k_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int j = 0; j < 8; j++) {
        const int lo = scales[j % 4 * stride], hi = scales[(j % 4 + 4) * stride], top = scales[(j % 4 + 8) * stride];
        const int sc = j < 4 ? lo & 63 : (top & 15) | lo >> 6 << 4;
        const int mn = j < 4 ? hi & 63 : top >> 4 | hi >> 6 << 4;
        for (int i = 32 * j; i < 32 * j + 32; i++)
            y[i] = d[0] * (float)sc * (float)q[i] - d[1] * (float)mn;
    }
}

BLOCKS(q4_k, 256, 144, .unit = 32, .low = 4, .scales = 4, .n_scales = 12, .halves = 0, .n_halves = 2)

/* The sc and mn of VL rows. */
struct k_scales { _Alignas(64) uint8_t sc[8][VL], mn[8][VL]; };

INLINE void unpack_k_scales(struct k_scales *s, const uint8_t *scales)
{
    const vb lo = vb_load(scales), hi = vb_load(scales + 4 * VL), top = vb_load(scales + 8 * VL);
    vb_store(s->sc[0], vb_bits(lo, 0, 63));
    vb_store(s->mn[0], vb_bits(hi, 0, 63));
    vb_store(s->sc[4], vb_or(vb_bits(top, 0, 15), vb_bits(lo, 2, 48)));
    vb_store(s->mn[4], vb_or(vb_bits(top, 4, 15), vb_bits(hi, 2, 48)));
}

INLINE void q4_k_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 256; b++) {
        const struct block block = block_at(&q4_k_blocks, panel, b, k / 256);
        const vf d = vf_from_f16(block.halves), dmin = vf_sub(vf_zero(), vf_from_f16(block.halves + VL));
        struct k_scales s;
        unpack_k_scales(&s, block.scales);
        for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {
            const vf w = vf_mul(d, vf_from_i(vi_from_u8(s.sc[j]))), m = vf_mul(dmin, vf_from_i(vi_from_u8(s.mn[j])));
            step4(nt, &sums, block.q + j * 16 * VL, w, m, a);
        }
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q4_k, "Q4_K", SCALED_MIN, NULL)
