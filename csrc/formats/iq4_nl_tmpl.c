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

INLINE void iq4_nl_tile(const int nt, float *y, const void *panel, const void *x, int k)
{
    const char *a = x;
    struct sums sums;
    sums_begin(nt, y, &sums);
    for (int b = 0; b < k / 32; b++, a += nt * PL_I8_BLOCK_BYTES) {
        const struct block block = block_at(&iq4_nl_blocks, panel, b, k / 32);
        step4_bytes(nt, &sums, block.q, vf_from_f16(block.halves), a, iq4_table);
    }
    sums_end(nt, y, &sums);
}

BLOCK_FORMAT(iq4_nl, "IQ4_NL", SCALED, NULL)
