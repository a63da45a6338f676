#include "program.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

#include "keccak.h"
#include "operations.h"

namespace gv {
namespace {

constexpr char MAGIC[] = "gvprog01";
constexpr size_t MAX_PROGRAM_BYTES = size_t(1) << 28;
constexpr uint32_t MAX_NODES = 1 << 17, MAX_NODE_INPUTS = 1 << 11;
constexpr uint32_t MAX_INPUTS = 64, MAX_OUTPUTS = 16, MAX_INSTRUCTIONS = 4096;  // of a scalar program
constexpr uint32_t MAX_ATTRIBUTE = 16;
constexpr size_t MAX_TENSOR_RANK = 8, MAX_NAME = 200;
constexpr int64_t MAX_ELEMENTS = int64_t(1) << 36, MAX_TOTAL_BYTES = int64_t(1) << 44;
constexpr int DTYPES = 8, REGISTERS = 4;

struct Operation {
    const char* name;
    int arity;
    uint8_t result, operands[3];
};
enum RegisterLetter : uint8_t { F, I, U, M };  // the register types as operations.h writes them, in code order
constexpr Operation operations[] = {
#define GV_X1(name, R, A) {#name, 1, R, {A, 0, 0}},
#define GV_X2(name, R, A, B) {#name, 2, R, {A, B, 0}},
#define GV_X3(name, R, A, B, C) {#name, 3, R, {A, B, C}},
    GV_OPERATIONS(GV_X1, GV_X2, GV_X3)
#undef GV_X1
#undef GV_X2
#undef GV_X3
};

// Bytes of one record. Whatever is taken is there: no count is believed further than the bytes that are left.
class Reader {
  public:
    Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

    [[noreturn]] void fail(const std::string& message) const {
        throw Refusal("byte " + std::to_string(at_) + ": " + message);
    }

    const uint8_t* take(size_t n) {
        if (n > size_ - at_) fail(std::to_string(n) + " bytes expected, " + std::to_string(size_ - at_) + " left");
        at_ += n;
        return data_ + at_ - n;
    }
    uint64_t u(int size) {
        const uint8_t* p = take(size_t(size));
        uint64_t x = 0;
        for (int i = 0; i < size; i++) x = x << 8 | p[i];
        return x;
    }
    int64_t i64() { return int64_t(u(8)); }
    uint32_t count(int size, uint32_t limit) {
        const uint64_t n = u(size);
        if (n > limit)
            throw Refusal("byte " + std::to_string(at_ - size_t(size)) + ": a count of " + std::to_string(n) +
                              "; the limit is " + std::to_string(limit),
                          true);
        return uint32_t(n);
    }
    Dtype dtype(int64_t code) const {
        if (code < 0 || code >= DTYPES) fail("dtype code " + std::to_string(code) + " is unknown; known are 0 to 7");
        return Dtype(code);
    }
    std::string name() {
        const size_t n = size_t(u(1));
        const char* p = reinterpret_cast<const char*>(take(n));
        bool good = n >= 1 && n <= MAX_NAME;
        for (size_t i = 0; i < n; i++) good &= p[i] >= 33 && p[i] < 127 && !std::strchr("/\\\"", p[i]);
        if (!good) fail("no name: 1 to 200 printable ASCII characters, no space / \\ \"");
        return std::string(p, n);
    }
    TensorType type() {
        TensorType t{dtype(int64_t(u(1))), {}};
        for (uint32_t left = count(1, MAX_TENSOR_RANK); left > 0; left--) {
            const uint64_t d = u(8);
            if (d > uint64_t(MAX_ELEMENTS))
                throw Refusal("byte " + std::to_string(at_) + ": a dimension above 2^36", true);
            t.shape.push_back(int64_t(d));
        }
        return t;
    }
    Reader record() {
        const size_t n = size_t(u(4));
        return Reader(take(n), n);
    }
    void end() const {
        if (at_ != size_) fail(std::to_string(size_ - at_) + " bytes too many");
    }
    std::string_view bytes() const { return {reinterpret_cast<const char*>(data_), size_}; }

