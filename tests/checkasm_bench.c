/* --bench: the best time of each kernel on data in the cache, one core, beside the scalar level. */
#include "checkasm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One thing to time. Inputs are the same buffers for every job; sizes below never exceed them. */
enum { N = 4096, BUFFER = 4 << 20, PANELS = 4 };  /* of a call: a matmul hands tiles several */
struct job {
    char name[24], shape[32];
    void (*call)(const struct pl_kernels *kn, const struct job *job);
    int n, nt, kind;      /* length or head_dim; tokens or queries; enum pl_act or pl_kv */
    const char *format;
    double ops, bytes;    /* of one call; of a tile, of one row of a panel */
    int panels;           /* of a call, whose time is given per panel; levels differ in rows per panel */
};
static float *in, *in2, *out;
static void *tile, *panel;
static const struct pl_format *format;  /* the job's, of the level that is timed */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The clock, by a chain of rotations, which every CPU does one per cycle: GHz at best so far, as
 * the neighbours of a shared machine slow it down for milliseconds. */
static double clock_rate(void)
{
    enum { STEPS = 1 << 14 };
    static double best;
    uint64_t x = 1;
    const double t = seconds();
    for (int i = 0; i < STEPS; i++) {
        x = x << 7 | x >> 57;
        __asm__ volatile("" : "+r"(x));
    }
    const double ghz = STEPS / (seconds() - t) * 1e-9;
    best = ghz > best ? ghz : best;
    return best;
}

static double run_time(const struct pl_kernels *kn, const struct job *job, int calls)
{
    const double t = seconds();
    for (int i = 0; i < calls; i++)
        job->call(kn, job);
    return seconds() - t;
}

/* ns per call, or panel: the best of many runs of about 0.2 ms, with the clock sampled in between */
static double time_of(const struct pl_kernels *kn, const struct job *job)
{
    double best = 1e30;
    int calls = 1;
    while (run_time(kn, job, calls) < 2e-4)
        calls *= 2;
    for (int run = 0; run < 40; run++) {
        const double dt = run_time(kn, job, calls);
        best = dt < best ? dt : best;
        clock_rate();
    }
    return best / calls / (job->panels ? job->panels : 1) * 1e9;
}

static const struct pl_format *format_of(const struct pl_kernels *kn, const char *name)
{
    for (const struct pl_format *const *f = kn->formats; *f; f++)
        if (strcmp((*f)->name, name) == 0)
            return *f;
    return NULL;
}

/* ---- calls */

#define CALL(what) static void call_##what(const struct pl_kernels *kn, const struct job *job)

CALL(tile)
{
    (void)kn;
    format->tile[job->nt](out, panel, 0, PANELS, tile, job->n);  /* the same one again: it stays in L1 */
}

CALL(expanded)
{
    (void)kn;
    pl_tile_fn *const *const tiles = format->expanded ? format->expanded->tile : format->tile;
    tiles[job->nt](out, panel, 0, PANELS, tile, job->n);
}

CALL(pack)
{
    const uint8_t *rows[PL_LANES_MAX];
    for (int r = 0; r < kn->vl; r++)
        rows[r] = (const uint8_t *)tile + (size_t)(r * (job->n / format->block)) * (size_t)format->block_bytes;
    format->pack(panel, rows, kn->vl, job->n);
}

CALL(attend)
{
    static const uint32_t visible[PL_QUERY_MAX] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
    static float m[PL_QUERY_MAX], l[PL_QUERY_MAX];
    kn->attend[job->kind][job->nt](out, m, l, in, panel, tile, job->n, PL_KV_BLOCK, visible, 0);
}

