/* What the formats of blocks share: how a block lies in a panel, and the dot products of its weights.
 *
 * A panel holds blocks in pairs (the last may be single), for the vectors to stay aligned: the f16s of
 * both, each as [VL], the small scales of both, each byte as [VL], the weights of both: the bits of the
 * file, no more. All lies in the order in which it is read, for CPUs to foresee it.
 * The weights lie in units of 16 or 32 k. Of each weight the `high` upper bits come first in a unit,
 * then the `low` lower ones. A vector of n-bit pieces is [VL][4] bytes, of four consecutive k; a byte
 * holds one piece of 8 / n such groups of k, the first group in the lowest bits. */

enum { BLOCK_MAX = 256 };

struct blocks {
    int n, bytes;             /* weights and bytes of a block of the file */
    int unit, low, high;      /* as above */
    int scales, n_scales;     /* where in the file's block its small scales start; bytes */
    int halves, n_halves;     /* where its f16s start; their number */
    /* q [n] <- the weights of a file's block, as they are stored */
    void (*read)(uint8_t *q, const uint8_t *block);
    /* y [n] <- what they mean, given the f16s d and the small scales, `stride` bytes apart */
    void (*values)(float *y, const uint8_t *q, const float *d, const uint8_t *scales, int stride);
};

/* One of them in a panel, VL rows of it. */
struct block {
    const uint16_t *halves;
    const uint8_t *scales, *q;
};

INLINE int halves_bytes(const struct blocks *f) { return 2 * VL * f->n_halves; }
INLINE int scales_bytes(const struct blocks *f) { return VL * f->n_scales; }
INLINE int q_bytes(const struct blocks *f) { return VL * f->n * (f->low + f->high) / 8; }

/* Block b of nb. */
INLINE struct block block_at(const struct blocks *f, const void *panel, int b, int nb)
{
    const int halves = halves_bytes(f), scales = scales_bytes(f), q = q_bytes(f);
    const int first = b / 2 * 2, second = b % 2, n = first + 1 < nb ? 2 : 1;
    const uint8_t *const pair = (const uint8_t *)panel + (size_t)first * (size_t)(halves + scales + q);
    if (!second)
        for (int i = 0; i < n * (halves + scales); i += 64)
            fetch_ahead(pair + i);
    const uint8_t *const in_scales = pair + n * halves, *const in_q = in_scales + n * scales;
    return (struct block){(const uint16_t *)(pair + second * halves), in_scales + second * scales, in_q + second * q};
}

static size_t blocks_bytes(const struct blocks *f, int k)
{
    return (size_t)(k / f->n) * (size_t)(halves_bytes(f) + scales_bytes(f) + q_bytes(f));
}

/* ---- packing: four k at a time, as one word */

static uint32_t load_u32(const void *p)
{
    uint32_t u;
    __builtin_memcpy(&u, p, 4);
    return u;
}

static void store_u32(void *p, uint32_t u) { __builtin_memcpy(p, &u, 4); }

static uint64_t load_u64(const void *p)
{
    uint64_t u;
    __builtin_memcpy(&u, p, 8);
    return u;
}

static void store_u64(void *p, uint64_t u) { __builtin_memcpy(p, &u, 8); }

/* row r of vectors of `bits` bits each <- those above the lowest `shift` of q [n] */
INLINE void pack_bits(uint8_t *to, int r, const uint8_t *q, int n, int bits, int shift)
{
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int i = 0; i < n; to += 4 * VL) {
        uint32_t word = 0;
        for (int at = 0; at < 8; at += bits, i += 4)
            word |= (load_u32(q + i) >> shift & mask) << at;
        store_u32(to + 4 * r, word);
    }
}

static void unpack_bits(uint8_t *q, const uint8_t *from, int r, int n, int bits, int shift)
{
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    for (int i = 0; i < n; from += 4 * VL)
        for (int at = 0; at < 8; at += bits, i += 4)
            store_u32(q + i, (shift ? load_u32(q + i) : 0) | (load_u32(from + 4 * r) >> at & mask) << shift);
}

