/* Memory for weights, and the way of a matrix from its file into the arena. */
#define _GNU_SOURCE
#include "pyllama.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, STAGING_BYTES = 1 << 20 };

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
    const struct pl_matrix *matrix;
    const struct pl_load *load;
    const struct pl_format *source, *format;  /* in the file, in the arena */
    char *arena;
    size_t row_bytes;  /* of a row in the file */
    int n_members;
    _Atomic int status;
};

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
static enum pl_status read_rows(const struct job *job, uint8_t *staging, int r0, int n)
{
    const struct pl_load *const load = job->load;
    if (load->rope_head <= 0)
        return read_at(load->fd, staging, job->row_bytes * (size_t)n, load->file_offset + (int64_t)job->row_bytes * r0);
    enum pl_status status = PL_OK;
    for (int i = 0; i < n && status == PL_OK; i++)
        status = read_at(load->fd, staging + job->row_bytes * (size_t)i, job->row_bytes,
                         load->file_offset + (int64_t)job->row_bytes * source_row(load, r0 + i));
    return status;
}

static void pack_panel(const struct job *job, int panel, const uint8_t *rows, int n_rows, float *floats)
{
    const struct pl_matrix *const m = job->matrix;
    const uint8_t *pointers[PL_LANES_MAX];
    for (int i = 0; i < n_rows; i++) {
        pointers[i] = rows + job->row_bytes * (size_t)i;
        if (job->source == job->format)
            continue;
        float *const y = floats + (size_t)i * (size_t)m->n_cols;
        job->source->dequantize(y, pointers[i], m->n_cols);
        if (job->format->quantize)
            job->format->quantize((uint8_t *)y, y, m->n_cols);
        pointers[i] = (const uint8_t *)y;
    }
    job->format->pack(job->arena + m->offset + panel * m->panel_bytes, pointers, n_rows, m->n_cols);
}

static void load_share(void *arg, int member)
{
    struct job *const job = arg;
    const struct pl_matrix *const m = job->matrix;
    const int vl = job->kernels->vl, n_panels = (m->n_rows + vl - 1) / vl;
    const int first = (int)((int64_t)n_panels * member / job->n_members);
    const int end = (int)((int64_t)n_panels * (member + 1) / job->n_members);
    const size_t panel_source = job->row_bytes * (size_t)vl;
    const int at_once = panel_source < STAGING_BYTES ? (int)(STAGING_BYTES / panel_source) : 1;
    uint8_t *const staging = malloc(panel_source * (size_t)at_once);
    float *const floats = malloc(sizeof(float) * (size_t)m->n_cols * (size_t)vl);
    enum pl_status status = staging && floats ? PL_OK : PL_NO_MEMORY;
    for (int panel = first; panel < end && status == PL_OK; panel += at_once) {
        const int stop = panel + at_once < end ? panel + at_once : end;
        const int last_row = stop * vl < m->n_rows ? stop * vl : m->n_rows;
        status = read_rows(job, staging, panel * vl, last_row - panel * vl);
        for (int i = panel; i < stop && status == PL_OK; i++) {
            const int n = m->n_rows - i * vl < vl ? m->n_rows - i * vl : vl;
            pack_panel(job, i, staging + panel_source * (size_t)(i - panel), n, floats);
        }
    }
    free(staging);
    free(floats);
    if (status != PL_OK)
        atomic_store(&job->status, (int)status);
}

enum pl_status pl_load_matrix(struct pl_team *team, const struct pl_kernels *kernels, char *arena,
                              const struct pl_matrix *matrix, const struct pl_load *load)
{
    const struct pl_format *const source = kernels->formats[load->source];
    struct job job = {
        .kernels = kernels,
        .matrix = matrix,
        .load = load,
        .source = source,
        .format = pl_format_of(kernels, matrix),
        .arena = arena,
        .row_bytes = (size_t)(matrix->n_cols / source->block) * (size_t)source->block_bytes,
        .n_members = pl_team_size(team),
    };
    atomic_init(&job.status, PL_OK);
    pl_team_do(team, job.n_members, load_share, &job);
    return (enum pl_status)atomic_load(&job.status);
}
