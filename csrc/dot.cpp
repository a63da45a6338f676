// dot: c[s, i, j] = sum over k of a[s, i, k] * b[s, k, j], for every instruction set from this one source. What follows
// is about floats; i8 is multiplied by dot_int8.h.
//
// Order of accumulation: k is cut into blocks of 128; a remainder of at most 64 joins the last full block, so k <= 192
// is one block. In a block one accumulator starts at +0 and takes acc = fma(a[i,k], b[k,j], acc) for ascending k; block
// sums are added left to right by plain additions. Narrow dtypes widen exactly at the load and round once at the store.
// That fixes every bit, and all else is free: which elements share a register tile (dot_tile.h), what is packed
// (dot_pack.h), what is multiplied as it is read (dot_thin.h), how m, n and the batch are blocked and split over
// threads. Exchanging a and b changes nothing, since a product commutes.
//
// Blocking, as in Goto and van de Geijn (2008): a block of b stays in the last-level cache, a block of a in L2, a panel
// of each in L1, accumulators in registers.
#include <algorithm>

#include "dot_int8.h"
#include "dot_pack.h"
#include "dot_thin.h"
#include "dot_tile.h"
#include "scratch.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

constexpr int64_t K_BLOCKS = 6;                           // most blocks of k that are packed together
constexpr int64_t A_BLOCK = (W == 16 ? 176 : 88) << 10;   // floats of a packed block of a: most of L2
constexpr int64_t N_BLOCK = 43 * 48 / NR * NR;            // columns of a packed block of b
constexpr int64_t STAGED = 1 << 20;                       // floats of results that cannot go straight to c
constexpr int64_t DIRECT_A = 3 * NR, DIRECT_B = 16 * MR;  // up to so many columns (rows), packing a (b) does not pay
constexpr int64_t PART = 512 << 10;                       // multiply-adds worth waking another thread for

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The size of the fewest equal parts of `count` that hold at most `most` each, in multiples of `unit`.
int64_t even_part(int64_t count, int64_t most, int64_t unit) {
    return divide_up(divide_up(count, divide_up(count, most)), unit) * unit;
}

struct Range {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
    // Part i of n, in multiples of `unit`.
    Range part(int64_t i, int64_t n, int64_t unit) const {
        const int64_t units = divide_up(size(), unit);
        return {begin + units * i / n * unit, std::min(end, begin + units * (i + 1) / n * unit)};
    }
};

struct Box {
    Range s, i, j;
};

// c is stored [m, n], or [n, m] where a and b were exchanged.
struct Product {
    int64_t batch, m, n, k;
    Side a, b;
    void* c;
    Dtype c_dtype;
    bool exchanged;
};

// An operand block as the tiles read it: packed into panels, or in place.
struct Panels {
    const float* data;
    bool packed;
    int64_t row, step, panel;  // distances between rows, k steps and panels
};

// Packs each block once: a block that the next tile asks for again is still there.
template <int width>
class Packer {
  public:
    void reset() { data_ = nullptr; }
    Panels block(const Side& x, int64_t rows, int64_t panel, int64_t count, bool in_place) {
        if (in_place) return {x.floats(), false, x.row, x.step, panel * x.row};
        float* out = static_cast<float*>(scratch_.get(size_t(divide_up(rows, panel) * width * count + W) * 4));
        if (data_ != x.data || rows_ != rows || count_ != count) pack<width>(x, rows, int(panel), count, out);
        data_ = x.data, rows_ = rows, count_ = count;
        return {out, true, 1, width, width * count};
    }

  private:
    Scratch scratch_;
    const void* data_ = nullptr;
    int64_t rows_ = 0, count_ = 0;
};
thread_local Packer<MR> pack_a;
thread_local Packer<NR> pack_b;
thread_local Scratch staging;

// All tiles of one block of a by one block of b.
void multiply_blocks(TileArgs t, const Panels& a, const Panels& b, int64_t m, int64_t n, int64_t mr, int64_t nr) {
    t.a_row = a.row, t.a_step = a.step, t.b_step = b.step;
    float* const c = t.c;
    const auto& tiles = TILES[a.packed][b.packed];
    for (int64_t j = 0; j < n; j += nr) {
        const int columns = int(std::min(nr, n - j)), vectors = (columns + W - 1) / W;
        t.last = columns - (vectors - 1) * W;
        t.b = b.data + j / nr * b.panel;
        for (int64_t i = 0; i < m; i += mr) {
            t.a = a.data + i / mr * a.panel;
            t.c = c + i * t.c_row + j;
            tiles[vectors - 1][std::min(mr, m - i) - 1](t);
        }
    }
}

