// reduce: sum, max, min, argmax, argmin over some axes.
//
// The order of a sum: every 2,048 values are a segment. In a segment, value i goes to lane i mod 64; a lane starts at
// -0 (the exact identity) and adds its values in ascending i; lanes fold 32, 16, 8, 4, 2, 1 (lane l += lane l + h). The
// segments' sums are summed by the same rule until one is left. 64 lanes are whole vectors on every instruction set, so
// the order is the same on all; outputs and segments are independent, so threads change nothing. max and min do not
// depend on an order.
//
// Values that lie side by side are reduced one output at a time (`rows`), lanes being lanes of vectors. Otherwise a
// block of outputs is reduced at once (`columns`), every output in its own lane of vectors, and the 64 lanes lie in
// memory.
#include <algorithm>

#include "scratch.h"
#include "strided.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int LANES = 64, VECTORS = LANES / W;
constexpr int64_t SEGMENT = 2048;
constexpr int64_t STAGE = SEGMENT;  // elements converted or gathered at a time, a multiple of 64
constexpr int64_t COLUMNS = 64;     // outputs of a block: its 64 lanes of sums take half of the first cache level
constexpr int64_t SHORT_RUN = 32;
constexpr int64_t PARALLEL_WORK = 1 << 16;  // values from which a second thread pays

// A box of strided elements; neighbouring axes are merged where one walk covers both.
struct Box {
    int rank = 0;
    int64_t shape[MAX_RANK], strides[MAX_RANK], elements = 1;

    Box(int n, const int64_t* shapes, const int64_t* steps) {
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
        if (rank == 0) rank = shape[0] = strides[0] = 1;
    }
    int64_t inner() const { return shape[rank - 1]; }
    int64_t step() const { return strides[rank - 1]; }
    Cursor at(int64_t e) const { return Cursor(rank, shape, strides, e); }
};

// How registers of type V join. `identity` leaves every value as it is; `beats` is for positions.
template <class V>
struct Sum {
    static V identity() { return V{}; }
    static V join(V a, V b) { return (V)((U)a + (U)b); }
};
template <>
struct Sum<F> {
    static F identity() { return (F)splat(0x80000000u); }
    static F join(F a, F b) { return a + b; }
};
template <class V>
struct Max;
template <>
struct Max<F> {
    static F identity() { return (F)splat(0xFF800000u); }
    static F join(F a, F b) { return max_f32(a, b); }
    static F number(F a, F b) { return max_or_second(a, b); }
    static constexpr uint32_t zero = 0;  // the one that wins
    static M beats(F a, F b) { return (a > b) | ((a != a) & (b == b)); }
};
template <>
struct Max<I> {
    static I identity() { return I{} + INT32_MIN; }
    static I join(I a, I b) { return max_i32(a, b); }
    static M beats(I a, I b) { return a > b; }
};
template <>
struct Max<U> {
    static U identity() { return U{}; }
    static U join(U a, U b) { return max_u32(a, b); }
    static M beats(U a, U b) { return a > b; }
};
template <class V>
struct Min;
template <>
struct Min<F> {
    static F identity() { return (F)splat(0x7F800000u); }
    static F join(F a, F b) { return min_f32(a, b); }
    static F number(F a, F b) { return min_or_second(a, b); }
    static constexpr uint32_t zero = 0x80000000u;
    static M beats(F a, F b) { return (a < b) | ((a != a) & (b == b)); }
};
template <>
struct Min<I> {
    static I identity() { return I{} + INT32_MAX; }
    static I join(I a, I b) { return min_i32(a, b); }
    static M beats(I a, I b) { return a < b; }
};
template <>
struct Min<U> {
    static U identity() { return splat(0xFFFFFFFFu); }
    static U join(U a, U b) { return min_u32(a, b); }
    static M beats(U a, U b) { return a < b; }
};

template <int h, class V, int... i>
V lanes_down(V v, std::integer_sequence<int, i...>) {
    return __builtin_shufflevector(v, v, ((i + h) % W)...);
}
template <class Op, int h, class V>
V fold_vector(V v) {
    v = Op::join(v, lanes_down<h>(v, std::make_integer_sequence<int, W>()));
    if constexpr (h > 1)
        return fold_vector<Op, h / 2>(v);
    else
        return v;
}

