// Every kernel of every instruction set on memory that ends where its data end, so that a sanitizer sees a read or
// write of one byte too many, which the arena of a program would hide. Shapes are ragged, odd and empty, addresses have
// no more than the alignment of their dtype. Results are compared between instruction sets and thread counts, and with
// plain loops written here where that is short; the Python tests compare them with the definition.
//
// Build and run: cmake -DGV_NATIVE_TESTS=ON -DGV_SANITIZE=ON ... && kernels_test [cases a kernel]
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "operations.h"
#include "scalar_code.h"
#include "threads.h"

namespace {

using gv::Dtype;
using Bytes = std::vector<uint8_t>;
using Ints = std::vector<int64_t>;

constexpr uint32_t NAN_BITS = 0x7FC00000;
constexpr Dtype DTYPES[] = {Dtype::f32, Dtype::bf16, Dtype::f16,     Dtype::i32,
                            Dtype::u32, Dtype::u8,   Dtype::boolean, Dtype::i8};

struct Random {
    uint64_t state;
    uint32_t word() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return uint32_t(state >> 32);
    }
    int64_t below(int64_t n) { return int64_t(word() % uint64_t(n)); }
    bool chance(int64_t n) { return below(n) == 0; }
    template <class T>
    T of(std::initializer_list<T> list) {
        return list.begin()[below(int64_t(list.size()))];
    }
};
Random rng{1};

int failures = 0;
long checks = 0;
std::string context;

}  // namespace
// AddressSanitizer calls it before it reports.
extern "C" void __asan_on_error();
extern "C" void __asan_on_error() { std::printf("sanitizer error in %s\n", context.c_str()), std::fflush(stdout); }
namespace {

void check(bool ok, const std::string& what) {
    checks++;
    if (ok) return;
    failures++;
    std::printf("FAILED %s: %s\n", context.c_str(), what.c_str());
    if (failures > 20) std::exit(1);
}

std::string text(const char* name, std::initializer_list<int64_t> numbers) {
    std::string s = name;
    for (int64_t n : numbers) s += " " + std::to_string(n);
    return s;
}

// `count` elements in an allocation of their own that ends with them and begins a few elements before.
class Memory {
  public:
    Memory(Dtype d, int64_t count)
        : dtype(d),
          bytes(size_t(count) * size_t(gv::dtype_size(d))),
          shift_(size_t(rng.below(4) * gv::dtype_size(d))),
          data_(new uint8_t[shift_ + bytes]) {
        std::memset(data_.get(), 0xA5, shift_ + bytes);
    }
    uint8_t* at() const { return data_.get() + shift_; }
    Bytes copy() const { return Bytes(at(), at() + bytes); }
    const Dtype dtype;
    const size_t bytes;

