// BLAKE3 roots of many tensors in device memory at once: chunks of 1,024 bytes, a thread each, then parents, a launch a
// level. A level's odd last node moves up as it is, which is BLAKE3's tree for any length.
//
// A warp brings the same block of 64 bytes of its 32 chunks through shared memory, so that reads are whole sectors.
#include "device.h"

namespace gv {
namespace {

struct HashParameters {
    u64 tensors;         // of Tensor, `count` of them
    u64 nodes, parents;  // 8 words each
    i64 count;
    i64 total;  // nodes that this launch computes
    i64 one;    // 1: see `add`
};
struct Tensor {
    u64 data;
    i64 bytes;
    i64 first;   // of its nodes in this level
    i64 nodes;   // in this level
    i64 parent;  // the first of its parents in the next
};

constexpr u32 CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8;

__device__ __forceinline__ u32 rotate(u32 x, int n) { return __funnelshift_r(x, x, n); }

// Before Blackwell a multiprocessor has 64 lanes for integers, and its lanes for floats multiply integers as well. So
// sums are products with a one that no compiler knows: xor and rotation have the integer lanes to themselves.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 1000
__device__ __forceinline__ u32 add(u32 a, u32 b, u32 one) { return a * one + b; }
#else
__device__ __forceinline__ u32 add(u32 a, u32 b, u32) { return a + b; }
#endif

#define GV_G(a, b, c, d, x, y)                                                \
    v[a] = add(v[b], add(v[a], x, one), one), v[d] = rotate(v[d] ^ v[a], 16); \
    v[c] = add(v[d], v[c], one), v[b] = rotate(v[b] ^ v[c], 12);              \
    v[a] = add(v[b], add(v[a], y, one), one), v[d] = rotate(v[d] ^ v[a], 8);  \
    v[c] = add(v[d], v[c], one), v[b] = rotate(v[b] ^ v[c], 7);

// cv becomes the chaining value of the block m.
__device__ __forceinline__ void compress(u32 (&cv)[8], u32 (&m)[16], u64 counter, u32 length, u32 flags, u32 one) {
    u32 v[16] = {cv[0],  cv[1],       cv[2],       cv[3],       cv[4],       cv[5],        cv[6],
                 cv[7],  0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au, u32(counter), u32(counter >> 32),
                 length, flags};
#pragma unroll
    for (int round = 0; round < 7; round++) {
        GV_G(0, 4, 8, 12, m[0], m[1])
        GV_G(1, 5, 9, 13, m[2], m[3])
        GV_G(2, 6, 10, 14, m[4], m[5])
        GV_G(3, 7, 11, 15, m[6], m[7])
        GV_G(0, 5, 10, 15, m[8], m[9])
        GV_G(1, 6, 11, 12, m[10], m[11])
        GV_G(2, 7, 8, 13, m[12], m[13])
        GV_G(3, 4, 9, 14, m[14], m[15])
        const u32 t[16] = {m[2], m[6],  m[3],  m[10], m[7], m[0],  m[4],  m[13],
                           m[1], m[11], m[12], m[5],  m[9], m[14], m[15], m[8]};
#pragma unroll
        for (int i = 0; i < 16; i++) m[i] = t[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

__device__ __forceinline__ void start(u32 (&cv)[8]) {
    const u32 iv[8] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au,
                       0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u};
#pragma unroll
    for (int i = 0; i < 8; i++) cv[i] = iv[i];
}

// The tensor that has node `node`: of this level by its `first`, of the next by its `parent`.
template <i64 Tensor::* begin>
__device__ __forceinline__ const Tensor& owner(const HashParameters& p, i64 node) {
    const Tensor* const tensors = reinterpret_cast<const Tensor*>(p.tensors);
    i64 low = 0, high = p.count - 1;
    while (low < high) {
        const i64 middle = (low + high + 1) / 2;
        if (tensors[middle].*begin <= node)
            low = middle;
        else
            high = middle - 1;
    }
    return tensors[low];
}

// Up to 4 bytes from `at` of a tensor, zeros after its end.
__device__ __forceinline__ u32 word(const Tensor& t, i64 at) {
    if (at + 4 <= t.bytes && t.data % 4 == 0) return *reinterpret_cast<const u32*>(t.data + at);
    u32 x = 0;
    for (int i = 0; i < 4; i++)
        if (at + i < t.bytes) x |= u32(*reinterpret_cast<const u8*>(t.data + at + i)) << (8 * i);
    return x;
}

}  // namespace
}  // namespace gv

// Chaining values of all chunks; of tensors with one chunk, the root. Shared memory: 32 x 17 words a warp.
GV_KERNEL(gv_blake3_chunks, gv::HashParameters, 128, 1) {
    using namespace gv;
    GV_SHARED(u32, shared);
    const int lane = threadIdx.x % 32;
    u32* const staged = shared + threadIdx.x / 32 * (32 * 17);
    const i64 warps = thread_count() / 32;
#pragma unroll 1
    for (i64 warp = thread_index() / 32; warp * 32 < p.total; warp += warps) {
        const i64 node = warp * 32 + lane;
        const bool mine = node < p.total;
        const Tensor t = owner<&Tensor::first>(p, mine ? node : p.total - 1);
        const i64 chunk = mine ? node - t.first : 0;
        const i64 left = t.bytes - chunk * 1024;
        const int length = int(left < 1024 ? left : 1024);
        const int blocks = length <= 64 ? 1 : (length + 63) / 64;
        // Whether all chunks of the warp are whole ones of one tensor, as nearly all are.
        const Tensor& head = owner<&Tensor::first>(p, warp * 32);
        const u64 begin = head.data + u64(warp * 32 - head.first) * 1024;
        const bool whole = begin % 16 == 0 && (warp * 32 - head.first + 32) * 1024 <= head.bytes;
        u32 cv[8];
        start(cv);
        for (int block = 0; block < 16; block++) {
            if (whole) {  // 16 bytes a thread, 8 chunks at a time
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int other = i * 8 + lane / 4;
                    const uint4 v = *reinterpret_cast<const uint4*>(begin + other * 1024 + block * 64 + lane % 4 * 16);
                    u32* const to = staged + other * 17 + lane % 4 * 4;
                    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
                }
            } else {
                // Thread `lane` reads word lane % 16 of two chunks at a time.
                for (int other = 0; other < 32; other += 2) {
                    const int owner_lane = other + lane / 16;
                    const u64 data = __shfl_sync(0xFFFFFFFFu, t.data, owner_lane);
                    const i64 bytes = __shfl_sync(0xFFFFFFFFu, t.bytes, owner_lane);
                    const i64 from = __shfl_sync(0xFFFFFFFFu, chunk, owner_lane) * 1024 + block * 64 + lane % 16 * 4;
                    staged[owner_lane * 17 + lane % 16] = from < bytes ? word({data, bytes, 0, 0, 0}, from) : 0;
                }
            }
            __syncwarp();
            if (block < blocks) {
                u32 m[16];
#pragma unroll
                for (int i = 0; i < 16; i++) m[i] = staged[lane * 17 + i];
                const bool last = block == blocks - 1;
                const u32 flags =
                    (block == 0 ? CHUNK_START : 0) | (last ? CHUNK_END : 0) | (last && t.bytes <= 1024 ? ROOT : 0);
                compress(cv, m, u64(chunk), last ? u32(length - block * 64) : 64, flags, u32(p.one));
            }
            __syncwarp();
        }
        if (mine)
            for (int i = 0; i < 8; i++) reinterpret_cast<u32*>(p.nodes)[node * 8 + i] = cv[i];
    }
}

// The next level: node `n` of the parents, by the tensors' tables of this level.
GV_KERNEL(gv_blake3_parents, gv::HashParameters, 128, 1) {
    using namespace gv;
#pragma unroll 1
    for (i64 node = thread_index(); node < p.total; node += thread_count()) {
        const Tensor t = owner<&Tensor::parent>(p, node);
        const i64 pair = node - t.parent;
        const u32* const child = reinterpret_cast<const u32*>(p.nodes) + (t.first + 2 * pair) * 8;
        u32* const parent = reinterpret_cast<u32*>(p.parents) + node * 8;
        if (2 * pair + 1 == t.nodes) {
            for (int i = 0; i < 8; i++) parent[i] = child[i];
            continue;
        }
        u32 cv[8], m[16];
        start(cv);
#pragma unroll
        for (int i = 0; i < 16; i++) m[i] = child[i];
        compress(cv, m, 0, 64, PARENT | (t.nodes == 2 ? ROOT : 0), u32(p.one));
        for (int i = 0; i < 8; i++) parent[i] = cv[i];
    }
}
