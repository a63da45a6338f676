// dot: c[s, i, j] = sum over k of a[s, i, k] * b[s, k, j], in the order of docs/numerics.md, section 5.
//
// A thread block computes a tile of c. Tiles of a and b of STEP values of k lie in shared memory, twice: while one is
// multiplied, the next arrives (cp.async from sm_80 on where elements need no widening; through registers elsewhere). A
// thread keeps TM x TN chains in registers. When a block of k ends, its chains are added to the totals, which lie in
// shared memory too (each thread's own; nobody else reads them): that leaves registers for two thread blocks on a
// multiprocessor.
//
// A chain is as long as its block of k: the last tile of k is shorter, never padded.
//
// Split: where c has few tiles and k many blocks, every block of k has thread blocks of its own. Each block's chain is
// stored by itself, and `fold` adds them left to right.
#include "device.h"

// Where an element of c is about to be stored, a float `x` at position `at` of c. Nothing happens to it here: whoever
// launches the kernel may put instructions in place of this line of its PTX (backends/cuda/epilogue.py).
#ifdef __CUDACC__
#define GV_EPILOGUE(x, at) asm volatile("// gv_epilogue %0, %1" : "+f"(x) : "l"(at))
#else
#define GV_EPILOGUE(x, at) emulation::epilogue(x, at)
#endif

#ifndef GV_DOT_TYPE  // of the elements of a and b: f32, bf16 or f16
#define GV_DOT_TYPE f32
#endif

