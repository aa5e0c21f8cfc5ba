/* Which panels of a matmul go to which member. A unit is a chunk of panels over all tokens: it stays
 * in L2 while the token tiles pass by. Panels in file order belong to members in order, as packed. */
#include "pyllama.h"

/* at least, for members to finish together: where a unit is reused by token tiles, and where it is read once */
enum { REUSED_UNITS = 8, READ_UNITS = 32 };
enum { PANELS = 16 };  /* multiplied by one call at most */
enum { ABREAST = 2 };  /* that tiles of f32 activations take at once: a chunk has them even if L2 has not the room */

struct chunks { int per_chunk, n_panels, n; };

static int n_panels_of(const struct pl_run *run, const struct pl_op *op, int i)
{
    const int vl = run->p->kernels->vl;
    return (run->p->matrices[op->weight[i]].n_rows + vl - 1) / vl;
}

/* Of output i. n_tiles: of tokens; all: panels of all outputs, whose chunks are to be of one size */
static struct chunks chunks_of(const struct pl_run *run, const struct pl_op *op, int i, int n_tiles, int all)
{
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const int64_t up = op->kind == PL_MATMUL_SWIGLU ? run->p->matrices[op->weight[1]].panel_bytes : 0;
    const int n_panels = n_panels_of(run, op, i);
    const int reused = n_tiles > 1, in_l2 = (int)(run->p->chunk_bytes / (w->panel_bytes + up));
    const int least = run->p->buffers[op->in[0]].act == PL_ACT_F32 ? ABREAST : 1;
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

/* y [n][tokens][vl] = matrix i's panels times the tile, and its bias */
static void multiply(const struct pl_run *run, const struct pl_op *op, int i, int panel, int n, struct tile tile, float *y)
{
    const struct pl_kernels *const kernels = run->p->kernels;
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const char *const at = run->p->arena + w->offset + panel * w->panel_bytes;
    pl_format_of(kernels, w)->tile[tile.n](y, at, (size_t)w->panel_bytes, n, tile.x, w->n_cols);
    if (op->bias[i] < 0)
        return;
    const float *const bias = (const float *)(run->p->arena + run->p->vectors[op->bias[i]]);
    for (int r = panel * kernels->vl; n > 0; n--, r += kernels->vl)
        for (int t = 0; t < tile.n; t++, y += kernels->vl)
            kernels->add(y, y, bias + r, w->n_rows - r < kernels->vl ? w->n_rows - r : kernels->vl);
}

/* n panels of output i for a tile of tokens */
static void panels_tile(const struct pl_run *run, const struct pl_op *op, int i, int panel, int n, struct tile tile, int member)
{
    float y[PANELS * PL_TILE_MAX * PL_LANES_MAX], up[PANELS * PL_TILE_MAX * PL_LANES_MAX];
    const struct pl_kernels *const kernels = run->p->kernels;
    const int vl = kernels->vl, left = run->p->matrices[op->weight[i]].n_rows - panel * vl, adds = op->kind == PL_MATMUL_ADD;
    float *const out = pl_row(run, op, op->out[i], tile.row, member) + panel * vl;
    multiply(run, op, i, panel, n, tile, y);
    if (op->kind == PL_MATMUL_SWIGLU) {
        multiply(run, op, 1, panel, n, tile, up);
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
    const int n = run->rows[in->domain], max = run->p->kernels->tile_max[in->act];
    for (int t = 0; t < pl_n_act_tiles(n, max); t++) {
        const int row = pl_act_tile(n, t, max);
        const struct tile tile = {x + (size_t)row * row_bytes, row, pl_act_tile(n, t + 1, max) - row};
        for (int panel = first; panel < end; panel += PANELS)
            panels_tile(run, op, i, panel, end - panel < PANELS ? end - panel : PANELS, tile, member);
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
