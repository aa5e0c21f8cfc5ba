/* The C API: what Cython sees. Knows nothing of Python, of files' formats or of architectures.
 *
 * A Program is a flat list of ops over buffers. It is recorded once per model (pyllama/program.py)
 * and run over a Batch in one call by the members of a team. Rows come in three domains: `tokens`
 * (the n rows of the batch), `outputs` (the m of them whose logits are wanted) and `head` (a chunk
 * of the outputs: the head runs chunk by chunk, so that logits need little memory). */
#ifndef PYLLAMA_H
#define PYLLAMA_H

#include "kernels.h"

#include <stdatomic.h>

/* ---- team.c: the threads ---- */

struct pl_team;

struct pl_team *pl_team_new(int n_threads);  /* NULL: no memory */
void pl_team_free(struct pl_team *team);
/* Opens the one parallel region, runs main(arg) on the calling thread, closes it when that returns.
 * The other members park meanwhile and cost nothing. */
void pl_team_enter(struct pl_team *team, void (*main)(void *arg), void *arg);
int pl_team_size(const struct pl_team *team);  /* inside pl_team_enter: what the runtime granted */
/* Inside main: job(arg, member) on members 0 .. n-1, member 0 being the caller. */
void pl_team_do(struct pl_team *team, int n, void (*job)(void *arg, int member), void *arg);
/* Inside a job: waits for all its members. */
void pl_team_barrier(struct pl_team *team);

/* A shared supply of work units 0 .. n-1: each member takes its own share first, then steals. */
struct pl_supply { _Alignas(64) _Atomic int taken; };
/* The next unit for `member`, or -1. supply [n_members], all zero at the start. */
int pl_take(struct pl_supply *supply, int member, int n_members, int n_units);

/* ---- load.c: files into the arena ---- */

/* n bytes at a 2 MiB boundary, zero, on huge pages where the system grants them; NULL: no memory */
void *pl_map(size_t n, int hugepages);
void pl_unmap(void *p, size_t n);
/* Keeps n bytes of such a mapping from being swapped out until it is unmapped; 0, or errno. */
int pl_lock(const void *p, size_t n);

enum pl_status { PL_OK, PL_CANCELLED, PL_SHORT_READ, PL_READ_ERROR, PL_NO_MEMORY };

/* W [n_rows][n_cols] as panels in the arena */
struct pl_matrix {
    int64_t offset;       /* of the first panel in the arena */
    int64_t panel_bytes;  /* from one panel to the next */
    int32_t n_rows, n_cols;
    int32_t format;       /* index in the kernels' formats */
    int32_t unused;
};

struct pl_load {
    int64_t offset;     /* in the file, of the first row */
    int32_t fd;
    int32_t source;     /* format of the file; if it is not the matrix's, that is F32 or can quantize */
    int32_t rope_head;  /* > 0: rows of each head of so many come interleaved (GGUF), store half split, */
    int32_t rope_dim;   /* the first so many of them */
};

/* What other threads may ask, and set, while matrices are loaded. Zero at the start. */
struct pl_loading {
    _Atomic int64_t done;  /* bytes of files */
    _Atomic int stop;      /* set: PL_CANCELLED soon */
    int failed;            /* afterwards: the matrix that an error is about */
};

/* n matrices: reads by pread in chunks, packs in parallel. */
enum pl_status pl_load_matrices(struct pl_team *team, const struct pl_kernels *kernels, char *arena, int n,
                                const struct pl_matrix *matrices, const struct pl_load *loads, struct pl_loading *loading);

/* ---- program.c: the Program ---- */

enum pl_domain { PL_TOKENS, PL_OUTPUTS, PL_HEAD };

struct pl_buffer {
    int64_t offset;    /* in the workspace */
    int32_t width;     /* values per row */
    int32_t act;       /* enum pl_act in tiles, or -1: f32 rows */
    int32_t domain;
    int32_t is_private; /* few rows: each member computes a copy of its own, and nobody waits */
};

