// map: a scalar program at every element. The program runs over blocks of elements, one instruction after the other, so
// that its registers stay in the first cache level; every instruction is one loop over vectors. Elements do not meet:
// blocks and threads may cut the tensor anywhere without changing a bit.
#include <algorithm>

#include "operations.h"
#include "scalar_ops.h"
#include "scratch.h"
#include "threads.h"
#define GV_PUBLISHED_LOOPS
#include "published.h"

namespace gv::GV_ISA {
namespace {

typedef void (*Loop)(uint32_t* out, const Operand* x, int64_t vectors);

template <class R, class A, R (*f)(A)>
void loop1(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0];
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(load<A>(a.at + i * a.step)));
}
template <class R, class A, class B, R (*f)(A, B)>
void loop2(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0], b = x[1];
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(load<A>(a.at + i * a.step), load<B>(b.at + i * b.step)));
}
template <class R, class A, class B, class C, R (*f)(A, B, C)>
void loop3(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0], b = x[1], c = x[2];
    for (int64_t i = 0; i < vectors; i++)
        store(out + i * W, f(load<A>(a.at + i * a.step), load<B>(b.at + i * b.step), load<C>(c.at + i * c.step)));
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

// How an input is read: `flat` like the output, `same` one element for all, `row` evenly along a row, `staged`
// otherwise.
enum class Walk : uint8_t { flat, same, row, staged };

constexpr int MAX_INPUTS = 64, MAX_OUTPUTS = 16;
constexpr int64_t LONG_ROW = 512;           // rows this long are cut into blocks of their own
constexpr int64_t BLOCK_BYTES = 24 * 1024;  // of registers and staging: most of the first cache level
constexpr int64_t SHORTEST = 64, LONGEST = 4096;
constexpr int64_t PARALLEL_WORK = 1 << 18;  // elements times loops from which a second thread pays
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
    int64_t block;  // elements, whole vectors

    explicit Plan(const MapArgs& args)
        : m(args),
          p(*args.program),
          compiled(p.compiled < 0 ? nullptr : published_loops[p.compiled]),
          box(args, strides),
          rows(box.rank == 1 || box.inner() >= LONG_ROW) {
        int buffers = registers();
        for (int i = 0; i < p.n_inputs; i++) {
            walk[i] = how(i);
            buffers += walk[i] != Walk::same;
        }
        block = std::clamp(BLOCK_BYTES / (W * 4) / std::max(buffers, 1) * W, SHORTEST, LONGEST);
    }

    // Of the machine; compiled code only needs a place for every output that is narrow.
    int registers() const { return compiled ? p.n_outputs : p.n_registers; }
    int values() const { return p.n_inputs + (compiled ? 0 : p.n_constants + p.n_instructions); }

  private:
    Walk how(int i) const {
        const int64_t* s = strides[i];
        bool flat = true, same = true;
        for (int64_t axis = box.rank - 1, step = 1; axis >= 0; step *= box.shape[axis--])
            flat &= s[axis] == step, same &= s[axis] == 0;
        if (box.elements == 1 || same) return Walk::same;
        if (flat) return Walk::flat;
        return rows && s[box.rank - 1] <= 1 && s[box.rank - 1] >= 0 ? Walk::row : Walk::staged;
    }
};

// One thread's registers, constants and staging, and the walk over its share of the elements.
class Machine {
  public:
    Machine(const Plan& plan, uint8_t* memory) : plan_(plan) {
        const ScalarCode& p = plan.p;
        values_ = reinterpret_cast<Operand*>(memory);
        staging_ = reinterpret_cast<uint32_t*>(memory + header_bytes(plan));
        registers_ = staging_ + p.n_inputs * plan.block;
        if (plan.compiled) return;
        uint32_t* at = registers_ + p.n_registers * plan.block;
        for (int v = p.n_inputs; v < p.n_inputs + p.n_constants; v++, at += W) {
            const bool boolean = p.value_types[v] == BOOLEAN;
            store(at, splat(boolean ? 0u - p.constants[v - p.n_inputs] : p.constants[v - p.n_inputs]));
            values_[v] = {at, 0};
        }
        for (int n = 0; n < p.n_instructions; n++)
            values_[p.n_inputs + p.n_constants + n] = {registers_ + p.registers[n] * plan.block, W};
    }

    static size_t bytes(const Plan& plan) {
        const int64_t words = (plan.p.n_inputs + plan.registers()) * plan.block + plan.p.n_constants * W;
        return header_bytes(plan) + size_t(words) * 4;
    }

    void run(int64_t begin, int64_t end) {
        for (int i = 0; i < plan_.p.n_inputs; i++)
            if (plan_.walk[i] == Walk::same) {
                load_elements(plan_.m.input_dtypes[i], plan_.m.inputs[i], 0, W, staging_ + i * plan_.block);
                values_[i] = {staging_ + i * plan_.block, 0};
            }
        const int64_t inner = plan_.box.inner();
        while (begin < end) {
            int64_t n = std::min(plan_.block, end - begin);
            if (plan_.rows) n = std::min(n, inner - begin % inner);
            if (n > W) n -= n % W;  // whole vectors are read where they lie
            block(begin, n);
            begin += n;
        }
    }

  private:
    static size_t header_bytes(const Plan& plan) { return (size_t(plan.values()) * sizeof(Operand) + 63) / 64 * 64; }