    // Attributes of nodes, by their C++ types.
    void operator()(bool& x) {
        const uint64_t flag = u(1);
        if (flag > 1) fail("a flag is " + std::to_string(flag) + "; it is 0 or 1");
        x = flag == 1;
    }
    void operator()(Dtype& x) { x = dtype(int64_t(u(1))); }
    void operator()(int64_t& x) { x = i64(); }
    void operator()(Ints& x) {
        x.resize(count(2, MAX_ATTRIBUTE));
        for (int64_t& item : x) item = i64();
    }
    void operator()(std::vector<Dtype>& x) {
        x.resize(count(2, MAX_ATTRIBUTE));
        for (Dtype& item : x) item = dtype(i64());
    }

  private:
    const uint8_t* data_;
    size_t size_, at_ = 0;
};

// Runs `read`; what it refuses is named by its place.
template <class Read>
void placed(const std::string& what, Read&& read) {
    try {
        read();
    } catch (const Refusal& refusal) {
        throw Refusal(what + ": " + refusal.what(), refusal.limit);
    }
}

void check_type(const TensorType& t) {
    if (t.shape.size() > MAX_TENSOR_RANK)
        throw Refusal("rank " + std::to_string(t.shape.size()) + " exceeds the limit of 8", true);
    bool large = t.elements() > MAX_ELEMENTS;
    for (int64_t d : t.shape) {
        if (d < 0) throw Refusal("shape " + list_text(t.shape) + " has a negative dimension");
        large |= d > MAX_ELEMENTS;
    }
    if (large) throw Refusal("shape " + list_text(t.shape) + " exceeds the limit of 2^36 elements a tensor", true);
}

// ---- scalar programs

uint8_t read_register(Reader& r) {
    const uint64_t code = r.u(1);
    if (code >= REGISTERS) r.fail("register type " + std::to_string(code) + " is unknown; known are 0 to 3");
    return uint8_t(code);
}

void read_constants(Reader& r, ScalarProgram& s) {
    for (uint32_t left = r.count(2, MAX_INSTRUCTIONS), n = left; left > 0; left--) {
        const uint8_t reg = read_register(r);
        const uint32_t bits = uint32_t(r.u(4));
        if (reg == M && bits > 1) r.fail("a boolean constant is 0 or 1");
        if (reg == F && (bits & 0x7FFFFFFF) > 0x7F800000 && bits != 0x7FC00000) r.fail("the only NaN is 0x7fc00000");
        if (left < n && std::make_pair(s.types.back(), s.constants.back()) >= std::make_pair(reg, bits))
            r.fail("constants are not sorted by (type, bits) without repetition");
        s.types.push_back(reg);
        s.constants.push_back(bits);
    }
}

void read_instructions(Reader& r, ScalarProgram& s) {
    const uint32_t n = r.count(2, MAX_INSTRUCTIONS);
    if (n + s.constants.size() > MAX_INSTRUCTIONS) throw Refusal("more than 4096 instructions and constants", true);
    for (uint32_t left = n; left > 0; left--) {
        const uint64_t code = r.u(1);
        if (code >= uint64_t(operation_count)) r.fail("unknown operation code");
        const Operation& op = operations[code];
        uint16_t words[4] = {uint16_t(code), 0, 0, 0};
        for (int i = 0; i < op.arity; i++) {
            const uint64_t arg = r.u(2);
            if (arg >= s.types.size())
                r.fail(std::string(op.name) + " reads value " + std::to_string(arg) +
                       ", which does not exist before it");
            if (s.types[arg] != op.operands[i])
                r.fail(std::string(op.name) + " reads value " + std::to_string(arg) + " of another register type");
            words[i + 1] = uint16_t(arg);
        }
        s.code.insert(s.code.end(), words, words + 4);
        s.types.push_back(op.result);
    }
}

ScalarProgram read_scalar(Reader r) {
    ScalarProgram s;
    s.inputs = int(r.u(1));
    if (s.inputs > int(MAX_INPUTS)) throw Refusal("a scalar program has at most 64 inputs", true);
    for (int i = 0; i < s.inputs; i++) s.types.push_back(read_register(r));
    read_constants(r, s);
    read_instructions(r, s);
    const uint64_t outputs = r.u(1);
    if (outputs > MAX_OUTPUTS) throw Refusal("a scalar program has at most 16 outputs", true);
    if (outputs == 0) r.fail("a scalar program without outputs");
    for (uint64_t i = 0; i < outputs; i++) {
        const uint64_t v = r.u(2);
        if (v >= s.types.size()) r.fail("output reads value " + std::to_string(v) + ", which does not exist");
        s.outputs.push_back(uint16_t(v));
    }
    r.end();
    return s;
}

// ---- nodes

template <size_t... codes>
Op read_op(size_t code, Reader& r, std::index_sequence<codes...>) {
    Op op;
    const bool known = ((code == codes && (op.emplace<codes>(), true)) || ...);
    if (!known)
        r.fail("op code " + std::to_string(code) + " is unknown; known are 0 to " +
               std::to_string(sizeof...(codes) - 1));
    std::visit([&](auto& o) { o.fields(r); }, op);
    return op;
}

// Appends the node and the types of its values.
void read_node(Reader r, Program& p) {
    const size_t code = size_t(r.u(1));
    Node node{read_op(code, r, std::make_index_sequence<std::variant_size_v<Op>>()), {}, uint32_t(p.types.size()), 0};
    Types inputs;
    for (uint32_t left = r.count(4, MAX_NODE_INPUTS); left > 0; left--) {
        const uint64_t v = r.u(4);
        if (v >= p.types.size())
            r.fail("reads value " + std::to_string(v) + "; only 0 to " + std::to_string(ptrdiff_t(p.types.size()) - 1) +
                   " exist before it");
        node.inputs.push_back(uint32_t(v));
        inputs.push_back(&p.types[v]);
    }
    std::vector<TensorType> found = infer(node.op, inputs, p.scalar_programs);
    for (const TensorType& t : found) check_type(t);
    bool same = r.u(1) == found.size();
    for (size_t i = 0; same && i < found.size(); i++) same = r.type() == found[i];
    if (!same) r.fail("declares other outputs than its inputs give, " + found[0].text());
    r.end();
    node.count = uint32_t(found.size());
    for (TensorType& t : found) p.types.push_back(std::move(t));
    p.nodes.push_back(std::move(node));
}

// ---- the whole

template <class Entry, class Rank>
void check_order(const char* what, const std::vector<Entry>& entries, Rank&& rank) {
    for (size_t i = 1; i < entries.size(); i++)
        if (rank(entries[i - 1]) >= rank(entries[i]))
            throw Refusal(std::string(what) + "s are not sorted by role and name without repetition: " +
                          entries[i - 1].name + " before " + entries[i].name);
}

struct Counts {
    uint32_t scalar_programs, nodes;
};

Counts read_header(Reader r, Program& p) {
    const Counts counts{r.count(4, MAX_NODES), r.count(4, MAX_NODES)};
    for (uint32_t left = r.count(4, MAX_NODES); left > 0; left--) {
        const uint64_t role = r.u(1);
        if (role > uint64_t(Role::scalar)) r.fail("input role " + std::to_string(role) + " is unknown");
        p.inputs.push_back({Role(role), r.name()});
        p.types.push_back(r.type());
        placed("input " + p.inputs.back().name, [&] { check_type(p.types.back()); });
    }
    for (uint32_t left = r.count(4, MAX_NODES); left > 0; left--) {
        const uint64_t role = r.u(1);
        if (role > uint64_t(OutputRole::metric)) r.fail("output role " + std::to_string(role) + " is unknown");
        std::string name = r.name();
        p.outputs.push_back({OutputRole(role), std::move(name), uint32_t(r.u(4))});
    }
    r.end();
    const auto rank = [](const auto& entry) { return std::make_pair(entry.role, std::string_view(entry.name)); };
    check_order("input", p.inputs, rank);
    check_order("output", p.outputs, rank);
    return counts;
}

void check_outputs(const Program& p) {
    std::map<std::string_view, const TensorType*> states;
    for (size_t i = 0; i < p.inputs.size(); i++)
        if (p.inputs[i].role == Role::state) states[p.inputs[i].name] = &p.types[i];
    for (const Output& o : p.outputs) {
        const std::string where = "output " + o.name + ": ";
        if (o.value >= p.types.size())
            throw Refusal(where + "is value " + std::to_string(o.value) + ", which does not exist");
        if (o.role != OutputRole::state) continue;
        const auto state = states.find(o.name);
        if (state == states.end()) throw Refusal(where + "no such state input");
        if (!(*state->second == p.types[o.value]))
            throw Refusal(where + "next state is " + p.types[o.value].text() + "; the state input is " +
                          state->second->text());
        states.erase(state);
    }
    if (!states.empty())
        throw Refusal("state input " + std::string(states.begin()->first) + " has no next value among the outputs");
}

void check_streams_and_sizes(const Program& p) {
    std::vector<int64_t> streams;
    for (const Node& node : p.nodes)
        if (const Random* random = std::get_if<Random>(&node.op)) streams.push_back(random->stream);
    std::sort(streams.begin(), streams.end());
    const auto twice = std::adjacent_find(streams.begin(), streams.end());
    if (twice != streams.end()) throw Refusal("random stream " + std::to_string(*twice) + " is used twice");
    int64_t total = 0;
    for (const TensorType& t : p.types) total += t.nbytes();
    if (total > MAX_TOTAL_BYTES) throw Refusal("the values of the program take more than 2^44 bytes", true);
}

}  // namespace

Reg reg_of(Dtype d) {
    if (d == Dtype::i32 || d == Dtype::i8) return Reg::i32;
    if (d == Dtype::u32 || d == Dtype::u8) return Reg::u32;
    return d == Dtype::boolean ? Reg::boolean : Reg::f32;
}

int64_t element_count(const Ints& shape) {
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
    int64_t n = 1;
    for (int64_t d : shape) {
        if (d < 0 || d > MAX_ELEMENTS / n) return 2 * MAX_ELEMENTS;
        n *= d;
    }
    return n;
}

std::string list_text(const Ints& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? "," : "") + std::to_string(shape[i]);
    return text + "]";
}

