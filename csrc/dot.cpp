// dot: c[s, i, j] = sum over k of a[s, i, k] * b[s, k, j], for every instruction set from this one source.
//
// Order of accumulation: k is cut into blocks of 512; a remainder of at most 256 joins the last full block, so k <= 768
// is one block. In a block one accumulator starts at +0 and takes acc = fma(a[i,k], b[k,j], acc) for ascending k; block
// sums are added left to right by plain additions. Narrow dtypes widen exactly at the load and round once at the store.
#include "kernels.h"
#include "scalar_ops.h"
#include "simd.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t BLOCK = 512;

// The end of the k block that starts at `begin`.
int64_t block_end(int64_t begin, int64_t k) { return k - begin <= BLOCK + BLOCK / 2 ? k : begin + BLOCK; }

float element(const void* p, Dtype d, int64_t i) {
    if (d == Dtype::f32) return static_cast<const float*>(p)[i];
    const H bits{static_cast<const uint16_t*>(p)[i]};
    return ((F)(d == Dtype::bf16 ? widen_bf16(bits) : widen_f16(bits)))[0];
}

void put(void* p, Dtype d, int64_t i, float x) {
    if (d == Dtype::f32)
        static_cast<float*>(p)[i] = canonical(F{x})[0];
    else
        static_cast<uint16_t*>(p)[i] = (d == Dtype::bf16 ? narrow_bf16(F{x}) : narrow_f16(F{x}))[0];
}

float chain(const DotArgs& d, int64_t s, int64_t i, int64_t j) {
    float total = 0;
    for (int64_t begin = 0, end; begin < d.k; begin = end) {
        end = block_end(begin, d.k);
        float acc = 0;
        for (int64_t k = begin; k < end; k++) {
            const float a = element(d.a, d.a_dtype, s * d.a_batch_stride + (d.transpose_a ? k * d.m + i : i * d.k + k));
            const float b = element(d.b, d.b_dtype, s * d.b_batch_stride + (d.transpose_b ? j * d.k + k : k * d.n + j));
            acc = fma1(a, b, acc);
        }
        total = begin == 0 ? acc : total + acc;
    }
    return total;
}

}  // namespace

void dot(const DotArgs& d) {
    parallel_for(d.batch * d.m, [&](int64_t row) {
        for (int64_t j = 0; j < d.n; j++) put(d.c, d.c_dtype, row * d.n + j, chain(d, row / d.m, row % d.m, j));
    });
}

}  // namespace gv::GV_ISA
