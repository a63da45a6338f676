// BLAKE3 of many tensors at once: chunks of 1,024 bytes, a thread each, then parents, a launch a level. The tables are
// those of backends/device/hashing.py.
namespace gv {
struct HashParameters {
    long tensors;         // of HashTensor, `count` of them
    long nodes, parents;  // 8 words each
    long count;
    long total;  // nodes that this launch computes
};
struct HashTensor {
    long data;
    long bytes;
    long first;   // of its nodes in this level
    long nodes;   // in this level
    long parent;  // the first of its parents in the next
};

enum : uint { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };
enum { CHUNK = 1024, HASH_BLOCK = 64 };

inline uint rotated(uint x, uint n) { return x >> n | x << (32 - n); }

inline void stir(thread uint* v, int a, int b, int c, int d, uint x, uint y) {
    v[a] += v[b] + x, v[d] = rotated(v[d] ^ v[a], 16);
    v[c] += v[d], v[b] = rotated(v[b] ^ v[c], 12);
    v[a] += v[b] + y, v[d] = rotated(v[d] ^ v[a], 8);
    v[c] += v[d], v[b] = rotated(v[b] ^ v[c], 7);
}

inline void start(thread uint* cv) {
    cv[0] = 0x6A09E667u, cv[1] = 0xBB67AE85u, cv[2] = 0x3C6EF372u, cv[3] = 0xA54FF53Au;
    cv[4] = 0x510E527Fu, cv[5] = 0x9B05688Cu, cv[6] = 0x1F83D9ABu, cv[7] = 0x5BE0CD19u;
}

// cv becomes the chaining value of the block m.
inline void compress(thread uint* cv, thread const uint* block, ulong counter, uint length, uint flags) {
    uint v[16], m[16];
    start(v + 8);  // four words of it stay
    for (int i = 0; i < 8; i++) v[i] = cv[i];
    v[12] = uint(counter), v[13] = uint(counter >> 32), v[14] = length, v[15] = flags;
    for (int i = 0; i < 16; i++) m[i] = block[i];
    for (int round = 0; round < 7; round++) {
        stir(v, 0, 4, 8, 12, m[0], m[1]), stir(v, 1, 5, 9, 13, m[2], m[3]);
        stir(v, 2, 6, 10, 14, m[4], m[5]), stir(v, 3, 7, 11, 15, m[6], m[7]);
        stir(v, 0, 5, 10, 15, m[8], m[9]), stir(v, 1, 6, 11, 12, m[10], m[11]);
        stir(v, 2, 7, 8, 13, m[12], m[13]), stir(v, 3, 4, 9, 14, m[14], m[15]);
        const uint next[16] = {m[2], m[6],  m[3],  m[10], m[7], m[0],  m[4],  m[13],
                               m[1], m[11], m[12], m[5],  m[9], m[14], m[15], m[8]};
        for (int i = 0; i < 16; i++) m[i] = next[i];
    }
    for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

// The tensor that has node `node`: of this level, or, if `next`, of the next one.
inline HashTensor owner(device const HashTensor* tensors, long count, long node, bool next) {
    long low = 0, high = count - 1;
    while (low < high) {
        const long middle = (low + high + 1) / 2;
        if ((next ? tensors[middle].parent : tensors[middle].first) <= node)
            low = middle;
        else
            high = middle - 1;
    }
    return tensors[low];
}

// Up to 4 bytes of a tensor from `at` on, zeros after its end.
inline uint word(device const uchar* data, long at, long bytes, bool aligned) {
    if (aligned && at + 4 <= bytes) return *(device const uint*)(data + at);
    uint x = 0;
    for (long i = 0; i < 4 && at + i < bytes; i++) x |= uint(data[at + i]) << (8 * i);
    return x;
}
}  // namespace gv

// Chaining values of all chunks; of tensors with one chunk, the root.
GV_KERNEL(gv_blake3_chunks) {
    using namespace gv;
    constant HashParameters& p = *(constant HashParameters*)given;
    for (long node = GV_THREAD; node < p.total; node += GV_THREADS) {
        const HashTensor t = owner((device const HashTensor*)(arena + p.tensors), p.count, node, false);
        const long chunk = node - t.first, begin = chunk * CHUNK;
        const long end = begin + CHUNK < t.bytes ? begin + CHUNK : t.bytes;
        uint cv[8];
        start(cv);
        long at = begin;
        do {  // an empty tensor has one empty block
            uint m[16];
            for (int i = 0; i < 16; i++) m[i] = word(arena + t.data, at + 4 * i, end, t.data % 4 == 0);
            const bool last = at + HASH_BLOCK >= end;
            uint flags = at == begin ? uint(CHUNK_START) : 0;
            if (last) flags |= t.bytes <= CHUNK ? CHUNK_END | ROOT : uint(CHUNK_END);
            compress(cv, m, ulong(chunk), last ? uint(end - at) : uint(HASH_BLOCK), flags);
            at += HASH_BLOCK;
        } while (at < end);
        for (int i = 0; i < 8; i++) ((device uint*)(arena + p.nodes))[node * 8 + i] = cv[i];
    }
}

// The next level: parent number `node`, by the tensors' rows of this level.
GV_KERNEL(gv_blake3_parents) {
    using namespace gv;
    constant HashParameters& p = *(constant HashParameters*)given;
    for (long node = GV_THREAD; node < p.total; node += GV_THREADS) {
        const HashTensor t = owner((device const HashTensor*)(arena + p.tensors), p.count, node, true);
        const long pair = node - t.parent;
        device const uint* children = (device const uint*)(arena + p.nodes) + (t.first + 2 * pair) * 8;
        const bool alone = 2 * pair + 1 == t.nodes;
        uint cv[8], m[16];
        for (int i = 0; i < (alone ? 8 : 16); i++) m[i] = children[i];
        start(cv);
        if (!alone) compress(cv, m, 0, HASH_BLOCK, t.nodes == 2 ? PARENT | ROOT : uint(PARENT));
        for (int i = 0; i < 8; i++) ((device uint*)(arena + p.parents))[node * 8 + i] = alone ? m[i] : cv[i];
    }
}
