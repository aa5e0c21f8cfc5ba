/* Memory for weights, and the way of matrices from their files into the arena. */
#define _GNU_SOURCE
#include "pyllama.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, CHUNK_BYTES = 1 << 20 };

static size_t mapped_size(size_t n) { return (n + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE; }

void *pl_map(size_t n, int hugepages)
{
    const size_t size = mapped_size(n), slack = HUGE_PAGE;
    if (size < n || size + slack < size)
        return NULL;
    char *const p = mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    const size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before)
        munmap(p, before);
    if (slack - before)
        munmap(p + before + size, slack - before);
#if defined(MADV_HUGEPAGE)
    if (hugepages)
        madvise(p + before, size, MADV_HUGEPAGE);
#else
    (void)hugepages;
#endif
    return p + before;
}

void pl_unmap(void *p, size_t n)
{
    if (p)
        munmap(p, mapped_size(n));
}

int pl_lock(const void *p, size_t n) { return mlock(p, n) ? errno : 0; }

struct job {
    const struct pl_kernels *kernels;
    const struct pl_matrix *matrices;
    const struct pl_load *loads;
    int n, n_members;
    char *arena;
    struct pl_supply *supply;  /* [n][n_members] of chunks */
    size_t staging_bytes, float_bytes;
    struct pl_loading *loading;
    _Atomic int status;
};

/* What a matrix is loaded by. */
struct way {
    const struct pl_matrix *matrix;
    const struct pl_load *load;
    const struct pl_format *source, *format;  /* in the file, in the arena */
    size_t row_bytes;     /* of a row in the file */
    int vl, chunk_panels, n_chunks;
};

static struct way way_of(const struct job *job, int i)
{
    const struct pl_matrix *const m = &job->matrices[i];
    const struct pl_format *const source = job->kernels->formats[job->loads[i].source];
    const size_t row_bytes = (size_t)(m->n_cols / source->block) * (size_t)source->block_bytes;
    const int vl = job->kernels->vl, n_panels = (m->n_rows + vl - 1) / vl;
    const size_t panel = row_bytes * (size_t)vl;
    const int at_once = panel < CHUNK_BYTES ? (int)(CHUNK_BYTES / panel) : 1;
    return (struct way){
        .matrix = m,
        .load = &job->loads[i],
        .source = source,
        .format = pl_format_of(job->kernels, m),
        .row_bytes = row_bytes,
        .vl = vl,
        .chunk_panels = at_once,
        .n_chunks = (n_panels + at_once - 1) / at_once,
    };
}

