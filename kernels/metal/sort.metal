// sort: stable positions of each row of the last axis. An element becomes a key of 64 bits, its value in an order that
// integers have and below it its position, so that no two keys are equal and any correct sort is stable. Keys are
// sorted by bitonic merging: steps over up to TILE keys in threadgroup memory, wider ones in device memory.
namespace gv {
enum { TILE = 2048 };
struct SortParameters {
    long x, keys, out;              // keys: ulong [rows][padded]
    long dtype, rows, row, padded;  // padded: a power of two, `row` or more
    long targets;         // above 0: x are i32 rows of a scatter, and those outside of 0 .. targets - 1 come last
    long size, distance;  // of the bitonic step
};
struct Tile {
    ulong keys[TILE];
};

inline uint ordered(uint x, long dtype, long targets) {
    if (targets > 0) return long(x) < targets ? x : 0xFFFFFFFFu;
    if (is_float(dtype)) return is_nan(x) ? 0xFFFFFFFFu : order(one_zero(x));
    return is_signed(dtype) ? x ^ SIGN : x;
}

// Steps with distances from `distance` down to 1, of merges of `merged` keys, over a tile that begins at key `first`.
inline void merge(threadgroup Tile& tile, long first, long padded, long merged, int distance, uint me, uint threads) {
    for (; distance > 0; distance /= 2) {
        for (int t = int(me); t < TILE / 2; t += int(threads)) {
            const int i = t / distance * 2 * distance + t % distance;
            const bool ascending = ((first + i) & (padded - 1) & merged) == 0;
            const ulong a = tile.keys[i], b = tile.keys[i + distance];
            if ((a > b) == ascending) tile.keys[i] = b, tile.keys[i + distance] = a;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}
}  // namespace gv

GV_KERNEL(gv_sort_keys) {
    using namespace gv;
    constant SortParameters& p = *(constant SortParameters*)given;
    device ulong* keys = (device ulong*)(arena + p.keys);
    for (long e = GV_THREAD; e < p.rows * p.padded; e += GV_THREADS) {
        const long row = quotient(e, p.padded), i = e - row * p.padded;
        ulong key = ~ulong(0);
        if (i < p.row) {
            const uint x = load(arena + p.x, row * p.row + i, p.dtype);
            key = ulong(ordered(x, p.dtype, p.targets)) << 32 | ulong(i);
        }
        keys[e] = key;
    }
}

// Sorts the rows in every tile, or its part of a longer row (size 0), or ends a merge of `size` keys whose wider steps
// are done.
GV_KERNEL(gv_sort_tile) {
    using namespace gv;
    GV_SHARED(Tile, tile);
    constant SortParameters& p = *(constant SortParameters*)given;
    const long total = p.rows * p.padded;
    for (long first = long(group.x) * TILE; first < total; first += long(groups.x) * TILE) {
        device ulong* keys = (device ulong*)(arena + p.keys) + first;
        for (uint i = me; i < TILE; i += size.x) tile.keys[i] = first + i < total ? keys[i] : ~ulong(0);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (p.size) {
            merge(tile, first, p.padded, p.size, TILE / 2, me, size.x);
        } else {
            const int longest = p.padded < TILE ? int(p.padded) : int(TILE);
            for (int merged = 2; merged <= longest; merged *= 2)
                merge(tile, first, p.padded, merged, merged / 2, me, size.x);
        }
        for (uint i = me; i < TILE && first + i < total; i += size.x) keys[i] = tile.keys[i];
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

GV_KERNEL(gv_sort_step) {
    using namespace gv;
    constant SortParameters& p = *(constant SortParameters*)given;
    for (long t = GV_THREAD; t < p.rows * p.padded / 2; t += GV_THREADS) {
        const long q = quotient(t, p.distance), i = q * 2 * p.distance + t - q * p.distance;
        device ulong* keys = (device ulong*)(arena + p.keys) + i;
        const bool ascending = (i & (p.padded - 1) & p.size) == 0;
        const ulong a = keys[0], b = keys[p.distance];
        if ((a > b) == ascending) keys[0] = b, keys[p.distance] = a;
    }
}

GV_KERNEL(gv_sort_positions) {
    using namespace gv;
    constant SortParameters& p = *(constant SortParameters*)given;
    device const ulong* keys = (device const ulong*)(arena + p.keys);
    for (long e = GV_THREAD; e < p.rows * p.row; e += GV_THREADS) {
        const long row = quotient(e, p.row);
        ((device int*)(arena + p.out))[e] = int(keys[row * p.padded + e - row * p.row]);
    }
}
