// map: a scalar program at every element. The program runs over blocks of elements, one instruction after the other, so
// that its registers stay in the first cache level; every instruction is one loop over vectors. Elements do not meet:
// blocks and threads may cut the tensor anywhere without changing a bit.
#include <algorithm>

#include "operations.h"
#include "scalar_ops.h"
#include "scratch.h"
#include "threads.h"

namespace gv::GV_ISA {
namespace {

typedef void (*Loop)(uint32_t* out, const Operand* x, int64_t vectors);

template <class R, class A, R (*f)(A)> void loop1(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0];
    for (int64_t i = 0; i < vectors; i++) store(out + i * W, f(load<A>(a.at + i * a.step)));
}
template <class R, class A, class B, R (*f)(A, B)> void loop2(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0], b = x[1];
    for (int64_t i = 0; i < vectors; i++)
        store(out + i * W, f(load<A>(a.at + i * a.step), load<B>(b.at + i * b.step)));
}
template <class R, class A, class B, class C, R (*f)(A, B, C)>
void loop3(uint32_t* out, const Operand* x, int64_t vectors) {
    const Operand a = x[0], b = x[1], c = x[2];
    for (int64_t i = 0; i < vectors; i++)
        store(out + i * W, f(load<A>(a.at + i * a.step), load<B>(b.at + i * b.step), load<C>(c.at + i * c.step)));
}

struct Instruction {
    Loop loop;
    int operands;
};
constexpr Instruction instructions[] = {
#define GV_X1(name, R, A) {loop1<R, A, name>, 1},
#define GV_X2(name, R, A, B) {loop2<R, A, B, name>, 2},
#define GV_X3(name, R, A, B, C) {loop3<R, A, B, C, name>, 3},
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

enum class Walk : uint8_t { flat, same, row, staged };

constexpr int MAX_INPUTS = 64;
constexpr int64_t LONG_ROW = 512;           // rows this long are cut into blocks of their own
constexpr int64_t BLOCK_BYTES = 24 * 1024;  // of registers

// What one call decides once: where each value lives and how each input is walked.
struct Plan {
    const MapArgs& m;
    const ScalarCode& p;
    int64_t strides[MAX_INPUTS][MAX_RANK];
    Box box;
    bool rows;  // blocks stay within rows
    Walk walk[MAX_INPUTS];
    int registers = 0;
    uint16_t* slot;  // of every instruction's value
    int64_t block;

    Plan(const MapArgs& args, uint16_t* slots, int32_t* last)
        : m(args), p(*args.program), box(args, strides), rows(box.rank == 1 || box.inner() >= LONG_ROW), slot(slots) {
        for (int i = 0; i < p.n_inputs; i++) walk[i] = how(i);
        allocate(last);
        const int64_t vectors = BLOCK_BYTES / (W * 4) / (registers + p.n_inputs + 1);
        block = std::clamp<int64_t>(vectors * W, 64, 2048);
    }

    int values() const { return p.n_inputs + p.n_constants + p.n_instructions; }

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

    // A value's slot is free after its last reader, and for that reader's own result: lanes do not meet.
    void allocate(int32_t* last) {
        const int first = p.n_inputs + p.n_constants;
        for (int v = 0; v < values(); v++) last[v] = -1;
        for (int n = 0; n < p.n_instructions; n++)
            for (int k = 0; k < instructions[p.code[4 * n]].operands; k++) last[p.code[4 * n + 1 + k]] = n;
        for (int o = 0; o < p.n_outputs; o++) last[p.outputs[o]] = p.n_instructions;
        free_ = 0;
        for (int n = 0; n < p.n_instructions; n++) {
            for (int k = 0; k < instructions[p.code[4 * n]].operands; k++) {
                const int v = p.code[4 * n + 1 + k];
                if (v >= first && last[v] == n) {
                    release(slot[v - first]);
                    last[v] = -1;
                }
            }
            slot[n] = uint16_t(take());
            if (last[first + n] < 0) release(slot[n]);
        }
    }
    int take() { return free_ > 0 ? slot_stack()[--free_] : registers++; }
    void release(int s) { slot_stack()[free_++] = uint16_t(s); }
    uint16_t* slot_stack() { return slot + p.n_instructions; }
    int free_ = 0;
};

// One thread's registers, constants and staging, and the walk over its share of the elements.
class Machine {
  public:
    Machine(const Plan& plan, uint8_t* memory) : plan_(plan) {
        const ScalarCode& p = plan.p;
        values_ = reinterpret_cast<Operand*>(memory);
        uint32_t* at = reinterpret_cast<uint32_t*>(memory + header_bytes(plan));
        staging_ = at;
        at += p.n_inputs * plan.block;
        for (int c = 0; c < p.n_constants; c++, at += W) {
            const bool boolean = p.value_types[p.n_inputs + c] == 3;
            store(at, splat(boolean ? 0u - p.constants[c] : p.constants[c]));
            values_[p.n_inputs + c] = {at, 0};
        }
        for (int n = 0; n < p.n_instructions; n++)
            values_[p.n_inputs + p.n_constants + n] = {at + plan.slot[n] * plan.block, W};
    }

    static size_t bytes(const Plan& plan) {
        const int64_t words = (plan.p.n_inputs + plan.registers) * plan.block + plan.p.n_constants * W;
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
        const ScalarCode& p = plan_.p;
        for (int i = 0; i < p.n_inputs; i++)
            if (plan_.walk[i] != Walk::same) input(i, e, n);
        const int first = p.n_inputs + p.n_constants;
        const int64_t vectors = (n + W - 1) / W;
        for (int k = 0; k < p.n_instructions; k++) {
            const uint16_t* c = p.code + 4 * k;
            const Instruction& instruction = instructions[c[0]];
            Operand x[3];
            for (int a = 0; a < instruction.operands; a++) x[a] = values_[c[1 + a]];
            instruction.loop(const_cast<uint32_t*>(values_[first + k].at), x, vectors);
        }
        for (int o = 0; o < p.n_outputs; o++) {
            const Dtype d = plan_.m.output_dtypes[o];
            store_elements(d, static_cast<uint8_t*>(plan_.m.outputs[o]) + e * dtype_size(d), values_[p.outputs[o]], n);
        }
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
        } else if (dtype_size(d) == 4 && n % W == 0) {
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
    uint32_t* staging_;
};

thread_local Scratch slots_scratch, machine_scratch;

}  // namespace

void map(const MapArgs& m) {
    const ScalarCode& p = *m.program;
    const size_t values = size_t(p.n_inputs + p.n_constants + p.n_instructions);
    int32_t* last = static_cast<int32_t*>(slots_scratch.get(values * 4 + size_t(p.n_instructions) * 4));
    const Plan plan(m, reinterpret_cast<uint16_t*>(last + values), last);
    const int64_t n = plan.box.elements, work = n * (p.n_instructions + p.n_inputs + p.n_outputs);
    const int64_t share = work < (1 << 19) ? n : std::max<int64_t>(plan.block, n / (4 * get_threads()));
    const int64_t chunk = (share + plan.block - 1) / plan.block * plan.block;
    if (n == 0) return;
    parallel_for((n + chunk - 1) / chunk, [&](int64_t i) {
        Machine(plan, static_cast<uint8_t*>(machine_scratch.get(Machine::bytes(plan))))
            .run(i * chunk, std::min(n, (i + 1) * chunk));
    });
}

}  // namespace gv::GV_ISA
