// BLAKE3 with its tree. Chunks of 1024 bytes give chaining values (level 0); parents pair neighbours level by level,
// an odd last node moves up unchanged, which is the same tree as "the left side holds the largest power of two".
// Many chunks, or many parents, are hashed side by side, one a vector lane. One group of lanes is bound by latency on
// wide machines, so AVX-512 takes two at a time. Source: the BLAKE3 paper, sections 2.1 to 2.6 and 5.3. Definition:
// gensyn_verify/commit/blake3.py.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels.h"
#include "threads.h"

#define GV_INLINE inline __attribute__((always_inline))

namespace gv::GV_ISA {

namespace {

constexpr uint32_t IV[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                            0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
constexpr uint32_t CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8;
constexpr size_t CHUNK = 1024, BLOCK = 64, CV = 32;

// The word of the block that round r reads in place i: the permutation of the paper, applied r times.
struct Schedule {
    int word[7][16];
    constexpr Schedule() : word() {
        constexpr int permutation[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
        for (int i = 0; i < 16; i++) word[0][i] = i;
        for (int r = 1; r < 7; r++)
            for (int i = 0; i < 16; i++) word[r][i] = word[r - 1][permutation[i]];
    }
};
constexpr Schedule SCHEDULE;

template <int L>
struct LanesOf {
    typedef uint32_t type __attribute__((vector_size(4 * L)));
};
template <int L>
using Lanes = typename LanesOf<L>::type;

template <int N, class V, size_t... I>
GV_INLINE V rotate_bytes(V x, std::index_sequence<I...>) {
    typedef uint8_t Bytes __attribute__((vector_size(sizeof(V))));
    return (V)__builtin_shufflevector((Bytes)x, (Bytes)x, int(I / 4 * 4 + (I + N / 8) % 4)...);
}

// AVX-512 rotates in one instruction, which compilers make of the shifts; elsewhere whole bytes are cheaper to shuffle.
template <int N, class V>
GV_INLINE V rotate(V x) {
#if (defined(__AVX2__) && !defined(__AVX512VL__)) || defined(__aarch64__)
    if constexpr (N % 8 == 0) return rotate_bytes<N>(x, std::make_index_sequence<sizeof(V)>());
#endif
    return x >> N | x << (32 - N);
}

// ---- one block ----

typedef Lanes<4> Row;

template <int by>
GV_INLINE Row turn(Row x) {
    return __builtin_shufflevector(x, x, by, (by + 1) % 4, (by + 2) % 4, (by + 3) % 4);
}

GV_INLINE void mix(Row& a, Row& b, Row& c, Row& d, Row x, Row y) {
    a = (a + x) + b, d = rotate<16>(d ^ a), c += d, b = rotate<12>(b ^ c);
    a = (a + y) + b, d = rotate<8>(d ^ a), c += d, b = rotate<7>(b ^ c);
}

// The four rows of the state are vectors. For the diagonals all rows turn but b, which is the last to be ready.
void compress(uint32_t cv[8], const uint8_t* block, uint32_t length, uint64_t counter, uint32_t flags) {
    uint32_t m[16];
    std::memcpy(m, block, BLOCK);
    Row a, b, c = {IV[0], IV[1], IV[2], IV[3]}, d = {uint32_t(counter), uint32_t(counter >> 32), length, flags};
    std::memcpy(&a, cv, 16);
    std::memcpy(&b, cv + 4, 16);
#pragma GCC unroll 7
    for (int r = 0; r < 7; r++) {
        const int* s = SCHEDULE.word[r];
        mix(a, b, c, d, Row{m[s[0]], m[s[2]], m[s[4]], m[s[6]]}, Row{m[s[1]], m[s[3]], m[s[5]], m[s[7]]});
        a = turn<3>(a), c = turn<1>(c), d = turn<2>(d);
        mix(a, b, c, d, Row{m[s[14]], m[s[8]], m[s[10]], m[s[12]]}, Row{m[s[15]], m[s[9]], m[s[11]], m[s[13]]});
        a = turn<1>(a), c = turn<3>(c), d = turn<2>(d);
    }
    a ^= c, b ^= d;
    std::memcpy(cv, &a, 16);
    std::memcpy(cv + 4, &b, 16);
}

// Any chunk, the short last one included.
void hash_chunk(const uint8_t* p, size_t n, uint64_t counter, uint32_t extra, uint8_t* out) {
    uint32_t cv[8];
    std::memcpy(cv, IV, CV);
    uint32_t flags = CHUNK_START;
    for (; n > BLOCK; p += BLOCK, n -= BLOCK, flags = 0) compress(cv, p, BLOCK, counter, flags);
    uint8_t last[BLOCK] = {};
    if (n) std::memcpy(last, p, n);
    compress(cv, last, uint32_t(n), counter, flags | CHUNK_END | extra);
    std::memcpy(out, cv, CV);
}

void hash_parent(const uint8_t* pair, uint32_t extra, uint8_t* out) {
    uint32_t cv[8];
    std::memcpy(cv, IV, CV);
    compress(cv, pair, BLOCK, 0, PARENT | extra);
    std::memcpy(out, cv, CV);
}

void hash_one_chunk(const uint8_t* p, size_t, uint64_t counter, uint8_t* out) { hash_chunk(p, CHUNK, counter, 0, out); }
void hash_one_parent(const uint8_t* p, size_t, uint64_t, uint8_t* out) { hash_parent(p, 0, out); }

// ---- one block a lane ----

// Where lane i of a shuffle of two vectors of L lanes comes from: the halves of 128-bit quarters that hold Q lanes
// interleaved, or whole quarters.
template <int L, int Q>
constexpr int low_half(int i) {
    return i % 2 * L + i / Q * Q + i % Q / 2;
}
template <int L, int Q>
constexpr int high_half(int i) {
    return low_half<L, Q>(i) + Q / 2;
}
template <int L>
constexpr int even_quarters(int i) {
    return i / 4 * 8 + i % 4;
}
template <int L>
constexpr int odd_quarters(int i) {
    return even_quarters<L>(i) + 4;
}

template <int From(int), class V, size_t... I>
GV_INLINE V pick(V a, V b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, From(int(I))...);
}

// a0 b0 a1 b1 in every quarter, and a2 b2 a3 b3.
template <int L>
GV_INLINE void interleave_words(Lanes<L> a, Lanes<L> b, Lanes<L>& low, Lanes<L>& high) {
    constexpr auto all = std::make_index_sequence<L>();
    low = pick<low_half<L, 4>>(a, b, all), high = pick<high_half<L, 4>>(a, b, all);
}

// a0 a1 b0 b1 in every quarter, and a2 a3 b2 b3; as 64-bit lanes, or gcc 12 takes an indexed permutation.
template <int L>
GV_INLINE void interleave_pairs(Lanes<L> a, Lanes<L> b, Lanes<L>& low, Lanes<L>& high) {
    typedef uint64_t Pairs __attribute__((vector_size(4 * L)));
    constexpr auto all = std::make_index_sequence<L / 2>();
    low = (Lanes<L>)pick<low_half<L / 2, 2>>((Pairs)a, (Pairs)b, all);
    high = (Lanes<L>)pick<high_half<L / 2, 2>>((Pairs)a, (Pairs)b, all);
}

template <int L, int distance>
GV_INLINE void exchange_quarters(Lanes<L>* r) {
    constexpr auto all = std::make_index_sequence<L>();
#pragma GCC unroll 8
    for (int j = 0; j < L / 2; j++) {
        Lanes<L>* const first = r + j / distance * 2 * distance + j % distance;
        const Lanes<L> a = first[0], b = first[distance];
        first[0] = pick<even_quarters<L>>(a, b, all);
        first[distance] = pick<odd_quarters<L>>(a, b, all);
    }
}

// r[i][j] <-> r[j][i] for L vectors of L lanes.
template <int L>
GV_INLINE void transpose(Lanes<L>* r) {
    Lanes<L> t[L];
#pragma GCC unroll 8
    for (int i = 0; i < L; i += 2) interleave_words<L>(r[i], r[i + 1], t[i], t[i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < L; i += 4) {
        interleave_pairs<L>(t[i], t[i + 2], r[i], r[i + 1]);
        interleave_pairs<L>(t[i + 1], t[i + 3], r[i + 2], r[i + 3]);
    }
    if constexpr (L > 4) exchange_quarters<L, 4>(r);
    if constexpr (L > 8) exchange_quarters<L, 8>(r);
}

// Half a round on all groups: `half` 0 mixes the columns of the 4 x 4 state, 1 its diagonals. The steps of the four
// quarters and the groups stand side by side because they do not depend on each other.
template <int L, int G, int R, int half>
GV_INLINE void half_round(Lanes<L> (&v)[G][16], const Lanes<L> (&m)[G][16]) {
#define GV_ALL _Pragma("GCC unroll 2") for (int g = 0; g < G; g++) _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
#define GV_A v[g][i]
#define GV_B v[g][4 + (i + half) % 4]
#define GV_C v[g][8 + (i + 2 * half) % 4]
#define GV_D v[g][12 + (i + 3 * half) % 4]
    constexpr const int* word = SCHEDULE.word[R] + 8 * half;
    GV_ALL GV_A = (GV_A + m[g][word[2 * i]]) + GV_B;
    GV_ALL GV_D = rotate<16>(GV_D ^ GV_A);
    GV_ALL GV_C += GV_D;
    GV_ALL GV_B = rotate<12>(GV_B ^ GV_C);
    GV_ALL GV_A = (GV_A + m[g][word[2 * i + 1]]) + GV_B;
    GV_ALL GV_D = rotate<8>(GV_D ^ GV_A);
    GV_ALL GV_C += GV_D;
    GV_ALL GV_B = rotate<7>(GV_B ^ GV_C);
#undef GV_ALL
#undef GV_A
#undef GV_B
#undef GV_C
#undef GV_D
}

template <int L, int G, int... R>
GV_INLINE void rounds(Lanes<L> (&v)[G][16], const Lanes<L> (&m)[G][16], std::integer_sequence<int, R...>) {
    ((half_round<L, G, R, 0>(v, m), half_round<L, G, R, 1>(v, m)), ...);
}

// G groups of L inputs at p, p + stride ...; unless `full`, inputs past `count` repeat the last and their results are
// not stored. A chunk is 16 blocks under its number as counter, a parent one block under counter 0.
//
// The hardware does not follow as many streams as there are lanes, so the same block of the next group is fetched; into
// the second cache, because blocks 1024 bytes apart share few sets of the first.
template <int L, int G, bool parents, bool full>
void hash_lanes(const uint8_t* p, size_t count, uint64_t counter, uint8_t* out) {
    typedef Lanes<L> V;
    constexpr size_t stride = parents ? BLOCK : CHUNK, ahead = G * L * stride;
    constexpr int blocks = parents ? 1 : 16;
    V h[G][8], low[G], high[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; g++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) h[g][i] = V{} + IV[i];
        for (int i = 0; i < L; i++) {
            const uint64_t c = parents ? 0 : counter + uint64_t(g * L + i);
            low[g][i] = uint32_t(c), high[g][i] = uint32_t(c >> 32);
        }
    }
    for (int b = 0; b < blocks; b++) {
        V m[G][16];
#pragma GCC unroll 2
        for (int g = 0; g < G; g++) {
#pragma GCC unroll 16
            for (int i = 0; i < L; i++) {
                const size_t lane = full ? g * L + i : std::min<size_t>(g * L + i, count - 1);
                const uint8_t* block = p + lane * stride + b * BLOCK;
#pragma GCC unroll 4
                for (int q = 0; q < 16 / L; q++) std::memcpy(&m[g][q * L + i], block + q * sizeof(V), sizeof(V));
                if (!parents) __builtin_prefetch(reinterpret_cast<const void*>(uintptr_t(block) + ahead), 0, 2);
            }
#pragma GCC unroll 4
            for (int q = 0; q < 16 / L; q++) transpose<L>(&m[g][q * L]);
        }
        const uint32_t flags = parents ? PARENT : (b == 0 ? CHUNK_START : 0) | (b == blocks - 1 ? CHUNK_END : 0);
        V v[G][16];
#pragma GCC unroll 2
        for (int g = 0; g < G; g++) {
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) v[g][i] = h[g][i];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) v[g][8 + i] = V{} + IV[i];
            v[g][12] = low[g], v[g][13] = high[g], v[g][14] = V{} + uint32_t(BLOCK), v[g][15] = V{} + flags;
        }
        rounds<L, G>(v, m, std::make_integer_sequence<int, 7>());
#pragma GCC unroll 2
        for (int g = 0; g < G; g++)
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) h[g][i] = v[g][i] ^ v[g][i + 8];
    }
    uint8_t* const end = out + count * CV;
#pragma GCC unroll 2
    for (int g = 0; g < G; g++) {
        V rows[L < 8 ? 8 : L];
#pragma GCC unroll 16
        for (int i = 0; i < (L < 8 ? 8 : L); i++) rows[i] = h[g][i % 8];
#pragma GCC unroll 2
        for (int q = 0; q < (L < 8 ? 8 / L : 1); q++) transpose<L>(rows + q * L);
#pragma GCC unroll 16
        for (int i = 0; i < L && (full || out < end); i++, out += CV)
#pragma GCC unroll 2
            for (int q = 0; q < (L < 8 ? 8 / L : 1); q++)
                std::memcpy(out + q * sizeof(V), &rows[q * L + i], std::min(CV, sizeof(V)));
    }
}

