#include "sampler.h"

#include <cmath>

#include "philox.h"

namespace gv {
namespace {

// A permutation of the numbers below a * b, which is at least `rows`.
struct Network {
    const uint32_t* seed;
    uint64_t epoch, a, b;

    uint64_t round(uint32_t i, uint64_t value) const {
        uint32_t c0[1] = {uint32_t(value)}, c1[1] = {(uint32_t(1) << 31) + i};
        uint32_t c2[1] = {uint32_t(epoch)}, c3[1] = {uint32_t(epoch >> 32)};
        philox(c0, c1, c2, c3, seed[0], seed[1]);
        return c0[0] | uint64_t(c1[0]) << 32;
    }
    uint64_t operator()(uint64_t x) const {
        uint64_t left = x / b, right = x % b;
        for (uint32_t i = 0; i < 10; i += 2) {
            left = (left + round(i, right) % a) % a;
            right = (right + round(i + 1, left) % b) % b;
        }
        return left * b + right;
    }
};

uint64_t root_above(uint64_t n) {  // the least r with r * r >= n
    uint64_t r = uint64_t(std::sqrt(double(n)));
    while (r * r >= n) r--;
    while (r * r < n) r++;
    return r;
}

}  // namespace

void sample(const Sampler& s, uint64_t step, int64_t* rows) {
    const uint64_t n = uint64_t(s.rows), steps = uint64_t(s.rows / s.batch);  // of an epoch
    const uint64_t a = root_above(n);
    const Network network{s.seed, step / steps, a, (n + a - 1) / a};
    for (int64_t i = 0; i < s.batch; i++) {
        uint64_t x = network(step % steps * uint64_t(s.batch) + uint64_t(i));
        while (x >= n) x = network(x);
        rows[i] = int64_t(x);
    }
}

}  // namespace gv
