// map: a scalar program at every element. The program runs over blocks of elements, one instruction after the other, so
// that its registers stay in the first cache level; every instruction is one loop over vectors. Elements do not meet:
// blocks and threads may cut the tensor anywhere without changing a bit.
#include <algorithm>

#include "operations.h"
#include "scalar_ops.h"
#include "scratch.h"
#include "strided.h"
#include "threads.h"
#define GV_PUBLISHED_LOOPS
#include "published.h"

namespace gv::GV_ISA {
namespace {

typedef void (*Loop)(uint32_t* out, const Operand* x, int64_t vectors);

// A uniform operand is loaded once: a loop that only loads varying ones is up to twice as fast.
template <class V, bool uniform>
struct Source {
    explicit Source(Operand x) : at(x.at), first(load<V>(x.at)) {}
    V operator[](int64_t i) const { return uniform ? first : load<V>(at + i * W); }
    const uint32_t* at;
    V first;
};

template <class R, class A, R (*f)(A)>
void loop1(uint32_t* out, const Operand* x, int64_t vectors) {
    const Source<A, false> a(x[0]);
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(a[i]));
}
template <class R, class A, class B, R (*f)(A, B), bool ua, bool ub>
void loop2(uint32_t* out, const Operand* x, int64_t vectors) {
    const Source<A, ua> a(x[0]);
    const Source<B, ub> b(x[1]);
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(a[i], b[i]));
}
template <class R, class A, class B, R (*f)(A, B)>
void loop2(uint32_t* out, const Operand* x, int64_t vectors) {
    if (x[0].step == 0) return loop2<R, A, B, f, true, false>(out, x, vectors);
    if (x[1].step == 0) return loop2<R, A, B, f, false, true>(out, x, vectors);
    loop2<R, A, B, f, false, false>(out, x, vectors);
}
template <class R, class A, class B, class C, R (*f)(A, B, C), bool ua, bool ub, bool uc>
void loop3(uint32_t* out, const Operand* x, int64_t vectors) {
    const Source<A, ua> a(x[0]);
    const Source<B, ub> b(x[1]);
    const Source<C, uc> c(x[2]);
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(a[i], b[i], c[i]));
}
template <class R, class A, class B, class C, R (*f)(A, B, C)>
void loop3(uint32_t* out, const Operand* x, int64_t vectors) {
    const bool ua = x[0].step == 0, ub = x[1].step == 0, uc = x[2].step == 0;
    if (ua && ub) return loop3<R, A, B, C, f, true, true, false>(out, x, vectors);
    if (ua && uc) return loop3<R, A, B, C, f, true, false, true>(out, x, vectors);
    if (ub && uc) return loop3<R, A, B, C, f, false, true, true>(out, x, vectors);
    if (ua) return loop3<R, A, B, C, f, true, false, false>(out, x, vectors);
    if (ub) return loop3<R, A, B, C, f, false, true, false>(out, x, vectors);
    if (uc) return loop3<R, A, B, C, f, false, false, true>(out, x, vectors);
    loop3<R, A, B, C, f, false, false, false>(out, x, vectors);
}

constexpr Loop loops[] = {
#define GV_X1(name, R, A) loop1<R, A, name>,
#define GV_X2(name, R, A, B) loop2<R, A, B, name>,
#define GV_X3(name, R, A, B, C) loop3<R, A, B, C, name>,
    GV_OPERATIONS(GV_X1, GV_X2, GV_X3)
#undef GV_X1
#undef GV_X2
#undef GV_X3
};

// The tensor as a box of few axes: axes of extent 1 are gone and neighbours that every input walks evenly are one.
struct Box {
    int rank = 0;
    int64_t shape[MAX_RANK], elements = 1;

    Box(const MapArgs& m, int64_t (*strides)[MAX_RANK]) {
        const int n = m.program->n_inputs;
        for (int axis = 0; axis < m.rank; axis++) {
            const int64_t d = m.shape[axis];
            elements *= d;
            if (d == 1) continue;
            bool merge = rank > 0;
            for (int i = 0; i < n && merge; i++) merge = strides[i][rank - 1] == m.strides[i][axis] * d;
            if (!merge) rank++, shape[rank - 1] = 1;
            shape[rank - 1] *= d;
            for (int i = 0; i < n; i++) strides[i][rank - 1] = m.strides[i][axis];
        }
        if (rank == 0) {
            rank = shape[0] = 1;
            for (int i = 0; i < n; i++) strides[i][0] = 0;
        }
    }
    int64_t inner() const { return shape[rank - 1]; }
};

