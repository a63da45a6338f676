// Philox4x32-10 (Salmon et al. 2011) on several counters side by side.
#pragma once
#include <cstdint>

namespace {

// Counter i is (c0[i], c1[i], c2[i], c3[i]); the block under the key takes its place.
template <int64_t LANES>
inline void philox(uint32_t (&c0)[LANES], uint32_t (&c1)[LANES], uint32_t (&c2)[LANES], uint32_t (&c3)[LANES],
                   uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        for (int64_t i = 0; i < LANES; i++) {
            const uint64_t p0 = uint64_t(c0[i]) * 0xD2511F53u, p1 = uint64_t(c2[i]) * 0xCD9E8D57u;
            const uint32_t n0 = uint32_t(p1 >> 32) ^ c1[i] ^ k0, n2 = uint32_t(p0 >> 32) ^ c3[i] ^ k1;
            c0[i] = n0;
            c1[i] = uint32_t(p1);
            c2[i] = n2;
            c3[i] = uint32_t(p0);
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

}  // namespace