/* row r of a block of the panel <- a file's block */
INLINE void pack_row(const struct blocks *f, struct block to, const uint8_t *block, int r)
{
    uint8_t q[BLOCK_MAX];
    f->read(q, block);
    for (int i = 0; i < f->n; i += f->unit) {
        uint8_t *const unit = (uint8_t *)to.q + i * (f->low + f->high) / 8 * VL;
        if (f->high)
            pack_bits(unit, r, q + i, f->unit, f->high, f->low);
        pack_bits(unit + f->unit * f->high / 8 * VL, r, q + i, f->unit, f->low, 0);
    }
    for (int i = 0; i < f->n_scales; i++)
        ((uint8_t *)to.scales)[i * VL + r] = block[f->scales + i];
    for (int i = 0; i < f->n_halves; i++)
        ((uint16_t *)to.halves)[i * VL + r] = load_u16(block + f->halves + 2 * i);
}

INLINE void blocks_pack(const struct blocks *f, void *panel, const uint8_t *const *rows, int n_rows, int k)
{
    static const uint8_t zero[BLOCK_MAX] = {0};  /* no block has more bytes */
    for (int b = 0; b < k / f->n; b++) {
        const struct block to = block_at(f, panel, b, k / f->n);
        for (int r = 0; r < VL; r++)
            pack_row(f, to, r < n_rows ? rows[r] + (size_t)b * (size_t)f->bytes : zero, r);
    }
}

static void blocks_unpack(const struct blocks *f, float *y, const void *panel, int lane, int k)
{
    for (int b = 0; b < k / f->n; b++) {
        uint8_t q[BLOCK_MAX];
        float d[2];
        const struct block block = block_at(f, panel, b, k / f->n);
        for (int i = 0; i < f->n; i += f->unit) {
            const uint8_t *const unit = block.q + i * (f->low + f->high) / 8 * VL;
            unpack_bits(q + i, unit + f->unit * f->high / 8 * VL, lane, f->unit, f->low, 0);
            if (f->high)
                unpack_bits(q + i, unit, lane, f->unit, f->high, f->low);
        }
        for (int i = 0; i < f->n_halves; i++)
            d[i] = f16_to_f32(block.halves[i * VL + lane]);
        f->values(y + (size_t)b * (size_t)f->n, q, d, block.scales + lane, VL);
    }
}

static void blocks_dequantize(const struct blocks *f, float *y, const uint8_t *row, int k)
{
    for (int b = 0; b < k / f->n; b++, row += f->bytes) {
        uint8_t q[BLOCK_MAX];
        float d[2];
        f->read(q, row);
        for (int i = 0; i < f->n_halves; i++)
            d[i] = f16_to_f32(load_u16(row + f->halves + 2 * i));
        f->values(y + (size_t)b * (size_t)f->n, q, d, row + f->scales, 1);
    }
}

/* q [32] <- 16 bytes: the first half in their low nibbles, the second in the high ones */
INLINE void read_nibbles(uint8_t *q, const uint8_t *qs)
{
    const uint64_t nibbles = 0x0f0f0f0f0f0f0f0fu;
    for (int i = 0; i < 16; i += 8) {
        store_u64(q + i, load_u64(qs + i) & nibbles);
        store_u64(q + i + 16, load_u64(qs + i) >> 4 & nibbles);
    }
}

/* the same with upper bits, that of q[i] in bit i % 8 of byte i / 8 */
INLINE void read_fives(uint8_t *q, const uint8_t *block)
{
    const uint64_t ones = 0x0101010101010101u;
    read_nibbles(q, block + 4);
    for (int i = 0; i < 32; i += 8) {
        const uint64_t bits = block[i / 8] * ones & 0x8040201008040201u;  /* byte j is 0 or 1 << j */
        store_u64(q + i, load_u64(q + i) | ((bits + 0x7f * ones) >> 7 & ones) << 4);
    }
}

