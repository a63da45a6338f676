// copy: every layout is one strided copy, or a fill and copies. Nothing is computed, so there is no order to keep.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t TASK_BYTES = 1 << 17;

// Axes of the copy after dropping length 1 and joining neighbours that lie behind each other on both sides.
struct Axes {
    int rank = 0;
    int64_t n[MAX_RANK], src[MAX_RANK], dst[MAX_RANK];
};

Axes coalesce(const CopyArgs& c) {
    Axes a;
    for (int i = 0; i < c.rank; i++) {
        if (c.shape[i] == 1) continue;
        const int last = a.rank - 1;
        if (a.rank && a.src[last] == c.src_strides[i] * c.shape[i] && a.dst[last] == c.dst_strides[i] * c.shape[i]) {
            a.n[last] *= c.shape[i], a.src[last] = c.src_strides[i], a.dst[last] = c.dst_strides[i];
        } else {
            a.n[a.rank] = c.shape[i], a.src[a.rank] = c.src_strides[i], a.dst[a.rank] = c.dst_strides[i];
            a.rank++;
        }
    }
    if (a.rank == 0) a.n[0] = 1, a.src[0] = a.dst[0] = 1, a.rank = 1;
    return a;
}

template <class T>
void copy_line(const T* src, int64_t ss, T* dst, int64_t ds, int64_t n) {
    if (ss == 1 && ds == 1)
        std::memcpy(dst, src, size_t(n) * sizeof(T));
    else if (ss == 0 && ds == 1)
        std::fill(dst, dst + n, *src);
    else if (ds == 1)
        for (int64_t i = 0; i < n; i++) dst[i] = src[i * ss];
    else
        for (int64_t i = 0; i < n; i++) dst[i * ds] = src[i * ss];
}

// The two innermost axes, in tiles where the source runs along the outer one (a transpose).
template <class T>
void copy_plane(const T* src, T* dst, const Axes& a, int64_t first, int64_t last) {
    const int i = a.rank - 2, j = a.rank - 1;
    const int64_t tile = std::abs(a.src[i]) < std::abs(a.src[j]) ? 16 : a.n[j];
    for (int64_t x = 0; x < a.n[j]; x += tile) {
        const int64_t n = std::min(tile, a.n[j] - x);
        for (int64_t y = first; y < last; y++)
            copy_line(src + y * a.src[i] + x * a.src[j], a.src[j], dst + y * a.dst[i] + x * a.dst[j], a.dst[j], n);
    }
}

// Rows [first, last) of the second innermost axis, counted through all outer axes.
template <class T>
void copy_rows(const T* src, T* dst, const Axes& a, int64_t first, int64_t last) {
    if (a.rank == 1) return copy_line(src + first * a.src[0], a.src[0], dst + first * a.dst[0], a.dst[0], last - first);
    const int64_t plane = a.n[a.rank - 2];
    while (first < last) {
        const T* s = src;
        T* d = dst;
        int64_t outer = first / plane;
        for (int i = a.rank - 3; i >= 0; i--) {
            s += outer % a.n[i] * a.src[i], d += outer % a.n[i] * a.dst[i];
            outer /= a.n[i];
        }
        const int64_t row = first % plane, n = std::min(plane - row, last - first);
        copy_plane(s, d, a, row, row + n);
        first += n;
    }
}

template <class T>
void copy_typed(const CopyArgs& c) {
    const Axes a = coalesce(c);
    int64_t rows = 1;
    for (int i = 0; i < std::max(1, a.rank - 1); i++) rows *= a.n[i];
    const int64_t row_bytes = int64_t(sizeof(T)) * (a.rank == 1 ? 1 : a.n[a.rank - 1]);
    const int64_t rows_a_task = std::max<int64_t>(1, TASK_BYTES / row_bytes);
    parallel_for((rows + rows_a_task - 1) / rows_a_task, [&](int64_t t) {
        copy_rows(static_cast<const T*>(c.src), static_cast<T*>(c.dst), a, t * rows_a_task,
                  std::min(rows, (t + 1) * rows_a_task));
    });
}

}  // namespace

void copy(const CopyArgs& c) {
    for (int i = 0; i < c.rank; i++)
        if (c.shape[i] == 0) return;
    if (c.size == 4)
        copy_typed<uint32_t>(c);
    else if (c.size == 2)
        copy_typed<uint16_t>(c);
    else
        copy_typed<uint8_t>(c);
}

void fill(const FillArgs& f) {
    if (f.size == 4)
        std::fill_n(static_cast<uint32_t*>(f.dst), f.count, f.bits);
    else if (f.size == 2)
        std::fill_n(static_cast<uint16_t*>(f.dst), f.count, uint16_t(f.bits));
    else
        std::memset(f.dst, int(f.bits & 0xFF), size_t(f.count));
}

}  // namespace gv::GV_ISA