// The box of the product into c (its first element), whose rows are c_row and batches c_batch apart.
void multiply(const Product& p, const Box& box, float* c, int64_t c_row, int64_t c_batch) {
    if (box.i.size() <= THIN && p.a.dtype == Dtype::f32 && p.b.row != 1) {
        for (int64_t s = box.s.begin; s < box.s.end; s++, c += c_batch)
            thin(p.a.at(s, box.i.begin, 0), p.b.at(s, box.j.begin, 0), box.i.size(), box.j.size(), p.k, c, c_row);
        return;
    }
    const int64_t m = box.i.size(), n = box.j.size(), mr = even_part(m, MR, 1), nr = even_part(n, NR, W);
    const bool a_in_place = p.a.dtype == Dtype::f32 && n <= DIRECT_A;
    const bool b_in_place = p.b.dtype == Dtype::f32 && p.b.row == 1 && m <= DIRECT_B;
    const int64_t n_block = even_part(n, m <= 4 * MR ? 4 * NR : N_BLOCK, nr);
    pack_a.reset(), pack_b.reset();
    const int64_t blocks = std::max<int64_t>((p.k + BLOCK / 2 - 1) / BLOCK, 1), passes = divide_up(blocks, K_BLOCKS);
    for (int64_t pass = 0; pass < passes; pass++) {
        const Range part = Range{0, blocks}.part(pass, passes, 1);
        const int64_t k = part.begin * BLOCK, count = (part.end == blocks ? p.k : part.end * BLOCK) - k;
        const int64_t m_block = even_part(m, std::max<int64_t>(A_BLOCK / count, MR), mr);
        for (int64_t s = box.s.begin; s < box.s.end; s++)
            for (int64_t j = 0; j < n; j += n_block) {
                const int64_t columns = std::min(n_block, n - j);
                const Panels b = pack_b.block(p.b.at(s, box.j.begin + j, k), columns, nr, count, b_in_place);
                for (int64_t i = 0; i < m; i += m_block) {
                    const int64_t rows = std::min(m_block, m - i);
                    const Panels a = pack_a.block(p.a.at(s, box.i.begin + i, k), rows, mr, count, a_in_place);
                    TileArgs t{};
                    t.blocks = part.size(), t.rest = count - (t.blocks - 1) * BLOCK;
                    t.first_block = pass == 0, t.last_block = pass + 1 == passes;
                    t.c = c + (s - box.s.begin) * c_batch + i * c_row + j, t.c_row = c_row;
                    multiply_blocks(t, a, b, rows, columns, mr, nr);
                }
            }
    }
}

// Rows i of staged results to c: rounded to its dtype, and transposed where a and b were exchanged.
void store_staged(const Product& p, int64_t s, const Box& box, const float* staged, int64_t row) {
    const int64_t size = dtype_size(p.c_dtype);
    char* c = static_cast<char*>(p.c) + s * p.m * p.n * size;
    if (!p.exchanged) {
        for (int64_t i = box.i.begin; i < box.i.end; i++, staged += row)
            store_elements(p.c_dtype, c + (i * p.n + box.j.begin) * size,
                           Operand{reinterpret_cast<const uint32_t*>(staged), W}, box.j.size());
        return;
    }
    for (int64_t j = 0; j < box.j.size(); j += W) {
        F r[W];  // m is less than W here
        for (int i = 0; i < W; i++) r[i] = i < box.i.size() ? load<F>(staged + i * row + j) : F{};
        transpose(r);
        for (int64_t column = 0; column < std::min<int64_t>(W, box.j.size() - j); column++)
            store_elements(p.c_dtype, c + ((box.j.begin + j + column) * p.m + box.i.begin) * size,
                           Operand{reinterpret_cast<const uint32_t*>(&r[column]), W}, box.i.size());
    }
}

