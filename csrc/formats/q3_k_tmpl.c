/* Q3_K: 256 weights in 16 groups of 16, w = d (sc - 32) (q - 4), q in 0..7, sc of 6 bits.
 * File: uint8 hmask[32], bit j of hmask[i] being the upper bit of weight 32 j + i; qs[64], the lower two
 * as in Q2_K; 12 bytes of sc; f16 d. */

static void q3_k_read(uint8_t *q, const uint8_t *block)
{
    read_k_pairs(q, block + 32);
    for (int j = 0; j < 8; j++, q += 32)
        for (int i = 0; i < 32; i++)
            q[i] = (uint8_t)(q[i] | (block[i] >> j & 1) << 2);
}

static void q3_k_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int j = 0; j < 16; j++) {
        const int low = scales[j % 8 * stride] >> j / 8 * 4 & 15, high = scales[(8 + j % 4) * stride] >> j / 4 * 2 & 3;
        for (int i = 16 * j; i < 16 * j + 16; i++)
            y[i] = d[0] * (float)((low | high << 4) - 32) * (float)(q[i] - 4);
    }
}

BLOCKS(q3_k, 256, 110, .unit = 32, .low = 2, .high = 1, .scales = 96, .n_scales = 12, .halves = 108, .n_halves = 1)

/* sc - 32 of group j, for VL rows */
INLINE vi q3_k_scale(const uint8_t *scales, int j)
{
    vi low = vi_from_u8(scales + j % 8 * VL), high = vi_from_u8(scales + (8 + j % 4) * VL);
    low = vi_and(j < 8 ? low : vi_srl(low, 4), vi_set1(15));
    high = j / 4 == 0 ? vi_sll(high, 4) : j / 4 == 1 ? vi_sll(high, 2) : j / 4 == 2 ? high : vi_srl(high, 2);
    return vi_add(vi_or(low, vi_and(high, vi_set1(48))), vi_set1(-32));
}

INLINE void q3_k_groups(struct groups *g, struct block block, int j)
{
    const uint8_t *const p = block.q + j * 12 * VL;
    const vf d = vf_mul(vf_from_f16(block.halves), vf_set1(0.125f));  /* as the bytes are 8 q */
    vb upper = vb_load(p);
    fetch_ahead(p);
    for (int h = 0; h < 2; h++) {
        const vb low = vb_load(p + (h + 1) * 4 * VL);
        fetch_ahead(p + (h + 1) * 4 * VL);
        g->u[h][0] = vb_or(vb_bits(low, -3, 24), vb_bits(upper, -5, 32));
        g->u[h][1] = vb_or(vb_bits(low, -1, 24), vb_bits(upper, -4, 32));
        g->u[h][2] = vb_or(vb_bits(low, 1, 24), vb_bits(upper, -3, 32));
        g->u[h][3] = vb_or(vb_bits(low, 3, 24), vb_bits(upper, -2, 32));
        upper = vb_bits(upper, 4, 15);
    }
    set_scales(g, d, q3_k_scale(block.scales, 2 * j), q3_k_scale(block.scales, 2 * j + 1));
}

GROUP_FORMAT(q3_k, "Q3_K", add_offset)