// 64 lanes that take registers in order.
template <class V, class Op>
class Lanes {
  public:
    Lanes() {
        for (V& x : v_) x = Op::identity();
    }
    // Vectors of 64 registers; fewer only at the end of a segment.
    void take(const uint32_t* x, int64_t n) {
        V v[VECTORS];
        for (int q = 0; q < VECTORS; q++) v[q] = v_[q];
        for (; n >= LANES; n -= LANES, x += LANES)
            for (int q = 0; q < VECTORS; q++) v[q] = Op::join(v[q], load<V>(x + q * W));
        for (int q = 0; q < VECTORS; q++) v_[q] = v[q];
        if (n > 0) take_last(x, n);
    }
    V fold() {
        for (int h = VECTORS / 2; h >= 1; h /= 2)
            for (int q = 0; q < h; q++) v_[q] = Op::join(v_[q], v_[q + h]);
        return fold_vector<Op, W / 2>(v_[0]);
    }

  private:
    void take_last(const uint32_t* x, int64_t n) {
        int q = 0;
        for (; n >= W; n -= W, x += W, q++) v_[q] = Op::join(v_[q], load<V>(x));
        if (n == 0) return;
        v_[q] = Op::join(v_[q], load_part(x, n, Op::identity()));
    }
    V v_[VECTORS];
};

// Largest or smallest float: numbers alone by the CPU's instruction, which forgets a NaN and picks any zero; a NaN is
// noticed on the side, and a zero asks for a second look.
template <class Op>
class Extreme {
  public:
    Extreme() {
        for (F& x : v_) x = Op::identity();
    }
    void take(const uint32_t* x, int64_t n) {
        F v[VECTORS];
        M plain = plain_;
        for (int q = 0; q < VECTORS; q++) v[q] = v_[q];
        for (; n >= LANES; n -= LANES, x += LANES)
            for (int q = 0; q < VECTORS; q++) {
                const F a = load<F>(x + q * W);
                v[q] = Op::number(a, v[q]);
                plain &= a == a;
            }
        for (int q = 0; q < VECTORS; q++) v_[q] = v[q];
        plain_ = plain;
        for (; n > 0; n -= W, x += W) {
            const F a = n >= W ? load<F>(x) : load_part(x, n, Op::identity());
            v_[0] = Op::number(a, v_[0]);
            plain_ &= a == a;
        }
    }
    // A zero may have the wrong sign.
    F fold() {
        F r = v_[0];
        for (int q = 1; q < VECTORS; q++) r = Op::number(r, v_[q]);
        r = fold_vector<Number, W / 2>(r);
        const I all = fold_vector<Both, W / 2>(plain_);
        return all[0] ? r : (F)splat(0x7FC00000u);
    }

  private:
    struct Number {
        static F join(F a, F b) { return Op::number(a, b); }
    };
    struct Both {
        static M join(M a, M b) { return a & b; }
    };
    F v_[VECTORS];
    M plain_ = ~M{};
};

struct Job {
    const ReduceArgs& r;
    Box kept, reduced;
    int size;
    explicit Job(const ReduceArgs& args)
        : r(args),
          kept(args.kept_rank, args.kept_shape, args.kept_strides),
          reduced(args.reduced_rank, args.reduced_shape, args.reduced_strides),
          size(dtype_size(args.x_dtype)) {}
    const uint8_t* x(int64_t offset) const { return static_cast<const uint8_t*>(r.x) + offset * size; }
    void put(int64_t o, const uint32_t* registers, int64_t n) const {
        store_elements(r.y_dtype, static_cast<uint8_t*>(r.y) + o * dtype_size(r.y_dtype), {registers, W}, n);
    }
};

// Calls f(first, last) over [begin, end) in shares that are worth a thread each.
template <class Call>
void share(int64_t begin, int64_t end, int64_t work_each, Call&& f) {
    const int64_t fewest = std::max<int64_t>(1, PARALLEL_WORK / std::max<int64_t>(work_each, 1));
    const int64_t chunk = std::max(fewest, (end - begin) / (4 * get_threads()) + 1);
    parallel_for((end - begin + chunk - 1) / chunk,
                 [&](int64_t i) { f(begin + i * chunk, std::min(end, begin + (i + 1) * chunk)); });
}

