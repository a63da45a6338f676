// random: Philox4x32-10, counter = (e/4 low, e/4 high, stream, step), word e mod 4.
// No accumulation, so no order to keep. Definition: backends/reference.py, run_random.
#include "kernels.h"
#include "philox.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t LANES = 64, CHUNK = 1 << 14;  // blocks computed side by side; blocks a task

inline void philox_lanes(uint64_t first, const RandomArgs& r, uint32_t (*out)[4]) {
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        c0[i] = uint32_t(first + uint64_t(i));
        c1[i] = uint32_t((first + uint64_t(i)) >> 32);
        c2[i] = r.stream;
        c3[i] = *r.step;
    }
    philox(c0, c1, c2, c3, r.seed[0], r.seed[1]);
    for (int64_t i = 0; i < LANES; i++) {
        out[i][0] = c0[i];
        out[i][1] = c1[i];
        out[i][2] = c2[i];
        out[i][3] = c3[i];
    }
}

}  // namespace

void random(const RandomArgs& r) {
    const int64_t blocks = (r.count + 3) / 4;
    parallel_for((blocks + CHUNK - 1) / CHUNK, [&](int64_t task) {
        const int64_t last = task * CHUNK + CHUNK < blocks ? task * CHUNK + CHUNK : blocks;
        for (int64_t b = task * CHUNK; b < last; b += LANES) {
            uint32_t words[LANES][4];
            philox_lanes(uint64_t(b), r, words);
            const int64_t left = r.count - 4 * b, n = left < 4 * LANES ? left : 4 * LANES;
            for (int64_t i = 0; i < n; i++) r.out[4 * b + i] = words[i / 4][i % 4];
        }
    });
}

}  // namespace gv::GV_ISA
