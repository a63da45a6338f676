/* Solves a task without Python: trains it, step by step, and commits to every step.
 *
 *     python examples/digits.py                                    writes a task and a run of it
 *     cc -std=c99 -O2 -Icsrc examples/c/[a-z]*.c -Lbuild -lgensyn_verify -o solve
 *     ./solve TASK RUN --solver ADDRESS [--salt HEX] [--threads N] [--isa NAME]
 *     gverify replay RUN --task TASK
 *
 * The run commitment is the one that `gverify solve` reaches for the same task, address and salt: the commitment says
 * what was computed, and not by which program, on which machine, or by how many threads.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"

/* Copies the rows of the step's batch out of the data, and hashes them. */
static void take_batch(const task* t, uint64_t step, int64_t* rows, group* batch) {
    must(gv_sample(t->seed, t->rows, t->batch, step, rows));
    for (size_t i = 0; i < batch->count; i++) {
        const size_t row = batch->tensors[i].bytes / (size_t)t->batch;
        for (int64_t b = 0; b < t->batch; b++)
            memcpy(batch->bytes[i] + (size_t)b * row, t->data.bytes[i] + (size_t)rows[b] * row, row);
        gv_tensor_root(batch->bytes[i], batch->tensors[i].bytes, batch->roots[i]);
    }
}

static void take_scalars(const task* t, uint64_t step, group* scalars) {
    for (size_t i = 0; i < scalars->count; i++) {
        const size_t n = scalars->tensors[i].bytes;
        memcpy(scalars->bytes[i], t->schedule.bytes[i] + step * n, n);
        gv_tensor_root(scalars->bytes[i], n, scalars->roots[i]);
    }
}

/* A run whose loss is no number any more is worth nothing to anyone. */
static void check_finite(const group* metrics, uint64_t step) {
    for (size_t i = 0; i < metrics->count; i++)
        for (size_t at = 0; metrics->tensors[i].dtype == GV_F32 && at < metrics->tensors[i].bytes; at += 4) {
            uint32_t bits;
            memcpy(&bits, metrics->bytes[i] + at, 4);
            if ((bits & 0x7F800000) == 0x7F800000)
                die("metric %s is not finite at step %" PRIu64, metrics->tensors[i].name, step);
        }
}

static void report(const group* metrics, uint64_t done, uint64_t steps) {
    printf("step %" PRIu64 " of %" PRIu64, done, steps);
    for (size_t i = 0; i < metrics->count; i++) {
        float value;
        if (metrics->tensors[i].rank || metrics->tensors[i].dtype != GV_F32) continue;
        memcpy(&value, metrics->bytes[i], 4);
        printf("  %s %.6g", metrics->tensors[i].name, (double)value);
    }
    putchar('\n');
}

static group with_memory(const gv_program* program, gv_group role) {
    group g = make_group(program, role);
    for (size_t i = 0; i < g.count; i++) g.bytes[i] = allocate(g.tensors[i].bytes);
    return g;
}

static void train(const task* t, run* r) {
    gv_executor* executor;
    group state = with_memory(t->program, GV_STATE), batch = with_memory(t->program, GV_BATCH);
    group scalars = with_memory(t->program, GV_SCALAR);
    int64_t* rows = allocate((size_t)t->batch * sizeof *rows);
    must(gv_executor_create(t->program, -1, &executor));
    must(gv_executor_load(executor, (const void* const*)t->state.bytes));
    for (uint64_t step = 0; step < t->steps; step++) {
        take_batch(t, step, rows, &batch);
        take_scalars(t, step, &scalars);
        must(gv_executor_step(executor, (const void* const*)batch.bytes, (const void* const*)scalars.bytes,
                              (void* const*)r->metrics.bytes));
        check_finite(&r->metrics, step);
        append_step(r, executor, &state, &batch, &scalars);
        if ((step + 1) % t->interval == 0 || step + 1 == t->steps) report(&r->metrics, step + 1, t->steps);
    }
    gv_executor_free(executor);
    free(rows);
    free_group(&state);
    free_group(&batch);
    free_group(&scalars);
}

static void hex_argument(const char* name, const char* text, size_t n, uint8_t* out) {
    if (strncmp(text, "0x", 2) == 0) text += 2;
    if (strlen(text) != 2 * n || !from_hex(text, n, out)) die("%s: %zu bytes in lower-case hex expected", name, n);
}

static void random_salt(uint8_t salt[32]) {
    FILE* file = fopen("/dev/urandom", "rb");
    if (!file || fread(salt, 1, 32, file) != 32) die("/dev/urandom gives no salt; pass --salt");
    fclose(file);
}

int main(int count, char** arguments) {
    if (count < 3 || count % 2 == 0)
        die("usage: %s TASK RUN --solver ADDRESS [--salt HEX] [--threads N] [--isa NAME]", arguments[0]);
    uint8_t solver[20], salt[32], commitment[32];
    int has_solver = 0;
    random_salt(salt);
    for (int i = 3; i < count; i += 2) {
        const char *name = arguments[i], *value = arguments[i + 1];
        if (strcmp(name, "--solver") == 0)
            hex_argument(name, value, 20, solver), has_solver = 1;
        else if (strcmp(name, "--salt") == 0)
            hex_argument(name, value, 32, salt);
        else if (strcmp(name, "--threads") == 0)
            must(gv_set_threads(atoi(value)));
        else if (strcmp(name, "--isa") == 0)
            must(gv_use_isa(value));
        else
            die("%s is no option", name);
    }
    if (!has_solver) die("--solver is needed: the address that the commitment is bound to");

    task t;
    run r;
    open_task(arguments[1], &t);
    begin_run(&r, arguments[2], &t, solver, salt);
    train(&t, &r);
    finish_run(&r, commitment);
    close_task(&t);
    char hex[65];
    to_hex(commitment, 32, hex);
    printf("commitment %s\n", hex);
    return 0;
}