static enum pl_status read_at(int fd, uint8_t *to, size_t n, int64_t offset)
{
    while (n > 0) {
        const ssize_t got = pread(fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? PL_READ_ERROR : PL_SHORT_READ;
        to += got;
        n -= (size_t)got;
        offset += got;
    }
    return PL_OK;
}

/* The row of the file that becomes row r. GGUF interleaves the rotated halves of each head. */
static int source_row(const struct pl_load *load, int r)
{
    const int i = r % load->rope_head, half = load->rope_dim / 2;
    if (i >= load->rope_dim)
        return r;
    return r - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Rows [r0, r0 + n) of the matrix into staging, as they lie in the file. */
static enum pl_status read_rows(const struct way *w, uint8_t *staging, int r0, int n)
{
    const struct pl_load *const load = w->load;
    if (load->rope_head <= 0)
        return read_at(load->fd, staging, w->row_bytes * (size_t)n, load->offset + (int64_t)w->row_bytes * r0);
    enum pl_status status = PL_OK;
    for (int i = 0; i < n && status == PL_OK; i++)
        status = read_at(load->fd, staging + w->row_bytes * (size_t)i, w->row_bytes,
                         load->offset + (int64_t)w->row_bytes * source_row(load, r0 + i));
    return status;
}

static void pack_panel(const struct way *w, char *panel, const uint8_t *rows, int n_rows, float *floats)
{
    const int n_cols = w->matrix->n_cols;
    const uint8_t *pointers[PL_LANES_MAX];
    for (int i = 0; i < n_rows; i++) {
        pointers[i] = rows + w->row_bytes * (size_t)i;
        if (w->source == w->format)
            continue;
        float *const y = floats + (size_t)i * (size_t)n_cols;
        w->source->dequantize(y, pointers[i], n_cols);
        if (w->format->quantize)
            w->format->quantize((uint8_t *)y, y, n_cols);
        pointers[i] = (const uint8_t *)y;
    }
    w->format->pack(panel, pointers, n_rows, n_cols);
}

static enum pl_status load_chunk(const struct job *job, const struct way *w, int chunk, uint8_t *staging, float *floats)
{
    const struct pl_matrix *const m = w->matrix;
    const int first = chunk * w->chunk_panels * w->vl, most = w->chunk_panels * w->vl;
    const int n = m->n_rows - first < most ? m->n_rows - first : most;
    const enum pl_status status = read_rows(w, staging, first, n);
    for (int i = 0; i < n && status == PL_OK; i += w->vl) {
        char *const panel = job->arena + m->offset + (first + i) / w->vl * m->panel_bytes;
        pack_panel(w, panel, staging + w->row_bytes * (size_t)i, n - i < w->vl ? n - i : w->vl, floats);
    }
    if (status == PL_OK)
        atomic_fetch_add(&job->loading->done, (int64_t)w->row_bytes * n);
    return status;
}

/* The first failure counts, and ends the work of all. */
static void fail(struct job *job, int i, enum pl_status status)
{
    int none = PL_OK;
    if (atomic_compare_exchange_strong(&job->status, &none, (int)status))
        job->loading->failed = i;
}

static void load_share(void *arg, int member)
{
    struct job *const job = arg;
    uint8_t *const staging = malloc(job->staging_bytes);
    float *const floats = malloc(job->float_bytes);
    if (!staging || !floats)
        fail(job, 0, PL_NO_MEMORY);
    for (int i = 0; i < job->n; i++) {
        const struct way w = way_of(job, i);
        struct pl_supply *const supply = job->supply + (size_t)i * (size_t)job->n_members;
        for (int chunk; (chunk = pl_take(supply, member, job->n_members, w.n_chunks)) >= 0;) {
            if (atomic_load(&job->loading->stop))
                fail(job, i, PL_CANCELLED);
            if (atomic_load(&job->status) != PL_OK)
                goto end;
            const enum pl_status status = load_chunk(job, &w, chunk, staging, floats);
            if (status != PL_OK)
                fail(job, i, status);
        }
    }
end:
    free(staging);
    free(floats);
}

enum pl_status pl_load_matrices(struct pl_team *team, const struct pl_kernels *kernels, char *arena, int n,
                                const struct pl_matrix *matrices, const struct pl_load *loads, struct pl_loading *loading)
{
    struct job job = {kernels, matrices, loads, n, pl_team_size(team), arena, .float_bytes = 1, .loading = loading};
    const size_t supply_bytes = sizeof *job.supply * (size_t)n * (size_t)job.n_members;
    job.supply = aligned_alloc(64, supply_bytes);
    if (!job.supply)
        return PL_NO_MEMORY;
    memset(job.supply, 0, supply_bytes);
    for (int i = 0; i < n; i++) {
        const struct way w = way_of(&job, i);
        const size_t staging = w.row_bytes * (size_t)w.vl * (size_t)w.chunk_panels;
        const size_t floats = w.source == w.format ? 0 : sizeof(float) * (size_t)w.matrix->n_cols * (size_t)w.vl;
        job.staging_bytes = staging > job.staging_bytes ? staging : job.staging_bytes;
        job.float_bytes = floats > job.float_bytes ? floats : job.float_bytes;
    }
    atomic_init(&job.status, PL_OK);
    pl_team_do(team, job.n_members, load_share, &job);
    free(job.supply);
    return (enum pl_status)atomic_load(&job.status);
}
