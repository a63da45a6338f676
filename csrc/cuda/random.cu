// random: Philox4x32-10 (Salmon et al. 2011), four words a thread.
#include "device.h"

namespace gv {
namespace {
struct RandomParameters {
    u64 seed, step, out;       // two words, one word
    i64 stream, first, count;  // the first block of four words; words
};
}  // namespace
}  // namespace gv

GV_KERNEL(gv_random, gv::RandomParameters, 256, 1) {
    using namespace gv;
    const u32* const seed = reinterpret_cast<const u32*>(p.seed);
#pragma unroll 1
    for (i64 at = thread_index(); 4 * at < p.count; at += thread_count()) {
        const u64 block = u64(p.first + at);
        u32 c0 = u32(block), c1 = u32(block >> 32), c2 = u32(p.stream);
        u32 c3 = *reinterpret_cast<const u32*>(p.step), k0 = seed[0], k1 = seed[1];
        for (int round = 0; round < 10; round++) {
            const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
            const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
            c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        const u32 words[4] = {c0, c1, c2, c3};
        for (int i = 0; i < 4 && 4 * at + i < p.count; i++) reinterpret_cast<u32*>(p.out)[4 * at + i] = words[i];
    }
}
