// reduce: sum, max, min, argmax, argmin over some axes.
//
// The order of a sum of n values: value i goes to lane i mod 64; a lane starts at -0 (the exact identity) and adds its
// values in ascending i; lanes fold 32, 16, 8, 4, 2, 1 (lane l += lane l + h). 2,048 values are a segment; the
// segments' sums are summed by the same rule until one is left. 64 lanes are whole vectors on every instruction set, so
// the order is the same on all; rows, columns and segments are independent, so threads change nothing. max and min do
// not depend on an order.
#include <algorithm>

#include "scalar_ops.h"
#include "scratch.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int LANES = 64, Q_LANES = LANES / W;
constexpr int64_t SEGMENT = 2048;   // the numerics
constexpr int64_t STAGE = SEGMENT;  // elements converted or gathered at a time, a multiple of 64

// A box of strided elements in row-major order, neighbouring axes merged where one walk covers both.
struct Walk {
    int rank = 0;
    int64_t shape[MAX_RANK], strides[MAX_RANK], elements = 1;

    Walk(int n, const int64_t* shapes, const int64_t* steps) {
        for (int axis = 0; axis < n; axis++) {
            const int64_t d = shapes[axis];
            elements *= d;
            if (d == 1) continue;
            if (rank > 0 && strides[rank - 1] == steps[axis] * d) {
                shape[rank - 1] *= d;
                strides[rank - 1] = steps[axis];
            } else {
                shape[rank] = d;
                strides[rank++] = steps[axis];
            }
        }
        if (rank == 0) {
            rank = shape[0] = 1;
            strides[0] = 1;
        }
    }
    int64_t inner() const { return shape[rank - 1]; }
    int64_t step() const { return strides[rank - 1]; }
    int64_t offset(int64_t e) const {
        int64_t at = 0;
        for (int axis = rank - 1; axis >= 0; e /= shape[axis--]) at += e % shape[axis] * strides[axis];
        return at;
    }
};

// How values of register type V join; `identity` leaves every value as it is.
template <class V>
struct Add;
template <>
struct Add<F> {
    static F identity() { return (F)splat(0x80000000u); }
    static F join(F a, F b) { return a + b; }
};
template <>
struct Add<U> {
    static U identity() { return U{}; }
    static U join(U a, U b) { return a + b; }
};
template <class V>
struct Max;
template <>
struct Max<F> {
    static F identity() { return (F)splat(0xFF800000u); }
    static F join(F a, F b) { return max_f32(a, b); }
};
template <>
struct Max<I> {
    static I identity() { return I{} + INT32_MIN; }
    static I join(I a, I b) { return max_i32(a, b); }
};
template <>
struct Max<U> {
    static U identity() { return U{}; }
    static U join(U a, U b) { return max_u32(a, b); }
};
template <class V>
struct Min;
template <>
struct Min<F> {
    static F identity() { return (F)splat(0x7F800000u); }
    static F join(F a, F b) { return min_f32(a, b); }
};
template <>
struct Min<I> {
    static I identity() { return I{} + INT32_MAX; }
    static I join(I a, I b) { return min_i32(a, b); }
};
template <>
struct Min<U> {
    static U identity() { return splat(0xFFFFFFFFu); }
    static U join(U a, U b) { return min_u32(a, b); }
};

// 64 lanes.
template <class V, class Op>
struct Lanes {
    V v[Q_LANES];

    Lanes() {
        for (V& x : v) x = Op::identity();
    }
    // n values from lane 0 on; only the last piece of a segment may be no multiple of 64.
    void take(const uint32_t* x, int64_t n) {
        for (; n >= LANES; n -= LANES, x += LANES)
            for (int q = 0; q < Q_LANES; q++) v[q] = Op::join(v[q], load<V>(x + q * W));
        if (n == 0) return;
        alignas(64) uint32_t rest[LANES];
        for (int q = 0; q < Q_LANES; q++) store(rest + q * W, Op::identity());
        std::memcpy(rest, x, size_t(n) * 4);
        for (int q = 0; q < Q_LANES; q++) v[q] = Op::join(v[q], load<V>(rest + q * W));
    }
    uint32_t fold() {
        for (int h = Q_LANES / 2; h >= 1; h /= 2)
            for (int q = 0; q < h; q++) v[q] = Op::join(v[q], v[q + h]);
        alignas(64) uint32_t a[2 * W];
        for (int h = W / 2; h >= 1; h /= 2) {
            store(a, v[0]);
            store(a + W, v[0]);
            v[0] = Op::join(v[0], load<V>(a + h));  // lanes from h on are not read again
        }
        return ((U)v[0])[0];
    }
};

struct Job {
    const ReduceArgs& r;
    Walk kept, reduced;
    int size;
    explicit Job(const ReduceArgs& args)
        : r(args),
          kept(args.kept_rank, args.kept_shape, args.kept_strides),
          reduced(args.reduced_rank, args.reduced_shape, args.reduced_strides),
          size(dtype_size(args.x_dtype)) {}
    const uint8_t* x(int64_t offset) const { return static_cast<const uint8_t*>(r.x) + offset * size; }
    void* y(int64_t o) const { return static_cast<uint8_t*>(r.y) + o * dtype_size(r.y_dtype); }
};