std::string TensorType::text() const {
    constexpr const char* names[] = {"f32", "bf16", "f16", "i32", "u32", "u8", "boolean", "i8"};
    return names[size_t(dtype)] + list_text(shape);
}

bool is_layout(const Op& op) {
    return std::visit([](const auto& o) { return std::string_view(o.kind) == "layout"; }, op);
}

Program decode_program(const uint8_t* data, size_t size) {
    if (size > MAX_PROGRAM_BYTES) throw Refusal(std::to_string(size) + " bytes; the limit is 2^28", true);
    Reader file(data, size);
    if (std::memcmp(file.take(sizeof MAGIC - 1), MAGIC, sizeof MAGIC - 1) != 0)
        throw Refusal("does not start with gvprog01: it is no program of this version");
    Program p;
    std::vector<std::string_view> records;
    const auto next = [&] {
        const Reader record = file.record();
        records.push_back(record.bytes());
        return record;
    };
    Counts stated{};
    placed("header", [&] { stated = read_header(next(), p); });
    const uint32_t scalars = file.count(4, MAX_NODES);
    for (uint32_t n = 0; n < scalars; n++)
        placed("scalar program " + std::to_string(n), [&] { p.scalar_programs.push_back(read_scalar(next())); });
    const uint32_t nodes = file.count(4, MAX_NODES);
    for (uint32_t n = 0; n < nodes; n++) placed("node " + std::to_string(n), [&] { read_node(next(), p); });
    file.end();
    if (stated.scalar_programs != scalars || stated.nodes != nodes)
        throw Refusal("the header states other counts of scalar programs and nodes than there are");
    check_outputs(p);
    check_streams_and_sizes(p);
    merkle_root(records, p.digest.data());
    return p;
}

}  // namespace gv