// ---- rows

// Feeds lanes.take with the reduced values [begin, end) of the output at `base`, in order: in place where they are
// 32-bit and contiguous, else converted or gathered. Every call but the last has a multiple of 64 registers.
template <class Taker>
void feed(const Job& job, int64_t base, int64_t begin, int64_t end, Taker&& lanes) {
    const Box& box = job.reduced;
    if (job.size == 4 && box.step() == 1 && box.rank == 1)
        return lanes.take(reinterpret_cast<const uint32_t*>(job.x(base + begin)), end - begin);
    alignas(64) uint32_t stage[STAGE + W];
    if (job.size == 4 && box.step() == 1) {  // runs in place, but for the 64 registers around the end of each
        Cursor at = box.at(begin);
        for (int64_t held = 0; begin < end;) {
            int64_t n = std::min(at.run(), end - begin);
            const uint32_t* x = reinterpret_cast<const uint32_t*>(job.x(base + at.offset));
            at.skip(n), begin += n;
            if (held > 0) {
                const int64_t m = std::min(n, LANES - held);
                std::memcpy(stage + held, x, size_t(m) * 4);
                held += m, x += m, n -= m;
                if (held == LANES || begin == end) lanes.take(stage, held), held = 0;
            }
            const int64_t whole = begin == end ? n : n / LANES * LANES;
            if (whole > 0) lanes.take(x, whole);
            if (n > whole) std::memcpy(stage, x + whole, size_t(held = n - whole) * 4);
        }
        return;
    }
    with_dtype(job.r.x_dtype, [&](auto d) {
        for (; begin < end; begin += STAGE) {
            const int64_t n = std::min(STAGE, end - begin);
            load_box<d.value>(box.rank, box.shape, box.strides, job.x(base), begin, n, stage);
            lanes.take(stage, n);
        }
    });
}

struct HasBits {
    uint32_t bits;
    bool found = false;
    void take(const uint32_t* x, int64_t n) {
        for (int64_t i = 0; i < n; i++) found |= x[i] == bits;
    }
};

template <class V, template <class> class Op>
V fold_range(const Job& job, int64_t base, int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<V, F> && !std::is_same_v<Op<F>, Sum<F>>) {
        Extreme<Op<F>> lanes;
        feed(job, base, begin, end, lanes);
        const F r = lanes.fold();
        if (r[0] != 0) return r;
        HasBits winner{Op<F>::zero};
        feed(job, base, begin, end, winner);
        return (F)splat(winner.found ? Op<F>::zero : Op<F>::zero ^ 0x80000000u);
    } else {
        Lanes<V, Op<V>> lanes;
        feed(job, base, begin, end, lanes);
        return lanes.fold();
    }
}

// Finds the first register equal to `best`, or the first NaN if it is one.
template <class V>
struct Finder {
    V best;
    int64_t seen = 0, found = -1;
    void take(const uint32_t* x, int64_t n) {
        for (int64_t i = 0; i < n && found < 0; i += LANES) {
            const int64_t m = std::min<int64_t>(n - i, LANES);
            M hit{};
            if (m == LANES)
                for (int q = 0; q < VECTORS; q++) hit |= matches(load<V>(x + i + q * W));
            if (m == LANES && !any(hit)) continue;
            for (int64_t j = 0; j < m && found < 0; j++)
                if (matches((V)splat(x[i + j]))[0]) found = seen + i + j;
        }
        seen += n;
    }

  private:
    M matches(V v) const { return (v == best) | ((v != v) & (best != best)); }
    static bool any(M m) {
        uint64_t words[W / 2], all = 0;
        std::memcpy(words, &m, sizeof words);
        for (uint64_t w : words) all |= w;
        return all != 0;
    }
};

constexpr int64_t segments_of(int64_t n) { return (n + SEGMENT - 1) / SEGMENT; }

// The result of the segments' results: the same rule again until one is left.
template <class V, class Op>
uint32_t combine(uint32_t* parts, int64_t n) {
    for (; n > 1; n = segments_of(n))
        for (int64_t s = 0; s < segments_of(n); s++) {
            Lanes<V, Op> lanes;
            lanes.take(parts + s * SEGMENT, std::min(SEGMENT, n - s * SEGMENT));
            parts[s] = ((U)lanes.fold())[0];
        }
    return parts[0];
}