  private:
    size_t shift_;
    std::unique_ptr<uint8_t[]> data_;
};

uint32_t random_element(Dtype d) {
    const uint32_t w = rng.word();
    switch (d) {
        case Dtype::f32: {
            constexpr uint32_t special[] = {0,          0x80000000, 1,          0x807FFFFF, 0x00800000, 0x3F800000,
                                            0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFF812345, 0x4B800001};
            if (rng.chance(24)) return special[rng.below(12)];
            return rng.chance(24) ? w : (w & 0x807FFFFF) | (120 + w / 64 % 14) << 23;
        }
        case Dtype::bf16:
            return rng.chance(24) ? w >> 16 : (w & 0x807F) | (120 + w / 256 % 14) << 7;
        case Dtype::f16:
            return rng.chance(24) ? w >> 16 : (w & 0x83FF) | (11 + w / 65536 % 8) << 10;
        case Dtype::u8:
        case Dtype::i8:
            return w & 0xFF;
        case Dtype::boolean:
            return w & 1;
        default:
            return rng.chance(4) ? w % 16 : w;
    }
}

void randomise(const Memory& m) {
    const size_t size = size_t(gv::dtype_size(m.dtype));
    for (size_t i = 0; i < m.bytes; i += size) {
        const uint32_t bits = random_element(m.dtype);
        std::memcpy(m.at() + i, &bits, size);
    }
}

template <class T>
T get(const void* p, int64_t i) {
    T v;
    std::memcpy(&v, static_cast<const uint8_t*>(p) + i * int64_t(sizeof(T)), sizeof(T));
    return v;
}

float from_bits(uint32_t b) { return get<float>(&b, 0); }
uint32_t to_bits(float x) { return x != x ? NAN_BITS : get<uint32_t>(&x, 0); }

float load_float(const Memory& m, int64_t i) {
    if (m.dtype == Dtype::f32) return get<float>(m.at(), i);
    const uint32_t h = get<uint16_t>(m.at(), i);
    if (m.dtype == Dtype::bf16) return from_bits(h << 16);
    const int exponent = int(h >> 10 & 31), fraction = int(h & 0x3FF);
    const float magnitude = exponent == 31  ? (fraction ? from_bits(NAN_BITS) : from_bits(0x7F800000))
                            : exponent == 0 ? std::ldexp(float(fraction), -24)
                                            : std::ldexp(float(fraction + 1024), exponent - 25);
    return h >> 15 ? -magnitude : magnitude;
}

// Runs `call` under every instruction set with one thread and three; all must leave the same bytes in `out`.
template <class Call>
Bytes run_everywhere(const Memory& out, Call&& call) {
    Bytes first;
    for (const char* const* isa = gv::supported_isas(); *isa; isa++)
        for (int threads : {1, 3}) {
            gv::use_isa(*isa);
            gv::set_threads(threads);
            std::memset(out.at(), 0xA5, out.bytes);
            call(gv::kernels());
            if (isa == gv::supported_isas() && threads == 1)
                first = out.copy();
            else
                check(out.copy() == first, std::string(*isa) + " differs with " + std::to_string(threads) + " threads");
        }
    return first;
}

int64_t product(const Ints& shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

// Calls visit(index) for every index of the shape in row-major order.
template <class Visit>
void every_index(const Ints& shape, Visit&& visit) {
    Ints index(shape.size(), 0);
    for (int64_t left = product(shape); left > 0; left--) {
        visit(index);
        for (size_t axis = shape.size(); axis-- > 0 && ++index[axis] == shape[axis];) index[axis] = 0;
    }
}

int64_t dot_product(const Ints& a, const Ints& b) {
    int64_t n = 0;
    for (size_t i = 0; i < a.size(); i++) n += a[i] * b[i];
    return n;
}

Ints random_shape(int max_rank, int64_t most) {
    Ints shape;
    for (int64_t rank = rng.below(max_rank + 1); rank > 0; rank--) {
        const int64_t d = rng.chance(20) ? 0 : rng.of<int64_t>({1, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 65, 200});
        if (product(shape) * d <= most) shape.push_back(d);
    }
    return shape;
}

// A view of `shape` in memory of its own: axes permuted, reversed, spaced out or repeated. `first` is the offset of
// index 0, `size` the elements that the memory has from its lowest to its highest one.
struct View {
    Ints strides;
    int64_t first = 0, size = 0;
    View(const Ints& shape, bool repeat) : strides(shape.size()) {
        std::vector<size_t> order(shape.size());
        for (size_t i = 0; i < order.size(); i++) order[i] = i;
        if (rng.chance(2))
            for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[size_t(rng.below(int64_t(i)))]);
        int64_t step = 1, last = 0;
        for (size_t i = order.size(); i-- > 0;) {
            const size_t axis = order[i];
            const int64_t d = std::max<int64_t>(shape[axis], 1);
            if (repeat && rng.chance(5)) continue;  // stride 0
            if (rng.chance(6)) step *= 2;
            strides[axis] = step;
            if (rng.chance(8)) strides[axis] = -step, first += (d - 1) * step;
            last += (d - 1) * step;
            step *= d;
        }
        size = product(shape) == 0 ? 0 : last + 1;
        if (size == 0) first = 0;
    }
};

// ---- dot

void test_dot() {
    const int64_t m = rng.of<int64_t>({0, 1, 2, 3, 5, 8, 9, 16, 17, 31, 50});
    const int64_t n = rng.of<int64_t>({0, 1, 2, 3, 7, 12, 15, 16, 17, 33, 48, 49, 66, 97});
    int64_t k = rng.of<int64_t>({0, 1, 2, 5, 16, 63, 127, 128, 129, 192, 193, 257, 321, 500});
    if (m * n * k > 200000) k = rng.below(60);
    const int64_t batch = rng.of<int64_t>({0, 1, 1, 1, 2, 3});
    const bool ta = rng.chance(2), tb = rng.chance(2), once_a = rng.chance(4), once_b = rng.chance(4);
    const Dtype da = DTYPES[rng.chance(2) ? 0 : rng.below(3)], db = DTYPES[rng.chance(2) ? 0 : rng.below(3)];
    const Dtype dc = DTYPES[rng.chance(2) ? 0 : rng.below(3)];
    context = text("dot batch m n k ta tb da db dc", {batch, m, n, k, ta, tb, int(da), int(db), int(dc)});
    Memory a(da, (once_a ? 1 : batch) * m * k), b(db, (once_b ? 1 : batch) * k * n), c(dc, batch * m * n);
    randomise(a), randomise(b);
    const gv::DotArgs args{batch, m,  n,  k,  a.at(), b.at(), c.at(), once_a ? 0 : m * k, once_b ? 0 : k * n,
                           da,    db, dc, ta, tb};
    const Bytes found = run_everywhere(c, [&](const gv::Kernels& kernels) { kernels.dot(args); });
    if (dc != Dtype::f32) return;
    for (int64_t s = 0; s < batch; s++)
        for (int64_t e = 0; e < std::min<int64_t>(m * n, 12); e++) {
            const int64_t i = rng.below(m), j = rng.below(n);
            float total = 0;
            for (int64_t begin = 0, end; begin < k; begin = end) {
                end = k - begin <= 192 ? k : begin + 128;
                float acc = 0;
                for (int64_t x = begin; x < end; x++)
                    acc = std::fma(load_float(a, s * args.a_batch_stride + (ta ? x * m + i : i * k + x)),
                                   load_float(b, s * args.b_batch_stride + (tb ? j * k + x : x * n + j)), acc);
                total = begin == 0 ? acc : total + acc;
            }
            check(get<uint32_t>(found.data(), (s * m + i) * n + j) == to_bits(total), text("element", {s, i, j}));
        }
}

void test_dot_of_i8() {
    const int64_t m = rng.of<int64_t>({1, 2, 7, 8, 9, 33}), n = rng.of<int64_t>({1, 3, 16, 17, 47, 48, 50, 130});
    const int64_t k = rng.of<int64_t>({0, 1, 2, 3, 4, 5, 511, 513, 1023, 1025}), batch = rng.of<int64_t>({1, 2});
    const bool ta = rng.chance(2), tb = rng.chance(2), once = rng.chance(2);
    context = text("dot of i8 batch m n k ta tb once", {batch, m, n, k, ta, tb, once});
    Memory a(Dtype::i8, (once ? 1 : batch) * m * k), b(Dtype::i8, batch * k * n), c(Dtype::i32, batch * m * n);
    randomise(a), randomise(b);
    const int64_t a_batch = once ? 0 : m * k, b_batch = k * n;
    const gv::DotArgs args{batch,   m,       n,         k,         a.at(),     b.at(), c.at(),
                           a_batch, b_batch, Dtype::i8, Dtype::i8, Dtype::i32, ta,     tb};
    const Bytes found = run_everywhere(c, [&](const gv::Kernels& kernels) { kernels.dot(args); });
    for (int64_t s = 0; s < batch; s++)
        for (int64_t e = 0; e < std::min<int64_t>(m * n, 40); e++) {
            const int64_t i = rng.below(m), j = rng.below(n);
            int64_t total = 0;
            for (int64_t x = 0; x < k; x++)
                total += int64_t(get<int8_t>(a.at(), s * a_batch + (ta ? x * m + i : i * k + x))) *
                         get<int8_t>(b.at(), s * b_batch + (tb ? j * k + x : x * n + j));
            check(get<int32_t>(found.data(), (s * m + i) * n + j) == total, text("element", {s, i, j}));
        }
}

// ---- map

struct Operation {
    const char* name;
    std::string types;  // result, operands
};
const Operation OPERATIONS[] = {
#define GV_X1(name, R, A) {#name, #R #A},
#define GV_X2(name, R, A, B) {#name, #R #A #B},
#define GV_X3(name, R, A, B, C) {#name, #R #A #B #C},
    GV_OPERATIONS(GV_X1, GV_X2, GV_X3)};

char letter(Dtype d) {
    return d == Dtype::i32 || d == Dtype::i8   ? 'I'
           : d == Dtype::u32 || d == Dtype::u8 ? 'U'
           : d == Dtype::boolean               ? 'M'
                                               : 'F';
}
Dtype storage(char c) {
    if (c == 'F') return DTYPES[rng.below(3)];
    if (c == 'U') return rng.chance(2) ? Dtype::u8 : Dtype::u32;
    return c != 'I' ? Dtype::boolean : rng.chance(2) ? Dtype::i8 : Dtype::i32;
}

// A random scalar program over the inputs' types.
struct Program {
    std::string types;  // of every value
    std::vector<uint32_t> constants;
    std::vector<uint16_t> code, outputs;
    std::vector<uint8_t> type_codes;
    gv::Schedule schedule;
    gv::ScalarCode scalar{};

