// dot of i8: c[s, i, j] = sum over k of a[s, i, k] * b[s, k, j] in i32, modulo 2^32. Such sums have no order, so k is
// not cut into blocks, and what lies outside of a matrix takes part as 0.
//
// A thread block of 256 computes a tile of 64 x 64 of c, a thread 4 x 4 of it. A word is four values of k of one row of
// a, or of one column of b: dp4a adds its four products. Tiles of 16 words of k of both lie in shared memory, twice:
// while one is multiplied, the next is on its way to registers.
#include "device.h"

namespace gv {
namespace {

struct DotInt8Parameters {
    u64 a, b, c;
    i64 m, n, k;
    i64 a_batch_stride, b_batch_stride;  // elements; 0 reuses one matrix
    i64 a_words, b_words;                // rows of a (b) begin at 4-byte boundaries: whole words may be read
};

constexpr int EDGE = 64, WORDS = 16, STEP = 4 * WORDS;
constexpr int ROW = EDGE + 4;      // words of shared memory from one word of k to the next
constexpr int TILE = WORDS * ROW;  // of one operand

// Four bytes, the first one lowest; those from `count` on are 0.
__device__ __forceinline__ u32 word(const u8* at, int count) {
    u32 out = 0;
#pragma unroll
    for (int l = 0; l < 4; l++)
        if (l < count) out |= u32(at[l]) << 8 * l;
    return out;
}

// Byte j of word i becomes byte i of word j.
__device__ __forceinline__ uint4 turned(uint4 v) {
    const u32 low = __byte_perm(v.x, v.y, 0x5140), low_ = __byte_perm(v.z, v.w, 0x5140);
    const u32 high = __byte_perm(v.x, v.y, 0x7362), high_ = __byte_perm(v.z, v.w, 0x7362);
    return make_uint4(__byte_perm(low, low_, 0x5410), __byte_perm(low, low_, 0x7632), __byte_perm(high, high_, 0x5410),
                      __byte_perm(high, high_, 0x7632));
}

// One operand: EDGE of its rows (columns of b) by WORDS words of k, to shared memory as [word][row]. A thread brings
// four rows by four values of k, as four words along the axis that is contiguous in the matrix as it is stored: along
// k, or along rows, and then they are turned.
template <bool ALONG_K>
class Operand {
  public:
    // Rows from `first` on of a matrix of rows x k.
    __device__ __forceinline__ Operand(u64 matrix, i64 rows, i64 k, i64 first, bool words)
        : apart_(ALONG_K ? k : rows), words_(words) {
        constexpr int ALONG = ALONG_K ? WORDS : EDGE / 4;
        const int along = int(threadIdx.x) % ALONG * 4, across = int(threadIdx.x) / ALONG * 4;
        const int row = ALONG_K ? across : along, step = ALONG_K ? along : across;
        here_ = reinterpret_cast<const u8*>(matrix) + (ALONG_K ? (first + row) * k + step : step * rows + first + row);
        place_ = step / 4 * ROW + row;
        rows_ = int(rows - first) - row;
        steps_ = int(k) - step;
    }
    // Starts to bring the next words of k.
    __device__ __forceinline__ void fetch() {
        const int lines = ALONG_K ? rows_ : steps_, count = ALONG_K ? steps_ : rows_;
        const u8* from = here_;
        if (words_) {
#pragma unroll
            for (int l = 0; l < 4; l++, from += apart_)
                held_[l] = l < lines && count > 0 ? *reinterpret_cast<const u32*>(from) : 0;
        } else {
#pragma unroll
            for (int l = 0; l < 4; l++, from += apart_) held_[l] = l < lines ? word(from, count) : 0;
        }
        here_ += ALONG_K ? STEP : STEP * apart_;
        steps_ -= STEP;
    }
    __device__ __forceinline__ void put(u32* tile) const {
        const uint4 v = make_uint4(held_[0], held_[1], held_[2], held_[3]);
        *reinterpret_cast<uint4*>(tile + place_) = ALONG_K ? v : turned(v);
    }

  private:
    const i64 apart_;  // bytes between words
    const bool words_;
    const u8* here_;
    int place_;         // in the tile
    int rows_, steps_;  // of the matrix, from here on
    u32 held_[4];
};

template <bool TA, bool TB>
__device__ __forceinline__ void dot_int8(const DotInt8Parameters& p) {
    GV_SHARED(u32, tiles);
    // A warp covers 4 x 8 threads: what its threads read has the fewest distinct bytes.
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    const int row = (warp / 2 * 4 + lane / 8) * 4, column = (warp % 2 * 8 + lane % 8) * 4;
    const u32 down = u32((p.m + EDGE - 1) / EDGE);  // tiles of rows
    const i64 first_row = i64(blockIdx.x % down) * EDGE, first_column = i64(blockIdx.x / down) * EDGE;
    Operand<!TA> a(p.a + blockIdx.z * p.a_batch_stride, p.m, p.k, first_row, p.a_words);
    Operand<TB> b(p.b + blockIdx.z * p.b_batch_stride, p.n, p.k, first_column, p.b_words);

    i32 acc[4][4] = {};
    a.fetch(), b.fetch();
    a.put(tiles), b.put(tiles + TILE);
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int left = int(p.k); left > 0; left -= STEP, buffer = 2 * TILE - buffer) {
        const u32* const now = tiles + buffer;
        u32* const next = tiles + (2 * TILE - buffer);
        const bool more = left > STEP;
        if (more) a.fetch(), b.fetch();
#pragma unroll
        for (int w = 0; w < WORDS; w++) {
            const uint4 x = *reinterpret_cast<const uint4*>(now + w * ROW + row);
            const uint4 y = *reinterpret_cast<const uint4*>(now + TILE + w * ROW + column);
            const u32 xs[] = {x.x, x.y, x.z, x.w}, ys[] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = __dp4a(i32(xs[i]), i32(ys[j]), acc[i][j]);
        }
        if (more) {
            a.put(next), b.put(next + TILE);
            __syncthreads();
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const i64 r = first_row + row + i, c = first_column + column + j;
            if (r < p.m && c < p.n) reinterpret_cast<i32*>(p.c)[(blockIdx.z * p.m + r) * p.n + c] = acc[i][j];
        }
}

}  // namespace
}  // namespace gv

GV_KERNEL(gv_dot_int8_nn, gv::DotInt8Parameters, 256, 2) { gv::dot_int8<false, false>(p); }
GV_KERNEL(gv_dot_int8_nt, gv::DotInt8Parameters, 256, 2) { gv::dot_int8<false, true>(p); }
GV_KERNEL(gv_dot_int8_tn, gv::DotInt8Parameters, 256, 2) { gv::dot_int8<true, false>(p); }
GV_KERNEL(gv_dot_int8_tt, gv::DotInt8Parameters, 256, 2) { gv::dot_int8<true, true>(p); }