void compute(const Product& p, const Box& box) {
    if (box.s.size() <= 0 || box.i.size() <= 0 || box.j.size() <= 0) return;
    if (p.a.dtype == Dtype::i8) {
        for (int64_t s = box.s.begin; s < box.s.end; s++)
            multiply_int8(p.a.at(s, box.i.begin, 0), p.b.at(s, box.j.begin, 0), box.i.size(), box.j.size(), p.k,
                          static_cast<uint32_t*>(p.c) + (s * p.m + box.i.begin) * p.n + box.j.begin, p.n);
        return;
    }
    if (p.c_dtype == Dtype::f32 && (!p.exchanged || p.m == 1)) {
        float* c = static_cast<float*>(p.c) + (box.s.begin * p.m + box.i.begin) * p.n + box.j.begin;
        return multiply(p, box, c, p.n, p.m * p.n);
    }
    const int64_t columns = std::min<int64_t>(box.j.size(), 1 << 16), row = divide_up(columns, W) * W;
    const int64_t rows = std::min(box.i.size(), std::max<int64_t>(STAGED / row, MR));
    float* staged = static_cast<float*>(staging.get(size_t(rows * row) * 4));
    for (int64_t s = box.s.begin; s < box.s.end; s++)
        for (int64_t j = box.j.begin; j < box.j.end; j += columns)
            for (int64_t i = box.i.begin; i < box.i.end; i += rows) {
                const Box part{{s, s + 1}, {i, std::min(box.i.end, i + rows)}, {j, std::min(box.j.end, j + columns)}};
                multiply(p, part, staged, row, 0);
                store_staged(p, s, part, staged, row);
            }
}

// Few columns fill few lanes: vectors then run along m, where the lanes saved pay for transposing c, and a where its
// rows run along k. In units of one lane for one multiply-add.
bool better_exchanged(const Product& p) {
    const int64_t as_given = divide_up(p.n, W) * W * p.k, packing = p.a.row == 1 ? 0 : 6 * p.k;
    return p.n < std::min<int64_t>(p.m, W) && p.n * p.k + packing + (p.n > 1 ? 16 * p.n : 0) < as_given;
}

Product describe(const DotArgs& d) {
    const Side a{d.a, d.a_dtype, d.transpose_a ? 1 : d.k, d.transpose_a ? d.m : 1, d.a_batch_stride};
    const Side b{d.b, d.b_dtype, d.transpose_b ? d.k : 1, d.transpose_b ? 1 : d.n, d.b_batch_stride};
    Product p{d.batch, d.m, d.n, d.k, a, b, d.c, d.c_dtype, false};
    if (d.b_batch_stride == 0 && !d.transpose_a && d.a_batch_stride == d.m * d.k) p.m *= p.batch, p.batch = 1;
    if (a.dtype != Dtype::i8 && better_exchanged(p)) std::swap(p.a, p.b), std::swap(p.m, p.n), p.exchanged = true;
    return p;
}

// Rows and columns of the grid of `parts` boxes with the least work in the largest: products, and packing about eight
// times as dear an element.
std::pair<int64_t, int64_t> grid(const Product& p, int64_t parts) {
    std::pair<int64_t, int64_t> best{1, parts};
    int64_t least = INT64_MAX;
    for (int64_t by_m = 1; by_m <= parts; by_m++) {
        if (parts % by_m) continue;
        const int64_t m = divide_up(divide_up(p.m, MR), by_m) * MR, n = divide_up(divide_up(p.n, W), parts / by_m) * W;
        if (m * n + 8 * (m + n) < least) least = m * n + 8 * (m + n), best = {by_m, parts / by_m};
    }
    return best;
}

}  // namespace

void dot(const DotArgs& d) {
    if (d.batch == 0 || d.m == 0 || d.n == 0) return;
    if (d.k == 0) {
        std::memset(d.c, 0, size_t(d.batch * d.m * d.n) * dtype_size(d.c_dtype));
        return;
    }
    const Product p = describe(d);
    const Box all{{0, p.batch}, {0, p.m}, {0, p.n}};
    const int64_t parts = std::min<int64_t>(get_threads(), p.batch * p.m * p.n * p.k / PART);
    if (parts <= 1) return parallel_for(1, [&](int64_t) { compute(p, all); });
    if (p.batch >= 4 * parts || p.batch % parts == 0)
        return parallel_for(parts, [&](int64_t t) { compute(p, {all.s.part(t, parts, 1), all.i, all.j}); });
    const auto [by_m, by_n] = grid(p, parts);
    parallel_for(parts, [&, by_m = by_m, by_n = by_n](int64_t t) {
        compute(p, {all.s, all.i.part(t / by_n, by_m, MR), all.j.part(t % by_n, by_n, W)});
    });
}

}  // namespace gv::GV_ISA