    Program(const std::string& inputs, int instructions, int n_outputs) : types(inputs) {
        for (int64_t n = rng.below(3); n > 0; n--) {
            constants.push_back(random_element(Dtype::f32) & ~0x00400000u);
            if ((constants.back() & 0x7FFFFFFF) > 0x7F800000) constants.back() = NAN_BITS;
            types += 'F';
        }
        while (instructions > 0) {
            const int64_t number = rng.below(gv_count());
            const Operation& op = OPERATIONS[number];
            uint16_t words[4] = {uint16_t(number), 0, 0, 0};
            bool possible = true;
            for (size_t i = 1; i < op.types.size() && possible; i++) possible = pick(op.types[i], words[i]);
            if (!possible) continue;
            code.insert(code.end(), words, words + 4);
            types += op.types[0];
            instructions--;
        }
        for (int i = 0; i < n_outputs; i++) outputs.push_back(uint16_t(rng.below(int64_t(types.size()))));
        for (char c : types) type_codes.push_back(c == 'F' ? 0 : c == 'I' ? 1 : c == 'U' ? 2 : 3);
        scalar.n_inputs = int(inputs.size());
        scalar.n_constants = int(constants.size());
        scalar.n_instructions = int(code.size() / 4);
        scalar.n_outputs = n_outputs;
        scalar.constants = constants.data(), scalar.code = code.data(), scalar.outputs = outputs.data();
        scalar.value_types = type_codes.data();
        schedule = gv::schedule(scalar);
        scalar.steps = schedule.steps.data(), scalar.n_steps = int(schedule.steps.size());
        scalar.registers = schedule.registers.data(), scalar.n_registers = schedule.n_registers;
        scalar.compiled = gv::find_published(scalar);
    }