CALL(rmsnorm) { kn->rmsnorm(out, in, in2, job->n, 1e-5f); }
CALL(rope) { kn->rope(out, in, job->n); }
CALL(add) { kn->add(out, in, in2, job->n); }
CALL(scale) { kn->scale(out, in, 0.5f, job->n); }
CALL(swiglu) { kn->swiglu(out, in, in2, job->n); }
CALL(exp) { kn->exp(out, in, job->n); }
CALL(exp_sum) { out[N] = kn->exp_sum(out, in, 1, 1, job->n); }
CALL(argmax) { out[0] = (float)kn->argmax(in, job->n); }
CALL(act) { kn->act[job->kind](out, 1, 12, in, job->n); }
CALL(kv_store) { kn->kv_store[job->kind](out, tile, 5, in, in2, job->n); }
CALL(attend_merge)
{
    static float m, l;
    kn->attend_merge(&m, &l, out, 0, 1, in, job->n);
}

/* ---- reports */

static void prepare(const struct pl_kernels *kn, const struct job *job)
{
    rng_seed(1);
    fill_floats(in, 2 * N, UNIFORM);
    fill_floats(in2, 2 * N, UNIFORM);
    memset(panel, 0x11, BUFFER);  /* a sane number in every type */
    memset(tile, 0x11, BUFFER);
    memset(out, 0, BUFFER);
    if (!job->format)
        return;
    format = format_of(kn, job->format);
    for (int t = 0; t < job->nt; t++)
        kn->act[format->act](tile, t, job->nt, in, job->n);
}

static void report(const struct pl_kernels *kn, const struct job *job)
{
    prepare(kn, job);
    const double ns = time_of(kn, job);
    double scalar = ns;
    if (kn != &pl_kernels_scalar && (!job->format || job->nt <= pl_kernels_scalar.tile_max[0])) {
        prepare(&pl_kernels_scalar, job);
        scalar = time_of(&pl_kernels_scalar, job);
    }
    const int rows = job->panels ? kn->vl : 1;
    const int scalar_rows = job->panels ? pl_kernels_scalar.vl : 1;
    char rate[32] = "       -        -";
    const double gops = rows * job->ops / ns;
    if (job->ops > 0)
        snprintf(rate, sizeof rate, "%8.1f %8.1f", gops, gops / clock_rate());
    printf("%-15s %-13s %-14s %10.1f %s %8.1f %8.2f\n", kn->name, job->name, job->shape, ns, rate,
           rows * job->bytes / ns, scalar / scalar_rows / (ns / rows));
}

static void bench_tile(const struct pl_kernels *kn, const char *op, const struct pl_format *f, struct job job, const char *kind)
{
    snprintf(job.name, sizeof job.name, "%s.%s", f->name, kind);
    snprintf(job.shape, sizeof job.shape, "k=%d nt=%d", job.n, job.nt);
    job.ops = 2.0 * job.n * job.nt;
    job.bytes = (double)job.n / f->block * f->block_bytes;
    if (job.nt <= kn->tile_max[f->act] && (!op || strstr(job.name, op)))
        report(kn, &job);
}

static void bench_formats(const struct pl_kernels *kn, const char *op)
{
    static const int ks[] = {2048, 8192}, nts[] = {1, 4, 8, 12, 16, 32};
    for (const struct pl_format *const *f = kn->formats; *f; f++)
        for (int c = 0; c < COUNT(ks) * COUNT(nts); c++) {
            struct job job = {.call = call_tile, .format = (*f)->name, .panels = PANELS};
            job.n = ks[c / COUNT(nts)];
            job.nt = nts[c % COUNT(nts)];
            bench_tile(kn, op, *f, job, "tile");
            job.call = call_expanded;
            if ((*f)->expanded)
                bench_tile(kn, op, *f, job, "expanded");
        }
}

static void bench_pack(const struct pl_kernels *kn, const char *op)
{
    for (const struct pl_format *const *f = kn->formats; *f; f++) {
        struct job job = {.call = call_pack, .format = (*f)->name, .panels = 1, .n = 4096, .nt = 1};
        snprintf(job.name, sizeof job.name, "%s.pack", (*f)->name);
        snprintf(job.shape, sizeof job.shape, "k=%d", job.n);
        job.bytes = (double)job.n / (*f)->block * (*f)->block_bytes;
        if (!op || strstr(job.name, op))
            report(kn, &job);
    }
}

