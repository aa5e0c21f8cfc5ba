/* Q2_K: 256 weights in 16 groups of 16, w = d sc q - dmin mn, q in 0..3, sc and mn of 4 bits.
 * File: uint8 sm[16], sc in the low and mn in the high nibbles; qs[64]; f16 d, dmin. */

/* each half of a block has 32 bytes, its weights 32 j + i in bits 2 j of qs[i] */
static void read_k_pairs(uint8_t *q, const uint8_t *qs)
{
    for (int j = 0; j < 8; j++, q += 32)
        for (int i = 0; i < 32; i++)
            q[i] = qs[j / 4 * 32 + i] >> j % 4 * 2 & 3;
}

static void q2_k_read(uint8_t *q, const uint8_t *block) { read_k_pairs(q, block + 16); }

static void q2_k_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int i = 0; i < 256; i++) {
        const int sm = scales[i / 16 * stride];
        y[i] = d[0] * (float)(sm & 15) * (float)q[i] - d[1] * (float)(sm >> 4);
    }
}

BLOCKS(q2_k, 256, 84, .unit = 16, .low = 2, .scales = 0, .n_scales = 16, .halves = 80, .n_halves = 2)

INLINE void q2_k_groups(struct groups *g, struct block block, int j)
{
    const vi sm0 = vi_from_u8(block.scales + 2 * j * VL), sm1 = vi_from_u8(block.scales + (2 * j + 1) * VL);
    for (int h = 0; h < 2; h++) {
        const uint8_t *const p = block.q + (2 * j + h) * 4 * VL;
        const vb byte = vb_load(p);
        fetch_ahead(p);
        g->u[h][0] = vb_bits(byte, 0, 3);
        g->u[h][1] = vb_bits(byte, 2, 3);
        g->u[h][2] = vb_bits(byte, 4, 3);
        g->u[h][3] = vb_bits(byte, 6, 3);
    }
    set_scales(g, vf_from_f16(block.halves), vi_and(sm0, vi_set1(15)), vi_and(sm1, vi_set1(15)));
    set_minima(g, vf_from_f16(block.halves + VL), vi_srl(sm0, 4), vi_srl(sm1, 4));
}

GROUP_FORMAT(q2_k, "Q2_K", add_minimum)
