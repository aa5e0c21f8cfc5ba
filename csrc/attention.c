/* Which queries of which kv head go to which member. A unit is a tile of adjacent tokens of one
 * sequence with the query heads of one kv head, so K and V are read once for all of them. Each chunk
 * of PL_KEY_CHUNK keys is a softmax of its own, merged in order: who computes it does not matter,
 * and long contexts of few queries are spread over the team by chunk. */
#include "pyllama.h"

#include <string.h>

/* The query heads of a kv head, in parts that fit a kernel's tile. */
struct groups { int size, parts, tokens; };

static struct groups groups_of(const struct pl_program *p)
{
    const int size = p->n_heads / p->n_kv_heads, parts = (size + PL_QUERY_MAX - 1) / PL_QUERY_MAX;
    const int widest = (size + parts - 1) / parts;
    return (struct groups){size, parts, PL_QUERY_MAX / widest};
}

static int row_of(const struct pl_run *run, int domain, int row) { return domain == PL_TOKENS ? row : run->b->output[row]; }

int pl_plan_tiles(const struct pl_run *run, int domain, struct pl_tile *tiles)
{
    const int most = groups_of(run->p).tokens, n = run->rows[domain];
    const struct pl_batch *const b = run->b;
    int n_tiles = 0;
    for (int i = 0; i < n; i++) {
        struct pl_tile *const last = tiles + n_tiles - 1;
        const int row = row_of(run, domain, i), before = i ? row_of(run, domain, i - 1) : 0;
        if (i && last->n < most && b->seq[row] == b->seq[before] && b->pos[row] == b->pos[before] + 1)
            last->n++;
        else
            tiles[n_tiles++] = (struct pl_tile){i, 1};
    }
    return n_tiles;
}

struct unit {
    struct pl_tile tile;
    int kv_head, head, n_heads;  /* heads of the unit: head .. head + n_heads - 1 */
    int nq, domain, layer, window;
};

static struct unit unit_at(const struct pl_run *run, const struct pl_op *op, int i)
{
    const struct groups g = groups_of(run->p);
    const int part = i % g.parts, kv_head = i / g.parts % run->p->n_kv_heads;
    const int first = g.size * part / g.parts, end = g.size * (part + 1) / g.parts;
    struct unit u = {
        .tile = run->tiles[op->domain][i / g.parts / run->p->n_kv_heads],
        .kv_head = kv_head,
        .head = kv_head * g.size + first,
        .n_heads = end - first,
        .domain = op->domain,
        .layer = op->layer,
        .window = op->window,
    };
    u.nq = u.tile.n * u.n_heads;
    return u;
}

/* The keys of a block from key0 on that the query at `pos` sees: those at or before it, inside its
 * window if there is one. */
static uint32_t visible_keys(int pos, int key0, int window)
{
    const int end = pos + 1 - key0, start = window > 0 ? end - window : 0;
    if (end <= 0 || start >= PL_KV_BLOCK)
        return 0;
    const uint32_t before = end >= PL_KV_BLOCK ? ~UINT32_C(0) : (UINT32_C(1) << end) - 1;
    return start > 0 ? before & ~((UINT32_C(1) << start) - 1) : before;
}

/* The first key chunk that the unit's queries see: what lies before leaves no trace. */
static int first_chunk(const struct pl_run *run, const struct unit *u)
{
    const int first = run->b->pos[row_of(run, u->domain, u->tile.row)] + 1 - u->window;
    return u->window > 0 && first > 0 ? first / PL_KEY_CHUNK : 0;
}

static int last_pos(const struct pl_run *run, const struct unit *u)
{
    return run->b->pos[row_of(run, u->domain, u->tile.row + u->tile.n - 1)];
}

/* q [head_dim][nq] of the unit, scaled */
static void gather_queries(const struct pl_run *run, const struct pl_op *op, const struct unit *u, float *q, int member)
{
    const int d = run->p->head_dim;
    for (int t = 0; t < u->tile.n; t++)
        for (int h = 0; h < u->n_heads; h++) {
            const float *const x = pl_row(run, op, op->in[0], u->tile.row + t, member) + (u->head + h) * d;
            for (int i = 0; i < d; i++)
                q[i * u->nq + t * u->n_heads + h] = x[i] * op->value;
        }
}

struct state { float *m, *l, *o; };  /* [nq], [nq], [nq][v_dim]; o where a cache line begins */
enum { STATE_HEAD = (2 * PL_QUERY_MAX + 15) / 16 * 16 };  /* floats before o */