thread_local Scratch parts_scratch;

template <class V, template <class> class Op>
void fold_segments(const Job& job, int64_t base, int64_t first, int64_t last, uint32_t* parts) {
    for (int64_t s = first; s < last; s++) {
        const int64_t begin = s * SEGMENT, end = std::min(job.reduced.elements, begin + SEGMENT);
        parts[s] = ((U)fold_range<V, Op>(job, base, begin, end))[0];
    }
}

// One long output after the other, its segments shared among the threads.
template <class V, template <class> class Op>
void long_rows(const Job& job) {
    const int64_t segments = segments_of(job.reduced.elements);
    uint32_t* parts = static_cast<uint32_t*>(parts_scratch.get(size_t(segments) * 4));
    for (int64_t o = job.r.begin; o < job.r.end; o++) {
        const int64_t base = job.kept.at(o).offset;
        share(0, segments, SEGMENT,
              [&](int64_t first, int64_t last) { fold_segments<V, Op>(job, base, first, last, parts); });
        alignas(64) const uint32_t result[W] = {combine<V, Op<V>>(parts, segments)};
        job.put(o, result, 1);
    }
}

// Calls one(base) for every output and stores what it returns.
template <class One>
void each_row(const Job& job, One&& one) {
    share(job.r.begin, job.r.end, job.reduced.elements + 16, [&](int64_t first, int64_t last) {
        alignas(64) uint32_t results[LANES];
        Cursor at = job.kept.at(first);
        for (int64_t o = first; o < last;) {
            const int64_t n = std::min<int64_t>(last - o, LANES);
            for (int64_t i = 0; i < n; i++) {
                results[i] = one(at.offset);
                at.skip(1);
            }
            job.put(o, results, n);
            o += n;
        }
    });
}

// Rows of at most 64 values of 32 bits, in Q vectors: all of it in registers. Lanes without a value hold the identity.
template <class V, class Op, bool position, int Q>
void short_rows(const Job& job) {
    const int64_t n = job.reduced.elements;
    each_row(job, [&](int64_t base) {
        const uint32_t* x = reinterpret_cast<const uint32_t*>(job.x(base));
        V v[Q], folded[Q];
        for (int q = 0; q < Q; q++) {
            const int64_t left = n - q * W;
            v[q] = left >= W  ? load<V>(x + q * W)
                   : left > 0 ? load_part(x + q * W, left, Op::identity())
                              : Op::identity();
            folded[q] = v[q];
        }
        for (int h = Q / 2; h >= 1; h /= 2)
            for (int q = 0; q < h; q++) folded[q] = Op::join(folded[q], folded[q + h]);
        const V result = fold_vector<Op, W / 2>(folded[0]);
        if constexpr (!position) return ((U)result)[0];
        alignas(64) uint32_t hits[Q * W];  // in every lane of `result` is the extreme: joining them has no order
        for (int q = 0; q < Q; q++) store(hits + q * W, (v[q] == result) | ((v[q] != v[q]) & (result != result)));
        uint32_t i = 0;
        while (!hits[i]) i++;
        return i;
    });
}

template <class V, class Op, bool position>
void short_rows(const Job& job) {
    const int64_t vectors = (job.reduced.elements + W - 1) / W;
    if (vectors == 1) return short_rows<V, Op, position, 1>(job);
    if (vectors == 2) return short_rows<V, Op, position, 2>(job);
    if (vectors <= 4) return short_rows<V, Op, position, 4>(job);
    if constexpr (VECTORS >= 8)
        if (vectors <= 8) return short_rows<V, Op, position, 8>(job);
    return short_rows<V, Op, position, VECTORS>(job);
}

