/* Random numbers, nasty fills, guarded buffers. */
#include "checkasm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t state;

void rng_seed(uint64_t seed) { state = seed; }

uint64_t rng(void)  /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

int rng_below(int n) { return (int)(rng() % (uint64_t)n); }
double rng_between(double lo, double hi)
{
    return lo + (hi - lo) * 0x1p-53 * (double)(rng() >> 11);
}

const char *const fill_names[N_FILLS] = {
    "uniform", "tiny", "large", "zeros", "one-hot", "extremes", "equal", "mixed"};

static float with_exponent(double lo, double hi)  /* +-2^[lo, hi) */
{
    const double mantissa = rng_between(1, 2) * (rng() & 1 ? 1 : -1);
    return (float)(mantissa * exp2(rng_between(lo, hi)));
}

void fill_floats(float *x, int n, enum fill fill)
{
    const float c = with_exponent(-2, 2);
    for (int i = 0; i < n; i++)
        switch (fill) {
        case UNIFORM: x[i] = (float)rng_between(-1, 1); break;
        case TINY: x[i] = with_exponent(-149, -118); break;
        case LARGE: x[i] = with_exponent(30, 60); break;
        case EXTREMES: x[i] = rng() & 1 ? c : -c; break;
        case EQUAL: x[i] = c; break;
        case MIXED: x[i] = with_exponent(-20, 20); break;
        default: x[i] = 0.0f;
        }
    /* the last place and the first are those that a wrong tail loses */
    if (fill == ONE_HOT && n)
        x[rng() & 1 ? n - 1 : rng() & 1 ? 0 : rng_below(n)] = c;
}

/* A slot is a mapping whose last page may not be touched; slots are reused from case to case. */
enum { N_SLOTS = 192, CANARY = 64, CANARY_BYTE = 0xa5 };
static struct slot {
    uint8_t *map;
    size_t size;   /* without the guard page */
    uint8_t *data;
    size_t bytes;
} slots[N_SLOTS];
static int n_used;

void buf_reset(void) { n_used = 0; }

static void slot_grow(struct slot *s, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (s->map)
        munmap(s->map, s->size + page);
    s->size = (2 * bytes + 2 * CANARY + page - 1) / page * page;
    s->map = mmap(NULL, s->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->map == MAP_FAILED || mprotect(s->map + s->size, page, PROT_NONE)) {
        perror("checkasm: mmap");
        exit(2);
    }
}

static void *buf_before(size_t bytes, size_t gap)
{
    if (n_used == N_SLOTS) {
        fprintf(stderr, "checkasm: a case needs more than %d buffers\n", N_SLOTS);
        exit(2);
    }
    struct slot *const s = &slots[n_used++];
    if (bytes + gap + CANARY > s->size)
        slot_grow(s, bytes + gap + CANARY);
    s->bytes = bytes;
    s->data = s->map + s->size - gap - bytes;
    memset(s->data - CANARY, CANARY_BYTE, CANARY);
    memset(s->data, 0xff, bytes);
    memset(s->data + bytes, CANARY_BYTE, gap);
    return s->data;
}

void *buf(size_t bytes) { return buf_before(bytes, 0); }
void *buf_loose(size_t bytes)
{
    return buf_before(bytes, 4 * (size_t)(rng_below(2) * rng_below(4)));
}

float *buf_floats(int n, enum fill fill)
{
    float *const x = buf_loose(4 * (size_t)n);
    fill_floats(x, n, fill);
    return x;
}

void *buf_copy(const void *src, size_t bytes)
{
    return memcpy(buf_loose(bytes), src, bytes);
}

static int is_canary(const uint8_t *p, const uint8_t *past)
{
    for (; p < past; p++)
        if (*p != CANARY_BYTE)
            return 0;
    return 1;
}

int buf_intact(void)
{
    for (int i = 0; i < n_used; i++) {
        const struct slot *const s = &slots[i];
        if (!is_canary(s->data - CANARY, s->data) ||
            !is_canary(s->data + s->bytes, s->map + s->size))
            return 0;
    }
    return 1;
}
