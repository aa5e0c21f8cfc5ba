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

/* w = d sc, m = -dmin mn of group j, for VL rows */
INLINE void q4_k_group(const uint8_t *scales, int j, vf d, vf dmin, vf *w, vf *m)
{
    const vi lo = vi_from_u8(scales + j % 4 * VL), hi = vi_from_u8(scales + (j % 4 + 4) * VL);
    vi sc = vi_and(lo, vi_set1(63)), mn = vi_and(hi, vi_set1(63));
    if (j >= 4) {
        const vi top = vi_from_u8(scales + (j % 4 + 8) * VL);
        sc = vi_or(vi_and(top, vi_set1(15)), vi_sll(vi_srl(lo, 6), 4));
        mn = vi_or(vi_srl(top, 4), vi_sll(vi_srl(hi, 6), 4));
    }
    *w = vf_mul(d, vf_from_i(sc));
    *m = vf_mul(dmin, vf_from_i(mn));
}

INLINE void q4_k_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, &sums);
    for (int b = 0; b < k / 256; b++) {
        const uint16_t *halves;
        const uint8_t *const p = block_at(&q4_k_blocks, panel, b, k / 256, &halves);
        const vf d = vf_from_f16(halves), dmin = vf_sub(vf_zero(), vf_from_f16(halves + VL));
        for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {
            vf w, m;
            q4_k_group(p + scales_at(&q4_k_blocks), j, d, dmin, &w, &m);
            step4(nt, &sums, p + j * 16 * VL, w, m, a);
        }
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q4_k, "Q4_K", NULL)
