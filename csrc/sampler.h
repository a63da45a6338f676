// The committed order of batches: docs/formats.md, section 11, and gensyn_verify/protocol/sampler.py, the definition.
#pragma once
#include <cstdint>

namespace gv {

constexpr int64_t MAX_SAMPLER_ROWS = int64_t(1) << 36, MAX_SAMPLER_BATCH = int64_t(1) << 28;

// Batches of `batch` of `rows` rows: 1 <= batch <= rows.
struct Sampler {
    uint32_t seed[2];
    int64_t rows, batch;
};

// The row numbers of the batch of `step`.
void sample(const Sampler& sampler, uint64_t step, int64_t* rows);

}  // namespace gv