// ---- many ----

// `count` full chunks from number `counter` on, or parents of 64-byte pairs; `out` may be `p` itself for parents, as
// results never overtake the pairs still to be read.
template <bool parents>
void hash_many(const uint8_t* p, size_t count, uint64_t counter, uint8_t* out) {
    constexpr size_t stride = parents ? BLOCK : CHUNK;
    const auto take = [&](size_t n, auto hash) {
        hash(p, n, counter, out);
        p += n * stride, out += n * CV, counter += n, count -= n;
    };
#if defined(GV_ISA_avx512)
    while (count >= 32) take(32, hash_lanes<16, 2, parents, true>);
    if (count >= 16) take(16, hash_lanes<16, 1, parents, true>);
    if (count > 8) take(count, hash_lanes<16, 1, parents, false>);
#endif
#if defined(GV_ISA_avx512) || defined(GV_ISA_avx2)
    while (count >= 8) take(8, hash_lanes<8, 1, parents, true>);
    if (count > 4) take(count, hash_lanes<8, 1, parents, false>);
#endif
    while (count >= 4) take(4, hash_lanes<4, 1, parents, true>);
    if (count > 1) take(count, hash_lanes<4, 1, parents, false>);
    if (count == 1) take(1, parents ? hash_one_parent : hash_one_chunk);
}

