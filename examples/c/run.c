/* Writes a run bundle: docs/formats.md, sections 12 and 13. What it leaves is replayed by `gverify replay`. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "files.h"

static void big_endian(uint8_t* out, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(x >> 8 * (bytes - 1 - i));
}

void begin_run(run* r, const char* folder, const task* t, const uint8_t solver[20], const uint8_t salt[32]) {
    if (has_file(folder, "", "run.json")) die("%s holds a run already; choose another folder", folder);
    r->folder = folder;
    r->of = t;
    must(gv_log_create(&r->log));
    memcpy(r->solver, solver, 20);
    memcpy(r->salt, salt, 32);
    r->metrics = make_group(t->program, GV_METRIC);
    r->record_bytes = 32 * (t->state.count + t->data.count + t->schedule.count);
    for (size_t i = 0; i < r->metrics.count; i++) {
        r->metrics.bytes[i] = allocate(r->metrics.tensors[i].bytes);
        if (r->metrics.tensors[i].rank == 0) r->record_bytes += r->metrics.tensors[i].bytes;
    }
    r->records = allocate(t->interval * r->record_bytes);
    r->used = 0;

    char text[1024], task_hex[65], solver_hex[41], salt_hex[65];
    to_hex(t->digest, 32, task_hex);
    to_hex(solver, 20, solver_hex);
    to_hex(salt, 32, salt_hex);
    const int n = snprintf(text, sizeof text,
                           "{\"environment\":{\"backend\":\"c\",\"isa\":\"%s\",\"threads\":\"%d\"},"
                           "\"format\":\"gensyn_verify.run\",\"salt\":\"%s\",\"solver\":\"%s\",\"task\":\"%s\","
                           "\"version\":1}",
                           gv_isa(), gv_threads(), salt_hex, solver_hex, task_hex);
    write_file(folder, "", "run.json", text, (size_t)n, NULL, 0);
}

/* The checkpoint first, then the log that names it: whoever is stopped in between leaves a run that ends earlier. */
static void close_interval(run* r, gv_executor* executor, const group* state) {
    for (size_t i = 0; i < state->count; i++) {
        must(gv_executor_read(executor, i, state->bytes[i]));
        write_tensor(r->folder, &state->tensors[i], (const uint8_t*)state->roots[i], state->bytes[i]);
    }
    const uint64_t last = gv_log_steps(r->log) - 1, interval = last / r->of->interval;
    const uint64_t first = interval * r->of->interval;
    uint8_t head[44] = "gvsteps1";
    big_endian(head + 8, interval, 8);
    big_endian(head + 16, first, 8);
    big_endian(head + 24, last - first + 1, 4);
    big_endian(head + 28, r->of->state.count, 4);
    big_endian(head + 32, r->of->data.count, 4);
    big_endian(head + 36, r->of->schedule.count, 4);
    big_endian(head + 40, r->record_bytes - 32 * (r->of->state.count + r->of->data.count + r->of->schedule.count), 4);
    char name[40];
    snprintf(name, sizeof name, "%08" PRIu64 ".steps", interval);
    write_file(r->folder, "steps", name, head, sizeof head, r->records, r->used);
    r->used = 0;
}

static void record(run* r, const void* bytes, size_t n) {
    memcpy(r->records + r->used, bytes, n);
    r->used += n;
}

static void hash_group(const group* g, const gv_tensor* types, uint8_t root[32]) {
    must(gv_group_root(types, (const uint8_t (*)[32])g->roots, g->count, root));
}

void append_step(run* r, gv_executor* executor, group* state, const group* batch, const group* scalars) {
    uint8_t state_root[32], batch_root[32], scalars_root[32];
    must(gv_executor_roots(executor, state->roots, state_root));
    hash_group(batch, batch->tensors, batch_root);
    hash_group(scalars, scalars->tensors, scalars_root);
    must(gv_log_append(r->log, state_root, batch_root, scalars_root));
    record(r, state->roots, 32 * state->count);
    record(r, batch->roots, 32 * batch->count);
    record(r, scalars->roots, 32 * scalars->count);
    for (size_t i = 0; i < r->metrics.count; i++)
        if (r->metrics.tensors[i].rank == 0) record(r, r->metrics.bytes[i], r->metrics.tensors[i].bytes);
    const uint64_t done = gv_log_steps(r->log);
    if (done % r->of->interval == 0 || done == r->of->steps) close_interval(r, executor, state);
}

void finish_run(run* r, uint8_t commitment[32]) {
    uint8_t root[32];
    must(gv_log_root(r->log, root));
    must(gv_log_commitment(r->log, r->of->digest, r->solver, r->salt, commitment));
    char text[512], commitment_hex[65], root_hex[65];
    to_hex(commitment, 32, commitment_hex);
    to_hex(root, 32, root_hex);
    const int n = snprintf(text, sizeof text,
                           "{\"commitment\":\"%s\",\"format\":\"gensyn_verify.commitment\",\"root\":\"%s\","
                           "\"signature\":\"\",\"steps\":%" PRIu64 ",\"version\":1}",
                           commitment_hex, root_hex, gv_log_steps(r->log));
    write_file(r->folder, "", "commitment.json", text, (size_t)n, NULL, 0);
    gv_log_free(r->log);
    free_group(&r->metrics);
    free(r->records);
}
