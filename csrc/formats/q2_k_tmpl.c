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

/* sums += (w q - 32 m) . x for the 16 weights of one vector */
INLINE void q2_k_step(const int nt, vf *sums, const uint8_t *p, vf w, vf m, struct acts a)
{
    const vb byte = vb_load(p);
    const vb u[4] = {vb_bits(byte, 0, 3), vb_bits(byte, 2, 3), vb_bits(byte, 4, 3), vb_bits(byte, 6, 3)};
    d4 dot[PL_TILE_MAX];
    fetch_ahead(p);
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d4_zero();
    UNROLL for (int g = 0; g < 4; g++)
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_dot(dot[t], u[g], a.q + 32 * t + 4 * g);
    UNROLL for (int t = 0; t < nt; t++) {
        const vf q = vf_from_i(vi_from_d4(dot[t])), z = vf_from_i(vi_set1(a.z16[t]));
        sums[t] = vf_fma(vf_fma(m, z, vf_mul(w, q)), vf_set1(a.d[t]), sums[t]);
    }
}

INLINE void q2_k_part(const int nt, float *y, const void *panel, const void *x, int k, int all, int first)
{
    const char *a = x;
    vf sums[PL_TILE_MAX];
    acc_zero(nt, sums);
    for (int b = 0; b < k / 256; b++) {
        const uint16_t *halves;
        const uint8_t *const p = block_at(&q2_k_blocks, panel, b, k / 256, &halves);
        const vf d = vf_from_f16(halves), dmin = vf_mul(vf_from_f16(halves + VL), vf_set1(1.0f / 32));
        for (int j = 0; j < 16; j++) {
            const vi sm = vi_from_u8(p + scales_at(&q2_k_blocks) + j * VL);
            const vf w = vf_mul(d, vf_from_i(vi_and(sm, vi_set1(15)))), m = vf_mul(dmin, vf_from_i(vi_srl(sm, 4)));
            q2_k_step(nt, sums, p + j * 4 * VL, w, m, half_acts(all, first, a, j % 2));
            a += j % 2 * all * PL_I8_BLOCK_BYTES;
        }
    }
    acc_store(nt, y, sums);
}

PART_FORMAT(q2_k, "Q2_K", NULL)
