/* Which panels of a matmul go to which member. A unit is a chunk of panels over all tokens: it stays
 * in L2 while the token tiles pass by. Panels in file order belong to members in order, as packed. */
#include "pyllama.h"

/* at least, for members to finish together: where a unit is reused by token tiles, and where it is read once */
enum { REUSED_UNITS = 8, READ_UNITS = 32 };
enum { PANELS = 16 };  /* multiplied by one call at most */
enum { ABREAST = 2 };  /* that tiles of f32 activations take at once: a chunk has them even if L2 has not the room */
enum { EXPANDED_TILES = 10 };  /* of tokens at least: expanding panels takes as long as unpacking them for eight */
enum { EXPANDED_PANELS = 3 };  /* that a chunk has if they fit half of L2: all activations come from L3 for each chunk */

struct chunks { int per_chunk, n_panels, n; };

static int n_panels_of(const struct pl_run *run, const struct pl_op *op, int i)
{
    const int vl = run->p->kernels->vl;
    return (run->p->matrices[op->weight[i]].n_rows + vl - 1) / vl;
}

/* Of weight i's panels if n_tiles of tokens multiply them expanded, else 0 */
static int64_t expanded_bytes(const struct pl_run *run, const struct pl_op *op, int i, int n_tiles)
{
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const struct pl_expanded *const expanded = pl_format_of(run->p->kernels, w)->expanded;
    const int64_t bytes = expanded && n_tiles >= EXPANDED_TILES ? (int64_t)expanded->panel_bytes(w->n_cols) : 0;
    return bytes <= run->p->scratch_bytes / 2 ? bytes : 0;  /* there is room for one of each weight of PL_MATMUL_SWIGLU */
}

/* Of weight i's panels as n_tiles of tokens multiply them */
static int64_t bytes_of(const struct pl_run *run, const struct pl_op *op, int i, int n_tiles)
{
    const int64_t expanded = expanded_bytes(run, op, i, n_tiles);
    return expanded ? expanded : run->p->matrices[op->weight[i]].panel_bytes;
}

/* Panels that a chunk has even if a quarter of L2 has not the room. bytes: of weight i's and its companion's */
static int least_panels(const struct pl_run *run, const struct pl_op *op, int i, int n_tiles, int64_t bytes)
{
    if (!expanded_bytes(run, op, i, n_tiles))
        return run->p->buffers[op->in[0]].act == PL_ACT_F32 ? ABREAST : 1;
    const int in_scratch = (int)(run->p->scratch_bytes / bytes);  /* 0 if the companion, as it is, has not the room */
    return in_scratch < 1 ? 1 : in_scratch < EXPANDED_PANELS ? in_scratch : EXPANDED_PANELS;
}

/* Of output i. n_tiles: of tokens; all: panels of all outputs, whose chunks are to be of one size */
static struct chunks chunks_of(const struct pl_run *run, const struct pl_op *op, int i, int n_tiles, int all)
{
    const int64_t up = op->kind == PL_MATMUL_SWIGLU ? bytes_of(run, op, 1, n_tiles) : 0;
    const int64_t bytes = bytes_of(run, op, i, n_tiles) + up;
    const int n_panels = n_panels_of(run, op, i), least = least_panels(run, op, i, n_tiles, bytes);
    const int reused = n_tiles > 1, in_l2 = (int)(run->p->chunk_bytes / bytes);
    int per_chunk = all / ((reused ? REUSED_UNITS : READ_UNITS) * run->n_members);
    if (reused && in_l2 < per_chunk)
        per_chunk = in_l2;
    per_chunk = per_chunk > least ? per_chunk : least;
    const int rounds = (n_panels + per_chunk * run->n_members - 1) / (per_chunk * run->n_members);
    per_chunk = (n_panels + rounds * run->n_members - 1) / (rounds * run->n_members);
    return (struct chunks){per_chunk, n_panels, (n_panels + per_chunk - 1) / per_chunk};
}

struct tile {
    const char *x;         /* its activations */
    int row, n;            /* its tokens */
};

/* Adjacent panels of weight i from number `first` on, as its tiles take them. */
struct panels {
    const char *at;
    size_t bytes;          /* each */
    pl_tile_fn *const *tile;
    int i, first;
};

/* Of a chunk; they are expanded to *room, which moves on. */
static struct panels panels_of(const struct pl_run *run, const struct pl_op *op, int i, int first, int end, int n_tiles, char **room)
{
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const struct pl_format *const format = pl_format_of(run->p->kernels, w);
    const char *const at = run->p->arena + w->offset;
    const int64_t bytes = expanded_bytes(run, op, i, n_tiles);
    if (!bytes)
        return (struct panels){at + first * w->panel_bytes, (size_t)w->panel_bytes, format->tile, i, first};
    const struct panels panels = {*room, (size_t)bytes, format->expanded->tile, i, first};
    for (int p = first; p < end; p++, *room += bytes)
        format->expanded->expand(*room, at + p * w->panel_bytes, w->n_cols);
    return panels;
}

