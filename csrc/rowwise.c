/* The ops that work row by row: norms, activations, embedding, RoPE, cache stores, sampling. */
#include "pyllama.h"

#include <math.h>
#include <string.h>

struct span { int first, end; };

/* Rows of this member: all where each computes a copy of its own, else an even share. */
static struct span rows_of(const struct pl_run *run, const struct pl_op *op, int member)
{
    const int n = run->rows[op->domain];
    if (run->is_private && op->n_out > 0 && run->p->buffers[op->out[0]].is_private)
        return (struct span){0, n};
    return (struct span){(int)((int64_t)n * member / run->n_members), (int)((int64_t)n * (member + 1) / run->n_members)};
}

/* The row of the batch behind a row of a domain. */
static int token_row(const struct pl_run *run, int domain, int row)
{
    return domain == PL_TOKENS ? row : run->b->output[row];
}

static void rope_table(const struct pl_run *run, const struct pl_op *op, int row, int member)
{
    const int half = run->p->buffers[op->out[0]].width / 2;
    float *const cs = pl_row(run, op, op->out[0], row, member);
    const double pos = run->b->pos[token_row(run, op->domain, row)];
    for (int i = 0; i < half; i++) {
        const double angle = pos * run->p->inv_freq[i];  /* f32 angles are off by 0.004 at 64k */
        cs[i] = (float)(cos(angle) * op->value);
        cs[half + i] = (float)(sin(angle) * op->value);
    }
}

static void embed(const struct pl_run *run, const struct pl_op *op, int row, int member)
{
    const struct pl_matrix *const w = &run->p->matrices[op->weight[0]];
    const int token = run->b->token[row], vl = run->p->kernels->vl;
    pl_format_of(run->p->kernels, w)->unpack(pl_row(run, op, op->out[0], row, member),
        run->p->arena + w->offset + token / vl * w->panel_bytes, token % vl, w->n_cols);
}

/* Row -> its place in its activation tile. */
static void store_act(const struct pl_run *run, const struct pl_op *op, int row, const float *x, int member)
{
    const struct pl_buffer *const out = &run->p->buffers[op->out[0]];
    const int n = run->rows[out->domain], max = run->p->kernels->tile_max[out->act];
    int tile = (int)((int64_t)row * pl_n_act_tiles(n, max) / n);
    while (pl_act_tile(n, tile + 1, max) <= row)
        tile++;
    const int first = pl_act_tile(n, tile, max), nt = pl_act_tile(n, tile + 1, max) - first;
    char *const base = pl_acts(run, op->out[0], member) + (size_t)first * pl_act_bytes((enum pl_act)out->act, out->width);
    run->p->kernels->act[out->act](base, row - first, nt, x, out->width);
}

static void norm(const struct pl_run *run, const struct pl_op *op, int row, int member)
{
    const struct pl_program *const p = run->p;
    const int width = p->buffers[op->in[0]].width;
    const float *const w = (const float *)(p->arena + p->vectors[op->vector]);
    const float *const x = pl_row(run, op, op->in[0], row, member);
    if (op->kind == PL_NORM) {
        p->kernels->rmsnorm(pl_row(run, op, op->out[0], row, member), x, w, width, op->value);
        return;
    }
    float *const y = (float *)(p->scratch + member * p->scratch_bytes);
    p->kernels->rmsnorm(y, x, w, width, op->value);
    store_act(run, op, row, y, member);
}

static void sample(const struct pl_run *run, const struct pl_op *op, int row, int member)
{
    struct pl_batch *const b = run->b;
    const int vocab = run->p->buffers[op->in[0]].width, output = run->head_row + row;
    const float *const logits = pl_row(run, op, op->in[0], row, member);
    if (b->logits)
        memcpy(b->logits + (int64_t)output * vocab, logits, sizeof(float) * (size_t)vocab);
    if (b->sampling)
        b->sampled[output] = pl_sample(run->p->kernels, logits, vocab, &b->sampling[output],
                                       b->sample_scratch + (int64_t)member * PL_SAMPLE_SCRATCH * vocab);
}

