/* Q5_K: as Q4_K with q in 0..31. File: f16 d, dmin; 12 bytes of sc and mn; uint8 qh[32], bit j of
 * qh[i] being the upper bit of weight i of group j; qs[128] with the lower four as in Q4_K. */

static void q5_k_read(uint8_t *q, const uint8_t *block)
{
    read_k_nibbles(q, block + 48);
    for (int j = 0; j < 8; j++, q += 32)
        for (int i = 0; i < 32; i++)
            q[i] = (uint8_t)(q[i] | (block[16 + i] >> j & 1) << 4);
}

#define q5_k_values q4_k_values
BLOCKS(q5_k, 256, 176, .unit = 32, .low = 4, .high = 1, .scales = 4, .n_scales = 12, .halves = 0, .n_halves = 2)

INLINE void q5_k_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 256; b++) {
        const struct block block = block_at(&q5_k_blocks, panel, b, k / 256);
        const vf d = vf_from_f16(block.halves), dmin = vf_sub(vf_zero(), vf_from_f16(block.halves + VL));
        struct k_scales s;
        unpack_k_scales(&s, block.scales);
        for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {
            const vf w = vf_mul(d, vf_from_i(vi_from_u8(s.sc[j]))), m = vf_mul(dmin, vf_from_i(vi_from_u8(s.mn[j])));
            step5(nt, &sums, block.q + j * 20 * VL, w, m, a);
        }
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(q5_k, "Q5_K", SCALED_MIN, NULL)