namespace gv {
namespace {

struct DotParameters {
    u64 a, b, c;
    i64 batch, m, n, k;
    i64 a_batch_stride, b_batch_stride;  // elements; 0 reuses one matrix
    i64 c_dtype;
    i64 a_vector, b_vector;  // rows of a (b) begin at 16-byte boundaries: whole vectors may be read
    i64 split;               // c is [blocks of k][batch][m][n], each block's chain by itself
};

constexpr int STEP = 16, PAD = 4;

typedef float f32;
struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};
[[maybe_unused]] __device__ __forceinline__ float widen(f32 x) { return x; }
[[maybe_unused]] __device__ __forceinline__ float widen(bf16 x) { return as_float(u32(x.bits) << 16); }
[[maybe_unused]] __device__ __forceinline__ float widen(f16 x) { return widen_f16(x.bits); }

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
constexpr bool ASYNC = true;
template <int bytes>
__device__ __forceinline__ void copy_async(float* shared, const void* global, int valid) {
    const u32 to = u32(__cvta_generic_to_shared(shared));
    if (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
}
__device__ __forceinline__ void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_async() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#elif defined(__CUDACC__)
constexpr bool ASYNC = false;
template <int bytes>
__device__ __forceinline__ void copy_async(float*, const void*, int) {}
__device__ __forceinline__ void commit_async() {}
__device__ __forceinline__ void wait_async() {}
#else
constexpr bool ASYNC = GV_EMULATE_ASYNC;
template <int bytes>
void copy_async(float* shared, const void* global, int valid) {
    emulation::copy_async(shared, global, bytes, valid);
}
inline void commit_async() { emulation::commit_async(); }
inline void wait_async() { emulation::wait_async(); }
#endif

// One operand: SIZE of its rows (columns of b) by STEP values of k, to shared memory as [k][row].
// ALONG_K: k is the contiguous axis of the matrix as it is stored.
template <class T, bool ALONG_K, int SIZE, int THREADS>
class Operand {
  public:
    static constexpr int ROW = SIZE + PAD;  // floats between steps of k
    static constexpr int FLOATS = STEP * ROW;

    // Rows from `first` on and values of k from `begin` on, `count` of them, of a matrix of rows x k.
    __device__ __forceinline__ Operand(u64 matrix, i64 rows, i64 k, i64 first, i64 begin, int count, bool vector)
        : apart_(int(ALONG_K ? k * ROWS_APART : rows * STEPS_APART)), vector_(!ALONG_K && async && vector) {
        const int e = vector_ ? int(threadIdx.x) * 4 : int(threadIdx.x);
        const int step = ALONG_K ? e % STEP : e / SIZE, row = ALONG_K ? e / STEP : e % SIZE;
        here_ = reinterpret_cast<const T*>(matrix) +
                (ALONG_K ? (first + row) * k + begin + step : (begin + step) * rows + first + row);
        place_ = step * ROW + row;
        mine_ = e < SIZE * STEP;
        rows_ = int(rows - first < SIZE ? rows - first : SIZE) - row;
        steps_ = count - step;
    }

    // Starts to bring the next values of k; what lies outside of the matrix comes as 0, and is never used.
    __device__ __forceinline__ void fetch(float* tile) {
        if (vector_) {
            if constexpr (async) {
                constexpr int VECTORS = (SIZE * STEP + 4 * THREADS - 1) / (4 * THREADS);
                const T* from = here_;
#pragma unroll
                for (int i = 0; i < VECTORS; i++) {
                    if (SIZE * STEP < 4 * THREADS && !mine_) break;
                    const bool inside = rows_ > 0 && 4 * i * STEPS_APART < steps_;  // all of the vector, or none
                    copy_async<16>(tile + place_ + 4 * i * STEPS_APART * ROW, from, inside * 16);
                    from += 4 * apart_;
                }
            }
        } else {
            const T* from = here_;
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                if (SIZE * STEP < THREADS && !mine_) break;
                const bool inside = (ALONG_K ? i * ROWS_APART : 0) < rows_ && (ALONG_K ? 0 : i * STEPS_APART) < steps_;
                if constexpr (async)
                    copy_async<4>(tile + place_ + i * PLACES_APART, from, inside * 4);
                else
                    held_[i] = inside ? *from : T{};
                from += apart_;
            }
        }
        here_ += ALONG_K ? STEP : apart_ / STEPS_APART * STEP;
        steps_ -= STEP;
    }
    // What `fetch` holds in registers, to shared memory.
    __device__ __forceinline__ void put(float* tile) const {
        if constexpr (!async) {
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (SIZE * STEP >= THREADS || mine_) tile[place_ + i * PLACES_APART] = widen(held_[i]);
        }
    }

  private:
    static constexpr bool async = ASYNC && sizeof(T) == 4;
    static constexpr int EACH = (SIZE * STEP + THREADS - 1) / THREADS;  // elements a thread brings
    static constexpr int ROWS_APART = THREADS / STEP;  // between a thread's elements, if k is contiguous
    static constexpr int STEPS_APART = THREADS / SIZE;
    static constexpr int PLACES_APART = ALONG_K ? ROWS_APART : STEPS_APART * ROW;
    static_assert(THREADS % STEP == 0 && THREADS % SIZE == 0, "a thread's elements lie in one row or one step");

    const int apart_;  // elements, of matrices with less than 2^26 rows and values of k
    const bool vector_;
    const T* here_;
    int place_;         // in the tile
    bool mine_;         // whether the tile has an element for this thread: a small one has fewer than threads
    int rows_, steps_;  // of the matrix, from here on
    T held_[EACH];
};

// Rows of the tile that thread `t` of `threads` computes: groups of 4, so that reads are 16 bytes wide.
template <int T>
__device__ __forceinline__ int row_of(int t, int threads, int i) {
    constexpr int G = T < 4 ? T : 4;
    return (i / G * threads + t) * G + i % G;
}

template <int T>
__device__ __forceinline__ void read(float (&out)[T], const float* step, int t, int threads) {
    if constexpr (T >= 4) {
#pragma unroll
        for (int i = 0; i < T; i += 4) {
            const float4 v = *reinterpret_cast<const float4*>(step + row_of<T>(t, threads, i));
            out[i] = v.x, out[i + 1] = v.y, out[i + 2] = v.z, out[i + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < T; i++) out[i] = step[row_of<T>(t, threads, i)];
    }
}

template <class T, bool TA, bool TB, int BM, int BN, int TM, int TN>
__device__ __forceinline__ void dot(const DotParameters& p) {
    constexpr int ROWS = BM / TM, COLUMNS = BN / TN, THREADS = ROWS * COLUMNS;
    using A = Operand<T, !TA, BM, THREADS>;
    using B = Operand<T, TB, BN, THREADS>;
    GV_SHARED(float, shared);
    float* const a_tiles = shared;
    float* const b_tiles = shared + A::FLOATS;
    float4* const totals =
        reinterpret_cast<float4*>(shared + 2 * (A::FLOATS + B::FLOATS)) + threadIdx.x;  // THREADS apart
    // A warp covers 4 x 8 threads: what its threads read has the fewest distinct bytes.
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    const int ty = warp / (COLUMNS / 8) * 4 + lane / 8, tx = warp % (COLUMNS / 8) * 8 + lane % 8;

    // blockIdx.z: matrices of the batch, for the first block of k, then for the second ... where k is split.
    const i64 batch = p.split ? blockIdx.z % p.batch : blockIdx.z;
    const i64 block = p.split ? blockIdx.z / p.batch : 0;
    const i64 blocks = p.k <= DOT_BLOCK ? 1 : (p.k + DOT_BLOCK / 2 - 1) / DOT_BLOCK;
    const bool alone = p.split || blocks == 1;  // this thread block computes one block of k
    const i64 begin = block * DOT_BLOCK;
    int left = int(p.split && block + 1 < blocks ? DOT_BLOCK : p.k - begin);  // values of k
    const i64 first_row = i64(blockIdx.x) * BM, first_column = i64(blockIdx.y) * BN;
    A a(p.a + batch * p.a_batch_stride * sizeof(T), p.m, p.k, first_row, begin, left, p.a_vector);
    B b(p.b + batch * p.b_batch_stride * sizeof(T), p.n, p.k, first_column, begin, left, p.b_vector);

    float acc[TM][TN] = {};
    a.fetch(a_tiles), b.fetch(b_tiles);
    a.put(a_tiles), b.put(b_tiles);
    commit_async(), wait_async();
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int more = alone ? 1 : int(blocks); more > 0; more--) {
        int length = more > 1 ? DOT_BLOCK : left;  // of the block of k
        left -= length;
#pragma unroll 1
        for (; length > 0; length -= STEP, buffer = A::FLOATS + B::FLOATS - buffer) {
            // One operand's tile lies a constant behind the other's.
            const float* const a_now = a_tiles + buffer;
            const float* const b_now = a_now + A::FLOATS;
            float* const a_next = a_tiles + (A::FLOATS + B::FLOATS - buffer);
            float* const b_next = a_next + A::FLOATS;
            const bool next = length > STEP || more > 1;
            if (next) a.fetch(a_next), b.fetch(b_next), commit_async();
            const auto multiply = [&](int step) {
                float x[TM], y[TN];
                read<TM>(x, a_now + step * A::ROW, ty, ROWS);
                read<TN>(y, b_now + step * B::ROW, tx, COLUMNS);
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TN; j++) acc[i][j] = __fmaf_rn(x[i], y[j], acc[i][j]);
            };
            if (length >= STEP) {
#pragma unroll
                for (int step = 0; step < STEP; step++) multiply(step);
            } else {
#pragma unroll 1
                for (int step = 0; step < length; step++) multiply(step);
            }
            if (next) {
                a.put(a_next), b.put(b_next);
                wait_async();
                __syncthreads();
            }
        }
        if (alone) break;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j += 4) {
                float4& total = totals[(i * TN + j) / 4 * THREADS];
                float4 sum = make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
                if (more < blocks) {
                    const float4 t = total;
                    sum = make_float4(__fadd_rn(t.x, sum.x), __fadd_rn(t.y, sum.y), __fadd_rn(t.z, sum.z),
                                      __fadd_rn(t.w, sum.w));
                }
                if (more > 1) {
                    total = sum;
                    sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                }
                acc[i][j] = sum.x, acc[i][j + 1] = sum.y, acc[i][j + 2] = sum.z, acc[i][j + 3] = sum.w;
            }
    }
    // Rows of c, 4 neighbouring elements at a time.
    const i64 rows = p.m - first_row, columns = p.n - first_column;
    const i64 c = (i64(blockIdx.z) * p.m + first_row) * p.n + first_column;
    const bool whole = p.n % 4 == 0 && p.c_dtype == F32;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        const int row = row_of<TM>(ty, ROWS, i);
        if (row >= rows) continue;
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            const int column = row_of<TN>(tx, COLUMNS, j);
            const i64 at = c + row * p.n + column;