// How an input is read: `flat` like the output, `same` one element for all, `row` evenly along a row, `periodic` flat
// over the last axes and repeated over the others, `staged` in any other way.
enum class Walk : uint8_t { flat, same, row, periodic, staged };

constexpr int MAX_INPUTS = 64, MAX_OUTPUTS = 16;
constexpr int64_t LONG_ROW = 512;           // rows this long are cut into blocks of their own
constexpr int64_t BLOCK_BYTES = 24 * 1024;  // of registers and staging: most of the first cache level
constexpr int64_t SHORTEST = 64, LONGEST = 4096;
constexpr int64_t PARALLEL_WORK = 1 << 18;  // elements times loops from which a second thread pays
constexpr int64_t STREAMED = 1 << 21;       // elements of outputs that are stored past the caches
constexpr uint8_t BOOLEAN = 3;              // Reg.boolean

// What one call decides once.
struct Plan {
    const MapArgs& m;
    const ScalarCode& p;
    PublishedLoop compiled;
    int64_t strides[MAX_INPUTS][MAX_RANK];
    Box box;
    bool rows;  // blocks stay within rows
    Walk walk[MAX_INPUTS];
    int64_t period[MAX_INPUTS];
    bool streams;     // outputs are too large for the caches to keep them
    int64_t block;    // elements, whole vectors
    int64_t spacing;  // of registers, in words: not a multiple of a page, or all would share the same few cache lines
    int64_t staging;  // words that an input may need: a block, its last vector written whole, or a period more

    explicit Plan(const MapArgs& args)
        : m(args),
          p(*args.program),
          compiled(p.compiled < 0 ? nullptr : published_loops<false>[p.compiled]),
          box(args, strides),
          rows(box.rank == 1 || box.inner() >= LONG_ROW) {
        streams = compiled && m.end - m.begin >= STREAMED;  // not in a region, where blocks are small
        int buffers = registers();
        for (int i = 0; i < p.n_inputs; i++) {
            walk[i] = how(i);
            buffers += walk[i] != Walk::same;
        }
        const int64_t longest = m.ahead ? LONGEST / 4 : LONGEST;
        block = std::clamp(BLOCK_BYTES / (W * 4) / std::max(buffers, 1) * W, SHORTEST, longest);
        spacing = block + 32;
        staging = block + W;
        for (int i = 0; i < p.n_inputs; i++)
            if (walk[i] == Walk::periodic) staging = std::max(staging, period[i] + block + 2 * W);
        staging = (staging + W - 1) / W * W;
    }

    // Of the machine; compiled code only needs a place for every output that is narrow.
    int registers() const { return compiled ? p.n_outputs : p.n_registers; }
    int values() const { return p.n_inputs + (compiled ? 0 : p.n_constants + p.n_instructions); }

    // Whether a block reads one element of the input for all of its own.
    bool uniform(int i) const {
        return walk[i] == Walk::same || (walk[i] == Walk::row && strides[i][box.rank - 1] == 0);
    }

  private:
    Walk how(int i) {
        const int64_t* s = strides[i];
        bool flat = true, same = true;
        for (int64_t axis = box.rank - 1, step = 1; axis >= 0; step *= box.shape[axis--])
            flat &= s[axis] == step, same &= s[axis] == 0;
        if (box.elements == 1 || same) return Walk::same;
        if (flat) return Walk::flat;
        if (rows) return s[box.rank - 1] == 0 || s[box.rank - 1] == 1 ? Walk::row : Walk::staged;
        int axis = box.rank - 1;
        for (period[i] = 1; axis >= 0 && s[axis] == period[i]; axis--) period[i] *= box.shape[axis];
        while (axis >= 0 && s[axis] == 0) axis--;
        return axis < 0 && period[i] <= LONGEST ? Walk::periodic : Walk::staged;
    }
};

