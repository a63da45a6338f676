/* Reads a task bundle: docs/formats.md, section 10. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "files.h"

#define MAX_ELEMENTS ((int64_t)1 << 36)
#define MAX_STEPS ((int64_t)1 << 40)
#define MAX_INTERVAL ((int64_t)1 << 20)
#define MAX_ROWS ((int64_t)1 << 36)
#define MAX_BATCH ((int64_t)1 << 28)

void die(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void must(gv_status status) {
    if (status != GV_OK) die("%s", gv_error());
}

void* allocate(size_t bytes) {
    void* memory = malloc(bytes ? bytes : 1);
    if (!memory) die("%zu bytes of memory are not to be had", bytes);
    return memory;
}

void to_hex(const uint8_t* bytes, size_t n, char* text) {
    for (size_t i = 0; i < n; i++) sprintf(text + 2 * i, "%02x", bytes[i]);
}

int from_hex(const char* text, size_t n, uint8_t* bytes) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 2 * n; i++) {
        const char* digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit) return 0;
        const uint8_t value = (uint8_t)(digit - digits);
        bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | value : value << 4);
    }
    return 1;
}

/* ---- groups */

group make_group(const gv_program* program, gv_group role) {
    group g = {gv_program_count(program, role), NULL, NULL, NULL};
    g.tensors = allocate(g.count * sizeof *g.tensors);
    g.roots = allocate(g.count * 32);
    g.bytes = allocate(g.count * sizeof *g.bytes);
    for (size_t i = 0; i < g.count; i++) {
        must(gv_program_tensor(program, role, i, &g.tensors[i]));
        g.bytes[i] = NULL;
    }
    return g;
}

void free_group(group* g) {
    for (size_t i = 0; i < g->count; i++) free(g->bytes[i]);
    free(g->tensors);
    free(g->roots);
    free(g->bytes);
}

static int64_t elements(const gv_tensor* t) {
    int64_t n = 1;
    for (int d = 0; d < t->rank; d++)
        if (t->shape[d] == 0) n = 0;
    for (int d = 0; d < t->rank; d++) {
        if (t->shape[d] > (n ? MAX_ELEMENTS / n : MAX_ELEMENTS)) die("%s: more than 2^36 elements", t->name);
        n *= t->shape[d];
    }
    return n;
}

/* Gives the tensors other shapes: `first` replaces the first dimension, or stands before all of them. */
static void stack(group* g, int64_t first, int replace) {
    static const size_t sizes[] = {4, 2, 2, 4, 4, 1, 1};
    for (size_t i = 0; i < g->count; i++) {
        gv_tensor* t = &g->tensors[i];
        const int rank = t->rank + !replace;
        if (rank > 8) die("%s: rank %d exceeds the limit of 8", t->name, rank);
        int64_t* shape = allocate((size_t)rank * sizeof *shape);
        shape[0] = first;
        for (int d = 1; d < rank; d++) shape[d] = t->shape[d - !replace];
        t->rank = rank;
        t->shape = shape; /* freed by close_task */
        t->bytes = (size_t)elements(t) * sizes[t->dtype];
    }
}

/* ---- the manifest: canonical JSON has one spelling, so it is read by stating it */

typedef struct {
    const char *where, *at;
} manifest;

static void expect(manifest* m, const char* text) {
    const size_t n = strlen(text);
    if (strncmp(m->at, text, n) != 0) die("%s/task.json: expected %s, found %.60s", m->where, text, m->at);
    m->at += n;
}

static int64_t integer(manifest* m, int64_t low, int64_t high) {
    char* end;
    const char* start = m->at;
    const int64_t value = strtoll(start, &end, 10);
    const int good = *start >= '0' && *start <= '9' && end - start <= 18 && (*start != '0' || end - start == 1);
    if (!good || value < low || value > high)
        die("%s/task.json: expected an integer from %" PRId64 " to %" PRId64 ", found %.30s", m->where, low, high,
            start);
    m->at = end;
    return value;
}

static void digest(manifest* m, uint8_t out[32]) {
    expect(m, "\"");
    if (!from_hex(m->at, 32, out)) die("%s/task.json: expected 32 bytes in hex, found %.70s", m->where, m->at);
    m->at += 64;
    expect(m, "\"");
}

/* {"name":"root",...}: the names of the group, in order. */
static void table(manifest* m, group* g) {
    expect(m, "{");
    for (size_t i = 0; i < g->count; i++) {
        expect(m, i ? ",\"" : "\"");
        expect(m, g->tensors[i].name);
        expect(m, "\":");
        digest(m, g->roots[i]);
    }
    expect(m, "}");
}

typedef struct {
    uint8_t bytes[256];
    size_t used;
} leaf;

static leaf make_leaf(const char* name, const void* value, size_t n) {
    leaf l = {{0}, 0};
    const size_t length = strlen(name);
    if (1 + length + n > sizeof l.bytes) die("leaf %s is too long", name);
    l.bytes[0] = (uint8_t)length;
    memcpy(l.bytes + 1, name, length);
    memcpy(l.bytes + 1 + length, value, n);
    l.used = 1 + length + n;
    return l;
}