  private:
    static int64_t gv_count() { return int64_t(std::size(OPERATIONS)); }
    bool pick(char type, uint16_t& value) const {
        std::vector<uint16_t> fit;
        for (size_t v = 0; v < types.size(); v++)
            if (types[v] == type) fit.push_back(uint16_t(v));
        if (fit.empty()) return false;
        value = fit[size_t(rng.below(int64_t(fit.size())))];
        return true;
    }
};

void test_map() {
    const Ints shape = random_shape(4, 6000);
    const int64_t elements = product(shape);
    std::string letters = "F";
    for (int64_t n = rng.below(4); n > 0; n--) letters += rng.of({'F', 'I', 'U', 'M'});
    const int instructions = int(rng.below(14)), n_outputs = int(1 + rng.below(3));
    const Program program(letters, instructions, n_outputs);
    context = text("map elements rank inputs instructions",
                   {elements, int64_t(shape.size()), int64_t(letters.size()), int64_t(program.code.size() / 4)});
    std::vector<Memory> inputs, outputs;
    std::vector<View> views;
    std::vector<const void*> in;
    std::vector<const int64_t*> strides;
    std::vector<Dtype> in_types, out_types;
    for (char c : letters) {
        views.emplace_back(shape, true);
        inputs.emplace_back(storage(c), views.back().size);
        randomise(inputs.back());
        in_types.push_back(inputs.back().dtype);
        in.push_back(inputs.back().at() + views.back().first * gv::dtype_size(in_types.back()));
    }
    for (const View& v : views) strides.push_back(v.strides.data());
    for (uint16_t v : program.outputs) {
        out_types.push_back(storage(program.types[v]));
        outputs.emplace_back(out_types.back(), elements);
    }
    std::vector<void*> out;
    for (const Memory& m : outputs) out.push_back(m.at());
    const int64_t middle = elements ? rng.below(elements + 1) : 0;
    for (const Memory& watched : outputs)
        run_everywhere(watched, [&](const gv::Kernels& kernels) {
            const auto run = [&](int64_t begin, int64_t end) {
                gv::MapArgs args{};
                args.program = &program.scalar;
                args.rank = int(shape.size()), args.shape = shape.data();
                args.inputs = in.data(), args.strides = strides.data(), args.input_dtypes = in_types.data();
                args.outputs = out.data(), args.output_dtypes = out_types.data();
                args.begin = begin, args.end = end;
                kernels.map(args);
            };
            if (gv::get_threads() == 1) return run(0, elements);
            run(0, middle), run(middle, elements);  // a range at a time: the same bits
        });
}

// ---- reduce

float fold(const std::vector<float>& x) {
    if (x.size() > 2048) {
        std::vector<float> sums;
        for (size_t i = 0; i < x.size(); i += 2048)
            sums.push_back(fold({x.begin() + long(i), x.begin() + long(std::min(i + 2048, x.size()))}));
        return fold(sums);
    }
    float lanes[64];
    for (float& l : lanes) l = -0.0f;
    for (size_t i = 0; i < x.size(); i++) lanes[i % 64] += x[i];
    for (int h = 32; h; h /= 2)
        for (int l = 0; l < h; l++) lanes[l] += lanes[l + h];
    return lanes[0];
}

void test_reduce() {
    const Dtype d = DTYPES[rng.chance(3) ? 0 : rng.below(6)];  // not of booleans
    const auto op = gv::Reduction(rng.below(5));
    Ints shape = random_shape(4, 6000);
    if (rng.chance(10)) shape = rng.chance(2) ? Ints{3, 2049} : Ints{70001};
    Ints kept, reduced, kept_strides, reduced_strides;
    const View view(shape, false);
    for (size_t axis = 0; axis < shape.size(); axis++) {
        const bool gone = rng.chance(2);
        (gone ? reduced : kept).push_back(shape[axis]);
        (gone ? reduced_strides : kept_strides).push_back(view.strides[axis]);
    }
    const int64_t rows = product(kept), n = product(reduced);
    if (n == 0 && op != gv::Reduction::sum) return;
    context = text("reduce op dtype rows n", {int64_t(op), int64_t(d), rows, n});
    const bool position = op == gv::Reduction::argmax || op == gv::Reduction::argmin;
    Memory x(d, view.size), y(position ? Dtype::i32 : d, rows);
    randomise(x);
    const int64_t base = view.first;
    const Bytes found = run_everywhere(y, [&](const gv::Kernels& kernels) {
        const auto run = [&](int64_t begin, int64_t end) {
            kernels.reduce({op, int(kept.size()), int(reduced.size()), kept.data(), kept_strides.data(), reduced.data(),
                            reduced_strides.data(), x.at() + base * gv::dtype_size(d), y.at(), d, y.dtype, begin, end});
        };
        if (gv::get_threads() == 1) return run(0, rows);
        run(0, rows / 3), run(rows / 3, rows);
    });
    if (op != gv::Reduction::sum || d != Dtype::f32) return;
    int64_t o = 0;
    every_index(kept, [&](const Ints& i) {
        std::vector<float> values;
        every_index(reduced, [&](const Ints& j) {
            values.push_back(load_float(x, base + dot_product(i, kept_strides) + dot_product(j, reduced_strides)));
        });
        check(get<uint32_t>(found.data(), o) == (values.empty() ? 0 : to_bits(fold(values))), text("row", {o}));
        o++;
    });
}

// ---- copy, fill

void test_copy() {
    const Ints shape = random_shape(5, 8000);
    const Dtype d = rng.of({Dtype::f32, Dtype::f16, Dtype::u8});
    const int64_t size = gv::dtype_size(d);
    const View from(shape, true), to(shape, false);
    context = text("copy size rank elements", {size, int64_t(shape.size()), product(shape)});
    Memory source(d, from.size), target(d, to.size);
    randomise(source);
    const Bytes found = run_everywhere(target, [&](const gv::Kernels& kernels) {
        kernels.copy({int(size), int(shape.size()), shape.data(), from.strides.data(), to.strides.data(),
                      source.at() + from.first * size, target.at() + to.first * size});
    });
    Bytes wanted(target.bytes, 0xA5);
    every_index(shape, [&](const Ints& i) {
        std::memcpy(wanted.data() + (to.first + dot_product(i, to.strides)) * size,
                    source.at() + (from.first + dot_product(i, from.strides)) * size, size_t(size));
    });
    check(found == wanted, "other bytes than a plain loop");
}

void test_fill() {
    const Dtype d = rng.of({Dtype::f32, Dtype::f16, Dtype::u8});
    const int64_t count = rng.below(300), size = gv::dtype_size(d);
    const uint32_t bits = rng.word() & (size == 4 ? ~0u : (1u << 8 * size) - 1);
    context = text("fill size count", {size, count});
    Memory target(d, count);
    const Bytes found = run_everywhere(
        target, [&](const gv::Kernels& kernels) { kernels.fill({int(size), bits, count, target.at()}); });
    for (int64_t i = 0; i < count; i++)
        check(std::memcmp(found.data() + i * size, &bits, size_t(size)) == 0, text("element", {i}));
}

// ---- gather, scatter_add

Memory random_index(int64_t count, int64_t rows) {
    Memory index(Dtype::i32, count);
    for (int64_t i = 0; i < count; i++) {
        const int32_t v = rng.chance(12) ? int32_t(rng.word()) : int32_t(rng.below(rows + 2)) - 1;
        std::memcpy(index.at() + 4 * i, &v, 4);
    }
    return index;
}

void test_gather() {
    const Dtype d = DTYPES[rng.below(8)];
    const int64_t rows = rng.below(9), row = rng.of<int64_t>({0, 1, 2, 5, 33}), count = rng.below(60);
    const int64_t size = gv::dtype_size(d) * row;
    context = text("gather dtype rows row count", {int64_t(d), rows, row, count});
    const Memory data(d, rows * row), index = random_index(count, rows), out(d, count * row);
    randomise(data);
    const Bytes found = run_everywhere(out, [&](const gv::Kernels& kernels) {
        kernels.gather({data.at(), reinterpret_cast<const int32_t*>(index.at()), out.at(), rows, row, count, d});
    });
    for (int64_t i = 0; i < count; i++) {
        const int32_t from = get<int32_t>(index.at(), i);
        if (from >= 0 && from < rows)
            check(std::equal(found.data() + i * size, found.data() + (i + 1) * size, data.at() + from * size), "row");
        else if (row && d == Dtype::f32)
            check(get<uint32_t>(found.data(), i * row) == NAN_BITS, "a row outside is not NaN");
    }
}

void test_scatter_add() {
    const Dtype from = DTYPES[rng.below(6)];  // not of booleans
    const Dtype into = storage(letter(from));
    const int64_t rows = 1 + rng.below(9), row = rng.of<int64_t>({1, 2, 5, 33}), count = rng.below(80);
    context = text("scatter_add from into rows row count", {int64_t(from), int64_t(into), rows, row, count});
    const Memory source(from, count * row), index = random_index(count, rows), out(into, rows * row);
    randomise(source);
    const Bytes found = run_everywhere(out, [&](const gv::Kernels& kernels) {
        kernels.scatter_add(
            {source.at(), reinterpret_cast<const int32_t*>(index.at()), out.at(), rows, row, count, from, into});
    });
    if (into != Dtype::f32) return;
    std::vector<float> sums(size_t(rows * row), 0.0f);
    for (int64_t i = 0; i < count; i++) {
        const int32_t to = get<int32_t>(index.at(), i);
        for (int64_t j = 0; j < row && to >= 0 && to < rows; j++)
            sums[size_t(to * row + j)] += load_float(source, i * row + j);
    }
    for (size_t e = 0; e < sums.size(); e++)
        check(get<uint32_t>(found.data(), int64_t(e)) == to_bits(sums[e]), text("element", {int64_t(e)}));
}

// ---- random

uint32_t philox(uint64_t block, uint32_t stream, uint32_t step, const uint32_t* seed, int64_t word) {
    uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), stream, step}, k0 = seed[0], k1 = seed[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const uint64_t p = uint64_t(c[0]) * 0xD2511F53u, q = uint64_t(c[2]) * 0xCD9E8D57u;
        c[0] = uint32_t(q >> 32) ^ c[1] ^ k0;
        c[1] = uint32_t(q);
        c[2] = uint32_t(p >> 32) ^ c[3] ^ k1;
        c[3] = uint32_t(p);
    }
    return c[word];
}

