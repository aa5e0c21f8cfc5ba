/* Drawing the next token. The whole vocabulary is looked at, and never sorted: a cut sorts only the
 * bin of nearly equal probabilities that it falls into. */
#include "pyllama.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    const uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};
    memcpy(c, next, sizeof next);
}

double pl_uniform(uint64_t seed, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

struct candidate { float p; int32_t id; };

static int descending(const void *a, const void *b)
{
    const struct candidate *const x = a, *const y = b;
    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

enum { N_BINS = 1024 };  /* of p in (0, 1]: the exponent and three bits, most probable first */

static int bin_of(float p)
{
    uint32_t u;
    memcpy(&u, &p, 4);
    return u > 0x3f800000 ? 0 : (int)((0x3f800000 - u) >> 20);
}

/* Zeroes all p but the most probable ones: at most `count`, and no more than it takes for their sum
 * to reach `mass`. Of equals the lower index stays. found [n] */
static void cut(float *p, int n, int64_t count, double mass, struct candidate *found)
{
    int64_t counts[N_BINS] = {0};
    double masses[N_BINS] = {0};
    for (int i = 0; i < n; i++)
        if (p[i] > 0.0f) {
            counts[bin_of(p[i])]++;
            masses[bin_of(p[i])] += p[i];
        }
    int bin = 0, n_found = 0;
    for (; bin < N_BINS && counts[bin] < count && masses[bin] < mass; bin++) {
        count -= counts[bin];
        mass -= masses[bin];
    }
    if (bin == N_BINS)
        return;
    for (int i = 0; i < n; i++)
        if (p[i] > 0.0f && bin_of(p[i]) >= bin) {
            if (bin_of(p[i]) == bin)
                found[n_found++] = (struct candidate){p[i], i};
            p[i] = 0.0f;
        }
    qsort(found, (size_t)n_found, sizeof *found, descending);
    for (int i = 0; i < n_found && count > 0 && mass > 0.0; i++, count--) {
        p[found[i].id] = found[i].p;
        mass -= found[i].p;
    }
}

static double sum_of(const float *p, int n)
{
    double sum[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += p[i + j];
    for (; i < n; i++)
        sum[0] += p[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* The index at which the running sum of p passes u times its total. */
static int draw(const float *p, int n, double u, int fallback)
{
    enum { BLOCK = 512 };
    double left = u * sum_of(p, n);
    for (int i = 0; i < n; i += BLOCK) {
        const int m = n - i < BLOCK ? n - i : BLOCK;
        const double block = sum_of(p + i, m);
        if (left >= block) {
            left -= block;
            continue;
        }
        for (int j = i; j < i + m; j++) {
            if (p[j] > left)
                return j;
            left -= p[j];
        }
    }
    for (int i = n - 1; i >= 0; i--)  /* rounding ate the last of u: the last that may be drawn */
        if (p[i] > 0.0f)
            return i;
    return fallback;
}

int pl_sample(const struct pl_kernels *kernels, const float *logits, int n,
              const struct pl_sampling *s, float *scratch)
{
    const int best = kernels->argmax(logits, n);
    const float beta = 1.0f / s->temperature;  /* infinite for a subnormal temperature */
    if (!(s->temperature > 0.0f) || !isfinite(beta) || s->top_k == 1 || !isfinite(logits[best]))
        return best;
    float *const p = scratch;
    kernels->exp_sum(p, logits, logits[best], beta, n);
    struct candidate *const found = (struct candidate *)(scratch + n);
    if (s->top_k > 0 && s->top_k < n)
        cut(p, n, s->top_k, INFINITY, found);
    if (s->top_p < 1.0f)
        cut(p, n, n, s->top_p * sum_of(p, n), found);
    if (s->min_p > 0.0f)
        for (int i = 0; i < n; i++)
            p[i] = p[i] >= s->min_p * p[best] ? p[i] : 0.0f;
    return draw(p, n, pl_uniform(s->seed, s->counter), best);
}