enum pl_op_kind {
    PL_ROPE_TABLE,    /* out [n][rope_dim] = cos, sin of pos * inv_freq, times value */
    PL_EMBED,         /* out = W[token] */
    PL_NORM,          /* out = rmsnorm(in) * w */
    PL_ACT,           /* out = in as activations */
    PL_NORM_ACT,      /* out = rmsnorm(in) * w as activations */
    PL_MATMUL,        /* out_i = in . W_i^T + b_i, for i < n_out */
    PL_MATMUL_ADD,    /* out_0 += value (in . W_0^T + b_0) */
    PL_MATMUL_SWIGLU, /* out_0 = silu(in . W_0^T) * (in . W_1^T) */
    PL_SWIGLU,        /* out = silu(in_0) * in_1 */
    PL_ADD,           /* out = in_0 + in_1 */
    PL_SCALE,         /* out = value in */
    PL_NORM_HEADS,    /* out = rmsnorm(in) * w, head by head */
    PL_ROPE,          /* out = in, the first rope_dim of each head rotated by the table in_1 */
    PL_KV_APPEND,     /* cache <- in_0 = k, in_1 = v */
    PL_ATTEND,        /* out = softmax(in q K^T * value) V over the cache */
    PL_SELECT,        /* out [m] = in [outputs] */
    PL_SAMPLE,        /* in = logits: copied out, or the next token drawn, as the batch asks */
    PL_N_OPS
};

enum { PL_BARRIER = 1, PL_BARRIER_PRIVATE = 2 };  /* wait first: always-split / private schedule */

struct pl_op {
    int32_t kind, domain, barrier, layer;
    int32_t window;                /* PL_ATTEND: of so many positions; 0: all before */
    int32_t n_out, out[3], in[2];  /* buffers */
    int32_t weight[3];             /* matrices; for a norm: none */
    int32_t bias[3];               /* buffers' kin in the vectors, -1: none */
    int32_t vector;                /* norms: index of w */
    float value;                   /* eps, or a factor */
};

struct pl_kv {
    char *base;            /* [n_blocks][n_layers][n_kv_heads] of K then V (kernels.h) */
    int64_t block_bytes, head_bytes, k_bytes;
    int32_t dtype, n_blocks;
};

/* What an op has taken so far, while it is asked for. rows: of its domain; runs: forwards that had any */
struct pl_profile { double seconds; int64_t rows, runs; };

struct pl_program {
    const struct pl_kernels *kernels;
    struct pl_team *team;
    const char *arena;
    char *workspace;
    const struct pl_op *ops;
    const struct pl_buffer *buffers;
    const struct pl_matrix *matrices;
    const int64_t *vectors;           /* offsets of f32 vectors in the arena */
    const double *inv_freq;           /* [rope_dim / 2] */
    struct pl_supply *supply;         /* [2][n_ops][n_threads] */
    char *scratch;                    /* [n_threads][scratch_bytes] */
    int64_t scratch_bytes, partial_offset, partial_bytes;  /* of split attention, in the workspace */
    int64_t weight_bytes;             /* read per token: decides how many members help */
    int64_t chunk_bytes;              /* of weights that stay in L2 while the token tiles pass by */
    int32_t n_ops, head_op;           /* ops from head_op on are the head's */
    int32_t n_threads, head_rows, private_rows;
    int32_t n_layers, n_heads, n_kv_heads, head_dim;
    struct pl_kv kv;
    unsigned parity;                  /* which half of supply is in use */
    struct pl_profile *profile;       /* [n_ops], summed up; NULL: not asked for */
};

/* rank 1: the most probable; of equals the lower token comes first */
struct pl_logprob { float logprob; int32_t token, rank; };

/* What an output row asks for; all but the counter stays the same while a request lasts. */
struct pl_sampling {
    uint64_t seed, counter;          /* of the generator: same pair, same draw. counter: tokens drawn so far */
    const int32_t *tokens;           /* [n_prompt + counter] what penalties look at; NULL: none */
    const int32_t *bias_token;       /* [n_bias] */
    const float *bias;               /* [n_bias] */
    const uint8_t *allowed[2];       /* bits: the tokens that may be drawn; NULL: all. [1] from min_tokens on */
    struct pl_logprob *logprobs;     /* out [1 + n_logprobs]: the row's token, then the best; NULL: none */
    float temperature;               /* 0: greedy */
    float top_p, min_p, typical_p;   /* 1, 0, 1: off */
    float repetition, frequency, presence;  /* 1, 0, 0: off */
    int32_t top_k;                   /* 0: off */
    int32_t n_prompt, last_n;        /* last_n: how many tokens penalties look at; -1: all */
    int32_t n_bias, n_logprobs, min_tokens;
    int32_t target;                  /* >= 0: this is the row's token, nothing is drawn */
};

/* n rows; rows of one sequence are adjacent, with ascending positions. */
struct pl_batch {
    const int32_t *token, *pos, *seq;  /* [n] */
    const int32_t *block_table;        /* [n_seqs][max_blocks]: KV blocks of each sequence */
    const int32_t *output;             /* [m] rows, ascending */
    const struct pl_sampling *sampling;/* [m], or NULL: draw nothing */
    int32_t *sampled;                  /* [m] */
    float *logits;                     /* [m][vocab], or NULL */
    float *sample_scratch;             /* [n_threads][PL_SAMPLE_SCRATCH * vocab] */
    int32_t n, m, max_blocks;
    _Atomic int cancel;                /* read at every work unit */
    double seconds;                    /* what the run took */
};

