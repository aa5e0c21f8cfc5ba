"""Thin doors to csrc: check shapes, release the GIL, one call."""
from cpython.buffer cimport PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memset

import os

import numpy as np

KV_BLOCK = PL_KV_BLOCK
NO_TOKEN = PL_NO_TOKEN
QUERY_MAX = PL_QUERY_MAX
TILE_MAX = PL_TILE_MAX
ACTS = ("F32", "BF16", "I8")  # enum pl_act
KV_DTYPES = ("f16", "f32", "bf16", "q8_0")  # enum pl_kv_dtype

# The structs of pyllama.h; the sizes are compared below.
OP = np.dtype([("kind", "i4"), ("domain", "i4"), ("barrier", "i4"), ("layer", "i4"), ("window", "i4"), ("n_out", "i4"),
               ("out", "i4", 3), ("in", "i4", 2), ("weight", "i4", 3), ("bias", "i4", 3),
               ("vector", "i4"), ("value", "f4")])
BUFFER = np.dtype([("offset", "i8"), ("width", "i4"), ("act", "i4"), ("domain", "i4"), ("is_private", "i4")])
MATRIX = np.dtype([("offset", "i8"), ("panel_bytes", "i8"), ("n_rows", "i4"), ("n_cols", "i4"),
                   ("format", "i4"), ("unused", "i4")])
LOAD = np.dtype([("offset", "i8"), ("fd", "i4"), ("source", "i4"), ("rope_head", "i4"), ("rope_dim", "i4")])
PROFILE = np.dtype([("seconds", "f8"), ("rows", "i8"), ("runs", "i8")])
LOGPROB = np.dtype([("logprob", "f4"), ("token", "i4"), ("rank", "i4")])
SAMPLING = np.dtype([("seed", "u8"), ("counter", "u8"), ("tokens", "u8"), ("bias_token", "u8"), ("bias", "u8"),
                     ("allowed", "u8", 2), ("logprobs", "u8"), ("temperature", "f4"), ("top_p", "f4"),
                     ("min_p", "f4"), ("typical_p", "f4"), ("repetition", "f4"), ("frequency", "f4"),
                     ("presence", "f4"), ("top_k", "i4"), ("n_prompt", "i4"), ("last_n", "i4"), ("n_bias", "i4"),
                     ("n_logprobs", "i4"), ("min_tokens", "i4"), ("target", "i4")])
if [record.itemsize for record in (OP, BUFFER, MATRIX, LOAD, SAMPLING, LOGPROB, PROFILE)] != [
        sizeof(pl_op), sizeof(pl_buffer), sizeof(pl_matrix), sizeof(pl_load), sizeof(pl_sampling), sizeof(pl_logprob),
        sizeof(pl_profile)]:
    raise ImportError("pyllama._core: the records of _core.pyx and pyllama.h differ")


def levels():
    """The ISA levels of this build, ascending, as (name, does this CPU run it)."""
    cdef int i = 0, runs = 0
    cdef const pl_kernels *k = pl_kernels_at(0, &runs)
    found = []
    while k != NULL:
        found.append((k.name.decode(), bool(runs)))
        i += 1
        k = pl_kernels_at(i, &runs)
    return found


def uniform(uint64_t seed, uint64_t counter):
    """The draw of a (seed, counter) pair in [0, 1)."""
    return pl_uniform(seed, counter)


def act_bytes(int act, int k):
    """Bytes per token of an activation row of k values."""
    return pl_act_bytes(<pl_act>act, k)


def kv_bytes(int dtype, int dim):
    """Bytes of the keys of a KV block with head_dim `dim`, or of the values with that rounded up to 16."""
    return pl_kv_bytes(<pl_kv_dtype>dtype, dim)


