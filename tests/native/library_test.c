/* The C library on programs of strangers: library_test PROGRAM... (files of canonical bytes).
 *
 * Every program runs some steps on every instruction set, with one thread and three, to the same state roots. Then
 * every truncation of its bytes and many changes of them are loaded: each is refused with a reason, or is another valid
 * program, which runs like the first. Sanitizers watch. Calls that break a rule return a status and leave no trace. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gensyn_verify.h"

#define MEMORY ((int64_t)1 << 22)

static long checks = 0, refused = 0, ran = 0;

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        checks++;                                                                           \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "FAILED line %d: %s (%s)\n", __LINE__, #condition, gv_error()); \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static uint32_t state_of_noise = 1;
static uint32_t noise(void) { return state_of_noise = state_of_noise * 1664525u + 1013904223u; }

typedef struct {
    size_t count;
    void** bytes;
    size_t* sizes;
} group;

/* Memory of exactly the tensors' sizes, with bytes that every dtype takes. */
static group make_group(const gv_program* program, gv_group which) {
    group g = {gv_program_count(program, which), NULL, NULL};
    g.bytes = malloc((g.count + 1) * sizeof *g.bytes);
    g.sizes = malloc((g.count + 1) * sizeof *g.sizes);
    for (size_t i = 0; i < g.count; i++) {
        gv_tensor t;
        CHECK(gv_program_tensor(program, which, i, &t) == GV_OK);
        g.sizes[i] = t.bytes;
        g.bytes[i] = t.bytes <= (size_t)MEMORY ? malloc(t.bytes + 1) : NULL;
        for (size_t b = 0; g.bytes[i] && b < t.bytes; b++)
            ((uint8_t*)g.bytes[i])[b] = (uint8_t)(t.dtype == GV_BOOLEAN ? b & 1 : b * 29 % 63);
    }
    return g;
}

static void free_group(group* g) {
    for (size_t i = 0; i < g->count; i++) free(g->bytes[i]);
    free(g->bytes);
    free(g->sizes);
}

/* Three steps; the state root and a keccak over the metrics. GV_LIMIT where they would take more than MEMORY. */
static gv_status run(const gv_program* program, uint8_t roots[64]) {
    gv_executor* executor = NULL;
    const gv_status status = gv_executor_create(program, MEMORY, &executor);
    if (status != GV_OK) {
        CHECK(status == GV_LIMIT && !executor);
        return status;
    }
    group state = make_group(program, GV_STATE), batch = make_group(program, GV_BATCH);
    group scalars = make_group(program, GV_SCALAR), metrics = make_group(program, GV_METRIC);
    CHECK(gv_executor_load(executor, (const void* const*)state.bytes) == GV_OK);
    for (int step = 0; step < 3; step++)
        CHECK(gv_executor_step(executor, (const void* const*)batch.bytes, (const void* const*)scalars.bytes,
                               metrics.bytes) == GV_OK);
    CHECK(gv_executor_roots(executor, NULL, roots) == GV_OK);
    memset(roots + 32, 0, 32);
    for (size_t i = 0; i < metrics.count; i++) {
        uint8_t digest[32];
        gv_keccak256(metrics.bytes[i], metrics.sizes[i], digest);
        for (int b = 0; b < 32; b++) roots[32 + b] = (uint8_t)(roots[32 + b] * 3 + digest[b]);
    }
    for (size_t i = 0; i < state.count; i++) CHECK(gv_executor_read(executor, i, state.bytes[i]) == GV_OK);
    CHECK(gv_executor_read(executor, state.count, &state) == GV_INVALID);
    free_group(&state), free_group(&batch), free_group(&scalars), free_group(&metrics);
    gv_executor_free(executor);
    return GV_OK;
}

static void runs_alike_everywhere(const gv_program* program) {
    static const char* const isas[] = {"avx512", "avx2", "neon", "portable"};
    uint8_t first[64], found[64];
    const gv_status status = run(program, first);
    for (int i = 0; i < 4; i++) {
        if (gv_use_isa(isas[i]) != GV_OK) continue;
        CHECK(strcmp(gv_isa(), isas[i]) == 0);
        for (int threads = 1; threads <= 3; threads += 2) {
            CHECK(gv_set_threads(threads) == GV_OK && gv_threads() == threads);
            CHECK(run(program, found) == status);
            CHECK(status != GV_OK || memcmp(first, found, 64) == 0);
        }
    }
}

