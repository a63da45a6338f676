/* Task bundles and run bundles (docs/formats.md, sections 7 to 13) in local folders, for solve.c. */
#ifndef BUNDLE_H
#define BUNDLE_H

#include "gensyn_verify.h"

/* Prints the message and ends the process. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2), noreturn))
#endif
void die(const char* format, ...);
void must(gv_status status); /* dies of gv_error() unless GV_OK */
void* allocate(size_t bytes);

typedef struct {
    size_t count;
    gv_tensor* tensors; /* in the order of their names */
    uint8_t (*roots)[32];
    uint8_t** bytes;
} group;

/* What a run is a function of. Everything is checked against the manifest's digests. */
typedef struct {
    gv_program* program;
    uint8_t digest[32];
    group state, data, schedule; /* data [rows, ...], schedule [steps, ...] */
    uint32_t seed[2];
    int64_t rows, batch;
    uint64_t steps, interval;
} task;

void open_task(const char* folder, task* t);
void close_task(task* t);

group make_group(const gv_program* program, gv_group role);
void free_group(group* g);

/* A run bundle that is written step by step. */
typedef struct {
    const char* folder;
    const task* of;
    gv_log* log;
    uint8_t solver[20], salt[32];
    group metrics;    /* `bytes`: of the last step. A step log keeps those of rank 0 */
    uint8_t* records; /* of the open interval */
    size_t used, record_bytes;
} run;

void begin_run(run* r, const char* folder, const task* t, const uint8_t solver[20], const uint8_t salt[32]);
/* Appends the executor's last step; `batch` and `scalars` hold the tensor roots of what went in, `metrics` what came
 * out, `state` is memory for the state. When the interval is full, its checkpoint and its step log are written. */
void append_step(run* r, gv_executor* executor, group* state, const group* batch, const group* scalars);
void finish_run(run* r, uint8_t commitment[32]);

void to_hex(const uint8_t* bytes, size_t n, char* text);  /* 2 n characters and a zero */
int from_hex(const char* text, size_t n, uint8_t* bytes); /* exactly 2 n lower-case digits: 1, else 0 */

#endif
