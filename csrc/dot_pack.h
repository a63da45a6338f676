// Operands of dot, and their packing into panels: `width` rows of a (or columns of b) side by side for every k, widened
// to binary32. Packing moves values and rounds nothing (bf16 and f16 widen exactly), so it touches no bit of a result.
#pragma once
#include <algorithm>
#include <utility>

#include "scalar_ops.h"

namespace gv {
namespace {

// One side of a product: element (r, k) is data[r * row + k * step], r being a row of a or a column of b. One of the
// two strides is 1.
struct Side {
    const void* data;
    Dtype dtype;
    int64_t row, step;
    int64_t batch;

    Side at(int64_t s, int64_t r, int64_t k) const {
        const int64_t offset = (s * batch + r * row + k * step) * dtype_size(dtype);
        return {static_cast<const char*>(data) + offset, dtype, row, step, batch};
    }
    const float* floats() const { return static_cast<const float*>(data); }
};

template <Dtype D>
inline F load_widened(const char* p) {
    return (F)load_element<D>(p);
}
template <Dtype D>
inline F load_first_widened(const char* p, int n) {
    if constexpr (D == Dtype::f32) return load_first(reinterpret_cast<const float*>(p), n);
    alignas(64) char part[W * 4] = {};
    std::memcpy(part, p, size_t(n) * dtype_size(D));
    return load_widened<D>(part);
}

// Two-operand shuffles, lane i of the result being lane at(i) of a followed by b.
struct LowPairs {  // a0 b0 a1 b1 in each group of four lanes
    static constexpr int at(int i) { return (i & ~3) + i % 4 / 2 + i % 2 * W; }
};
struct HighPairs {  // a2 b2 a3 b3
    static constexpr int at(int i) { return LowPairs::at(i) + 2; }
};
struct LowHalves {  // a0 a1 b0 b1
    static constexpr int at(int i) { return (i & ~3) + i % 2 + i % 4 / 2 * W; }
};
struct HighHalves {  // a2 a3 b2 b3
    static constexpr int at(int i) { return LowHalves::at(i) + 2; }
};
template <int h>
struct LowBlocks {  // every other block of h lanes: a's even ones, b's in between
    static constexpr int at(int i) { return i & h ? W + i - h : i; }
};
template <int h>
struct HighBlocks {  // b's odd ones, a's in between
    static constexpr int at(int i) { return i & h ? W + i : i + h; }
};
template <class Order, int... i>
inline F shuffle(F a, F b, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(a, b, Order::at(i)...);
}
template <class Order>
inline F shuffle(F a, F b) {
    return shuffle<Order>(a, b, std::make_integer_sequence<int, W>());
}

template <int h, int R>
inline void exchange_blocks(F (&r)[R]) {
    if constexpr (h < R) {
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            if (i & h) continue;
            const F low = shuffle<LowBlocks<h>>(r[i], r[i + h]), high = shuffle<HighBlocks<h>>(r[i], r[i + h]);
            r[i] = low, r[i + h] = high;
        }
        exchange_blocks<2 * h>(r);
    }
}

// R rows of W values become R vectors: group g of R lanes of vector c is column g * R + c. R is 4, 8 or 16.
template <int R>
inline void transpose(F (&r)[R]) {
#pragma GCC unroll 4
    for (int i = 0; i < R; i += 4) {
        const F low01 = shuffle<LowPairs>(r[i], r[i + 1]), low23 = shuffle<LowPairs>(r[i + 2], r[i + 3]);
        const F high01 = shuffle<HighPairs>(r[i], r[i + 1]), high23 = shuffle<HighPairs>(r[i + 2], r[i + 3]);
        r[i] = shuffle<LowHalves>(low01, low23), r[i + 1] = shuffle<HighHalves>(low01, low23);
        r[i + 2] = shuffle<LowHalves>(high01, high23), r[i + 3] = shuffle<HighHalves>(high01, high23);
    }
    exchange_blocks<4>(r);
}

// Up to R rows, contiguous along k, into a panel `width` wide. A store of R lanes may spill past the panel's row into
// the next k, which is written later; the last one spills past the panel.
template <Dtype D, int R>
void pack_rows(int rows, int64_t count, const Side& x, float* out, int width) {
    constexpr int size = dtype_size(D);
    const char* source = static_cast<const char*>(x.data);
    for (int64_t k = 0; k < count; k += W) {
        F r[R];
        const int columns = int(std::min<int64_t>(W, count - k));
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            const char* p = source + (i * x.row + k) * size;
            r[i] = i >= rows ? F{} : columns == W ? load_widened<D>(p) : load_first_widened<D>(p, columns);
        }
        transpose(r);
        for (int group = 0; group < W; group += R)
#pragma GCC unroll 16
            for (int c = 0; c < R; c++)
                if (group + c < columns)
                    std::memcpy(out + (k + group + c) * width, reinterpret_cast<const float*>(&r[c]) + group, R * 4);
    }
}

// Rows contiguous along the panel: a copy. k goes in runs of 16, so that reads stay on few pages while every panel gets
// long sequential writes.
template <Dtype D, int width>
void pack_columns(int64_t rows, int panel, int64_t count, const Side& x, float* out) {
    constexpr int64_t RUN = 16;
    const char* source = static_cast<const char*>(x.data);
    for (int64_t k0 = 0; k0 < count; k0 += RUN)
        for (int64_t r = 0; r < rows; r += panel) {
            float* to = out + r / panel * width * count;
            const int used = int(std::min<int64_t>(panel, rows - r));
            for (int64_t k = k0; k < std::min(count, k0 + RUN); k++) {
                const char* from = source + (k * x.step + r) * dtype_size(D);
                int i = 0;
                for (; i + W <= used; i += W) store(to + k * width + i, load_widened<D>(from + i * dtype_size(D)));
                if (i < used) {
                    const F part = load_first_widened<D>(from + i * dtype_size(D), used - i);
                    store_first(to + k * width + i, part, std::min(W, width - i));
                }
            }
        }
}

// `rows` x `count` (k) elements of x into panels of `panel` rows each, laid out `width` apart for every k. `out` needs
// panels * width * count floats and W more.
template <int width>
void pack(const Side& x, int64_t rows, int panel, int64_t count, float* out) {
    constexpr int R = width >= W ? W : width > 8 ? 16 : width > 4 ? 8 : 4;
    with_dtype(x.dtype, [&](auto dtype) {
        constexpr Dtype D = dtype.value;
        if constexpr (D == Dtype::f32 || D == Dtype::bf16 || D == Dtype::f16) {
            if (x.row == 1) return pack_columns<D, width>(rows, panel, count, x, out);
            for (int64_t r = 0; r < rows; r += panel, out += width * count)
                for (int t = 0; t < panel && r + t < rows; t += R) {
                    const int used = int(std::min<int64_t>({R, panel - t, rows - r - t}));
                    pack_rows<D, R>(used, count, x.at(0, r + t, 0), out + t, width);
                }
        }
    });
}

}  // namespace
}  // namespace gv
