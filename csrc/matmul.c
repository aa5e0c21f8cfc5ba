/* Which panels of a matmul go to which member. A unit is a chunk of panels over all tokens: it stays
 * in L2 while the token tiles pass by. Panels in file order belong to members in order, as packed. */
#include "pyllama.h"

#include <string.h>

/* at least, for members to finish together: where a unit is reused by token tiles, and where it is read once */
enum { REUSED_UNITS = 8, READ_UNITS = 32 };

struct chunks { int per_chunk, n_panels, n; };

/* n_tiles: of tokens */
static struct chunks chunks_of(const struct pl_run *run, const struct pl_matrix *w, int n_tiles)
{
    const int vl = run->p->kernels->vl, n_panels = (w->n_rows + vl - 1) / vl;
    const int fair = n_panels / ((n_tiles > 1 ? REUSED_UNITS : READ_UNITS) * run->n_members);
    int per_chunk = (int)(run->p->chunk_bytes / w->panel_bytes);
    per_chunk = per_chunk < fair ? per_chunk : fair;
    per_chunk = per_chunk > 1 ? per_chunk : 1;
    const int rounds = (n_panels + per_chunk * run->n_members - 1) / (per_chunk * run->n_members);
    per_chunk = (n_panels + rounds * run->n_members - 1) / (rounds * run->n_members);
    return (struct chunks){per_chunk, n_panels, (n_panels + per_chunk - 1) / per_chunk};
}

struct tile {
    const char *x;         /* its activations */
    int row, n;            /* its tokens */
};

static const char *panel_at(const struct pl_run *run, const struct pl_matrix *w, int panel)
{
    return run->p->arena + w->offset + panel * w->panel_bytes;
}

static void bias(const struct pl_run *run, const struct pl_op *op, int i, float *y, int r0, int n_rows, int n)
{
    if (op->bias[i] < 0)
        return;
    const float *const b = (const float *)(run->p->arena + run->p->vectors[op->bias[i]]) + r0;
    for (int t = 0; t < n; t++)
        run->p->kernels->add(y + t * run->p->kernels->vl, y + t * run->p->kernels->vl, b, n_rows);
}

/* rows [r0, r0 + vl) of output i for one tile of tokens */
static void panel_tile(const struct pl_run *run, const struct pl_op *op, int i, int panel, struct tile tile, int member)
{
    const struct pl_kernels *const kernels = run->p->kernels;
    const struct pl_matrix *const w = &run->p->matrices[op->weight[i]];
    const int vl = kernels->vl, r0 = panel * vl, n_rows = w->n_rows - r0 < vl ? w->n_rows - r0 : vl;
    float y[2][PL_TILE_MAX * PL_LANES_MAX];
    pl_format_of(kernels, w)->tile[tile.n](y[0], panel_at(run, w, panel), tile.x, w->n_cols);
    bias(run, op, i, y[0], r0, n_rows, tile.n);
    if (op->kind == PL_MATMUL_SWIGLU) {
        const struct pl_matrix *const up = &run->p->matrices[op->weight[1]];
        pl_format_of(kernels, up)->tile[tile.n](y[1], panel_at(run, up, panel), tile.x, up->n_cols);
        bias(run, op, 1, y[1], r0, n_rows, tile.n);
    }
    const int64_t stride = run->p->buffers[op->out[i]].width;
    float *out = pl_row(run, op, op->out[i], tile.row, member) + r0;
    for (int t = 0; t < tile.n; t++, out += stride) {
        float *const yt = y[0] + t * vl;
        if (op->kind == PL_MATMUL_ADD) {
            if (op->value != 1.0f)
                kernels->scale(yt, yt, op->value, n_rows);
            kernels->add(out, out, yt, n_rows);
        }
        else if (op->kind == PL_MATMUL_SWIGLU)
            kernels->swiglu(out, yt, y[1] + t * vl, n_rows);
        else
            memcpy(out, yt, sizeof(float) * (size_t)n_rows);
    }
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
        for (int panel = first; panel < end; panel++)
            panel_tile(run, op, i, panel, tile, member);
    }
}

void pl_matmul(const struct pl_run *run, const struct pl_op *op, int member)
{
    const struct pl_buffer *const in = &run->p->buffers[op->in[0]];
    const int n_mats = op->n_out, n_tiles = pl_n_act_tiles(run->rows[in->domain], run->p->kernels->tile_max[in->act]);
    struct chunks chunks[3];
    int n_units = 0;
    for (int i = 0; i < n_mats; i++) {
        chunks[i] = chunks_of(run, &run->p->matrices[op->weight[i]], n_tiles);
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
