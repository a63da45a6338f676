// reduce: y[o] = sum, max, min, argmax or argmin over the reduced axes of x, in the order of docs/numerics.md,
// section 6.
//
// A sum has 64 lanes and segments of 2,048 values, whose sums are summed by the same rule until one is left. One SIMD
// group takes one segment: thread t has lanes t and t + 32, so that a fold is one addition and five shuffles. Where the
// kept axis is the contiguous one, a threadgroup takes 32 neighbouring rows instead, and each of its 8 SIMD groups 8 of
// the lanes. The kernel is launched once a level; from the second on it reads the level before it.
//
// Extremes need no order: min and max of section 4 are associative and commutative, and so is "the first of the best".
namespace gv {
enum { WARPS = 8, EACH = LANES / WARPS };
struct ReduceParameters {
    long x, y;
    long rows, length;  // outputs; values of each
    long x_dtype, y_dtype;
    long op;        // 0 sum, 1 max, 2 min, 3 argmax, 4 argmin
    long segments;  // of a row, in this level: y has rows x segments elements
    long flag;
    Axes kept, reduced;  // strides of x in elements
};
struct LaneSums {
    uint sums[LANES][32];
};
struct Bests {
    uint values[32];
    int positions[32];
};

inline uint plus(uint a, uint b, bool floats, thread bool& risky) { return floats ? add(a, b, risky) : a + b; }
inline uint identity(bool floats) { return floats ? uint(SIGN) : 0u; }  // of addition: -0

// Whether a is the maximum (minimum) of a and b. A NaN beats every number.
inline bool beats(uint a, uint b, long dtype, bool largest) {
    if (is_float(dtype)) {
        if (unordered(a, b)) return is_nan(a) && !is_nan(b);
        return largest ? less(b, a) : less(a, b);
    }
    const uint flip = is_signed(dtype) ? uint(SIGN) : 0u;
    return largest ? (a ^ flip) > (b ^ flip) : (a ^ flip) < (b ^ flip);
}

struct Best {
    uint value;
    int position;  // -1: none yet
};

// The better one; of equals the first. As values -0 is below +0, as positions they are equal.
inline Best better(Best a, Best b, long op, long dtype) {
    const bool largest = op == 1 || op == 3, positions = op >= 3;
    if (a.position < 0 || b.position < 0) return a.position < 0 ? b : a;
    if (beats(a.value, b.value, dtype, largest)) return a;
    if (beats(b.value, a.value, dtype, largest)) return b;
    if (positions) return a.position < b.position ? a : b;
    if (is_float(dtype) && is_zero(a.value)) a.value = largest ? a.value & b.value : a.value | b.value;
    return a;
}
}  // namespace gv

// A SIMD group a segment.
GV_KERNEL(gv_sum_rows) {
    using namespace gv;
    constant ReduceParameters& p = *(constant ReduceParameters*)given;
    const bool floats = is_float(p.x_dtype);
    const long warps = GV_THREADS / 32;
    bool risky = false;
    for (long w = long(group.x) * (size.x / 32) + simdgroup; w < p.rows * p.segments; w += warps) {
        const long row = w / p.segments, segment = w % p.segments, base = offset(p.kept, row);
        const long begin = segment * SEGMENT, end = begin + SEGMENT < p.length ? begin + SEGMENT : p.length;
        uint low = identity(floats), high = low;  // lanes `lane` and `lane` + 32
        for (long i = begin + lane; i < end; i += LANES) {
            low = plus(low, load(arena + p.x, base + offset(p.reduced, i), p.x_dtype), floats, risky);
            if (i + 32 < end)
                high = plus(high, load(arena + p.x, base + offset(p.reduced, i + 32), p.x_dtype), floats, risky);
        }
        uint sum = plus(low, high, floats, risky);
        for (ushort half_ = 16; half_ > 0; half_ /= 2) {
            bool ignored = false;  // lanes from `half_` on add what is no sum
            const uint other = simd_shuffle_down(sum, half_);
            sum = lane < half_ ? plus(sum, other, floats, risky) : plus(sum, other, floats, ignored);
        }
        if (lane == 0) store(arena + p.y, row * p.segments + segment, p.y_dtype, sum);
    }
    if (risky) raise(arena, p.flag);
}

// 32 neighbouring rows a threadgroup of 256; group.y counts segments.
GV_KERNEL(gv_sum_columns) {
    using namespace gv;
    GV_SHARED(LaneSums, shared);
    constant ReduceParameters& p = *(constant ReduceParameters*)given;
    const bool floats = is_float(p.x_dtype);
    const long row = long(group.x) * 32 + lane;
    bool risky = false;
    for (long segment = group.y; segment < p.segments; segment += groups.y) {
        const long begin = segment * SEGMENT, end = begin + SEGMENT < p.length ? begin + SEGMENT : p.length;
        const long base = row < p.rows ? offset(p.kept, row) : 0;
        uint lanes[EACH];
        for (int j = 0; j < EACH; j++) lanes[j] = identity(floats);
        for (long i = begin; i < end && row < p.rows; i += LANES)
            for (int j = 0; j < EACH; j++) {
                const long at = i + j * WARPS + simdgroup;
                if (at < end)
                    lanes[j] =
                        plus(lanes[j], load(arena + p.x, base + offset(p.reduced, at), p.x_dtype), floats, risky);
            }
        for (int j = 0; j < EACH; j++) shared.sums[j * WARPS + simdgroup][lane] = lanes[j];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint fold = LANES / 2; fold > 0; fold /= 2) {
            for (uint l = simdgroup; l < fold; l += WARPS)
                shared.sums[l][lane] = plus(shared.sums[l][lane], shared.sums[l + fold][lane], floats, risky);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        if (simdgroup == 0 && row < p.rows)
            store(arena + p.y, row * p.segments + segment, p.y_dtype, shared.sums[0][lane]);
    }
    if (risky) raise(arena, p.flag);
}

// A threadgroup a row.
GV_KERNEL(gv_extreme) {
    using namespace gv;
    GV_SHARED(Bests, shared);
    constant ReduceParameters& p = *(constant ReduceParameters*)given;
    for (long row = group.x; row < p.rows; row += groups.x) {
        const long base = offset(p.kept, row);
        Best best = {0, -1};
        for (long i = me; i < p.length; i += size.x) {
            const Best next = {load(arena + p.x, base + offset(p.reduced, i), p.x_dtype), int(i)};
            best = better(best, next, p.op, p.x_dtype);
        }
        for (ushort half_ = 16; half_ > 0; half_ /= 2) {
            const uint value = simd_shuffle_down(best.value, half_);
            const int position = simd_shuffle_down(best.position, half_);
            const Best other = {value, position};
            if (lane < half_) best = better(best, other, p.op, p.x_dtype);
        }
        if (lane == 0) shared.values[simdgroup] = best.value, shared.positions[simdgroup] = best.position;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (me == 0) {
            for (uint w = 1; w < size.x / 32; w++) {
                const Best other = {shared.values[w], shared.positions[w]};
                best = better(best, other, p.op, p.x_dtype);
            }
            store(arena + p.y, row, p.y_dtype, p.op >= 3 ? uint(best.position) : best.value);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}