// One thread's registers, constants and staging, and the walk over its share of the elements.
class Machine {
  public:
    Machine(const Plan& plan, uint8_t* memory) : plan_(plan) {
        const ScalarCode& p = plan.p;
        values_ = reinterpret_cast<Operand*>(memory);
        staging_ = reinterpret_cast<uint32_t*>(memory + header_bytes(plan));
        registers_ = staging_ + p.n_inputs * plan.staging;
        if (plan.compiled) return;
        uint32_t* at = registers_ + p.n_registers * plan.spacing;
        for (int v = p.n_inputs; v < p.n_inputs + p.n_constants; v++, at += W) {
            const bool boolean = p.value_types[v] == BOOLEAN;
            store(at, splat(boolean ? 0u - p.constants[v - p.n_inputs] : p.constants[v - p.n_inputs]));
            values_[v] = {at, 0};
        }
        for (int i = 0; i < p.n_inputs; i++) values_[i].step = plan.uniform(i) ? 0 : W;
        for (int k = 0; k < p.n_steps; k++) {
            const Step& s = p.steps[k];
            // Of values that are one for all elements, one vector is computed: beside the registers, since a register
            // may be reused by a step that is still reading it.
            const int64_t varies = values_[s.args[0]].step | values_[s.args[1]].step | values_[s.args[2]].step;
            values_[s.result] = {varies ? registers_ + p.registers[k] * plan.spacing : at + k * W, varies};
        }
    }

    static size_t bytes(const Plan& plan) {
        const int64_t words = plan.p.n_inputs * plan.staging + plan.registers() * plan.spacing +
                              (plan.p.n_constants + plan.p.n_steps) * W;
        return header_bytes(plan) + size_t(words) * 4;
    }

    void run(int64_t begin, int64_t end) {
        for (int i = 0; i < plan_.p.n_inputs; i++) once(i, begin, end);
        const int64_t inner = plan_.box.inner();
        while (begin < end) {
            int64_t n = std::min(plan_.block, end - begin);
            if (plan_.rows) n = std::min(n, inner - begin % inner);
            if (n > W) n -= n % W;  // whole vectors are read where they lie
            fetch_ahead(begin, n, end);
            block(begin, n);
            begin += n;
        }
        if (plan_.streams) end_streams();
    }

  private:
    static size_t header_bytes(const Plan& plan) { return (size_t(plan.values()) * sizeof(Operand) + 63) / 64 * 64; }

    // While this block is computed, memory may bring what the next one reads: a block reads its inputs in one go and
    // then computes for long, so the CPU's own prefetching comes late. The caller's `ahead` comes along in equal
    // shares.
    void fetch_ahead(int64_t e, int64_t n, int64_t end) const {
        const int64_t next = std::min(n, end - e - n);
        for (int i = 0; i < plan_.p.n_inputs && !plan_.compiled; i++) {
            const int64_t size = dtype_size(plan_.m.input_dtypes[i]);
            if (plan_.walk[i] == Walk::flat)
                fetch(static_cast<const uint8_t*>(plan_.m.inputs[i]) + (e + n) * size, next * size);
        }
        for (int o = 0; o < plan_.p.n_outputs && !plan_.compiled; o++) {
            const uint8_t* at = static_cast<const uint8_t*>(output(o, e));
            for (int64_t i = 0; i < n * dtype_size(dtype(o)); i += 64) __builtin_prefetch(at + i, 1, 3);
        }
        if (plan_.m.ahead) {
            const int64_t all = plan_.m.end - plan_.m.begin, bytes = plan_.m.ahead_bytes;
            const int64_t from = bytes * (e - plan_.m.begin) / all, to = bytes * (e + n - plan_.m.begin) / all;
            fetch(static_cast<const uint8_t*>(plan_.m.ahead) + from, to - from);
        }
    }
    static void fetch(const uint8_t* at, int64_t bytes) {
        for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
    }

    void block(int64_t e, int64_t n) {
        for (int i = 0; i < plan_.p.n_inputs; i++) input(i, e, n);
        if (plan_.compiled)
            run_compiled(e, n);
        else
            run_code(e, n);
    }

    void run_code(int64_t e, int64_t n) {
        const ScalarCode& p = plan_.p;
        for (int k = 0; k < p.n_steps; k++) {
            const Step& s = p.steps[k];
            const Operand x[3] = {values_[s.args[0]], values_[s.args[1]], values_[s.args[2]]};
            uint32_t* const to = const_cast<uint32_t*>(values_[s.result].at);
            const int64_t vectors = values_[s.result].step ? (n + W - 1) / W : 1;
            if (s.op < operation_count)
                loops[s.op](to, x, vectors);
            else
                published_loops<false>[s.op - operation_count](vectors, x, & to);
        }
        for (int o = 0; o < p.n_outputs; o++) store_elements(dtype(o), output(o, e), values_[p.outputs[o]], n);
    }

