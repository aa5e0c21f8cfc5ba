/* Runs a Program over a batch: op by op, every member of the team in step. */
#define _POSIX_C_SOURCE 200809L
#include "pyllama.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Bytes of weights per member below which another member costs more in barriers than it saves. */
enum { BYTES_PER_MEMBER = 1 << 20 };

float *pl_row(const struct pl_run *run, const struct pl_op *op, int buffer, int row, int member)
{
    const struct pl_buffer *const b = &run->p->buffers[buffer];
    if (op->domain == PL_HEAD && b->domain == PL_OUTPUTS)
        row += run->head_row;
    if (run->is_private && b->is_private)
        row += member * run->p->private_rows;
    return (float *)(run->p->workspace + b->offset) + (int64_t)row * b->width;
}

char *pl_acts(const struct pl_run *run, int buffer, int member)
{
    const struct pl_buffer *const b = &run->p->buffers[buffer];
    const size_t copy = (size_t)run->p->private_rows * pl_act_bytes((enum pl_act)b->act, b->width);
    return run->p->workspace + b->offset + (run->is_private && b->is_private ? (size_t)member * copy : 0);
}

static void run_op(const struct pl_run *run, const struct pl_op *op, int member)
{
    switch (op->kind) {
    case PL_MATMUL:
    case PL_MATMUL_ADD:
    case PL_MATMUL_SWIGLU:
        pl_matmul(run, op, member);
        return;
    case PL_ATTEND:
        pl_attend(run, op, member);
        return;
    default:
        pl_rowwise(run, op, member);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void note_op(struct pl_profile *op, double seconds, int rows)
{
    *op = (struct pl_profile){op->seconds + seconds, op->rows + rows, op->runs + 1};
}

static void run_ops(const struct pl_run *run, int first, int end, int member)
{
    const int barrier = run->is_private ? PL_BARRIER_PRIVATE : PL_BARRIER;
    struct pl_profile *const profile = member == 0 ? run->p->profile : NULL;
    double start = profile ? now() : 0;
    for (int i = first; i < end; i++) {
        const struct pl_op *const op = &run->p->ops[i];
        if (run->rows[op->domain] == 0)
            continue;
        if (op->barrier & barrier)
            pl_team_barrier(run->p->team);
        run_op(run, op, member);
        if (profile) {  /* waiting for the others counts with the op that waits */
            const double end_of_op = now();
            note_op(&profile[i], end_of_op - start, run->rows[op->domain]);
            start = end_of_op;
        }
    }
}

/* Members have a copy of the run each: the head's chunk is theirs to step through. */
static void run_member(void *arg, int member)
{
    struct pl_run run = *(const struct pl_run *)arg;
    const struct pl_program *const p = run.p;
    /* the other half, for the next run, which may have more members */
    struct pl_supply *const other = p->supply + (p->parity ^ 1) * (unsigned)(p->n_ops * p->n_threads);
    for (int i = member; i < p->n_ops * p->n_threads; i += run.n_members)
        atomic_store_explicit(&other[i].taken, 0, memory_order_relaxed);
    run_ops(&run, 0, p->head_op, member);
    for (run.head_row = 0; run.head_row < run.b->m; run.head_row += p->head_rows) {
        const int left = run.b->m - run.head_row;
        run.rows[PL_HEAD] = left < p->head_rows ? left : p->head_rows;
        if (run.head_row > 0) {  /* the supply is spent: renew it between two barriers */
            pl_team_barrier(p->team);
            for (int i = p->head_op * p->n_threads + member; i < p->n_ops * p->n_threads; i += run.n_members)
                atomic_store_explicit(&run.supply[i].taken, 0, memory_order_relaxed);
            pl_team_barrier(p->team);
        }
        run_ops(&run, p->head_op, p->n_ops, member);
    }
}

static int members_for(const struct pl_program *p, const struct pl_batch *b)
{
    const int64_t useful = 1 + p->weight_bytes * (b->n + 1) / 2 / BYTES_PER_MEMBER;
    const int size = pl_team_size(p->team) < p->n_threads ? pl_team_size(p->team) : p->n_threads;
    return useful < size ? (int)useful : size;
}

enum pl_status pl_run(struct pl_program *p, struct pl_batch *b)
{
    const double start = now();
    struct pl_tile *const tiles = malloc(sizeof *tiles * (size_t)(b->n + b->m + 1));
    if (!tiles)
        return PL_NO_MEMORY;
    struct pl_run run = {
        .p = p,
        .b = b,
        .supply = p->supply + p->parity * (unsigned)(p->n_ops * p->n_threads),
        .n_members = members_for(p, b),
        .is_private = b->n <= p->private_rows,
        .rows = {b->n, b->m, b->m},
        .tiles = {tiles, tiles + b->n},
    };
    run.n_tiles[PL_TOKENS] = pl_plan_tiles(&run, PL_TOKENS, run.tiles[PL_TOKENS]);
    run.n_tiles[PL_OUTPUTS] = pl_plan_tiles(&run, PL_OUTPUTS, run.tiles[PL_OUTPUTS]);
    int last = 0;
    for (int i = 0; i < b->n; i++)
        last = b->pos[i] > last ? b->pos[i] : last;
    run.n_chunks = last / PL_KEY_CHUNK + 1;
    pl_team_do(p->team, run.n_members, run_member, &run);
    p->parity ^= 1;
    free(tiles);
    b->seconds = now() - start;
    return atomic_load(&b->cancel) ? PL_CANCELLED : PL_OK;
}