/* f_blocks, given f_read and f_values: n weights in `bytes` bytes; then the rest of struct blocks */
#define BLOCKS(f, n, bytes, ...)                                                                     \
    enum { f##_n = n, f##_bytes = bytes };                                                           \
    static const struct blocks f##_blocks = {f##_n, f##_bytes, __VA_ARGS__, .read = f##_read, .values = f##_values};

/* The format f, `title` in GGUF, given f_blocks and f_tile. addend: what its steps defer; quantizer: of struct
 * pl_format, or NULL */
#define BLOCK_FORMAT(f, title, addend, quantizer)                                                    \
    WIDE_TILES(f##_tile)                                                                             \
    EXPANDED(f, expanded_step(addend), addend##_tile, f##_tile(0, expanded, panel, NULL, k))         \
    FORMAT_OF_TILES(f, title, quantizer)
#define FORMAT_OF_TILES(f, title, quantizer)                                                         \
    static size_t f##_panel_bytes(int k) { return blocks_bytes(&f##_blocks, k); }                    \
    static void f##_pack(void *panel, const uint8_t *const *rows, int n_rows, int k)                 \
    {                                                                                                \
        blocks_pack(&f##_blocks, panel, rows, n_rows, k);                                            \
    }                                                                                                \
    static void f##_unpack(float *y, const void *panel, int lane, int k)                             \
    {                                                                                                \
        blocks_unpack(&f##_blocks, y, panel, lane, k);                                               \
    }                                                                                                \
    static void f##_dequantize(float *y, const uint8_t *row, int k)                                  \
    {                                                                                                \
        blocks_dequantize(&f##_blocks, y, row, k);                                                   \
    }                                                                                                \
    static const struct pl_format f = {title, f##_n, f##_bytes, PL_ACT_I8, f##_panel_bytes,          \
                                       f##_pack, f##_unpack, f##_dequantize, f##_tiles, EXPANDED_OF(f), quantizer};

/* ---- dot products */

/* 4-bit weights as bytes, 128 being 0: what the table says, or 16 q */
INLINE vb low_byte(vb byte, const uint8_t *table)
{
    return table ? vb_lut(table, vb_bits(byte, 0, 15)) : vb_bits(byte, -4, -16);
}

INLINE vb high_byte(vb byte, const uint8_t *table)
{
    return table ? vb_lut(table, vb_bits(byte, 4, 15)) : vb_bits(byte, 0, -16);
}

#if defined(HAVE_TILES) || defined(EXPANDS)
/* the same weights one by one, to be multiplied later */
INLINE void put4(int8_t *q, const uint8_t *p)
{
    for (int v = 0; v < 4; v++, p += 4 * VL, q += 8 * VL) {
        const vb byte = vb_load(p);
        fetch_ahead(p);
        vb_store(q, vb_bits(byte, 0, 15));
        vb_store(q + 4 * VL, vb_bits(byte, 4, 15));
    }
}

INLINE void put_bytes(int8_t *q, const uint8_t *p, const uint8_t *table)
{
    for (int v = 0; v < 4; v++, p += 4 * VL, q += 8 * VL) {
        const vb byte = vb_load(p);
        fetch_ahead(p);
        vb_store(q, deferred(low_byte(byte, table)));
        vb_store(q + 4 * VL, deferred(high_byte(byte, table)));
    }
}

INLINE void put5(int8_t *q, const uint8_t *p)
{
    vb bit = vb_load(p);
    fetch_ahead(p);
    put4(q, p + 4 * VL);
    for (int v = 0; v < 4; v++, q += 8 * VL, bit = vb_bits(bit, 2, 63)) {
        vb_store(q, vb_or(vb_load(q), vb_bits(bit, -4, 16)));
        vb_store(q + 4 * VL, vb_or(vb_load(q + 4 * VL), vb_bits(bit, -3, 16)));
    }
}
#endif

/* dot [nt] += 32 weights of 4 bits . a */
INLINE void dots4(const int nt, d4 *dot, const uint8_t *p, const int8_t *a)
{
    for (int v = 0; v < 4; v++, p += 4 * VL) {
        const vb byte = vb_load(p);
        const vb lo = vb_bits(byte, 0, 15), hi = vb_bits(byte, 4, 15);
        fetch_ahead(p);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_dot(dot[t], lo, a + 32 * t + 8 * v);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_dot(dot[t], hi, a + 32 * t + 8 * v + 4);
    }
}

/* sums += (w q + m) . x */
INLINE void step4(const int nt, struct sums *sums, const uint8_t *p, vf w, vf m, const char *x)
{
    DEFER(nt, sums, put4(q, p), SCALED_MIN, w, m, x);
    const struct acts a = acts_of(nt, x);
    d4 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d4_start();
    dots4(nt, dot, p, a.q);
    UNROLL for (int t = 0; t < nt; t++) {
        sums->y[t] = add_dot(sums->y[t], w, vi_from_d4(dot[t]), &a, t);
        sums->y[t] = vf_fma(m, vf_set1(a.s[t]), sums->y[t]);
    }
}

/* sums += w (b - 128) . x, b being the weights as bytes */
INLINE void step4_bytes(const int nt, struct sums *sums, const uint8_t *p, vf w, const char *x, const uint8_t *table)
{
    DEFER(nt, sums, put_bytes(q, p, table), SCALED, w, w, x);
    const struct acts a = acts_of(nt, x);
    d8 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d8_init(a.z + t);
    for (int v = 0; v < 4; v++, p += 4 * VL) {
        const vb byte = vb_load(p);
        const w8 lo = w8_from(low_byte(byte, table)), hi = w8_from(high_byte(byte, table));
        fetch_ahead(p);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], lo, a.q + 32 * t + 8 * v);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d8_dot(dot[t], hi, a.q + 32 * t + 8 * v + 4);
    }
    UNROLL for (int t = 0; t < nt; t++)
        sums->y[t] = add_dot(sums->y[t], w, vi_from_d8(dot[t]), &a, t);
}

/* sums += w (q - 8) . x */
INLINE void step4_centred(const int nt, struct sums *sums, const uint8_t *p, vf w, const char *x)
{
#if defined(HAVE_DPBUSD)
    step4_bytes(nt, sums, p, vf_mul(w, vf_set1(0.0625f)), x, NULL);
#else
    const struct acts a = acts_of(nt, x);
    d4 dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = d4_centred(a.z + t);
    dots4(nt, dot, p, a.q);
    UNROLL for (int t = 0; t < nt; t++)
        sums->y[t] = add_dot(sums->y[t], w, vi_from_d4(dot[t]), &a, t);
#endif
}

/* step4 for weights of 5 bits, whose vector of upper bits precedes those of the lower */
INLINE void step5(const int nt, struct sums *sums, const uint8_t *p, vf w, vf m, const char *x)
{
    DEFER(nt, sums, put5(q, p), SCALED_MIN, w, m, x);
    const struct acts a = acts_of(nt, x);
    vi dot[PL_TILE_MAX];
    UNROLL for (int t = 0; t < nt; t++)
        dot[t] = vi_set1(DOT_START);
    vb bit = vb_load(p);
    fetch_ahead(p);
    p += 4 * VL;
    for (int v = 0; v < 4; v++, p += 4 * VL) {
        const vb byte = vb_load(p);
        const vb lo = vb_or(vb_bits(byte, 0, 15), vb_bits(bit, -4, 16));
        const vb hi = vb_or(vb_bits(byte, 4, 15), vb_bits(bit, -3, 16));
        bit = vb_bits(bit, 2, 63);
        fetch_ahead(p);
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = vi_dot6(dot[t], lo, hi, a.q + 32 * t + 8 * v);
    }
    UNROLL for (int t = 0; t < nt; t++) {
        sums->y[t] = add_dot(sums->y[t], w, dot[t], &a, t);
        sums->y[t] = vf_fma(m, vf_set1(a.s[t]), sums->y[t]);
    }
}