/* Bytes in memory that ends with them. */
static gv_status load(const uint8_t* bytes, size_t n, gv_program** program) {
    uint8_t* copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    const gv_status status = gv_program_load(copy, n, program);
    free(copy);
    return status;
}

static void hostile(const uint8_t* bytes, size_t n) {
    uint8_t roots[64];
    gv_program* program = NULL;
    const gv_status status = load(bytes, n, &program);
    if (status != GV_OK) {
        refused++;
        CHECK((status == GV_INVALID || status == GV_LIMIT) && !program && *gv_error());
        return;
    }
    ran++;
    run(program, roots);
    gv_program_free(program);
}

static void mutations(const uint8_t* bytes, size_t n) {
    uint8_t* changed = malloc(n);
    for (size_t cut = 0; cut < n; cut++) hostile(bytes, cut);
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(changed, bytes, n);
            changed[at] ^= (uint8_t)(1 << bit);
            hostile(changed, n);
        }
    for (int round = 0; round < 4000; round++) {
        memcpy(changed, bytes, n);
        for (uint32_t k = 1 + noise() % 4; k > 0; k--)
            changed[8 + (noise() >> 8) % (n - 8)] = (uint8_t)(noise() % 3 ? noise() >> 24 : 255 * (noise() >> 31));
        hostile(changed, n);
    }
    free(changed);
}

static void broken_rules(const gv_program* program) {
    gv_program* other = NULL;
    gv_executor* executor = NULL;
    gv_tensor t;
    CHECK(gv_program_load(NULL, 0, &other) == GV_INVALID && !other);
    CHECK(gv_program_load("gvprog01", 8, &other) == GV_INVALID && !other);
    CHECK(gv_program_tensor(program, GV_STATE, 1000000, &t) == GV_INVALID);
    CHECK(gv_program_count(program, 7) == 0 && gv_program_count(program, -1) == 0);
    CHECK(gv_use_isa("abacus") == GV_INVALID && gv_use_isa(NULL) == GV_INVALID);
    CHECK(gv_set_threads(0) == GV_INVALID);
    CHECK(gv_executor_create(program, 1, &executor) == GV_LIMIT && !executor);
    CHECK(gv_executor_create(program, MEMORY, &executor) == GV_OK);
    if (gv_program_count(program, GV_STATE)) {
        uint8_t root[32];
        CHECK(gv_executor_step(executor, NULL, NULL, NULL) == GV_INVALID);
        CHECK(gv_executor_roots(executor, NULL, root) == GV_INVALID);
        CHECK(gv_executor_load(executor, NULL) == GV_INVALID);
    }
    gv_executor_free(executor);

    const uint32_t seed[2] = {1, 2};
    int64_t rows[4];
    CHECK(gv_sample(seed, 3, 4, 0, rows) == GV_INVALID && gv_sample(seed, 3, 0, 0, rows) == GV_INVALID);
    const int64_t shape[1] = {2};
    const gv_tensor twice[2] = {{"a", GV_F32, 1, shape, 8, 0}, {"a", GV_F32, 1, shape, 8, 0}};
    const uint8_t roots[2][32] = {{0}};
    uint8_t root[32];
    CHECK(gv_group_root(twice, roots, 2, root) == GV_INVALID && gv_group_root(twice, roots, 1, root) == GV_OK);
}

int main(int count, char** paths) {
    for (int i = 1; i < count; i++) {
        static uint8_t bytes[1 << 20];
        FILE* file = fopen(paths[i], "rb");
        if (!file) return fprintf(stderr, "%s cannot be opened\n", paths[i]), 1;
        const size_t n = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        gv_program* program = NULL;
        CHECK(load(bytes, n, &program) == GV_OK);
        runs_alike_everywhere(program);
        if (i == 1) broken_rules(program);
        gv_program_free(program);
        mutations(bytes, n);
    }
    printf("%ld checks, %ld programs refused, %ld ran\n", checks, refused, ran);
    return refused && ran ? 0 : 1;
}