template <class V, template <class> class Op, bool position>
void rows(const Job& job) {
    const int64_t n = job.reduced.elements, segments = segments_of(n);
    if (n <= LANES && job.size == 4 && job.reduced.rank == 1 && job.reduced.step() == 1)
        return short_rows<V, Op<V>, position>(job);
    if constexpr (position) {
        each_row(job, [&](int64_t base) {
            Finder<V> finder{fold_range<V, Op>(job, base, 0, n)};
            feed(job, base, 0, n, finder);
            return uint32_t(finder.found);
        });
    } else if (segments == 1) {
        each_row(job, [&](int64_t base) { return ((U)fold_range<V, Op>(job, base, 0, n))[0]; });
    } else if (n > PARALLEL_WORK && job.r.end - job.r.begin < 2 * get_threads()) {
        long_rows<V, Op>(job);
    } else {
        each_row(job, [&](int64_t base) {
            uint32_t* parts = static_cast<uint32_t*>(parts_scratch.get(size_t(segments) * 4));
            fold_segments<V, Op>(job, base, 0, segments, parts);
            return combine<V, Op<V>>(parts, segments);
        });
    }
}

// ---- columns

// The values of a block of outputs, one reduced index after the other: `next` gives where they lie as whole vectors.
class Panel {
  public:
    Panel(const Job& job, int64_t o, int64_t n) : job_(job), first_(o), n_(n), at_(job.reduced.at(0)) {
        const Cursor first = job.kept.at(o);
        offset_ = first.offset;
        in_place_ = job.size == 4 && job.kept.step() == 1 && first.run() >= n && n % W == 0;
    }
    const uint32_t* next(uint32_t* stage) {
        const int64_t offset = at_.offset;
        at_.skip(1);
        if (in_place_) return reinterpret_cast<const uint32_t*>(job_.x(offset_ + offset));
        with_dtype(job_.r.x_dtype, [&](auto d) {
            load_box<d.value>(job_.kept.rank, job_.kept.shape, job_.kept.strides, job_.x(offset), first_, n_, stage);
        });
        return stage;
    }

  private:
    const Job& job_;
    int64_t first_, n_, offset_;
    Cursor at_;
    bool in_place_;
};

constexpr int GROUP = 4;  // values that a lane takes in a row, to load and store it less often

template <class V>
struct ColumnSums {
    typedef uint32_t Row[COLUMNS];
    alignas(64) Row lanes[LANES];
    alignas(64) uint32_t stage[LANES * GROUP][COLUMNS + W];

    // The sums of n values, at most 2,048, of `vectors` vectors of columns, into `to`; next(stage) gives a row of them.
    template <class Next>
    void segment(Next&& next, int64_t n, int64_t vectors, uint32_t* to) {
        const uint32_t* rows[LANES * GROUP];
        const int64_t used = std::min<int64_t>(n, LANES);
        for (int64_t l = 0; l < used; l++)
            std::memcpy(lanes[l], next(stage[0]), size_t(vectors) * W * 4);  // -0 + x is x
        for (int64_t i = used; i < n; i += LANES * GROUP) {
            const int64_t m = std::min<int64_t>(n - i, LANES * GROUP);
            for (int64_t k = 0; k < m; k++) rows[k] = next(stage[k]);
            for (int64_t l = 0; l < std::min<int64_t>(m, LANES); l++) add(lanes[l], rows + l, m - l, vectors);
        }
        for (int64_t h = LANES / 2; h >= 1; h /= 2)
            for (int64_t l = 0; l < h && l + h < used; l++) {  // the other lanes hold nothing but -0
                const uint32_t* other[1] = {lanes[l + h]};
                add(lanes[l], other, 1, vectors);
            }
        std::memcpy(to, lanes[0], size_t(vectors) * W * 4);
    }

  private:
    // lane += rows[0], rows[64], ... below rows[end], in this order.
    static void add(uint32_t* lane, const uint32_t* const* rows, int64_t end, int64_t vectors) {
        for (int64_t q = 0; q < vectors * W; q += W) {
            V v = load<V>(lane + q);
            for (int64_t k = 0; k < end; k += LANES) v = Sum<V>::join(v, load<V>(rows[k] + q));
            store(lane + q, v);
        }
    }
};

