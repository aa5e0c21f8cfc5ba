/* IQ4_NL: 32 weights w = d iq4[q], q in 0..15, iq4 being 16 numbers of int8, spaced for a normal
 * distribution. File: f16 d; 16 bytes of nibbles (read_nibbles). */

/* +128, as d8 takes them */
static const uint8_t iq4_table[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

static void iq4_nl_read(uint8_t *q, const uint8_t *block) { read_nibbles(q, block + 2); }

static void iq4_nl_values(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride)
{
    (void)scales, (void)stride;
    for (int i = 0; i < 32; i++)
        y[i] = d[0] * (float)(iq4_table[q[i]] - 128);
}

BLOCKS(iq4_nl, 32, 18, .unit = 32, .low = 4, .halves = 0, .n_halves = 1)

#if defined(HAVE_TILES)
INLINE void put_iq4(int8_t *q, const uint8_t *p)
{
    put4(q, p);
    for (int v = 0; v < 8; v++, q += 4 * VL)
        vb_store(q, vb_minus(vb_lut(iq4_table, vb_load(q)), 128));
}
#endif

/* sums += w (iq4[q] . x) for 32 weights */
INLINE void iq4_step(const int nt, struct sums *sums, const uint8_t *p, vf w, const char *x)
{
    DEFER(nt, sums, put_iq4(q, p), SCALED, w, w, x, NULL);
    const struct acts a = acts_of(nt, x);
    d8 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d8_init(a.z + t);
    for (int v = 0; v < 4; v++, p += 4 * VL) {
        const vb byte = vb_load(p);
        const w8 lo = w8_from(vb_lut(iq4_table, vb_bits(byte, 0, 15)));
        const w8 hi = w8_from(vb_lut(iq4_table, vb_bits(byte, 4, 15)));
        prefetch(p + AHEAD);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], lo, a.q + 32 * t + 8 * v);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], hi, a.q + 32 * t + 8 * v + 4);
    }
    UNROLL for (int t = 0; t < nt; t++)
        sums->y[t] = vf_fma(vf_from_i(vi_from_d8(dot[t])), vf_mul(w, vf_set1(a.d[t])), sums->y[t]);
}

INLINE void iq4_nl_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const uint16_t *d;
        const uint8_t *const p = block_at(&iq4_nl_blocks, panel, b, k / 32, &d);
        iq4_step(nt, &sums, p, vf_from_f16(d), a);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(iq4_nl, "IQ4_NL", NULL)
