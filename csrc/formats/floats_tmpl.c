/* Float weights times float activations: F32, F16, and BF16 where it has no instruction of its own.
 *
 * A sum is one chain of FMAs as long as k, in the order of k whatever the tile's width. For there to be enough chains
 * to hide what an FMA takes, and more FMAs than loads, some panels go abreast; of tokens too many for the registers one
 * half after the other, piece by piece of k, so that the second finds the piece in L1. */

enum { FLOATS_PANELS = 4, FLOATS_TOKENS = 8 };  /* abreast, at most */
enum { FLOATS_PIECE = 256 };
enum { ACTS_AHEAD = 8192 };  /* bytes; those of many tokens come from L3 */

/* Tokens, and panels beside that many: their sums, a panel's weights each and an activation fit the registers. */
INLINE int floats_tokens(const int nt) { return nt > FLOATS_TOKENS && REGISTERS < 32 ? (nt + 1) / 2 : nt; }
INLINE int floats_abreast(const int n) { return n < (REGISTERS < 32 ? 3 : 7) ? 4 : n < 8 || REGISTERS >= 32 ? 2 : 1; }

/* What a format of them says: `load` takes the j-th of `per` consecutive k from `bytes` of a panel. */
struct floats {
    int per, bytes;
    vf (*load)(const void *p, int j);
};

/* Of a tile: activations x [k][nt], their weights in adjacent panels, sums y [np][nt][VL]; `more` of sums begun */
struct floats_piece {
    const float *x;
    const char *panels;
    size_t panel_bytes;
    float *y;
    int k, more;
};

/* acc [np][n] += n_k consecutive k, a's first ones. soon: fetch the activations of later ones? */
INLINE void floats_step(const struct floats *f, const int np, const int n, const int nt, const int n_k, vf *acc,
                        const struct floats_piece *a, const int soon)
{
    UNROLL for (int p = 0; p < np; p++)
        fetch_ahead(a->panels + (size_t)p * a->panel_bytes);
    UNROLL for (int j = 0; j < n_k; j++) {
        vf w[FLOATS_PANELS];
        if (soon)
            prefetch_l2((const char *)(a->x + j * nt) + ACTS_AHEAD);
        __asm__ volatile("" ::: "memory");  /* load what w is made of again: to keep it there are too few registers */
        UNROLL for (int p = 0; p < np; p++)
            w[p] = f->load(a->panels + (size_t)p * a->panel_bytes, j);
        UNROLL for (int t = 0; t < n; t++)
            UNROLL for (int p = 0; p < np; p++)
                vf_add_product(&acc[p * n + t], vf_set1(a->x[j * nt + t]), w[p]);
    }
}

/* n tokens from `first` on */
INLINE void floats_part(const struct floats *f, const int np, const int n, const int nt, struct floats_piece a,
                        const int first)
{
    vf acc[FLOATS_PANELS * FLOATS_TOKENS];
    a.x += first;
    a.y += first * VL;
    UNROLL for (int p = 0; p < np; p++)
        UNROLL for (int t = 0; t < n; t++)
            acc[p * n + t] = a.more ? vf_load(a.y + (p * nt + t) * VL) : vf_zero();
    for (int i = 0; i < a.k / f->per; i++, a.x += f->per * nt, a.panels += f->bytes)
        floats_step(f, np, n, nt, f->per, acc, &a, n < nt && first == 0);
    if (a.k % f->per)
        floats_step(f, np, n, nt, 1, acc, &a, 0);
    UNROLL for (int p = 0; p < np; p++)
        acc_store(n, a.y + p * nt * VL, acc + p * n);
}

/* all tokens */
INLINE void floats_tile(const struct floats *f, const int np, const int nt, struct floats_piece a)
{
    const int n = floats_tokens(nt);
    if (n == nt) {
        floats_part(f, np, nt, nt, a, 0);
        return;
    }
    for (int left = a.k; left > 0; left -= FLOATS_PIECE, a.more = 1) {
        a.k = left < FLOATS_PIECE ? left : FLOATS_PIECE;
        floats_part(f, np, n, nt, a, 0);
        floats_part(f, np, nt - n, nt, a, n);
        a.x += a.k * nt;
        a.panels += a.k / f->per * f->bytes;
    }
}

INLINE void floats_panels(const struct floats *f, const int nt, float *y, const char *panels, size_t panel_bytes,
                          int n_panels, const float *x, int k)
{
    const int abreast = floats_abreast(floats_tokens(nt));
    int p = 0;
#define AT(p) (struct floats_piece){x, panels + (size_t)(p) * panel_bytes, panel_bytes, y + (p) * nt * VL, k, 0}
    for (; abreast > 2 && p + 4 <= n_panels; p += 4)
        floats_tile(f, 4, nt, AT(p));
    for (; abreast > 1 && p + 2 <= n_panels; p += 2)
        floats_tile(f, 2, nt, AT(p));
    for (; p < n_panels; p++)
        floats_tile(f, 1, nt, AT(p));
#undef AT
}

#define FLOATS_TILE(f, nt)                                                                                           \
    static void f##_tile_##nt(float *y, const void *panels, size_t panel_bytes, int n_panels, const void *x, int k)  \
    {                                                                                                                \
        floats_panels(&f##_floats, nt, y, panels, panel_bytes, n_panels, x, k);                                      \
    }
/* f_tiles, given f_load; the other arguments as in struct floats */
#define FLOATS_TILES(f, per, bytes)                                                                                  \
    static const struct floats f##_floats = {per, bytes, f##_load};                                                  \
    EACH_WIDTH(FLOATS_TILE, f) TILE_TABLE(f##_tile)