static void attend_chunk(const struct pl_run *run, const struct unit *u, const float *q, int chunk, struct state s)
{
    const struct pl_program *const p = run->p;
    const int first_row = row_of(run, u->domain, u->tile.row), last = last_pos(run, u);
    const int32_t *const table = run->b->block_table + (int64_t)run->b->seq[first_row] * run->b->max_blocks;
    const char *const head = p->kv.base + ((int64_t)u->layer * p->n_kv_heads + u->kv_head) * p->kv.head_bytes;
    memset(s.o, 0, sizeof(float) * (size_t)(u->nq * pl_v_dim(p->head_dim)));
    for (int i = 0; i < u->nq; i++) {
        s.m[i] = -1e30f;
        s.l[i] = 0.0f;
    }
    const int first = chunk * (PL_KEY_CHUNK / PL_KV_BLOCK);
    for (int block = first; block < first + PL_KEY_CHUNK / PL_KV_BLOCK && block * PL_KV_BLOCK <= last; block++) {
        uint32_t visible[PL_QUERY_MAX], any = 0;
        for (int t = 0, i = 0; t < u->tile.n; t++) {
            const uint32_t keys = visible_keys(run->b->pos[row_of(run, u->domain, u->tile.row + t)], block * PL_KV_BLOCK, u->window);
            for (int h = 0; h < u->n_heads; h++)
                visible[i++] = keys;
            any |= keys;
        }
        if (!any)
            continue;
        const int n_keys = 32 - __builtin_clz(any);
        const char *const k = head + table[block] * p->kv.block_bytes;
        const int next = (block + 1) * PL_KV_BLOCK <= last ? block + 1 : block;
        const ptrdiff_t ahead = (table[next] - table[block]) * p->kv.block_bytes;
        p->kernels->attend[p->kv.dtype][u->nq](s.o, s.m, s.l, q, k, k + p->kv.k_bytes, p->head_dim, n_keys, visible, ahead);
    }
}

static void merge(const struct pl_run *run, const struct unit *u, struct state a, struct state b)
{
    const int v_dim = pl_v_dim(run->p->head_dim);
    for (int i = 0; i < u->nq; i++)
        run->p->kernels->attend_merge(a.m + i, a.l + i, a.o + i * v_dim, b.m[i], b.l[i], b.o + i * v_dim, v_dim);
}

static void store(const struct pl_run *run, const struct pl_op *op, const struct unit *u, struct state s, int member)
{
    const int d = run->p->head_dim;
    for (int i = 0; i < u->nq; i++) {
        float *const y = pl_row(run, op, op->out[0], u->tile.row + i / u->n_heads, member) + (u->head + i % u->n_heads) * d;
        run->p->kernels->scale(y, s.o + i * pl_v_dim(d), 1.0f / s.l[i], d);
    }
}

static struct state state_at(float *p)
{
    return (struct state){p, p + PL_QUERY_MAX, p + STATE_HEAD};
}

static size_t state_floats(const struct pl_run *run) { return STATE_HEAD + (size_t)(PL_QUERY_MAX * pl_v_dim(run->p->head_dim)); }

static int cancelled(const struct pl_run *run) { return atomic_load_explicit(&run->b->cancel, memory_order_relaxed); }

/* All chunks of a unit, one after the other. */
static void attend_whole(const struct pl_run *run, const struct pl_op *op, int index, int member)
{
    const struct unit u = unit_at(run, op, index);
    float *const scratch = (float *)(run->p->scratch + member * run->p->scratch_bytes);
    const struct state sum = state_at(scratch), part = state_at(scratch + state_floats(run));
    float *const q = scratch + 2 * state_floats(run);
    gather_queries(run, op, &u, q, member);
    int chunk = first_chunk(run, &u);
    attend_chunk(run, &u, q, chunk, sum);
    for (chunk++; chunk * PL_KEY_CHUNK <= last_pos(run, &u) && !cancelled(run); chunk++) {
        attend_chunk(run, &u, q, chunk, part);
        merge(run, &u, sum, part);
    }
    store(run, op, &u, sum, member);
}

static struct state partial(const struct pl_run *run, int unit, int chunk)
{
    float *const base = (float *)(run->p->workspace + run->p->partial_offset);
    return state_at(base + (size_t)(unit * run->n_chunks + chunk) * state_floats(run));
}

static void attend_split(const struct pl_run *run, const struct pl_op *op, struct pl_supply *supply, int n_units, int member)
{
    float *const q = (float *)(run->p->scratch + member * run->p->scratch_bytes);
    for (int i; (i = pl_take(supply, member, run->n_members, n_units * run->n_chunks)) >= 0 && !cancelled(run);) {
        const struct unit u = unit_at(run, op, i / run->n_chunks);
        const int chunk = i % run->n_chunks;
        if (chunk < first_chunk(run, &u) || chunk * PL_KEY_CHUNK > last_pos(run, &u))
            continue;
        gather_queries(run, op, &u, q, member);
        attend_chunk(run, &u, q, chunk, partial(run, i / run->n_chunks, chunk));
    }
    pl_team_barrier(run->p->team);
    for (int i = n_units * member / run->n_members; i < n_units * (member + 1) / run->n_members; i++) {
        const struct unit u = unit_at(run, op, i);
        int chunk = first_chunk(run, &u);
        const struct state sum = partial(run, i, chunk);
        for (chunk++; chunk * PL_KEY_CHUNK <= last_pos(run, &u); chunk++)
            merge(run, &u, sum, partial(run, i, chunk));
        store(run, op, &u, sum, member);
    }
}

void pl_attend(const struct pl_run *run, const struct pl_op *op, int member)
{
    const int n_units = run->n_tiles[op->domain] * run->p->n_kv_heads * groups_of(run->p).parts;
    struct pl_supply *const supply = run->supply + (op - run->p->ops) * run->p->n_threads;
    const size_t partials = (size_t)n_units * (size_t)run->n_chunks * state_floats(run) * sizeof(float);
    if (run->n_members > 1 && run->n_chunks > 1 && n_units < 8 * run->n_members && partials <= (size_t)run->p->partial_bytes) {
        attend_split(run, op, supply, n_units, member);
        return;
    }
    for (int i; (i = pl_take(supply, member, run->n_members, n_units)) >= 0 && !cancelled(run);)
        attend_whole(run, op, i, member);
}