#pragma unroll
            for (int l = 0; l < 4; l++)
                if (column + l < columns) GV_EPILOGUE(acc[i][j + l], at + l);
            if (whole) {
                if (column < columns)
                    reinterpret_cast<uint4*>(p.c)[at / 4] =
                        make_uint4(canonical(acc[i][j]), canonical(acc[i][j + 1]), canonical(acc[i][j + 2]),
                                   canonical(acc[i][j + 3]));
                continue;
            }
#pragma unroll
            for (int l = 0; l < 4; l++)
                if (column + l < columns) store_float(p.c, at + l, p.c_dtype, acc[i][j + l]);
        }
    }
}

}  // namespace
}  // namespace gv

// Kernels by size of the tile: large (where a multiprocessor's shared memory has room for it), medium, small, and thin
// for few rows of a.
#define GV_JOIN_(size, type, x, y) gv_dot_##size##_##type##_##x##y
#define GV_JOIN(...) GV_JOIN_(__VA_ARGS__)
// Two thread blocks of the large tile share a multiprocessor where 128 registers a thread suffice them: sm_90 and
// sm_100. sm_80 issues an fma every other cycle, so one block keeps it busy; on the others shared memory has room for
// one.
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
#define GV_TOGETHER_large 2
#endif
#endif
#ifndef GV_TOGETHER_large
#define GV_TOGETHER_large 1
#endif
#define GV_TOGETHER_medium 2
#define GV_TOGETHER_small 2
#define GV_TOGETHER_thin 2
#define GV_NAMED_KERNEL(...) GV_KERNEL(__VA_ARGS__)
#define GV_DOT(size, x, y, ...)                                                                     \
    GV_NAMED_KERNEL(GV_JOIN(size, GV_DOT_TYPE, x, y), gv::DotParameters, 256, GV_TOGETHER_##size) { \
        gv::dot<gv::GV_DOT_TYPE, __VA_ARGS__>(p);                                                   \
    }
