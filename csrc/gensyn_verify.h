/* gensyn_verify in C: load a program, run its steps, commit to them. For solvers without Python; C99.
 *
 * The code behind it is the code of the Python package, so the bits are the same: for any instruction set, any number
 * of threads, any machine. What a program is, and what every root and commitment is made of, is in docs/formats.md;
 * what the operations compute is in docs/numerics.md. examples/c/solve.c trains a task bundle with it.
 *
 * - Functions that can fail return a gv_status, and gv_error() says what was wrong. They leave their results untouched.
 * - Nothing that is loaded is trusted: a program is checked as a whole, and its memory is known, before any is taken.
 * - Tensors are passed as their bytes: row-major, little endian, without a header. Booleans are bytes 0 or 1.
 * - Different objects may be used by different threads at once. One object may not, except for reading.
 */
#ifndef GENSYN_VERIFY_H
#define GENSYN_VERIFY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GV_API __attribute__((visibility("default")))
#else
#define GV_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    GV_OK = 0,
    GV_INVALID = 1,  /* the bytes are no valid program, or an argument breaks a rule */
    GV_LIMIT = 2,    /* a size exceeds a limit of the format, or the memory limit */
    GV_NO_MEMORY = 3 /* the system gave no memory */
} gv_status;

/* What went wrong in this thread's last call that did not return GV_OK. Never null; holds until the next failure. */
GV_API const char* gv_error(void);

/* ---- machine: how to run, never what is computed. Both hold for the whole process. */

/* The instruction set in force: "avx512", "avx2", "neon" or "portable"; the best one unless gv_use_isa chose. */
GV_API const char* gv_isa(void);
GV_API gv_status gv_use_isa(const char* name);
/* Threads of a step; every processor unless gv_set_threads (or GENSYN_VERIFY_THREADS) says otherwise. */
GV_API int gv_threads(void);
GV_API gv_status gv_set_threads(int n);

/* ---- programs */

typedef struct gv_program gv_program;

typedef enum {
    GV_F32 = 0,
    GV_BF16 = 1,
    GV_F16 = 2,
    GV_I32 = 3,
    GV_U32 = 4,
    GV_U8 = 5,
    GV_BOOLEAN = 6,
    GV_I8 = 7
} gv_dtype;
typedef enum { GV_STATE = 0, GV_BATCH = 1, GV_SCALAR = 2, GV_METRIC = 3 } gv_group;

/* A named tensor of a program. `name` and `shape` belong to the program. */
typedef struct {
    const char* name;
    gv_dtype dtype;
    int rank; /* 0 to 8 */
    const int64_t* shape;
    size_t bytes;
    int constant; /* of a state tensor: no step changes it */
} gv_tensor;

/* Decodes and checks canonical bytes (docs/formats.md, section 2); they may be freed afterwards. */
GV_API gv_status gv_program_load(const void* bytes, size_t size, gv_program** program);
GV_API void gv_program_free(gv_program* program);
GV_API void gv_program_digest(const gv_program* program, uint8_t digest[32]);
/* How many tensors a group (a gv_group) has. Everywhere below, tensors of a group stand in the order of their names. */
GV_API size_t gv_program_count(const gv_program* program, int group);
GV_API gv_status gv_program_tensor(const gv_program* program, int group, size_t index, gv_tensor* tensor);

/* ---- running */

typedef struct gv_executor gv_executor;

/* An executor with memory of its own; the program may be freed. `memory_limit` in bytes is checked before anything is
 * allocated; -1 stands for nine tenths of the machine's memory. */
GV_API gv_status gv_executor_create(const gv_program* program, int64_t memory_limit, gv_executor** executor);
GV_API void gv_executor_free(gv_executor* executor);
/* Sets the whole state: state[i] are the bytes of state tensor i. */
GV_API gv_status gv_executor_load(gv_executor* executor, const void* const* state);
/* One step. `metrics` may be null, and so may any of its entries. GV_INVALID before gv_executor_load. */
GV_API gv_status gv_executor_step(gv_executor* executor, const void* const* batch, const void* const* scalars,
                                  void* const* metrics);
/* Copies state tensor `index` out. */
GV_API gv_status gv_executor_read(const gv_executor* executor, size_t index, void* bytes);
/* The tensor roots of the state, and the root over them; either may be null. A constant is hashed once. */
GV_API gv_status gv_executor_roots(gv_executor* executor, uint8_t (*tensor_roots)[32], uint8_t state_root[32]);

/* ---- commitments */

/* BLAKE3 of the bytes of a tensor, and keccak-256. */
GV_API void gv_tensor_root(const void* bytes, size_t size, uint8_t root[32]);
GV_API void gv_keccak256(const void* bytes, size_t size, uint8_t digest[32]);
/* The keccak tree over `count` leaves (section 3). */
GV_API gv_status gv_merkle_root(const void* const* leaves, const size_t* sizes, size_t count, uint8_t root[32]);
/* The root of a group of tensors (section 5), which stand in the order of their names. Only name, dtype, rank and shape
 * are read. */
GV_API gv_status gv_group_root(const gv_tensor* tensors, const uint8_t (*tensor_roots)[32], size_t count,
                               uint8_t root[32]);

/* The step entries of a run (section 6); it grows by 32 bytes whenever their number doubles. */
typedef struct gv_log gv_log;

GV_API gv_status gv_log_create(gv_log** log);
GV_API void gv_log_free(gv_log* log);
/* Appends the entry of the next step; steps count from 0. */
GV_API gv_status gv_log_append(gv_log* log, const uint8_t state_root[32], const uint8_t batch_root[32],
                               const uint8_t scalars_root[32]);
GV_API uint64_t gv_log_steps(const gv_log* log);
GV_API gv_status gv_log_root(const gv_log* log, uint8_t root[32]);
/* What binds the run to its task, to the solver's address and to a salt. */
GV_API gv_status gv_log_commitment(const gv_log* log, const uint8_t task[32], const uint8_t solver[20],
                                   const uint8_t salt[32], uint8_t commitment[32]);

/* ---- the order of batches (section 11) */

/* The row numbers of the batch of `step`, of `batch` of `rows` rows: 1 <= batch <= rows <= 2^36, batch <= 2^28. */
GV_API gv_status gv_sample(const uint32_t seed[2], int64_t rows, int64_t batch, uint64_t step, int64_t* out);

#ifdef __cplusplus
}
#endif

#endif