// One level up from n > 1 chaining values; returns how many there are above.
size_t hash_level(const uint8_t* level, size_t n, uint8_t* above) {
    hash_many<true>(level, n / 2, 0, above);
    if (n & 1) std::memmove(above + n / 2 * CV, level + (n - 1) * CV, CV);
    return (n + 1) / 2;
}

// The chunk chaining values of n > 0 bytes that start at chunk `first`.
void hash_chunks(const uint8_t* data, size_t n, uint64_t first, uint8_t* out) {
    const size_t full = n / CHUNK;
    hash_many<false>(data, full, first, out);
    if (n % CHUNK) hash_chunk(data + full * CHUNK, n % CHUNK, first + full, 0, out + full * CV);
}

// ---- the tree ----

constexpr size_t SPAN = 256;       // chunks of a task, so that its part of the tree stays in the nearest cache
constexpr size_t WAVE = 256;       // tasks between two joins where the tree is not kept: 8 KiB of results
constexpr size_t MAX_HEIGHT = 64;  // levels above a wave

size_t chunks_of(size_t bytes) { return std::max<size_t>(1, (bytes + CHUNK - 1) / CHUNK); }

// Spans hash in parallel and write their own part of every level up to one node a span; few levels are left above.
void hash_keeping_tree(const uint8_t* data, size_t n, size_t chunks, uint8_t* tree) {
    parallel_for(int64_t((chunks + SPAN - 1) / SPAN), [&](int64_t span) {
        size_t at = size_t(span) * SPAN, bytes = std::min(SPAN * CHUNK, n - at * CHUNK), count = chunks_of(bytes);
        hash_chunks(data + at * CHUNK, bytes, at, tree + at * CV);
        uint8_t* level = tree;
        size_t width = chunks;
        for (size_t nodes = SPAN; nodes > 1 && width > 2; nodes /= 2) {
            uint8_t* const above = level + width * CV;
            count = hash_level(level + at * CV, count, above + at / 2 * CV);
            level = above, width = (width + 1) / 2, at /= 2;
        }
    });
    uint8_t* level = tree;
    size_t width = chunks;
    for (size_t nodes = SPAN; width > 2; nodes = std::max<size_t>(1, nodes / 2)) {
        if (nodes == 1) hash_level(level, width, level + width * CV);
        level += width * CV, width = (width + 1) / 2;
    }
    hash_parent(level, ROOT, level + 2 * CV);
}