/* y [n][tokens][vl] = n panels times the tile, and their bias */
static void multiply(const struct pl_run *run, const struct pl_op *op, const struct panels *panels, int panel, int n,
                     struct tile tile, float *y)
{
    const struct pl_kernels *const kernels = run->p->kernels;
    const int i = panels->i;
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const char *const at = panels->at + (size_t)(panel - panels->first) * panels->bytes;
    panels->tile[tile.n](y, at, panels->bytes, n, tile.x, w->n_cols);
    if (op->bias[i] < 0)
        return;
    const float *const bias = (const float *)(run->p->arena + run->p->vectors[op->bias[i]]);
    for (int r = panel * kernels->vl; n > 0; n--, r += kernels->vl)
        for (int t = 0; t < tile.n; t++, y += kernels->vl)
            kernels->add(y, y, bias + r, w->n_rows - r < kernels->vl ? w->n_rows - r : kernels->vl);
}

/* n panels for a tile of tokens; of PL_MATMUL_SWIGLU's weights those of gate and of up */
static void panels_tile(const struct pl_run *run, const struct pl_op *op, const struct panels panels[2], int panel, int n,
                        struct tile tile, int member)
{
    float y[PANELS * PL_TILE_MAX * PL_LANES_MAX], up[PANELS * PL_TILE_MAX * PL_LANES_MAX];
    const struct pl_kernels *const kernels = run->p->kernels;
    const int i = panels->i, vl = kernels->vl, left = run->p->matrices[op->weight[i]].n_rows - panel * vl, adds = op->kind == PL_MATMUL_ADD;
    float *const out = pl_row(run, op, op->out[i], tile.row, member) + panel * vl;
    multiply(run, op, &panels[0], panel, n, tile, y);
    if (op->kind == PL_MATMUL_SWIGLU) {
        multiply(run, op, &panels[1], panel, n, tile, up);
        kernels->swiglu(y, y, up, n * tile.n * vl);
    }
    if (adds && op->value != 1.0f)
        kernels->scale(y, y, op->value, n * tile.n * vl);
    kernels->put(out, run->p->buffers[op->out[i]].width, y, left < n * vl ? left : n * vl, tile.n, adds);
}

static void run_chunk(const struct pl_run *run, const struct pl_op *op, int i, int first, int end, int member)
{
    const struct pl_buffer *const in = &run->p->buffers[op->in[0]];
    const size_t row_bytes = pl_act_bytes((enum pl_act)in->act, in->width);
    const char *const x = pl_acts(run, op->in[0], member);
    const int n = run->rows[in->domain], max = run->p->kernels->tile_max[in->act], n_tiles = pl_n_act_tiles(n, max);
    char *room = run->p->scratch + member * run->p->scratch_bytes;
    struct panels panels[2] = {panels_of(run, op, i, first, end, n_tiles, &room)};
    if (op->kind == PL_MATMUL_SWIGLU)
        panels[1] = panels_of(run, op, 1, first, end, n_tiles, &room);
    for (int t = 0; t < n_tiles; t++) {
        const int row = pl_act_tile(n, t, max);
        const struct tile tile = {x + (size_t)row * row_bytes, row, pl_act_tile(n, t + 1, max) - row};
        for (int panel = first; panel < end; panel += PANELS)
            panels_tile(run, op, panels, panel, end - panel < PANELS ? end - panel : PANELS, tile, member);
    }
}

void pl_matmul(const struct pl_run *run, const struct pl_op *op, int member)
{
    const struct pl_buffer *const in = &run->p->buffers[op->in[0]];
    const int n_mats = op->n_out, n_tiles = pl_n_act_tiles(run->rows[in->domain], run->p->kernels->tile_max[in->act]);
    struct chunks chunks[3];
    int n_units = 0, all = 0;
    for (int i = 0; i < n_mats; i++)
        all += n_panels_of(run, op, i);
    for (int i = 0; i < n_mats; i++) {
        chunks[i] = chunks_of(run, op, i, n_tiles, all);
        n_units += chunks[i].n;
    }
    struct pl_supply *const supply = run->supply + (op - run->p->ops) * run->p->n_threads;
    for (int unit; (unit = pl_take(supply, member, run->n_members, n_units)) >= 0;) {
        if (atomic_load_explicit(&run->b->cancel, memory_order_relaxed))
            return;
        int i = 0;
        for (; unit >= chunks[i].n; i++)
            unit -= chunks[i].n;
        const int first = unit * chunks[i].per_chunk, end = first + chunks[i].per_chunk;
        run_chunk(run, op, i, first, end < chunks[i].n_panels ? end : chunks[i].n_panels, member);
    }
}
