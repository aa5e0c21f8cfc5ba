/* checkasm [--isa NAME] [--op TEXT] [--seed N] [--bench]: runs the checks, or times the kernels.
 * One line per level and op; exit status 1 if anything failed.
 * checkasm --isa NAME --dequantize FORMAT: blocks of a file on stdin become floats on stdout. */
#include "checkasm.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGES_PER_OP = 3 };

static struct {
    const char *isa;
    char op[64], shape[128];
    unsigned long long seed;
    int cases, failures, failed;  /* of this op; is the present case a failure? */
} now;

void begin(const char *shape, ...)
{
    va_list args;
    va_start(args, shape);
    vsnprintf(now.shape, sizeof now.shape, shape, args);
    va_end(args);
    now.failed = 0;
    buf_reset();
}

void fail(const char *what, ...)
{
    if (!now.failed && now.failures < MESSAGES_PER_OP) {
        va_list args;
        va_start(args, what);
        printf("  --isa %s --op %s --seed %llu [%s]: ", now.isa, now.op, now.seed, now.shape);
        vprintf(what, args);
        puts("");
        va_end(args);
    }
    now.failed = 1;
}

void end(void)
{
    if (!buf_intact())
        fail("wrote outside a buffer");
    now.cases++;
    now.failures += now.failed;
}

void expect(const char *what, int i, float y, double want, double tol)
{
    const int unbounded = !isfinite(tol) || fabs(want) + tol > 0x1.fffffep127;
    if (isnan(want) ? isnan(y) : isinf(want) ? y == want : unbounded || fabs(y - want) <= tol)
        return;
    fail("%s[%d] is %.9g, not %.9g +- %.2g", what, i, y, want, tol);
}

int same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

void expect_bits(const char *what, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        if (!same_float(a[i], b[i])) {
            fail("%s[%d]: %.9g and %.9g differ", what, i, a[i], b[i]);
            return;
        }
}

/* a kernel left its buffers: say which, as nothing after it can be trusted */
static void crashed(int sig)
{
    char text[512];
    const int n = snprintf(text, sizeof text,
                           "  --isa %s --op %s --seed %llu [%s]: CRASHED, signal %d\n",
                           now.isa, now.op, now.seed, now.shape, sig);
    fflush(stdout);
    if (write(STDOUT_FILENO, text, (size_t)n) < 0)
        _exit(2);
    _exit(1);
}

/* the same numbers on every level, whichever ops run: a failure replays alone */
static uint64_t seed_of(const char *op, unsigned long long seed)
{
    for (; *op; op++)
        seed = (seed ^ (unsigned char)*op) * 0x100000001b3;
    return seed;
}

struct options {
    const char *isa, *op, *dequantize;
    unsigned long long seed;
    int bench;
};
static int n_passed, n_failed;

static void run_op(const struct pl_kernels *kn, const struct op *op,
                   const struct pl_format *format, const struct options *opt)
{
    snprintf(now.op, sizeof now.op, "%s%s", format ? format->name : "", op->name);
    if (opt->op && !strstr(now.op, opt->op))
        return;
    now.cases = now.failures = 0;
    rng_seed(seed_of(now.op, opt->seed));
    op->check(kn, format);
    printf("%-15s %-18s ", now.isa, now.op);
    if (now.failures)
        printf("FAILED %d of %d\n", now.failures, now.cases);
    else
        printf("ok %d\n", now.cases);
    n_passed += now.cases - now.failures;
    n_failed += now.failures;
}