// Chaining values of a span, halved until at most `down_to` are left; returns how many.
size_t hash_span(const uint8_t* data, size_t n, uint64_t first, size_t down_to, uint8_t* out) {
    uint8_t level[SPAN * CV];
    hash_chunks(data, n, first, level);
    size_t count = chunks_of(n);
    while (count > down_to) count = hash_level(level, count, level);
    std::memcpy(out, level, count * CV);
    return count;
}

// The tree's left edge is a stack, as many nodes high as the number of finished waves has ones. Nodes are merged only
// when more input follows, so that the last merge of all is the root's.
void hash_root(const uint8_t* data, size_t n, size_t chunks, uint8_t* root) {
    const size_t spans = (chunks + SPAN - 1) / SPAN, waves = (spans + WAVE - 1) / WAVE;
    uint8_t wave[WAVE * CV], stack[MAX_HEIGHT * CV];
    size_t height = 0;
    const auto merge = [&](uint32_t flags) {
        height--;
        uint8_t* const pair = stack + (height - 1) * CV;
        hash_parent(pair, flags, pair);
    };
    for (size_t w = 0; w < waves; w++) {
        size_t count = std::min(WAVE, spans - w * WAVE);
        if (spans == 1)
            count = hash_span(data, n, 0, 2, wave);
        else
            parallel_for(int64_t(count), [&](int64_t i) {
                const size_t first = (w * WAVE + size_t(i)) * SPAN, start = first * CHUNK;
                hash_span(data + start, std::min(SPAN * CHUNK, n - start), first, 1, wave + size_t(i) * CV);
            });
        while (count > (waves == 1 ? 2u : 1u)) count = hash_level(wave, count, wave);
        while (height > size_t(__builtin_popcountll(w))) merge(0);
        std::memcpy(stack + height * CV, wave, count * CV);
        height += count;
    }
    while (height > 2) merge(0);
    merge(ROOT);
    std::memcpy(root, stack, CV);
}

}  // namespace

void blake3(const Blake3Args& args) {
    const size_t chunks = chunks_of(args.n), last = blake3_tree_bytes(args.n) - CV;
    if (chunks == 1) {
        hash_chunk(args.data, args.n, 0, ROOT, args.root);
        if (args.tree) std::memcpy(args.tree, args.root, CV);
    } else if (args.tree) {
        hash_keeping_tree(args.data, args.n, chunks, args.tree);
        std::memcpy(args.root, args.tree + last, CV);
    } else {
        hash_root(args.data, args.n, chunks, args.root);
    }
}

}  // namespace gv::GV_ISA