void test_random() {
    const int64_t count = rng.chance(20) ? 70000 : rng.below(700);
    const uint32_t seed[2] = {rng.word(), rng.word()}, step = rng.word(), stream = rng.word();
    context = text("random count", {count});
    const Memory out(Dtype::u32, count);
    const Bytes found = run_everywhere(out, [&](const gv::Kernels& kernels) {
        kernels.random({seed, &step, stream, count, reinterpret_cast<uint32_t*>(out.at())});
    });
    for (int64_t e = 0; e < count; e++)
        if (get<uint32_t>(found.data(), e) != philox(uint64_t(e / 4), stream, step, seed, e % 4))
            return check(false, text("element", {e}));
    check(true, "");
}

// ---- blake3

void test_blake3() {
    const int64_t chunks = rng.below(70), beside = rng.of<int64_t>({-1, 0, 1, 500});
    const int64_t n = rng.chance(3) ? rng.below(400000) : chunks * 1024 + beside;
    if (n < 0) return;
    context = text("blake3 bytes", {n});
    const Memory data(Dtype::u8, n), tree(Dtype::u8, int64_t(gv::blake3_tree_bytes(size_t(n)))), root(Dtype::u8, 32);
    randomise(data);
    const Bytes found = run_everywhere(
        tree, [&](const gv::Kernels& kernels) { kernels.blake3({data.at(), data.bytes, tree.at(), root.at()}); });
    check(std::equal(found.end() - 32, found.end(), root.at()), "the tree does not end with the root");
    const Bytes alone = run_everywhere(
        root, [&](const gv::Kernels& kernels) { kernels.blake3({data.at(), data.bytes, nullptr, root.at()}); });
    check(std::equal(found.end() - 32, found.end(), alone.begin()), "the root depends on whether the tree is kept");
}

void test_blake3_of_nothing() {
    context = "blake3 of nothing";
    static const uint8_t known[] = {0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d,
                                    0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1,
                                    0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62};
    const Memory root(Dtype::u8, 32);
    const Bytes found =
        run_everywhere(root, [&](const gv::Kernels& kernels) { kernels.blake3({nullptr, 0, nullptr, root.at()}); });
    check(std::equal(found.begin(), found.end(), known), "not the published digest");
}

}  // namespace

int main(int argc, char** argv) {
    const long cases = argc > 1 ? std::atol(argv[1]) : 300;
    test_blake3_of_nothing();
    for (long i = 0; i < cases; i++) {
        rng.state = uint64_t(i) + 1;
        test_dot(), test_dot_of_i8(), test_map(), test_reduce(), test_copy(), test_fill();
        test_gather(), test_scatter_add(), test_random(), test_blake3();
    }
    std::printf("%ld checks on", checks);
    for (const char* const* isa = gv::supported_isas(); *isa; isa++) std::printf(" %s", *isa);
    std::printf(", %d failures\n", failures);
    return failures != 0;
}
