// dot: c[s, i, j] = sum over k of a[s, i, k] * b[s, k, j], in the order of docs/numerics.md, section 5.
//
// A threadgroup of 256 computes a tile of 64 x 64 of c, a thread 4 x 4 of it. STEP values of k of both operands lie in
// threadgroup memory. When a block of k ends, its chains are added to the totals. A chain is as long as its block of k:
// the last step is shorter, never padded.
//
// The guard. `gv_exponents` has found the least exponents of both operands. If they add to -80 or more, every product,
// and so every partial sum, is a multiple of the smallest normal number 2^-126: nothing is flushed. Otherwise the same
// loops run with every operation checked.
//
// i8 is multiplied into i32 by the same loops: exact sums modulo 2^32, in which nothing is flushed.
namespace gv {
enum { EDGE = 64, STEP = 16, ROW = EDGE + 4, THREADS = 256 };
struct DotParameters {
    long a, b, c;
    long batch, m, n, k;
    long a_batch_stride, b_batch_stride;  // elements; 0 reuses one matrix
    long a_dtype, b_dtype, c_dtype;
    long transpose_a, transpose_b;
    long flag;  // three words: risky; of a and of b 255 - the least exponent of a nonzero element, 0 if all are zero
};
struct ExponentParameters {
    long x, dtype;
    long matrices, count, stride;  // elements of a matrix, and from one to the next
    long least;                    // 255 - the least exponent
};
enum Arithmetic { FAST, CHECKED, INTEGER };
struct Tiles {
    uint a[STEP][ROW], b[STEP][ROW];
};

// One operand: rows (of b: columns) from `first` on and `steps` values of k from `at` on, as [k][row]. What lies
// outside of the matrix comes as 0, and is never used.
inline void fetch(threadgroup uint (&tile)[STEP][ROW], device const uchar* x, long dtype, bool along_k, long rows,
                  long k, long first, long at, int steps, uint me) {
    for (uint e = me; e < EDGE * STEP; e += THREADS) {
        const uint step = along_k ? e % STEP : e / EDGE, row = along_k ? e / STEP : e % EDGE;
        const bool inside = first + row < rows && int(step) < steps;
        const long place = along_k ? (first + row) * k + at + step : (at + step) * rows + first + row;
        tile[step][row] = inside ? load(x, place, dtype) : 0u;
    }
}

template <Arithmetic how>
inline uint chain(uint a, uint b, uint c, thread bool& risky) {
    if (how == INTEGER) return a * b + c;
    return how == CHECKED ? multiply_add(a, b, c, risky)
                          : as_type<uint>(fma(as_type<float>(a), as_type<float>(b), as_type<float>(c)));
}
template <Arithmetic how>
inline uint join(uint a, uint b, thread bool& risky) {
    if (how == INTEGER) return a + b;
    return how == CHECKED ? add(a, b, risky) : as_type<uint>(as_type<float>(a) + as_type<float>(b));
}

template <Arithmetic how>
inline void dot_tile(threadgroup Tiles& tiles, device uchar* arena, constant DotParameters& p, uint3 group, uint me) {
    const uint ty = me / 16, tx = me % 16;
    const long first_row = long(group.y) * EDGE, first_column = long(group.x) * EDGE, batch = group.z;
    device const uchar* a = arena + p.a + batch * p.a_batch_stride * bytes_of(p.a_dtype);
    device const uchar* b = arena + p.b + batch * p.b_batch_stride * bytes_of(p.b_dtype);
    const long blocks = p.k <= DOT_BLOCK ? 1 : (p.k + DOT_BLOCK / 2 - 1) / DOT_BLOCK;
    uint acc[4][4], total[4][4];
    bool risky = false;
    for (long block = 0; block < blocks; block++) {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) acc[i][j] = 0;
        const long end = block + 1 < blocks ? (block + 1) * DOT_BLOCK : p.k;
        for (long at = block * DOT_BLOCK; at < end; at += STEP) {
            const int steps = end - at < STEP ? int(end - at) : int(STEP);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            fetch(tiles.a, a, p.a_dtype, !p.transpose_a, p.m, p.k, first_row, at, steps, me);
            fetch(tiles.b, b, p.b_dtype, p.transpose_b, p.n, p.k, first_column, at, steps, me);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (int step = 0; step < steps; step++)
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        acc[i][j] = chain<how>(tiles.a[step][4 * ty + i], tiles.b[step][4 * tx + j], acc[i][j], risky);
        }
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) total[i][j] = block == 0 ? acc[i][j] : join<how>(total[i][j], acc[i][j], risky);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const long row = first_row + 4 * ty + i, column = first_column + 4 * tx + j;
            if (row < p.m && column < p.n)
                store(arena + p.c, (batch * p.m + row) * p.n + column, p.c_dtype, total[i][j]);
        }
    if (how == CHECKED && risky) raise(arena, p.flag);
}
}  // namespace gv

GV_KERNEL(gv_exponents) {
    using namespace gv;
    constant ExponentParameters& p = *(constant ExponentParameters*)given;
    uint least = 0;
    for (long matrix = 0; matrix < p.matrices; matrix++)
        for (long e = GV_THREAD; e < p.count; e += GV_THREADS) {
            const uint x = load(arena + p.x, matrix * p.stride + e, p.dtype);
            const uint below = is_zero(x) ? 0 : 255 - exponent(x);
            least = below > least ? below : least;
        }
    for (ushort half_ = 16; half_ > 0; half_ /= 2) {
        const uint other = simd_shuffle_down(least, half_);
        least = lane < half_ && other > least ? other : least;
    }
    if (lane == 0 && least > 0)
        atomic_fetch_max_explicit((device atomic_uint*)(arena + p.least), least, memory_order_relaxed);
}

GV_KERNEL(gv_dot) {
    using namespace gv;
    GV_SHARED(Tiles, tiles);
    constant DotParameters& p = *(constant DotParameters*)given;
    device const uint* least = (device const uint*)(arena + p.flag) + 1;
    const uint a = 255 - least[0], b = 255 - least[1];
    if (a > 0 && b > 0 && a + b >= LEAST_EXPONENTS)
        dot_tile<FAST>(tiles, arena, p, group, me);
    else
        dot_tile<CHECKED>(tiles, arena, p, group, me);
}

GV_KERNEL(gv_dot_int8) {
    using namespace gv;
    GV_SHARED(Tiles, tiles);
    dot_tile<INTEGER>(tiles, arena, *(constant DotParameters*)given, group, me);
}
