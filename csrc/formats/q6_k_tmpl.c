/* Q6_K: 256 weights in 16 groups of 16, w = d sc (q - 32), q in 0..63, sc int8.
 * File: uint8 ql[128], qh[64]; int8 sc[16]; f16 d. Each half of the block has 64 bytes of ql and 32
 * of qh; its weights 32 j + i, j < 4, have their lower four bits in ql[32 (j % 2) + i], the low
 * nibble for j < 2, and their upper two in bits 2 j of qh[i]. */

static void q6_k_read(uint8_t *q, const uint8_t *block)
{
    const uint64_t nibbles = 0x0f0f0f0f0f0f0f0fu, upper = 0x3030303030303030u;
    for (int half = 0; half < 2; half++, q += 128)
        for (int i = 0; i < 32; i += 8) {
            const uint64_t a = load_u64(block + 64 * half + i), b = load_u64(block + 64 * half + 32 + i);
            const uint64_t h = load_u64(block + 128 + 32 * half + i);
            store_u64(q + i, (a & nibbles) | (h << 4 & upper));
            store_u64(q + 32 + i, (b & nibbles) | (h << 2 & upper));
            store_u64(q + 64 + i, (a >> 4 & nibbles) | (h & upper));
            store_u64(q + 96 + i, (b >> 4 & nibbles) | (h >> 2 & upper));
        }
}

static void q6_k_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    for (int i = 0; i < 256; i++)
        y[i] = d[0] * (float)(int8_t)scales[i / 16 * stride] * (float)(q[i] - 32);
}

BLOCKS(q6_k, 256, 210, .unit = 16, .low = 4, .high = 2, .scales = 192, .n_scales = 16, .halves = 208, .n_halves = 1)

/* u <- a group of VL rows */
INLINE void q6_k_group(vb *u, const uint8_t *p)
{
    const vb upper = vb_load(p), lo = vb_load(p + 4 * VL), hi = vb_load(p + 8 * VL);
    for (int i = 0; i < 3; i++)
        fetch_ahead(p + 4 * i * VL);
    u[0] = vb_or(vb_bits(lo, 0, 15), vb_bits(upper, -4, 48));
    u[1] = vb_or(vb_bits(lo, 4, 15), vb_bits(upper, -2, 48));
    u[2] = vb_or(vb_bits(hi, 0, 15), vb_bits(upper, 0, 48));
    u[3] = vb_or(vb_bits(hi, 4, 15), vb_bits(upper, 2, 48));
}

INLINE void q6_k_groups(struct groups *g, struct block block, int j)
{
    const uint8_t *const sc = block.scales + 2 * j * VL;
    set_scales(g, vf_from_f16(block.halves), vi_from_i8(sc), vi_from_i8(sc + VL));
    for (int h = 0; h < 2; h++)
        q6_k_group(g->u[h], block.q + (2 * j + h) * 12 * VL);
}

GROUP_FORMAT(q6_k, "Q6_K", add_offset)
