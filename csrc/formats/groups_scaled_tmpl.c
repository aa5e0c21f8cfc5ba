/* The same where dot products take an integer scale on the way: the groups of 32 k add up as integers, the offset of
 * their weights takes one multiplication, and d is left for the end of a block. */

enum { GROUP_TOKENS = 6 };   /* whose dot products fit 16 registers beside weights and scale */
enum { PIECE_BLOCKS = 32 };  /* of k, for which the sums of activations are kept as pairs */

/* two groups of VL rows: weights as bytes; scales, an i16 twice each; minima, one i16 each; a block's factors */
struct groups {
    vb u[2][4];
    vi sc[2], mn;
    vf d, dmin;
};

/* The sums of a tile of tokens: a block's, to be multiplied by its d, and all. */
struct group_sums { vf of_block[PL_TILE_MAX], y[PL_TILE_MAX]; };

INLINE void set_scales(struct groups *g, vf d, vi first, vi second)
{
    g->sc[0] = vi_pair(first, first);
    g->sc[1] = vi_pair(second, second);
    g->d = d;
}

INLINE void set_minima(struct groups *g, vf dmin, vi first, vi second)
{
    g->mn = vi_pair(first, second);
    g->dmin = dmin;
}

/* less [nt] <- minus the sums of the first 16 and the second 16 activations of x, an i16 each */
INLINE void negative_sums(const int nt, int32_t *less, const char *x)
{
    const int32_t *const z16 = acts_of(nt, x).z16;
    for (int t = 0; t < nt; t++) {
        const uint32_t first = (uint32_t)z16[t] / 32 & 0xffff, second = (uint32_t)z16[nt + t] / 32 & 0xffff;
        less[t] = (int32_t)(first | second << 16);
    }
}

/* sums += (w0 q0 + w1 q1) . x, q being bytes less 32 */
INLINE void add_offset(const int nt, struct group_sums *sums, const struct groups *g, const char *x,
                       const int32_t *less)
{
    const struct acts a = acts_of(nt, x);
    const int n = nt > GROUP_TOKENS ? (nt + 1) / 2 : nt;
    const vi sc32 = vi_pair(vi_sll(g->sc[0], 5), vi_sll(g->sc[1], 5));
    UNROLL for (int first = 0; first < nt; first += n) {
        const int end = first + n < nt ? first + n : nt;
        vi dot[PL_TILE_MAX];
        UNROLL for (int t = first; t < end; t++)
            dot[t] = vi_dot_pairs(sc32, vi_set1(less[t]));
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int t = first; t < end; t++)
                dot[t] = vi_dot6_scaled(dot[t], g->u[i / 2] + i % 2 * 2, a.q + 32 * t + 8 * i, g->sc[i / 2]);
        UNROLL for (int t = first; t < end; t++)
            sums->of_block[t] = vf_fma(vf_from_i(dot[t]), vf_set1(a.d[t]), sums->of_block[t]);
    }
}

/* sums += (w q - m) . x for each group */
INLINE void add_minimum(const int nt, struct group_sums *sums, const struct groups *g, const char *x,
                        const int32_t *less)
{
    const struct acts a = acts_of(nt, x);
    UNROLL for (int h = 0; h < 2; h++) {
        d4 dot[PL_TILE_MAX];
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_zero();
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int t = 0; t < nt; t++)
                dot[t] = d4_dot(dot[t], g->u[h][i], a.q + 32 * t + 16 * h + 4 * i);
        UNROLL for (int t = 0; t < nt; t++) {
            const vf q = vf_from_i(vi_from_d4_scaled(dot[t], g->sc[h]));
            sums->of_block[t] = vf_fma(q, vf_set1(a.d[t]), sums->of_block[t]);
        }
    }
    UNROLL for (int t = 0; t < nt; t++) {
        const vf m = vf_mul(g->dmin, vf_from_i(vi_dot_pairs(g->mn, vi_set1(less[t]))));
        sums->y[t] = vf_fma(m, vf_set1(a.d[t]), sums->y[t]);
    }
}

/* f_tile, given f_groups, which unpacks 32 k, number j of a block, and `add`, which multiplies them */
#define GROUP_PIECE(f, add)                                                                                          \
    INLINE void f##_piece(const int nt, float *y, const void *panel, const char *x, const int32_t *less, int first,  \
                          int end, int n_blocks)                                                                     \
    {                                                                                                                \
        struct group_sums sums;                                                                                      \
        UNROLL for (int t = 0; t < nt; t++)                                                                          \
            sums.y[t] = first ? vf_load(y + t * VL) : vf_zero();                                                     \
        for (int b = first; b < end; b++) {                                                                          \
            const struct block block = block_at(&f##_blocks, panel, b, n_blocks);                                    \
            struct groups g;                                                                                         \
            acc_zero(nt, sums.of_block);                                                                             \
            for (int j = 0; j < 8; j++, x += nt * PL_I8_BLOCK_BYTES, less += nt) {                                   \
                f##_groups(&g, block, j);                                                                            \
                add(nt, &sums, &g, x, less);                                                                         \
            }                                                                                                        \
            UNROLL for (int t = 0; t < nt; t++)                                                                      \
                sums.y[t] = vf_fma(sums.of_block[t], g.d, sums.y[t]);                                                \
        }                                                                                                            \
        acc_store(nt, y, sums.y);                                                                                    \
    }

#define GROUP_TILE(f, nt)                                                                                            \
    static void f##_tile_##nt(float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k)  \
    {                                                                                                                \
        int32_t less[PIECE_BLOCKS * 8 * nt];                                                                         \
        const int n_blocks = k / 256, step = nt * PL_I8_BLOCK_BYTES;                                                 \
        const char *a = x;                                                                                           \
        for (int b = 0; b < n_blocks; b += PIECE_BLOCKS, a += PIECE_BLOCKS * 8 * step) {                             \
            const int end = b + PIECE_BLOCKS < n_blocks ? b + PIECE_BLOCKS : n_blocks;                               \
            for (int j = 0; j < (end - b) * 8; j++)                                                                  \
                negative_sums(nt, less + j * nt, a + j * step);                                                      \
            const char *panel = panels;                                                                              \
            for (int p = 0; p < n_panels; p++, panel += panel_bytes)                                                 \
                f##_piece(nt, y + p * nt * VL, panel, a, less, b, end, n_blocks);                                    \
        }                                                                                                            \
    }

#define GROUP_TILES(f, add) GROUP_PIECE(f, add) EACH_WIDTH(GROUP_TILE, f) TILE_TABLE(f##_tile)