    void block(int64_t e, int64_t n) {
        for (int i = 0; i < plan_.p.n_inputs; i++)
            if (plan_.walk[i] != Walk::same) input(i, e, n);
        if (plan_.compiled)
            run_compiled(e, n);
        else
            run_code(e, n);
    }

    void run_code(int64_t e, int64_t n) {
        const ScalarCode& p = plan_.p;
        const Operand* results = values_ + p.n_inputs + p.n_constants;
        for (int k = 0; k < p.n_instructions; k++) {
            const uint16_t* c = p.code + 4 * k;
            const Operand x[3] = {values_[c[1]], values_[c[2]], values_[c[3]]};
            loops[c[0]](const_cast<uint32_t*>(results[k].at), x, (n + W - 1) / W);
        }
        for (int o = 0; o < p.n_outputs; o++) store_elements(dtype(o), output(o, e), values_[p.outputs[o]], n);
    }

    // Compiled code stores canonical registers: into the output itself where that is 32 bits wide and room enough.
    void run_compiled(int64_t e, int64_t n) {
        const int outputs = plan_.p.n_outputs;
        uint32_t* to[MAX_OUTPUTS];
        for (int o = 0; o < outputs; o++)
            to[o] = direct(dtype(o), n) ? static_cast<uint32_t*>(output(o, e)) : registers_ + o * plan_.block;
        plan_.compiled((n + W - 1) / W, values_, to);
        for (int o = 0; o < outputs; o++)
            if (!direct(dtype(o), n)) store_elements(dtype(o), output(o, e), {to[o], W}, n);
    }

    static bool direct(Dtype d, int64_t n) { return dtype_size(d) == 4 && n % W == 0; }
    Dtype dtype(int o) const { return plan_.m.output_dtypes[o]; }
    void* output(int o, int64_t e) const {
        return static_cast<uint8_t*>(plan_.m.outputs[o]) + e * dtype_size(dtype(o));
    }

    // Makes values_[i] the elements e .. e+n-1 of input i: in place if they are 32-bit, contiguous and whole vectors.
    void input(int i, int64_t e, int64_t n) {
        int64_t offset = e, stride = 1;
        if (plan_.walk[i] == Walk::row) {
            offset = offset_of(i, e);
            stride = plan_.strides[i][plan_.box.rank - 1];
        }
        const Dtype d = plan_.m.input_dtypes[i];
        uint32_t* const staged = staging_ + i * plan_.block;
        if (plan_.walk[i] == Walk::staged) {
            stage(i, e, n);
        } else if (stride == 0) {
            load_elements(d, at(i, offset), 0, W, staged);
            values_[i] = {staged, 0};
            return;
        } else if (direct(d, n)) {
            values_[i] = {static_cast<const uint32_t*>(at(i, offset)), W};
            return;
        } else {
            load_elements(d, at(i, offset), 1, n, staged);
        }
        values_[i] = {staged, W};
    }

    const void* at(int i, int64_t offset) const {
        return static_cast<const uint8_t*>(plan_.m.inputs[i]) + offset * dtype_size(plan_.m.input_dtypes[i]);
    }

    int64_t offset_of(int i, int64_t e) const {
        int64_t offset = 0;
        for (int axis = plan_.box.rank - 1; axis >= 0; e /= plan_.box.shape[axis--])
            offset += e % plan_.box.shape[axis] * plan_.strides[i][axis];
        return offset;
    }

    // Run by run of the last axis. Runs land anywhere in the staging, which the next run overwrites past its end.
    void stage(int i, int64_t e, int64_t n) {
        uint32_t* const staged = staging_ + i * plan_.block;
        const Dtype d = plan_.m.input_dtypes[i];
        const int64_t inner = plan_.box.inner(), stride = plan_.strides[i][plan_.box.rank - 1];
        alignas(64) uint32_t run[W];
        for (int64_t done = 0; done < n;) {
            const int64_t length = std::min(n - done, inner - (e + done) % inner);
            const void* source = at(i, offset_of(i, e + done));
            if (done + (length + W - 1) / W * W <= plan_.block) {
                load_elements(d, source, stride, length, staged + done);
            } else {
                for (int64_t k = 0; k < length; k += W) {
                    const int64_t part = std::min<int64_t>(W, length - k);
                    const int64_t skip = k * stride * dtype_size(d);
                    load_elements(d, static_cast<const uint8_t*>(source) + skip, stride, part, run);
                    std::memcpy(staged + done + k, run, size_t(part) * 4);
                }
            }
            done += length;
        }
    }

    const Plan& plan_;
    Operand* values_;
    uint32_t *staging_, *registers_;
};

thread_local Scratch memory;

}  // namespace

void map(const MapArgs& m) {
    const Plan plan(m);
    const int64_t n = plan.box.elements;
    if (n == 0) return;
    const int64_t loops_each = plan.compiled ? 4 + plan.p.n_instructions / 4 : 4 + plan.p.n_instructions;
    const int64_t share = n * loops_each < PARALLEL_WORK ? n : std::max(plan.block, n / (4 * get_threads()));
    const int64_t chunk = (share + plan.block - 1) / plan.block * plan.block;
    parallel_for((n + chunk - 1) / chunk, [&](int64_t i) {
        Machine(plan, static_cast<uint8_t*>(memory.get(Machine::bytes(plan))))
            .run(i * chunk, std::min(n, (i + 1) * chunk));
    });
}

}  // namespace gv::GV_ISA
