/* The thread team: one parallel region, parking, barriers, work supplies. The only OpenMP. */
#define _GNU_SOURCE
#include "pyllama.h"

#include <limits.h>
#include <stdlib.h>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Pauses before a waiting member sleeps. A barrier inside a forward takes a fraction of a
 * microsecond, unless another process has a member's core: then sleeping frees this core, and the
 * system moves the member here. Between two forwards some tens of microseconds pass. */
enum { SPINS_BARRIER = 1500, SPINS_IDLE = 4000 };

/* A number that members wait on, and how many of them sleep. */
struct word { _Alignas(64) _Atomic unsigned value; _Atomic int sleepers; };

struct pl_team {
    int asked, size;
    void (*job)(void *, int);
    void *arg;
    int job_members;
    struct word epoch;     /* the job's number; ~0 ends the region */
    struct word finished;  /* the last job that all other members have left */
    struct word phase;     /* one more for every barrier passed */
    _Alignas(64) _Atomic int arrived;  /* at the barrier */
    _Alignas(64) _Atomic int running;  /* members other than 0 still in the job */
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps while the word is `value`, or less long. */
static void sleep_on(struct word *word, unsigned value)
{
#if defined(__linux__)
    syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
    (void)word, (void)value;
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
#endif
}

static void wait_while(struct word *word, unsigned value, int spins)
{
    for (; spins > 0; spins--) {
        if (atomic_load_explicit(&word->value, memory_order_acquire) != value)
            return;
        pause_cpu();
    }
    atomic_fetch_add(&word->sleepers, 1);
    while (atomic_load(&word->value) == value)
        sleep_on(word, value);
    atomic_fetch_sub(&word->sleepers, 1);
}

static void publish(struct word *word, unsigned value)
{
    atomic_store(&word->value, value);
#if defined(__linux__)
    if (atomic_load(&word->sleepers) > 0)
        syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#endif
}

struct pl_team *pl_team_new(int n_threads)
{
    struct pl_team *const team = aligned_alloc(64, (sizeof *team + 63) / 64 * 64);
    if (!team)
        return NULL;
    *team = (struct pl_team){.asked = n_threads, .size = 1};
    return team;
}

void pl_team_free(struct pl_team *team) { free(team); }

int pl_team_size(const struct pl_team *team) { return team->size; }

#if defined(_OPENMP)
static void worker(struct pl_team *team, int member)
{
    for (unsigned seen = 0;;) {
        wait_while(&team->epoch, seen, SPINS_IDLE);
        seen = atomic_load(&team->epoch.value);
        if (seen == ~0u)
            return;
        if (member < team->job_members)
            team->job(team->arg, member);
        if (atomic_fetch_sub(&team->running, 1) == 1)
            publish(&team->finished, seen);
    }
}
#endif

void pl_team_enter(struct pl_team *team, void (*main)(void *arg), void *arg)
{
    atomic_store(&team->epoch.value, 0);
    atomic_store(&team->finished.value, 0);
#if defined(_OPENMP)
#pragma omp parallel num_threads(team->asked)
    {
        const int member = omp_get_thread_num();
        if (member == 0) {
            team->size = omp_get_num_threads();
            main(arg);
            publish(&team->epoch, ~0u);
        } else {
            worker(team, member);
        }
    }
#else
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
    const unsigned last = atomic_load(&team->epoch.value), epoch = last + 1 == ~0u ? 1 : last + 1;
    publish(&team->epoch, epoch);
    job(arg, 0);
    wait_while(&team->finished, last, SPINS_BARRIER);
}

void pl_team_barrier(struct pl_team *team)
{
    if (team->job_members <= 1)
        return;
    const unsigned phase = atomic_load_explicit(&team->phase.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->job_members - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        publish(&team->phase, phase + 1);
        return;
    }
    wait_while(&team->phase, phase, SPINS_BARRIER);
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