#define GV_DOTS(size, ...)                        \
    GV_DOT(size, n, n, false, false, __VA_ARGS__) \
    GV_DOT(size, n, t, false, true, __VA_ARGS__)  \
    GV_DOT(size, t, n, true, false, __VA_ARGS__)  \
    GV_DOT(size, t, t, true, true, __VA_ARGS__)
#ifdef GV_DOT_LARGE
GV_DOTS(large, 128, 128, 8, 8)
#endif
GV_DOTS(medium, 128, 64, 8, 4)
GV_DOTS(small, 64, 64, 4, 4)
GV_DOTS(thin, 16, 64, 1, 4)

#ifdef GV_DOT_FOLD
namespace gv {
namespace {
struct FoldParameters {
    u64 partial, c;
    i64 blocks, count;  // of k; elements of c
    i64 c_dtype;
};
}  // namespace
}  // namespace gv
GV_KERNEL(gv_dot_fold, gv::FoldParameters, 256, 1) {
    const float* const partial = reinterpret_cast<const float*>(p.partial);
#pragma unroll 1
    for (gv::i64 e = gv::thread_index(); e < p.count; e += gv::thread_count()) {
        float total = partial[e];
        for (gv::i64 block = 1; block < p.blocks; block++) total = __fadd_rn(total, partial[block * p.count + e]);
        GV_EPILOGUE(total, e);
        gv::store_float(p.c, e, p.c_dtype, total);
    }
}
#endif
