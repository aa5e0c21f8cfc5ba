/* The same where dot products take an integer scale on the way: the groups of 32 k add up as integers, the offset of
 * their weights takes one multiplication, and d is left for the end of a block. */

enum { GROUP_TOKENS = 6 };  /* whose dot products fit 16 registers beside weights and scale */

/* two groups of VL rows: weights as bytes; scales, an i16 twice each; minima, one i16 each; their factors */
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
    g->dmin = vf_mul(dmin, vf_set1(0.125f));
}

/* sums += (w0 q0 + w1 q1) . x, q being bytes less 32 */
INLINE void add_offset(const int nt, struct group_sums *sums, const struct groups *g, const char *x)
{
    const struct acts a = acts_of(nt, x);
    const int n = nt > GROUP_TOKENS ? (nt + 1) / 2 : nt;
    const vi sc4 = vi_pair(vi_sll(g->sc[0], 2), vi_sll(g->sc[1], 2));  /* z is -8 times the sums */
    UNROLL for (int first = 0; first < nt; first += n) {
        const int end = first + n < nt ? first + n : nt;
        vi dot[PL_TILE_MAX];
        UNROLL for (int t = first; t < end; t++)
            dot[t] = vi_dot_pairs(sc4, vi_set1(a.z[t]));
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int t = first; t < end; t++)
                dot[t] = vi_dot6_scaled(dot[t], g->u[i / 2] + i % 2 * 2, a.q + 32 * t + 8 * i, g->sc[i / 2]);
        UNROLL for (int t = first; t < end; t++)
            sums->of_block[t] = vf_fma(vf_from_i(dot[t]), vf_set1(a.d[t]), sums->of_block[t]);
    }
}

/* sums += (w q - m) . x for each group */
INLINE void add_minimum(const int nt, struct group_sums *sums, const struct groups *g, const char *x)
{
    const struct acts a = acts_of(nt, x);
    UNROLL for (int h = 0; h < 2; h++) {
        d4 dot[PL_TILE_MAX];
        UNROLL for (int t = 0; t < nt; t++)
            dot[t] = d4_start();
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int t = 0; t < nt; t++)
                dot[t] = d4_dot(dot[t], g->u[h][i], a.q + 32 * t + 16 * h + 4 * i);
        UNROLL for (int t = 0; t < nt; t++) {
            const vf q = vf_from_i(vi_from_d4_scaled(dot[t], g->sc[h]));
            sums->of_block[t] = vf_fma(q, vf_set1(a.d[t]), sums->of_block[t]);
        }
    }
    UNROLL for (int t = 0; t < nt; t++) {
        const vf m = vf_mul(g->dmin, vf_from_i(vi_dot_pairs(g->mn, vi_set1(a.z[t]))));
        sums->y[t] = vf_fma(m, vf_set1(a.d[t]), sums->y[t]);
    }
}

/* f_tile, given f_groups, which unpacks 32 k, number j of a block, and `add`, which multiplies them */
#define GROUP_TILES(f, add)                                                                                         \
    INLINE void f##_tile(const int nt, float *y, const void *panel, const void *x, int k)                           \
    {                                                                                                               \
        const char *a = x;                                                                                          \
        struct group_sums sums;                                                                                     \
        acc_zero(nt, sums.y);                                                                                       \
        for (int b = 0; b < k / 256; b++) {                                                                         \
            const struct block block = block_at(&f##_blocks, panel, b, k / 256);                                    \
            struct groups g;                                                                                        \
            acc_zero(nt, sums.of_block);                                                                            \
            for (int j = 0; j < 8; j++, a += nt * PL_I8_BLOCK_BYTES) {                                              \
                f##_groups(&g, block, j);                                                                           \
                add(nt, &sums, &g, a);                                                                              \
            }                                                                                                       \
            UNROLL for (int t = 0; t < nt; t++)                                                                     \
                sums.y[t] = vf_fma(sums.of_block[t], g.d, sums.y[t]);                                               \
        }                                                                                                           \
        acc_store(nt, y, sums.y);                                                                                   \
    }                                                                                                               \
    TILES(f##_tile)