template <class V>
void column_sums(const Job& job, int64_t o, int64_t columns, uint32_t* results) {
    static thread_local Scratch scratch;
    auto& sums = *static_cast<ColumnSums<V>*>(scratch.get(sizeof(ColumnSums<V>)));
    const int64_t vectors = (columns + W - 1) / W;
    int64_t n = job.reduced.elements;
    Panel panel(job, o, columns);
    const auto values = [&](uint32_t* stage) { return panel.next(stage); };
    if (n <= SEGMENT) return sums.segment(values, n, vectors, results);
    typedef uint32_t Row[COLUMNS];
    Row* parts = static_cast<Row*>(parts_scratch.get(size_t(segments_of(n)) * sizeof(Row)));
    for (int64_t s = 0; s < segments_of(n); s++)
        sums.segment(values, std::min(SEGMENT, n - s * SEGMENT), vectors, parts[s]);
    for (n = segments_of(n); n > 1; n = segments_of(n)) {
        const Row* part = parts;
        for (int64_t s = 0; s < segments_of(n); s++)
            sums.segment([&](uint32_t*) { return *part++; }, std::min(SEGMENT, n - s * SEGMENT), vectors, parts[s]);
    }
    std::memcpy(results, parts[0], size_t(vectors) * W * 4);
}

template <class V, class Op, bool position>
void column_extremes(const Job& job, int64_t o, int64_t n, uint32_t* results) {
    alignas(64) uint32_t stage[COLUMNS + W], best[COLUMNS];
    const int64_t end = (n + W - 1) / W * W;
    Panel panel(job, o, n);
    std::memcpy(best, panel.next(stage), size_t(end) * 4);
    std::memset(results, 0, size_t(end) * 4);
    for (int64_t i = 1; i < job.reduced.elements; i++) {
        const uint32_t* x = panel.next(stage);
        for (int64_t q = 0; q < end; q += W) {
            const V a = load<V>(best + q), b = load<V>(x + q);
            if constexpr (position) {
                const M wins = Op::beats(b, a);
                store(results + q, wins ? splat(uint32_t(i)) : load<U>(results + q));
                store(best + q, wins ? b : a);
            } else {
                store(best + q, Op::join(a, b));
            }
        }
    }
    if (!position) std::memcpy(results, best, size_t(end) * 4);
}

template <class V, template <class> class Op, bool position>
void columns(const Job& job) {
    const int64_t fair = ((job.r.end - job.r.begin) / get_threads() + W) / W * W;
    const int64_t block = std::min(COLUMNS, fair), inner = job.kept.inner();
    // Blocks start anew with every run of columns that is long, so that its values are read in place.
    const int64_t run = inner >= SHORT_RUN ? inner : job.kept.elements;
    share(0, (job.r.end - job.r.begin + W - 1) / W, job.reduced.elements * W, [&](int64_t first, int64_t last_vector) {
        alignas(64) uint32_t results[COLUMNS];
        const int64_t last = std::min(job.r.end, job.r.begin + last_vector * W);
        for (int64_t o = job.r.begin + first * W; o < last;) {
            const int64_t n = std::min({block, last - o, run - o % run});
            if constexpr (std::is_same_v<Op<V>, Sum<V>>)
                column_sums<V>(job, o, n, results);
            else
                column_extremes<V, Op<V>, position>(job, o, n, results);
            job.put(o, results, n);
            o += n;
        }
    });
}

template <template <class> class Op, bool position>
void by_register(const Job& job) {
    const bool side_by_side = job.reduced.step() == 1 && (job.reduced.rank == 1 || job.reduced.inner() >= SHORT_RUN);
    const auto run = [&](auto v) {
        using V = decltype(v);
        if (side_by_side || job.kept.elements < W / 2)
            rows<V, Op, position>(job);
        else
            columns<V, Op, position>(job);
    };
    switch (job.r.x_dtype) {
        case Dtype::i32:
        case Dtype::i8:
            return run(I{});
        case Dtype::u32:
        case Dtype::u8:
        case Dtype::boolean:
            return run(U{});
        default:
            return run(F{});
    }
}

}  // namespace

void reduce(const ReduceArgs& r) {
    const Job job(r);
    if (r.begin == r.end) return;
    if (job.reduced.elements == 0) {  // only a sum may be empty: +0
        const size_t size = size_t(dtype_size(r.y_dtype));
        std::memset(static_cast<uint8_t*>(r.y) + size_t(r.begin) * size, 0, size_t(r.end - r.begin) * size);
        return;
    }
    switch (r.op) {
        case Reduction::sum:
            return by_register<Sum, false>(job);
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