    // Compiled code stores canonical registers: into the output itself where that is 32 bits wide and room enough.
    void run_compiled(int64_t e, int64_t n) {
        const int outputs = plan_.p.n_outputs;
        uint32_t* to[MAX_OUTPUTS];
        for (int o = 0; o < outputs; o++)
            to[o] = direct(dtype(o), n) ? static_cast<uint32_t*>(output(o, e)) : registers_ + o * plan_.spacing;
        if (plan_.streams && aligned(to))
            published_loops<true>[plan_.p.compiled]((n + W - 1) / W, values_, to);
        else
            plan_.compiled((n + W - 1) / W, values_, to);
        for (int o = 0; o < outputs; o++)
            if (!direct(dtype(o), n)) store_elements(dtype(o), output(o, e), {to[o], W}, n);
    }

    bool aligned(uint32_t* const* to) const {
        for (int o = 0; o < plan_.p.n_outputs; o++)
            if (reinterpret_cast<uintptr_t>(to[o]) % (W * 4) != 0) return false;
        return true;
    }
    static bool direct(Dtype d, int64_t n) { return dtype_size(d) == 4 && n % W == 0; }
    Dtype dtype(int o) const { return plan_.m.output_dtypes[o]; }
    void* output(int o, int64_t e) const {
        return static_cast<uint8_t*>(plan_.m.outputs[o]) + e * dtype_size(dtype(o));
    }

    uint32_t* staged(int i) const { return staging_ + i * plan_.staging; }

    // What serves all blocks: one element, or a whole period and as much again as a block may read past its end.
    void once(int i, int64_t begin, int64_t end) {
        const Dtype d = plan_.m.input_dtypes[i];
        if (plan_.walk[i] == Walk::same) {
            load_elements(d, plan_.m.inputs[i], 0, W, staged(i));
            values_[i] = {staged(i), 0};
        } else if (plan_.walk[i] == Walk::periodic) {
            const int64_t period = plan_.period[i], need = period + std::min(plan_.block, end - begin) + W;
            load_elements(d, plan_.m.inputs[i], 1, period, staged(i));
            for (int64_t have = period; have < need; have *= 2)
                std::memcpy(staged(i) + have, staged(i), size_t(std::min(have, need - have)) * 4);
        }
    }

    // Makes values_[i] the elements e .. e+n-1 of input i: in place if they are 32-bit, contiguous and whole vectors.
    void input(int i, int64_t e, int64_t n) {
        const Dtype d = plan_.m.input_dtypes[i];
        int64_t offset = e, step = 1;
        switch (plan_.walk[i]) {
            case Walk::same:
                return;
            case Walk::periodic:
                values_[i] = {staged(i) + e % plan_.period[i], W};
                return;
            case Walk::staged:
                with_dtype(d, [&](auto c) {
                    load_box<c.value>(plan_.box.rank, plan_.box.shape, plan_.strides[i], plan_.m.inputs[i], e, n,
                                      staged(i));
                });
                values_[i] = {staged(i), W};
                return;
            case Walk::row:
                offset = Cursor(plan_.box.rank, plan_.box.shape, plan_.strides[i], e).offset,
                step = plan_.strides[i][plan_.box.rank - 1];
                break;
            case Walk::flat:
                break;
        }
        const uint8_t* source = static_cast<const uint8_t*>(plan_.m.inputs[i]) + offset * dtype_size(d);
        if (step == 1 && direct(d, n)) {
            values_[i] = {reinterpret_cast<const uint32_t*>(source), W};
            return;
        }
        load_elements(d, source, step, step == 0 ? W : n, staged(i));
        values_[i] = {staged(i), step * W};
    }

    const Plan& plan_;
    Operand* values_;
    uint32_t *staging_, *registers_;
};

thread_local Scratch memory;

}  // namespace

void map(const MapArgs& m) {
    const int64_t n = m.end - m.begin;
    if (n == 0) return;
    const Plan plan(m);
    const int64_t loops_each = plan.compiled ? 4 + plan.p.n_instructions / 4 : 4 + plan.p.n_instructions;
    const int64_t share = n * loops_each < PARALLEL_WORK ? n : std::max(plan.block, n / (4 * get_threads()));
    const int64_t chunk = (share + plan.block - 1) / plan.block * plan.block;
    parallel_for((n + chunk - 1) / chunk, [&](int64_t i) {
        Machine(plan, static_cast<uint8_t*>(memory.get(Machine::bytes(plan))))
            .run(m.begin + i * chunk, std::min(m.end, m.begin + (i + 1) * chunk));
    });
}

}  // namespace gv::GV_ISA
