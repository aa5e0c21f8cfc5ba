/* Q6_K: 256 weights in 16 groups of 16, w = d sc (q - 32), q in 0..63, sc int8.
 * File: uint8 ql[128], qh[64]; int8 sc[16]; f16 d. Each half of the block has 64 bytes of ql and 32
 * of qh; its weights 32 j + i, j < 4, have their lower four bits in ql[32 (j % 2) + i], the low
 * nibble for j < 2, and their upper two in bits 2 j of qh[i]. */

static void q6_k_read(uint8_t *q, const uint8_t *block)
{
    for (int j = 0; j < 8; j++, q += 32) {
        const uint8_t *const ql = block + j / 4 * 64 + j % 2 * 32, *const qh = block + 128 + j / 4 * 32;
        for (int i = 0; i < 32; i++)
            q[i] = (uint8_t)((ql[i] >> j / 2 % 2 * 4 & 15) | (qh[i] >> j % 4 * 2 & 3) << 4);
    }
}

static void q6_k_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int i = 0; i < 256; i++)
        y[i] = d[0] * (float)(int8_t)scales[i / 16 * stride] * (float)(q[i] - 32);
}

BLOCKS(q6_k, 256, 210, .unit = 16, .low = 4, .high = 2, .scales = 192, .n_scales = 16, .halves = 208, .n_halves = 1)

/* u <- 16 weights of VL rows */
INLINE void q6_k_weights(vb *u, const uint8_t *p)
{
    const vb upper = vb_load(p), lo = vb_load(p + 4 * VL), hi = vb_load(p + 8 * VL);
    for (int i = 0; i < 3; i++)
        fetch_ahead(p + 4 * i * VL);
    u[0] = vb_or(vb_bits(lo, 0, 15), vb_bits(upper, -4, 48));
    u[1] = vb_or(vb_bits(lo, 4, 15), vb_bits(upper, -2, 48));
    u[2] = vb_or(vb_bits(hi, 0, 15), vb_bits(upper, 0, 48));
    u[3] = vb_or(vb_bits(hi, 4, 15), vb_bits(upper, 2, 48));
}

INLINE void q6_k_part(const int nt, float *y, const void *panel, const void *x, int k, int all, int first)
{
    const char *a = x;
    vf sums[PL_TILE_MAX];
    acc_zero(nt, sums);
    for (int b = 0; b < k / 256; b++) {
        const uint16_t *halves;
        const uint8_t *p = block_at(&q6_k_blocks, panel, b, k / 256, &halves);
        const uint8_t *const scales = p + scales_at(&q6_k_blocks);
        const vf d = vf_from_f16(halves);
        for (int j = 0; j < 8; j++, p += 24 * VL, a += all * PL_I8_BLOCK_BYTES) {
            const vf w0 = vf_mul(d, vf_from_i(vi_from_i8(scales + 2 * j * VL)));
            const vf w1 = vf_mul(d, vf_from_i(vi_from_i8(scales + (2 * j + 1) * VL)));
            vb u0[4], u1[4];
            q6_k_weights(u0, p);
            q6_k_weights(u1, p + 12 * VL);
            step6(nt, sums, u0, u1, w0, w1, half_acts(all, first, a, 0), half_acts(all, first, a, 1));
        }
    }
    acc_store(nt, y, sums);
}

PART_FORMAT(q6_k, "Q6_K", NULL)