cdef class Kernels:
    """The kernel table of one ISA level; the best this CPU runs, or the one named."""
    cdef const pl_kernels *p
    cdef readonly str name
    cdef readonly int lanes
    cdef readonly dict formats

    def __init__(self, name=None):
        cdef bytes raw = b"" if name is None else name.encode()
        self.p = pl_kernels_find(NULL if name is None else <const char *>raw)
        if self.p == NULL:
            able = ", ".join(level for level, runs in levels() if runs)
            raise ValueError(f"PYLLAMA_ISA: expected one of {able} on this CPU, found {name!r}")
        self.name = self.p.name.decode()
        self.lanes = self.p.vl
        self.formats = {}
        cdef int i = 0
        while self.p.formats[i] != NULL:
            self.formats[self.p.formats[i].name.decode()] = i
            i += 1

    def act(self, int fmt):
        """What activations of format `fmt` become: an index of ACTS."""
        return <int>self.p.formats[fmt].act

    def block(self, int fmt):
        """Weights per block of the file."""
        return self.p.formats[fmt].block

    def panel_bytes(self, int fmt, int n_cols):
        """Bytes of one packed panel."""
        return self.p.formats[fmt].panel_bytes(n_cols)

    def scratch_bytes(self):
        """What a thread wants for expanded panels: half of its L2, or 0 if no format of the level has them."""
        cdef int i = 0
        while self.p.formats[i] != NULL and self.p.formats[i].expanded == NULL:
            i += 1
        return 0 if self.p.formats[i] == NULL else pl_cache_bytes(2) // 2

    def dequantize(self, int fmt, const unsigned char[::1] row):
        """float32 values of whole blocks as they lie in a file."""
        cdef int k = <int>(row.shape[0] // self.p.formats[fmt].block_bytes) * self.p.formats[fmt].block
        values = np.empty(k, np.float32)
        self.p.formats[fmt].dequantize(<float *>address(values), &row[0], k)
        return values

    def sample(self, float[::1] logits, params):
        """One row's token, or NO_TOKEN; params: a SAMPLING record array of length 1."""
        cdef const unsigned char[::1] raw = params.view(np.uint8)
        cdef float[::1] scratch = np.empty(PL_SAMPLE_SCRATCH * logits.shape[0], np.float32)
        cdef int token
        with nogil:
            token = pl_sample(self.p, &logits[0], <int>logits.shape[0], <const pl_sampling *>&raw[0], &scratch[0])
        return token


    def adjust(self, const float[::1] logits, params):
        """The logits that a token is drawn from; params: a SAMPLING record array of length 1."""
        cdef const unsigned char[::1] raw = params.view(np.uint8)
        cdef float[::1] scratch = np.empty(2 * logits.shape[0], np.float32)
        cdef const float *x = pl_adjust(&logits[0], <int>logits.shape[0], <const pl_sampling *>&raw[0], &scratch[0])
        return np.array(logits if x == &logits[0] else scratch[:logits.shape[0]])


cdef void call_python(void *arg) noexcept with gil:
    try:
        (<object>arg)()
    except BaseException:
        import logging
        logging.getLogger("pyllama").exception("the engine thread failed")


cdef class Team:
    """The threads. Everything but `enter` belongs inside the function that `enter` runs."""
    cdef pl_team *p

    def __cinit__(self, int n_threads):
        self.p = pl_team_new(n_threads)
        if self.p == NULL:
            raise MemoryError("pyllama: no memory for the thread team")

    def __dealloc__(self):
        pl_team_free(self.p)

    def enter(self, main):
        """Runs main() on the calling thread, with the other members parked beside it."""
        cdef void *arg = <void *>main
        with nogil:
            pl_team_enter(self.p, call_python, arg)

    @property
    def size(self):
        return pl_team_size(self.p)


cdef class Memory:
    """n zero bytes at a 2 MiB boundary, given back by close()."""
    cdef char *p
    cdef readonly size_t size

    def __cinit__(self, size_t size, bint hugepages=True):
        self.size = size
        self.p = <char *>pl_map(size, hugepages)
        if self.p == NULL:
            raise MemoryError(f"pyllama: cannot map {size} bytes")

    def __dealloc__(self):
        self.close()

    def close(self):
        pl_unmap(self.p, self.size)
        self.p = NULL

    def lock(self):
        """Keeps the memory from being swapped out. Raises OSError."""
        cdef int error
        with nogil:
            error = pl_lock(self.p, self.size)
        if error:
            raise OSError(error, os.strerror(error))

    def view(self, size_t offset, size_t n):
        """A writable view of [offset, offset + n); do not keep it past close()."""
        if self.p == NULL or offset > self.size or n > self.size - offset:
            raise ValueError(f"pyllama: [{offset}, {offset + n}) is outside of {self.size} bytes")
        return PyMemoryView_FromMemory(self.p + offset, <Py_ssize_t>n, PyBUF_WRITE)

    def zero(self, size_t offset, size_t n):
        """Clears [offset, offset + n)."""
        if self.p == NULL or offset > self.size or n > self.size - offset:
            raise ValueError(f"pyllama: [{offset}, {offset + n}) is outside of {self.size} bytes")
        with nogil:
            memset(self.p + offset, 0, n)


cdef class Loading:
    """How far a load is; any thread may ask, and stop it."""
    cdef pl_loading p

    @property
    def done(self):
        """Bytes of files that are in memory."""
        return self.p.done

    def stop(self):
        """Makes a load return soon, or at once if it comes later."""
        self.p.stop = 1

    @property
    def stopped(self):
        return bool(self.p.stop)


def load_matrices(Team team, Kernels kernels, Memory arena, matrices, loads, Loading loading):
    """Packs the rows that the LOAD records `loads` tell of into `matrices`, as many MATRIX records.

    Returns "" or what went wrong, and with which of them."""
    cdef const unsigned char[::1] to = matrices.view(np.uint8), of = loads.view(np.uint8)
    cdef int n = len(matrices)
    cdef pl_status status
    with nogil:
        status = pl_load_matrices(team.p, kernels.p, arena.p, n, <const pl_matrix *>&to[0], <const pl_load *>&of[0],
                                  &loading.p)
    return {PL_OK: "", PL_CANCELLED: "stopped", PL_SHORT_READ: "the file ends early",
            PL_READ_ERROR: "a read failed", PL_NO_MEMORY: "no memory for staging"}[status], loading.p.failed


def peak(Team team, Kernels kernels, int act, double seconds):
    """Multiply-adds per second at best, with activations of this kind; inside Team.enter."""
    cdef double rate
    with nogil:
        rate = pl_peak(team.p, kernels.p, <pl_act>act, seconds)
    return rate


def l3_bytes():
    """Bytes of the cache that the cores share."""
    return pl_cache_bytes(3)


def bandwidth(Team team, Kernels kernels, Memory memory, double seconds):
    """Bytes per second at best, each member reading its part of `memory`; inside Team.enter."""
    cdef double rate
    if memory.p == NULL:
        raise ValueError("pyllama: the memory is closed")
    with nogil:
        rate = pl_bandwidth(team.p, kernels.p, memory.p, memory.size, seconds)
    return rate


cdef class Batch:
    """Rows for one forward: numpy arrays to be filled, and the flag that cancels it."""
    cdef pl_batch b
    cdef readonly object token, pos, seq, output, sampled, sampling, counter, block_table, scratch

    def __init__(self, int max_rows, int max_outputs, int max_seqs, int max_blocks, int vocab, int n_threads):
        self.token, self.pos, self.seq = (np.zeros(max_rows, np.int32) for _ in range(3))
        self.output, self.sampled = (np.zeros(max_outputs, np.int32) for _ in range(2))
        records = np.zeros(max_outputs, SAMPLING)
        self.sampling, self.counter = records.view(f"V{SAMPLING.itemsize}"), records["counter"]
        self.block_table = np.zeros((max_seqs, max_blocks), np.int32)
        self.scratch = np.empty(n_threads * PL_SAMPLE_SCRATCH * vocab, np.float32)
        self.b.token, self.b.pos, self.b.seq = <int32_t *>address(self.token), <int32_t *>address(self.pos), <int32_t *>address(self.seq)
        self.b.output, self.b.sampled = <int32_t *>address(self.output), <int32_t *>address(self.sampled)
        self.b.block_table = <int32_t *>address(self.block_table)
        self.b.sample_scratch = <float *>address(self.scratch)
        self.b.max_blocks = max_blocks

    def cancel(self, bint on=True):
        """From any thread: ends the forward under way, and those to come until cancel(False)."""
        pl_set_cancel(&self.b, on)

    @property
    def seconds(self):
        return self.b.seconds


cdef void *address(array) except NULL:
    return <void *><size_t>array.ctypes.data


cdef class Program:
    """A recorded Program with its workspace; `plan` is pyllama.program.Plan."""
    cdef pl_program p
    cdef object keep, profiled

    def __init__(self, Team team, Kernels kernels, Memory arena, Memory workspace, Memory kv, plan):
        self.keep = (team, kernels, arena, workspace, kv, plan)
        p = &self.p
        p.team, p.kernels, p.arena, p.workspace = team.p, kernels.p, arena.p, workspace.p
        p.ops, p.buffers = <pl_op *>address(plan.ops), <pl_buffer *>address(plan.buffers)
        p.matrices, p.vectors = <pl_matrix *>address(plan.matrices), <int64_t *>address(plan.vectors)
        p.inv_freq = <double *>address(plan.inv_freq)
        p.n_ops, p.head_op, p.n_threads = len(plan.ops), plan.head_op, plan.n_threads
        p.head_rows, p.private_rows = plan.head_rows, plan.private_rows
        p.scratch, p.scratch_bytes = workspace.p + <size_t>plan.scratch_offset, plan.scratch_bytes
        p.partial_offset, p.partial_bytes = plan.partial_offset, plan.partial_bytes
        p.weight_bytes, p.chunk_bytes = plan.weight_bytes, pl_cache_bytes(2) // 4
        p.n_layers, p.n_heads, p.n_kv_heads, p.head_dim = plan.n_layers, plan.n_heads, plan.n_kv_heads, plan.head_dim
        p.kv = pl_kv(kv.p, plan.kv.block_bytes, plan.kv.head_bytes, plan.kv.k_bytes, plan.kv.dtype, plan.kv.n_blocks)
        p.supply = <pl_supply *>(workspace.p + <size_t>plan.supply_offset)

    def profile(self, array):
        """From now on ops add what they take to array [n_ops] of PROFILE; None: no more. Nothing may run."""
        if array is not None and (array.dtype != PROFILE or len(array) != self.p.n_ops):
            raise ValueError(f"pyllama: expected {self.p.n_ops} of PROFILE")
        self.profiled = array
        self.p.profile = NULL if array is None else <pl_profile *>address(array)

    def run(self, Batch batch, int n, int m, bint sample, float[:, ::1] logits=None):
        """Runs n rows, m of them with logits; True unless it was cancelled."""
        cdef pl_status status
        batch.b.n, batch.b.m = n, m
        batch.b.sampling = <pl_sampling *>address(batch.sampling) if sample else NULL
        batch.b.logits = &logits[0, 0] if logits is not None and m > 0 else NULL
        with nogil:
            status = pl_run(&self.p, &batch.b)
        if status == PL_NO_MEMORY:
            raise MemoryError("pyllama: no memory for a forward")
        return status == PL_OK


SUPPLY_BYTES = sizeof(pl_supply)