static void big_endian(uint8_t* out, uint64_t x, int bytes) {
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(x >> 8 * (bytes - 1 - i));
}

static void task_digest(task* t, const uint8_t program[32], const char* policy, size_t policy_bytes) {
    uint8_t state[32], data[32], schedule[32], sampler[24], extent[16];
    must(gv_group_root(t->state.tensors, (const uint8_t (*)[32])t->state.roots, t->state.count, state));
    must(gv_group_root(t->data.tensors, (const uint8_t (*)[32])t->data.roots, t->data.count, data));
    must(gv_group_root(t->schedule.tensors, (const uint8_t (*)[32])t->schedule.roots, t->schedule.count, schedule));
    big_endian(sampler, t->seed[0], 4), big_endian(sampler + 4, t->seed[1], 4);
    big_endian(sampler + 8, (uint64_t)t->rows, 8), big_endian(sampler + 16, (uint64_t)t->batch, 8);
    big_endian(extent, t->steps, 8), big_endian(extent + 8, t->interval, 8);
    const leaf leaves[8] = {
        make_leaf("format", "gensyn_verify.task.1", 20),
        make_leaf("program", program, 32),
        make_leaf("state", state, 32),
        make_leaf("data", data, 32),
        make_leaf("sampler", sampler, 24),
        make_leaf("schedule", schedule, 32),
        make_leaf("extent", extent, 16),
        make_leaf("policy", policy, policy_bytes),
    };
    const void* pointers[8];
    size_t sizes[8];
    for (int i = 0; i < 8; i++) pointers[i] = leaves[i].bytes, sizes[i] = leaves[i].used;
    must(gv_merkle_root(pointers, sizes, 8, t->digest));
}

static void read_group(const char* folder, group* g) {
    for (size_t i = 0; i < g->count; i++) g->bytes[i] = read_tensor(folder, &g->tensors[i], g->roots[i]);
}

void open_task(const char* folder, task* t) {
    size_t size;
    uint8_t* program = read_file(folder, "", "program", 0, (size_t)1 << 28, &size);
    must(gv_program_load(program, size, &t->program));
    free(program);
    t->state = make_group(t->program, GV_STATE);
    t->data = make_group(t->program, GV_BATCH);
    t->schedule = make_group(t->program, GV_SCALAR);

    uint8_t stated[32], found[32];
    char* text = (char*)read_file(folder, "", "task.json", 0, (size_t)1 << 26, NULL);
    manifest m = {folder, text};
    expect(&m, "{\"data\":");
    table(&m, &t->data);
    expect(&m, ",\"format\":\"gensyn_verify.task\",\"interval\":");
    t->interval = (uint64_t)integer(&m, 1, MAX_INTERVAL);
    expect(&m, ",\"policy\":");
    const char* policy = m.at;
    int depth = 0; /* of the verifier's business nothing matters here; its bytes are in the digest */
    do {
        if (!*m.at) die("%s/task.json: ends within the policy", folder);
        depth += (*m.at == '{') - (*m.at == '}');
        m.at++;
    } while (depth > 0);
    const size_t policy_bytes = (size_t)(m.at - policy);
    expect(&m, ",\"program\":");
    digest(&m, stated);
    expect(&m, ",\"sampler\":[{\"batch\":"); /* a recorded task has an empty list: its runs carry their batches */
    t->batch = integer(&m, 1, MAX_BATCH);
    expect(&m, ",\"rows\":");
    t->rows = integer(&m, t->batch, MAX_ROWS);
    expect(&m, ",\"seed\":[");
    t->seed[0] = (uint32_t)integer(&m, 0, UINT32_MAX);
    expect(&m, ",");
    t->seed[1] = (uint32_t)integer(&m, 0, UINT32_MAX);
    expect(&m, "]}],\"schedule\":");
    table(&m, &t->schedule);
    expect(&m, ",\"state\":");
    table(&m, &t->state);
    expect(&m, ",\"steps\":");
    t->steps = (uint64_t)integer(&m, 1, MAX_STEPS);
    expect(&m, ",\"version\":1}");
    if (*m.at) die("%s/task.json: goes on after its end", folder);

    gv_program_digest(t->program, found);
    if (memcmp(stated, found, 32) != 0) die("%s: the manifest names another program", folder);
    for (size_t i = 0; i < t->data.count; i++)
        if (t->data.tensors[i].rank < 1 || t->data.tensors[i].shape[0] != t->batch)
            die("%s: batch input %s does not begin with the batch", folder, t->data.tensors[i].name);
    stack(&t->data, t->rows, 1);
    stack(&t->schedule, (int64_t)t->steps, 0);
    task_digest(t, found, policy, policy_bytes);
    free(text);
    read_group(folder, &t->state);
    read_group(folder, &t->data);
    read_group(folder, &t->schedule);
}

void close_task(task* t) {
    for (size_t i = 0; i < t->data.count; i++) free((void*)t->data.tensors[i].shape);
    for (size_t i = 0; i < t->schedule.count; i++) free((void*)t->schedule.tensors[i].shape);
    free_group(&t->state);
    free_group(&t->data);
    free_group(&t->schedule);
    gv_program_free(t->program);
}
