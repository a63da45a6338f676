// sort: the positions of each row's elements in ascending order, equal ones in order of position. An element becomes an
// integer of the same order (NaN above everything, -0 as +0) in the high half of a word whose low half is its position:
// no two words are equal, so that any way of sorting them gives the one result. Threads share the rows.
// Definition: backends/reference.py, run_sort.
#include <algorithm>
#include <cstring>

#include "scalar_ops.h"
#include "scratch.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t SERIAL = 1 << 12;  // elements a task at least
constexpr int64_t SHORT = 512;       // rows up to here are sorted by comparison

inline uint32_t ordered_float(uint32_t bits) {
    const uint32_t size = bits & 0x7FFFFFFFu;
    if (size > 0x7F800000u) return 0xFFFFFFFFu;
    if (size == 0) return 0x80000000u;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Stable passes over 8 bits each, from the lowest of the high half on; `words` holds the result.
void radix_sort(uint64_t* words, uint64_t* other, int64_t n) {
    uint64_t* from = words;
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t at[256] = {};
        for (int64_t i = 0; i < n; i++) at[from[i] >> shift & 255]++;
        if (at[from[0] >> shift & 255] == n) continue;  // all equal: nothing moves
        int64_t sum = 0;
        for (int64_t& count : at) {
            const int64_t next = sum + count;
            count = sum;
            sum = next;
        }
        uint64_t* to = from == words ? other : words;
        for (int64_t i = 0; i < n; i++) to[at[from[i] >> shift & 255]++] = from[i];
        from = to;
    }
    if (from != words) std::memcpy(words, from, size_t(n) * 8);
}

void sort_row(const SortArgs& s, int64_t r, uint64_t* words) {
    const int64_t n = s.row;
    uint32_t* keys = reinterpret_cast<uint32_t*>(words + n);  // where radix_sort moves words to, later
    load_elements(s.dtype, static_cast<const uint8_t*>(s.x) + r * n * dtype_size(s.dtype), 1, n, keys);
    const bool is_float = s.dtype == Dtype::f32 || s.dtype == Dtype::bf16 || s.dtype == Dtype::f16;
    const uint32_t flip = s.dtype == Dtype::i32 || s.dtype == Dtype::i8 ? 0x80000000u : 0;
    for (int64_t i = 0; i < n; i++)
        words[i] = uint64_t(is_float ? ordered_float(keys[i]) : keys[i] ^ flip) << 32 | uint64_t(i);
    if (n <= SHORT)
        std::sort(words, words + n);
    else
        radix_sort(words, words + n, n);
    for (int64_t i = 0; i < n; i++) s.out[r * n + i] = int32_t(words[i] & 0xFFFFFFFFu);
}

}  // namespace

void sort(const SortArgs& s) {
    if (s.rows == 0 || s.row == 0) return;
    const int64_t rows_a_task = std::max<int64_t>(1, SERIAL / s.row);
    parallel_for((s.rows + rows_a_task - 1) / rows_a_task, [&](int64_t task) {
        static thread_local Scratch scratch;
        uint64_t* words = static_cast<uint64_t*>(scratch.get(size_t(2 * s.row + W) * 8));
        const int64_t last = std::min(s.rows, (task + 1) * rows_a_task);
        for (int64_t r = task * rows_a_task; r < last; r++) sort_row(s, r, words);
    });
}

}  // namespace gv::GV_ISA