enum pl_status pl_run(struct pl_program *program, struct pl_batch *batch);
/* From any thread: the run under way ends early (1), or runs may go on (0). */
static inline void pl_set_cancel(struct pl_batch *batch, int cancel) { atomic_store(&batch->cancel, cancel); }

/* ---- sample.c ---- */

enum { PL_SAMPLE_SCRATCH = 6 };  /* floats per token of the vocabulary */
enum { PL_NO_TOKEN = -1 };       /* drawn where no logit is a number: NaN and -infinity alone */

/* The row's token and its logprobs. It is drawn from softmax(pl_adjust(logits) / temperature) cut by
 * top_k, typical_p, top_p, min_p, in this order; PL_NO_TOKEN, without logprobs, if there is none to draw.
 * scratch [PL_SAMPLE_SCRATCH n] */
int pl_sample(const struct pl_kernels *kernels, const float *logits, int n,
              const struct pl_sampling *s, float *scratch);
/* The generator: Philox 4x32-10 (Salmon et al. 2011), uniform in [0, 1) of 53 bits */
double pl_uniform(uint64_t seed, uint64_t counter);

/* ---- logits.c ---- */

/* The logits with what may not be drawn at -infinity, biases added and penalties taken off: in scratch [2 n],
 * or `logits` itself if nothing is to be done. */
const float *pl_adjust(const float *logits, int n, const struct pl_sampling *s, float *scratch);
/* The bits of the tokens that may be drawn; NULL: all. */
static inline const uint8_t *pl_allowed(const struct pl_sampling *s) { return s->allowed[s->counter >= (uint64_t)s->min_tokens]; }
/* s->logprobs of log_softmax(logits). scratch [n] */
void pl_logprobs(const struct pl_kernels *kernels, const float *logits, int n, int token,
                 const struct pl_sampling *s, float *scratch);
double pl_sum(const float *p, int n);
/* best [k] <- the k largest of x [n], k <= n, the largest first */
void pl_top(const float *x, int n, struct pl_logprob *best, int k);

/* ---- roofline.c: what the machine can do at best ---- */

/* Inside pl_team_enter. Multiply-adds per second of all members, with activations of this kind. */
double pl_peak(struct pl_team *team, const struct pl_kernels *kernels, enum pl_act act, double seconds);
/* Bytes per second of all members, each reading its part of `memory`, n bytes, a few times. */
double pl_bandwidth(struct pl_team *team, const struct pl_kernels *kernels, const void *memory, size_t n, double seconds);

/* ---- between program.c and the frameworks it calls ---- */

/* Keys per independent part of attention: parts sit at absolute positions, so they may be computed
 * by anyone, and are merged in order. */
enum { PL_KEY_CHUNK = 512 };

struct pl_tile { int32_t row, n; };  /* adjacent rows of one sequence */

struct pl_run {
    struct pl_program *p;
    struct pl_batch *b;
    struct pl_supply *supply;     /* this run's half */
    int n_members, is_private;    /* schedule of the row-wise ops */
    int head_row;                 /* first output of the head's chunk */
    int rows[3];                  /* per domain */
    struct pl_tile *tiles[2];     /* attention tiles of tokens, outputs */
    int n_tiles[2], n_chunks;     /* of key chunks: that of the longest sequence */
};

/* Where row `row` of a buffer lies, seen from an op of `domain` (f32 rows only). */
float *pl_row(const struct pl_run *run, const struct pl_op *op, int buffer, int row, int member);
/* Where the activations of a buffer begin. */
char *pl_acts(const struct pl_run *run, int buffer, int member);
static inline const struct pl_format *pl_format_of(const struct pl_kernels *k, const struct pl_matrix *m) { return k->formats[m->format]; }
/* Token tiles of at most `max` rows are as even as can be: tile i of n rows begins here. */
static inline int pl_n_act_tiles(int n, int max) { return (n + max - 1) / max; }
static inline int pl_act_tile(int n, int i, int max) { return (int)((int64_t)n * i / pl_n_act_tiles(n, max)); }

void pl_rowwise(const struct pl_run *run, const struct pl_op *op, int member);
void pl_matmul(const struct pl_run *run, const struct pl_op *op, int member);
void pl_attend(const struct pl_run *run, const struct pl_op *op, int member);
int pl_plan_tiles(const struct pl_run *run, int domain, struct pl_tile *tiles);

#endif