static void one_row(const struct pl_run *run, const struct pl_op *op, int row, int member)
{
    const struct pl_program *const p = run->p;
    float *const out = op->n_out && p->buffers[op->out[0]].act < 0 ? pl_row(run, op, op->out[0], row, member) : NULL;
    const float *const in = op->kind >= PL_SWIGLU ? pl_row(run, op, op->in[0], row, member) : NULL;
    switch (op->kind) {
    case PL_ROPE_TABLE: rope_table(run, op, row, member); return;
    case PL_EMBED:      embed(run, op, row, member); return;
    case PL_NORM:
    case PL_NORM_ACT:   norm(run, op, row, member); return;
    case PL_ACT:        store_act(run, op, row, pl_row(run, op, op->in[0], row, member), member); return;
    case PL_SWIGLU:     p->kernels->swiglu(out, in, pl_row(run, op, op->in[1], row, member), p->buffers[op->in[0]].width); return;
    case PL_ADD:        p->kernels->add(out, in, pl_row(run, op, op->in[1], row, member), p->buffers[op->in[0]].width); return;
    case PL_SCALE:      p->kernels->scale(out, in, op->value, p->buffers[op->in[0]].width); return;
    case PL_SELECT:     memcpy(out, (const float *)(p->workspace + p->buffers[op->in[0]].offset) + (int64_t)run->b->output[row] * p->buffers[op->in[0]].width, sizeof(float) * (size_t)p->buffers[op->in[0]].width); return;
    case PL_SAMPLE:     sample(run, op, row, member); return;
    default: return;
    }
}

/* The heads of one kv head's group in a row, rotated or normed in place. */
static void each_head(const struct pl_run *run, const struct pl_op *op, int row, int kv_head, int member)
{
    const struct pl_program *const p = run->p;
    const int d = p->head_dim, group = p->buffers[op->in[0]].width / d / p->n_kv_heads;
    float *const x = pl_row(run, op, op->in[0], row, member) + kv_head * group * d;
    for (int i = 0; i < group; i++)
        if (op->kind == PL_ROPE)
            p->kernels->rope(x + i * d, pl_row(run, op, op->in[1], row, member), p->buffers[op->in[1]].width);
        else
            p->kernels->rmsnorm(x + i * d, x + i * d, (const float *)(p->arena + p->vectors[op->vector]), d, op->value);
}

static void kv_append(const struct pl_run *run, const struct pl_op *op, int row, int kv_head, int member)
{
    const struct pl_program *const p = run->p;
    const int token = token_row(run, op->domain, row), pos = run->b->pos[token], d = p->head_dim;
    const int block = run->b->block_table[(int64_t)run->b->seq[token] * run->b->max_blocks + pos / PL_KV_BLOCK];
    char *const k = p->kv.base + block * p->kv.block_bytes + ((int64_t)op->layer * p->n_kv_heads + kv_head) * p->kv.head_bytes;
    p->kernels->kv_store[p->kv.dtype](k, k + p->kv.k_bytes, pos % PL_KV_BLOCK,
                                      pl_row(run, op, op->in[0], row, member) + kv_head * d,
                                      pl_row(run, op, op->in[1], row, member) + kv_head * d, d);
}

void pl_rowwise(const struct pl_run *run, const struct pl_op *op, int member)
{
    if (op->kind != PL_ROPE && op->kind != PL_NORM_HEADS && op->kind != PL_KV_APPEND) {
        const struct span rows = rows_of(run, op, member);
        for (int row = rows.first; row < rows.end; row++) {
            if (atomic_load_explicit(&run->b->cancel, memory_order_relaxed))
                return;
            one_row(run, op, row, member);
        }
        return;
    }
    /* by (row, kv head), so that one row keeps every member busy */
    const int heads = run->p->n_kv_heads;
    const int64_t n = (int64_t)run->rows[op->domain] * heads;
    for (int64_t i = n * member / run->n_members; i < n * (member + 1) / run->n_members; i++)
        if (op->kind == PL_KV_APPEND)
            kv_append(run, op, (int)(i / heads), (int)(i % heads), member);
        else
            each_head(run, op, (int)(i / heads), (int)(i % heads), member);
}