/* what the framework takes for granted about a level's table */
static void check_table(const struct pl_kernels *kn, const struct pl_format *format)
{
    (void)format;
    begin("%s", kn->name);
    if (pl_kernels_find(kn->name) != kn || pl_kernels_find("none") || !pl_kernels_find(NULL))
        fail("is not found by its name, or others are");
    if (kn->vl < 1 || kn->vl > PL_LANES_MAX)
        fail("vl is %d", kn->vl);
    for (int act = 0; act < PL_N_ACTS; act++)
        if (kn->tile_max[act] < 1 || kn->tile_max[act] > PL_TILE_MAX)
            fail("tile_max[%d] is %d", act, kn->tile_max[act]);
    const struct pl_format *const *f = kn->formats, *const *scalar = pl_kernels_scalar.formats;
    for (; *f && *scalar; f++, scalar++) {
        if (strcmp((*f)->name, (*scalar)->name) != 0)
            fail("%s is where scalar has %s", (*f)->name, (*scalar)->name);
        if ((*f)->block > BLOCK_MAX || (*f)->block_bytes < 1)
            fail("%s has blocks of %d, %d bytes", (*f)->name, (*f)->block, (*f)->block_bytes);
        if (!ref_format((*f)->name))
            fail("%s has no decoder in checkasm_formats.c", (*f)->name);
        for (int nt = 1; nt <= kn->tile_max[(*f)->act]; nt++)
            if (!(*f)->tile[nt])
                fail("%s has no tile of %d", (*f)->name, nt);
    }
    if (*f || *scalar)
        fail("scalar has more formats, or fewer");
    for (int nq = 1; nq <= PL_QUERY_MAX; nq++)
        for (int dtype = 0; dtype < PL_N_KV; dtype++)
            if (!kn->attend[dtype][nq])
                fail("no attend of %d queries for cache type %d", nq, dtype);
    end();
}

static const struct op table_ops[] = {{"table", check_table}, {NULL, NULL}};

static void run_level(const struct pl_kernels *kn, const struct options *opt)
{
    const struct op *const lists[] = {table_ops, row_ops, activation_ops, attention_ops, kv_ops};
    for (int i = 0; i < COUNT(lists); i++)
        for (const struct op *op = lists[i]; op->name; op++)
            run_op(kn, op, NULL, opt);
    for (const struct pl_format *const *f = kn->formats; *f; f++)
        for (const struct op *op = format_ops; op->name; op++)
            run_op(kn, op, *f, opt);
}

/* for another decoder of the same bytes to compare with; an exit status */
static int dequantize(const struct options *opt)
{
    const struct pl_kernels *const kn = pl_kernels_find(opt->isa);
    const struct pl_format *const *f = kn ? kn->formats : (const struct pl_format *const[]){NULL};
    while (*f && strcmp((*f)->name, opt->dequantize) != 0)
        f++;
    if (!*f) {
        fprintf(stderr, "checkasm: no %s on a level that runs here\n", opt->dequantize);
        return 2;
    }
    uint8_t block[BLOCK_MAX];
    float y[BLOCK_MAX];
    while (fread(block, (size_t)(*f)->block_bytes, 1, stdin) == 1) {
        (*f)->dequantize(y, block, (*f)->block);
        fwrite(y, sizeof *y, (size_t)(*f)->block, stdout);
    }
    return 0;
}

static int parse(struct options *opt, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *const value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--bench") == 0)
            opt->bench = 1;
        else if (strcmp(argv[i], "--isa") == 0 && value)
            opt->isa = argv[++i];
        else if (strcmp(argv[i], "--op") == 0 && value)
            opt->op = argv[++i];
        else if (strcmp(argv[i], "--dequantize") == 0 && value)
            opt->dequantize = argv[++i];
        else if (strcmp(argv[i], "--seed") == 0 && value)
            opt->seed = strtoull(argv[++i], NULL, 0);
        else
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct options opt = {NULL, NULL, NULL, (unsigned long long)time(NULL), 0};
    if (!parse(&opt, argc, argv)) {
        fprintf(stderr, "usage: checkasm [--isa NAME] [--op TEXT] [--seed N] [--bench | --dequantize FORMAT]\n");
        return 2;
    }
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (int i = 0; i < COUNT(signals); i++)
        signal(signals[i], crashed);
    if (opt.dequantize)
        return dequantize(&opt);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!opt.bench)
        printf("seed %llu\n", opt.seed);
    const struct pl_kernels *kn;
    int runs, n_known = 0, n_run = 0;
    for (int i = 0; (kn = pl_kernels_at(i, &runs)) != NULL; i++) {
        if (opt.isa && strcmp(opt.isa, kn->name) != 0)
            continue;
        n_known++;
        n_run += runs;
        now.isa = kn->name;
        now.seed = opt.seed;
        if (!runs)
            printf("%-15s skipped: not on this CPU\n", kn->name);
        else if (opt.bench)
            bench(kn, opt.op);
        else
            run_level(kn, &opt);
    }
    if (!n_known) {
        fprintf(stderr, "checkasm: no level is named %s\n", opt.isa);
        return 2;
    }
    if (opt.bench)
        return 0;
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed || (n_run && !n_passed);  /* an --op that names nothing is no success */
}