// Calls use(registers, n) over the reduced values [begin, end) of one output, in order, in pieces that are multiples of
// 64 but for the last: in place where they are 32-bit and contiguous, else converted or gathered into `stage`.
template <class Use>
void stream(const Job& job, int64_t base, int64_t begin, int64_t end, Use&& use) {
    const Dtype d = job.r.x_dtype;
    const int64_t inner = job.reduced.inner(), step = job.reduced.step();
    if (job.size == 4 && step == 1 && job.reduced.rank == 1)
        return use(reinterpret_cast<const uint32_t*>(job.x(base + begin)), end - begin);
    alignas(64) uint32_t stage[STAGE + W];
    while (begin < end) {
        const int64_t n = std::min(STAGE, end - begin);
        for (int64_t done = 0; done < n;) {
            const int64_t e = begin + done, column = e % inner, length = std::min(n - done, inner - column);
            load_elements(d, job.x(base + job.reduced.offset(e)), step, length, stage + done);
            done += length;
        }
        use(stage, n);
        begin += n;
    }
}

template <class V, class Op>
uint32_t fold_range(const Job& job, int64_t base, int64_t begin, int64_t end) {
    Lanes<V, Op> lanes;
    stream(job, base, begin, end, [&](const uint32_t* x, int64_t n) { lanes.take(x, n); });
    return lanes.fold();
}

// The segments' results, joined by the same rule, in place, until one is left.
template <class V, class Op>
uint32_t join_segments(uint32_t* parts, int64_t n) {
    while (n > 1) {
        const int64_t segments = (n + SEGMENT - 1) / SEGMENT;
        for (int64_t s = 0; s < segments; s++) {
            Lanes<V, Op> lanes;
            lanes.take(parts + s * SEGMENT, std::min(SEGMENT, n - s * SEGMENT));
            parts[s] = lanes.fold();
        }
        n = segments;
    }
    return parts[0];
}

void put(const Job& job, int64_t o, uint32_t bits) {
    alignas(64) uint32_t v[W];
    store(v, splat(bits));
    store_elements(job.r.y_dtype, job.y(o), {v, 0}, 1);
}

// Calls f(first, last) over [0, n) in shares of work worth a thread each.
template <class Call>
void share(int64_t n, int64_t work_each, Call&& f) {
    const int64_t fewest = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(work_each, 1));
    const int64_t chunk = std::max(fewest, n / (4 * get_threads()) + 1);
    parallel_for((n + chunk - 1) / chunk, [&](int64_t i) { f(i * chunk, std::min(n, (i + 1) * chunk)); });
}

thread_local Scratch parts_scratch;

// Rows: each output walks its own values.
template <class V, class Op>
void rows(const Job& job) {
    const int64_t n = job.reduced.elements, segments = (n + SEGMENT - 1) / SEGMENT;
    if (segments > 32 && job.kept.elements < 2 * get_threads()) {
        uint32_t* parts = static_cast<uint32_t*>(parts_scratch.get(size_t(segments) * 4));
        for (int64_t o = 0; o < job.kept.elements; o++) {
            const int64_t base = job.kept.offset(o);
            share(segments, SEGMENT, [&](int64_t first, int64_t last) {
                for (int64_t s = first; s < last; s++)
                    parts[s] = fold_range<V, Op>(job, base, s * SEGMENT, std::min(n, (s + 1) * SEGMENT));
            });
            put(job, o, join_segments<V, Op>(parts, segments));
        }
        return;
    }
    share(job.kept.elements, n, [&](int64_t first, int64_t last) {
        uint32_t* parts = static_cast<uint32_t*>(parts_scratch.get(size_t(segments) * 4));
        for (int64_t o = first; o < last; o++) {
            const int64_t base = job.kept.offset(o);
            for (int64_t s = 0; s < segments; s++)
                parts[s] = fold_range<V, Op>(job, base, s * SEGMENT, std::min(n, (s + 1) * SEGMENT));
            put(job, o, join_segments<V, Op>(parts, segments));
        }
    });
}

// The position of the first NaN, else of the first of the largest (smallest) values.
template <class V, class Op>
void positions(const Job& job) {
    share(job.kept.elements, job.reduced.elements, [&](int64_t first, int64_t last) {
        for (int64_t o = first; o < last; o++) {
            const int64_t base = job.kept.offset(o), n = job.reduced.elements;
            const V best = (V)splat(fold_range<V, Op>(job, base, 0, n));
            int64_t found = -1, seen = 0;
            stream(job, base, 0, n, [&](const uint32_t* x, int64_t m) {
                for (int64_t i = 0; i < m && found < 0; i++) {
                    const V v = (V)splat(x[i]);
                    if (v[0] == best[0] || (best[0] != best[0] && v[0] != v[0])) found = seen + i;
                }
                seen += m;
            });
            put(job, o, uint32_t(found));
        }
    });
}

template <template <class> class Op, bool position>
void by_register(const Job& job) {
    auto run = [&](auto v) {
        using V = decltype(v);
        if constexpr (position)
            positions<V, Op<V>>(job);
        else
            rows<V, Op<V>>(job);
    };
    switch (job.r.x_dtype) {
        case Dtype::i32:
            return run(I{});
        case Dtype::u32:
        case Dtype::u8:
        case Dtype::boolean:
            return run(U{});
        default:
            return run(F{});
    }
}
template <>
struct Add<I> : Add<U> {
    static I identity() { return I{}; }
    static I join(I a, I b) { return add_i32(a, b); }
};

}  // namespace

void reduce(const ReduceArgs& r) {
    const Job job(r);
    if (job.kept.elements == 0) return;
    if (job.reduced.elements == 0) {
        for (int64_t o = 0; o < job.kept.elements; o++) put(job, o, 0);  // only a sum may be empty
        return;
    }
    switch (r.op) {
        case Reduction::sum:
            return by_register<Add, false>(job);
        case Reduction::max:
            return by_register<Max, false>(job);
        case Reduction::min:
            return by_register<Min, false>(job);
        case Reduction::argmax:
            return by_register<Max, true>(job);
        case Reduction::argmin:
            return by_register<Min, true>(job);
    }
}

}  // namespace gv::GV_ISA
