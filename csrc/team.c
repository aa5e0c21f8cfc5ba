/* The thread team: one parallel region, parking, barriers, work supplies. The only OpenMP. */
#define _POSIX_C_SOURCE 200809L
#include "pyllama.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

/* Pauses before a waiting member gives the core away: a barrier inside a forward takes a fraction
 * of a microsecond, the gap between two forwards some tens of them. */
enum { SPINS_BARRIER = 4000, SPINS_IDLE = 6000 };

struct pl_team {
    int asked, size;
    void (*job)(void *, int);
    void *arg;
    int job_members;
    _Alignas(64) _Atomic unsigned epoch;   /* one more for every job; ~0 ends the region */
    _Alignas(64) _Atomic unsigned phase;   /* one more for every barrier passed */
    _Alignas(64) _Atomic int arrived;
    _Alignas(64) _Atomic int running;      /* members other than 0 still in the job */
    _Atomic int parked;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A crowded machine must be slow, not stuck: after some spins every further one yields. */
static inline void wait_a_bit(int *spins, int limit)
{
    if (++*spins < limit)
        pause_cpu();
    else
        sched_yield();
}

struct pl_team *pl_team_new(int n_threads)
{
    struct pl_team *const team = aligned_alloc(64, (sizeof *team + 63) / 64 * 64);
    if (!team)
        return NULL;
    *team = (struct pl_team){.asked = n_threads, .size = 1};
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->wake, NULL);
    return team;
}

void pl_team_free(struct pl_team *team)
{
    if (!team)
        return;
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->mutex);
    free(team);
}

int pl_team_size(const struct pl_team *team) { return team->size; }

static void start(struct pl_team *team, unsigned epoch)
{
    atomic_store(&team->epoch, epoch);
    if (atomic_load(&team->parked) > 0) {
        pthread_mutex_lock(&team->mutex);
        pthread_cond_broadcast(&team->wake);
        pthread_mutex_unlock(&team->mutex);
    }
}

static unsigned wait_for_epoch(struct pl_team *team, unsigned seen)
{
    for (int spins = 0; spins < SPINS_IDLE; spins++) {
        const unsigned epoch = atomic_load_explicit(&team->epoch, memory_order_acquire);
        if (epoch != seen)
            return epoch;
        pause_cpu();
    }
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->parked, 1);
    while (atomic_load(&team->epoch) == seen)
        pthread_cond_wait(&team->wake, &team->mutex);
    atomic_fetch_sub(&team->parked, 1);
    pthread_mutex_unlock(&team->mutex);
    return atomic_load(&team->epoch);
}

#if defined(_OPENMP)
static void worker(struct pl_team *team, int member)
{
    for (unsigned seen = 0;;) {
        seen = wait_for_epoch(team, seen);
        if (seen == ~0u)
            return;
        if (member < team->job_members)
            team->job(team->arg, member);
        atomic_fetch_sub_explicit(&team->running, 1, memory_order_release);
    }
}
#endif

void pl_team_enter(struct pl_team *team, void (*main)(void *arg), void *arg)
{
    atomic_store(&team->epoch, 0);
#if defined(_OPENMP)
#pragma omp parallel num_threads(team->asked)
    {
        const int member = omp_get_thread_num();
        if (member == 0) {
            team->size = omp_get_num_threads();
            main(arg);
            start(team, ~0u);
        } else {
            worker(team, member);
        }
    }
#else
    (void)wait_for_epoch;
    main(arg);
#endif
    team->size = 1;
}

void pl_team_do(struct pl_team *team, int n, void (*job)(void *arg, int member), void *arg)
{
    if (n > team->size)
        n = team->size;
    team->job = job;
    team->arg = arg;
    team->job_members = n;
    if (n <= 1) {  /* nobody else needs to wake up */
        job(arg, 0);
        return;
    }
    atomic_store(&team->running, team->size - 1);
    unsigned epoch = atomic_load(&team->epoch) + 1;
    start(team, epoch == ~0u ? 1 : epoch);
    job(arg, 0);
    for (int spins = 0; atomic_load_explicit(&team->running, memory_order_acquire) > 0;)
        wait_a_bit(&spins, SPINS_BARRIER);
}

void pl_team_barrier(struct pl_team *team)
{
    if (team->job_members <= 1)
        return;
    const unsigned phase = atomic_load_explicit(&team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->job_members - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->phase, memory_order_acquire) == phase;)
        wait_a_bit(&spins, SPINS_BARRIER);
}

int pl_take(struct pl_supply *supply, int member, int n_members, int n_units)
{
    for (int i = 0; i < n_members; i++) {
        const int owner = member + i < n_members ? member + i : member + i - n_members;
        const int first = (int)((int64_t)n_units * owner / n_members);
        const int end = (int)((int64_t)n_units * (owner + 1) / n_members);
        if (atomic_load_explicit(&supply[owner].taken, memory_order_relaxed) >= end - first)
            continue;
        const int unit = first + atomic_fetch_add_explicit(&supply[owner].taken, 1, memory_order_relaxed);
        if (unit < end)
            return unit;
    }
    return -1;
}
