// copy, fill, gather and scatter_add: bits move; scatter_add adds in ascending order of the source, without atomics.
namespace gv {
struct CopyParameters {
    long source, target;
    long bytes, count;  // of an element; elements
    Axes from, to;
};
struct FillParameters {
    long target;
    long bytes, count, bits;
};
struct GatherParameters {
    long data, index, out;
    long rows, row, count;
    long bytes, outside;  // of an element; the bits of an element whose index is outside of the rows
};
struct ScatterParameters {
    long source, keys, out;  // keys: of every source row its target << 32 | its number, in ascending order
    long rows, row, count;
    long source_dtype, out_dtype;
    long flag;
};
}  // namespace gv

GV_KERNEL(gv_copy) {
    using namespace gv;
    constant CopyParameters& p = *(constant CopyParameters*)given;
    for (long e = GV_THREAD; e < p.count; e += GV_THREADS)
        put(arena + p.target, offset(p.to, e), p.bytes, get(arena + p.source, offset(p.from, e), p.bytes));
}

GV_KERNEL(gv_fill) {
    using namespace gv;
    constant FillParameters& p = *(constant FillParameters*)given;
    for (long e = GV_THREAD; e < p.count; e += GV_THREADS) put(arena + p.target, e, p.bytes, uint(p.bits));
}

GV_KERNEL(gv_gather) {
    using namespace gv;
    constant GatherParameters& p = *(constant GatherParameters*)given;
    device const int* index = (device const int*)(arena + p.index);
    for (long e = GV_THREAD; e < p.count * p.row; e += GV_THREADS) {
        const long i = quotient(e, p.row), column = e - i * p.row, at = index[i];
        const bool inside = at >= 0 && at < p.rows;
        const uint bits = inside ? get(arena + p.data, at * p.row + column, p.bytes) : uint(p.outside);
        put(arena + p.out, e, p.bytes, bits);
    }
}

// A thread an element of the output: finds the first source row of its target, and adds them all in their order.
GV_KERNEL(gv_scatter_add) {
    using namespace gv;
    constant ScatterParameters& p = *(constant ScatterParameters*)given;
    device const ulong* keys = (device const ulong*)(arena + p.keys);
    const bool floats = is_float(p.source_dtype);
    bool risky = false;
    for (long e = GV_THREAD; e < p.rows * p.row; e += GV_THREADS) {
        const long target = quotient(e, p.row), column = e - target * p.row;
        long low = target >> 31 ? p.count : 0, high = p.count;  // no i32 goes further
        while (low < high) {
            const long middle = (low + high) / 2;
            if (long(keys[middle] >> 32) < target)
                low = middle + 1;
            else
                high = middle;
        }
        uint sum = 0;
        for (; low < p.count && long(keys[low] >> 32) == target; low++) {
            const uint x = load(arena + p.source, long(uint(keys[low])) * p.row + column, p.source_dtype);
            sum = floats ? add(sum, x, risky) : sum + x;
        }
        store(arena + p.out, e, p.out_dtype, sum);
    }
    if (risky) raise(arena, p.flag);
}
