/* What the machine can do at best: the limits that speed is compared with. */
#define _POSIX_C_SOURCE 200809L
#include "pyllama.h"

#include <time.h>

enum { PEAK_ITERATIONS = 20000, READ_UNIT = 256 };

struct probe {
    const struct pl_kernels *kernels;
    enum pl_act act;
    const char *memory;  /* NULL: multiply */
    size_t n;
    int n_members;
    _Atomic int64_t work;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void probe_once(void *arg, int member)
{
    struct probe *const probe = arg;
    float sum = 0;
    if (probe->memory) {
        const size_t share = probe->n / (size_t)probe->n_members / READ_UNIT * READ_UNIT;
        probe->kernels->read(&sum, probe->memory + share * (size_t)member, share);
        atomic_fetch_add(&probe->work, (int64_t)share);
    } else {
        atomic_fetch_add(&probe->work, (int64_t)probe->kernels->peak[probe->act](&sum, PEAK_ITERATIONS));
    }
}

/* Work per second: the best of as many rounds as fit into `seconds`, two at least. */
static double best_rate(struct pl_team *team, struct probe *probe, double seconds)
{
    const double end = now() + seconds;
    double best = 0;
    for (int round = 0; round < 2 || now() < end; round++) {
        atomic_store(&probe->work, 0);
        const double start = now();
        pl_team_do(team, probe->n_members, probe_once, probe);
        const double rate = (double)atomic_load(&probe->work) / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

double pl_peak(struct pl_team *team, const struct pl_kernels *kernels, enum pl_act act, double seconds)
{
    struct probe probe = {.kernels = kernels, .act = act, .n_members = pl_team_size(team)};
    return best_rate(team, &probe, seconds);
}

double pl_bandwidth(struct pl_team *team, const struct pl_kernels *kernels, const void *memory, size_t n, double seconds)
{
    struct probe probe = {.kernels = kernels, .memory = memory, .n = n, .n_members = pl_team_size(team)};
    return best_rate(team, &probe, seconds);
}