static void bench_attend(const struct pl_kernels *kn, const char *op)
{
    static const int dims[] = {64, 128}, nqs[] = {1, 4, 8, 12};
    static const char *const types[] = {"f16", "f32", "bf16", "q8_0"};
    for (int c = 0; c < PL_N_KV * COUNT(dims) * COUNT(nqs); c++) {
        struct job job = {.call = call_attend, .kind = c / (COUNT(dims) * COUNT(nqs))};
        job.n = dims[c / COUNT(nqs) % COUNT(dims)];
        job.nt = nqs[c % COUNT(nqs)];
        snprintf(job.name, sizeof job.name, "attend_%s", types[job.kind]);
        snprintf(job.shape, sizeof job.shape, "dim=%d nq=%d", job.n, job.nt);
        job.ops = 4.0 * job.n * PL_KV_BLOCK * job.nt;
        job.bytes = 2.0 * (double)pl_kv_bytes((enum pl_kv_dtype)job.kind, job.n);
        if (!op || strstr(job.name, op))
            report(kn, &job);
    }
}

static void bench_rows(const struct pl_kernels *kn, const char *op)
{
    static const struct {
        const char *name;
        void (*call)(const struct pl_kernels *, const struct job *);
        int n, kind, bytes;  /* bytes per element: each input read once, each output written once */
    } rows[] = {
        {"rmsnorm", call_rmsnorm, N, 0, 12},
        {"rope", call_rope, 128, 0, 12},
        {"add", call_add, N, 0, 12},
        {"scale", call_scale, N, 0, 8},
        {"swiglu", call_swiglu, N, 0, 12},
        {"exp", call_exp, N, 0, 8},
        {"exp_sum", call_exp_sum, N, 0, 8},
        {"argmax", call_argmax, N, 0, 4},
        {"act_f32", call_act, N, PL_ACT_F32, 8},
        {"act_bf16", call_act, N, PL_ACT_BF16, 6},
        {"act_i8", call_act, N, PL_ACT_I8, 5},
        {"kv_store_f16", call_kv_store, 128, PL_KV_F16, 12},
        {"kv_store_f32", call_kv_store, 128, PL_KV_F32, 16},
        {"kv_store_bf16", call_kv_store, 128, PL_KV_BF16, 12},
        {"kv_store_q8_0", call_kv_store, 128, PL_KV_Q8_0, 10},
        {"attend_merge", call_attend_merge, 128, 0, 12},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        struct job job = {.call = rows[i].call, .n = rows[i].n, .kind = rows[i].kind};
        snprintf(job.name, sizeof job.name, "%s", rows[i].name);
        snprintf(job.shape, sizeof job.shape, "n=%d", job.n);
        job.bytes = (double)rows[i].bytes * job.n;
        if (!op || strstr(job.name, op))
            report(kn, &job);
    }
}

static void *allocate(void)
{
    void *const p = aligned_alloc(4096, BUFFER);
    if (!p) {
        fprintf(stderr, "checkasm: out of memory\n");
        exit(2);
    }
    memset(p, 0, BUFFER);
    return p;
}

void bench(const struct pl_kernels *kn, const char *op)
{
    if (!in) {
        in = allocate();
        in2 = allocate();
        out = allocate();
        tile = allocate();
        panel = allocate();
        for (const double t = seconds(); seconds() - t < 0.2;)  /* the clock rises under load */
            clock_rate();
        printf("one core at %.2f GHz; a tile's panel has the level's lanes; "
               "2 ops per multiply-add\n", clock_rate());
        printf("%-15s %-13s %-14s %10s %8s %8s %8s %8s\n", "level", "kernel", "shape", "ns",
               "GOPS", "op/cycle", "GB/s", "x scalar");
    }
    bench_formats(kn, op);
    bench_pack(kn, op);
    bench_attend(kn, op);
    bench_rows(kn, op);
}
