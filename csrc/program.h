// A program as data, decoded from canonical bytes with every rule checked. The definition is gensyn_verify/program;
// docs/formats.md, section 2, has the bytes. What is decoded here holds, so that the planner checks nothing again.
#pragma once
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"

namespace gv {

// A program, or what was given to it, breaks a rule. `limit` where the rule is a size.
struct Refusal : std::runtime_error {
    explicit Refusal(const std::string& text, bool is_limit = false) : std::runtime_error(text), limit(is_limit) {}
    bool limit;
};

enum class Reg : uint8_t { f32 = 0, i32 = 1, u32 = 2, boolean = 3 };
Reg reg_of(Dtype d);
inline bool is_float(Dtype d) { return reg_of(d) == Reg::f32; }

using Ints = std::vector<int64_t>;

// The product; 0 where a dimension is 0, and one number beyond every limit for all products beyond 2^36.
int64_t element_count(const Ints& shape);
std::string list_text(const Ints& shape);

struct TensorType {
    Dtype dtype;
    Ints shape;

    int64_t elements() const { return element_count(shape); }
    int64_t nbytes() const { return elements() * dtype_size(dtype); }
    std::string text() const;
    bool operator==(const TensorType& o) const { return dtype == o.dtype && shape == o.shape; }
};

// Values are numbered: inputs, constants, then one an instruction.
struct ScalarProgram {
    int inputs = 0;
    std::vector<uint32_t> constants;
    std::vector<uint16_t> code;  // 4 words an instruction: operation, arguments
    std::vector<uint16_t> outputs;
    std::vector<uint8_t> types;  // register type of every value
};

// The operations of nodes, class by class as in program/ops.py. `fields` visits the attributes in the order of the
// canonical bytes.
struct Map {
    static constexpr const char* kind = "map";
    int64_t program;
    Ints shape;
    std::vector<Dtype> dtypes;
    template <class F>
    void fields(F&& f) {
        f(program), f(shape), f(dtypes);
    }
};
struct Dot {
    static constexpr const char* kind = "dot";
    bool transpose_a, transpose_b;
    Dtype dtype;
    template <class F>
    void fields(F&& f) {
        f(transpose_a), f(transpose_b), f(dtype);
    }
};
struct Reduce {
    static constexpr const char* kind = "reduce";
    int64_t op;
    Ints axes;
    Dtype dtype;
    template <class F>
    void fields(F&& f) {
        f(op), f(axes), f(dtype);
    }
};
struct Reshape {
    static constexpr const char* kind = "layout";
    Ints shape;
    template <class F>
    void fields(F&& f) {
        f(shape);
    }
};
struct Permute {
    static constexpr const char* kind = "layout";
    Ints axes;
    template <class F>
    void fields(F&& f) {
        f(axes);
    }
};
struct Slice {
    static constexpr const char* kind = "layout";
    Ints start, shape, step;
    template <class F>
    void fields(F&& f) {
        f(start), f(shape), f(step);
    }
};
struct Pad {
    static constexpr const char* kind = "layout";
    Ints low, high, interior;
    int64_t fill;
    template <class F>
    void fields(F&& f) {
        f(low), f(high), f(interior), f(fill);
    }
};
struct Concat {
    static constexpr const char* kind = "layout";
    int64_t axis;
    template <class F>
    void fields(F&& f) {
        f(axis);
    }
};
struct Broadcast {
    static constexpr const char* kind = "layout";
    Ints shape;
    template <class F>
    void fields(F&& f) {
        f(shape);
    }
};
struct Window {
    static constexpr const char* kind = "layout";
    Ints size, stride, dilation;
    template <class F>
    void fields(F&& f) {
        f(size), f(stride), f(dilation);
    }
};
struct Gather {
    static constexpr const char* kind = "gather";
    template <class F>
    void fields(F&&) {}
};
struct ScatterAdd {
    static constexpr const char* kind = "scatter_add";
    int64_t rows;
    Dtype dtype;
    template <class F>
    void fields(F&& f) {
        f(rows), f(dtype);
    }
};
struct Random {
    static constexpr const char* kind = "random";
    int64_t stream;
    Ints shape;
    template <class F>
    void fields(F&& f) {
        f(stream), f(shape);
    }
};
struct Sort {
    static constexpr const char* kind = "sort";
    template <class F>
    void fields(F&&) {}
};
struct Scan {
    static constexpr const char* kind = "scan";
    int64_t program;
    Ints shape;
    std::vector<Dtype> dtypes;
    template <class F>
    void fields(F&& f) {
        f(program), f(shape), f(dtypes);
    }
};
// In the order of their codes.
using Op = std::variant<Map, Dot, Reduce, Reshape, Permute, Slice, Pad, Concat, Broadcast, Window, Gather, ScatterAdd,
                        Random, Sort, Scan>;
bool is_layout(const Op& op);

using Types = std::vector<const TensorType*>;
// The types of a node's outputs; throws Refusal where the inputs do not fit.
std::vector<TensorType> infer(const Op& op, const Types& inputs, const std::vector<ScalarProgram>& scalar_programs);

enum class Role : uint8_t { state = 0, batch = 1, scalar = 2 };
enum class OutputRole : uint8_t { state = 0, metric = 1 };

struct Input {
    Role role;
    std::string name;
};
struct Output {
    OutputRole role;
    std::string name;
    uint32_t value;
};
struct Node {
    Op op;
    std::vector<uint32_t> inputs;  // value numbers
    uint32_t first, count;         // of the values it gives
};

struct Program {
    std::vector<Input> inputs;  // sorted by role and name; input i is value i
    std::vector<ScalarProgram> scalar_programs;
    std::vector<Node> nodes;
    std::vector<Output> outputs;     // sorted by role and name
    std::vector<TensorType> types;   // of every value
    std::array<uint8_t, 32> digest;  // the Merkle root over the records
};

// Throws Refusal for everything but the canonical bytes of a valid program, naming the record and the reason. Memory is
// proportional to the bytes that were read, whatever they state.
Program decode_program(const uint8_t* data, size_t size);

}  // namespace gv
