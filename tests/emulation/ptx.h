// Executes PTX on the host, thread by thread, on the threads of threads.h: what gensyn_verify/backends/cuda/ptx.py
// writes and what nvcc makes of csrc/cuda. An instruction that is not known here is refused when a module is read.
//
// A register is 64 bits of which an instruction reads and writes as many as its type has. Addresses are those of the
// host, but for shared memory, whose addresses count from 0 as on a GPU.
#pragma once
#include <cctype>
#include <cmath>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace ptx {

struct Malformed : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Type : uint8_t { none, pred, b8, u8, s8, b16, u16, s16, f16, b32, u32, s32, f32, b64, u64, s64 };
inline int bytes(Type t) {
    if (t <= Type::pred) return 0;
    return t <= Type::s8 ? 1 : t <= Type::f16 ? 2 : t <= Type::f32 ? 4 : 8;
}
inline bool is_signed(Type t) { return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64; }
inline Type type_of(const std::string& word) {
    static const std::map<std::string, Type> types = {
        {"pred", Type::pred}, {"b8", Type::b8},   {"u8", Type::u8},   {"s8", Type::s8},   {"b16", Type::b16},
        {"u16", Type::u16},   {"s16", Type::s16}, {"f16", Type::f16}, {"b32", Type::b32}, {"u32", Type::u32},
        {"s32", Type::s32},   {"f32", Type::f32}, {"b64", Type::b64}, {"u64", Type::u64}, {"s64", Type::s64}};
    const auto found = types.find(word);
    return found == types.end() ? Type::none : found->second;
}
inline uint64_t truncate(uint64_t x, Type t) { return bytes(t) >= 8 ? x : x & ((uint64_t(1) << 8 * bytes(t)) - 1); }
inline int64_t extend(uint64_t x, Type t) {
    const int shift = 64 - 8 * bytes(t);
    return is_signed(t) ? int64_t(x << shift) >> shift : int64_t(truncate(x, t));
}
inline float to_float(uint64_t x) {
    const uint32_t bits = uint32_t(x);
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}
inline uint64_t to_bits(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return bits;
}

struct Operand {
    enum Kind : uint8_t { reg, immediate, special, symbol_param, symbol_shared, address, vector, label } kind = reg;
    int slot = -1;               // of a register, of an address's register (-1: none), of a label's instruction
    uint64_t value = 0;          // immediate, offset, number of a special register
    Kind base = immediate;       // what an address's offset is added to, without a register
    std::vector<Operand> items;  // of a vector
    std::string name;            // of a label until it is known
};

struct Instruction {
    std::vector<std::string> words;  // of the operation, at its dots
    Type type = Type::none, from = Type::none;
    int guard = -1;
    bool guard_not = false;
    int code = 0;
    int width = 1;  // elements of a vector load or store
    char space = 'g';
    std::vector<Operand> args;
    std::string text;
};

struct Function {
    struct Parameter {
        std::string name;
        size_t offset, size;
    };
    std::string name;
    std::vector<Parameter> parameters;
    size_t parameter_bytes = 0;
    std::map<std::string, int> registers;
    std::vector<Instruction> code;
};

using Module = std::map<std::string, std::shared_ptr<Function>>;

// clang-format off
enum Code {
    c_add, c_sub, c_mul_lo, c_mul_hi, c_mul_wide, c_mad_lo, c_mad_wide, c_div, c_rem, c_min, c_max, c_and, c_or, c_xor,
    c_not, c_neg, c_abs, c_shl, c_shr, c_fma, c_sqrt, c_setp, c_selp, c_cvt, c_cvta, c_mov, c_ld, c_st, c_bra, c_ret,
    c_bar, c_popc, c_warp, c_shfl, c_shf, c_prmt, c_dp4a, c_async, c_commit, c_wait, c_none
};
// clang-format on

// ---- reading

class Reader {
  public:
    explicit Reader(const std::string& text) {
        std::string clean;  // without comments and line ends
        for (size_t i = 0; i < text.size(); i++) {
            if (text.compare(i, 2, "//") == 0) {
                while (i < text.size() && text[i] != '\n') i++;
                clean += ' ';
            } else {
                clean += std::isspace(static_cast<unsigned char>(text[i])) ? ' ' : text[i];
            }
        }
        text_ = clean;
    }

    Module read() {
        Module module;
        while (skip(), at_ < text_.size()) {
            if (take(".visible") || take(".weak")) continue;
            if (take(".entry")) {
                auto f = function();
                module[f->name] = f;
            } else if (take(".extern")) {
                statement(';');  // the one dynamic array of shared memory
            } else if (take(".version") || take(".target") || take(".address_size")) {
                word();
                while (skip(), at_ < text_.size() && text_[at_] == ',') at_++, word();
            } else {
                throw Malformed("module: " + text_.substr(at_, 60));
            }
        }
        return module;
    }

  private:
    void skip() {
        while (at_ < text_.size() && text_[at_] == ' ') at_++;
    }
    bool take(const std::string& what) {
        skip();
        if (text_.compare(at_, what.size(), what) != 0) return false;
        const char next = at_ + what.size() < text_.size() ? text_[at_ + what.size()] : ' ';
        if (std::isalnum(static_cast<unsigned char>(what.back())) &&
            (std::isalnum(static_cast<unsigned char>(next)) || next == '_'))
            return false;
        at_ += what.size();
        return true;
    }
    std::string word() {
        skip();
        const size_t begin = at_;
        while (at_ < text_.size() &&
               (std::isalnum(static_cast<unsigned char>(text_[at_])) || std::strchr("_$.%<>", text_[at_])))
            at_++;
        return text_.substr(begin, at_ - begin);
    }
    std::string statement(char end) {
        const size_t stop = text_.find(end, at_);
        if (stop == std::string::npos) throw Malformed("the text ends inside a statement");
        std::string out = text_.substr(at_, stop - at_);
        at_ = stop + 1;
        return out;
    }

    std::shared_ptr<Function> function() {
        f_ = std::make_shared<Function>();
        f_->name = word();
        labels_.clear();
        if (take("(")) {
            Reader inside(statement(')'));
            inside.parameters(*f_);
        }
        while (skip(), text_[at_] == '.') {  // .maxntid and the like
            at_++, word();
            while (skip(), text_[at_] != '.' && text_[at_] != '{') {
                if (text_[at_] == ',') at_++;
                word();
            }
        }
        if (!take("{")) throw Malformed(f_->name + ": no body");
        for (int depth = 1; depth > 0;) {
            if (take("{")) {
                depth++;
            } else if (take("}")) {
                depth--;
            } else {
                const std::string line = statement_or_label();
                if (!line.empty()) instruction(line);
            }
        }
        for (Instruction& i : f_->code)
            for (Operand& o : i.args)
                if (o.kind == Operand::label) {
                    const auto found = labels_.find(o.name);
                    if (found == labels_.end()) throw Malformed("no label " + o.name);
                    o.slot = found->second;
                }
        return f_;
    }

    void parameters(Function& f) {
        while (skip(), at_ < text_.size()) {
            if (take(",")) continue;
            if (!take(".param")) throw Malformed("parameter: " + text_.substr(at_, 60));
            size_t align = 0, size = 0;
            while (skip(), text_[at_] == '.') {
                at_++;
                const std::string w = word();
                if (w == "align")
                    align = std::stoul(word());
                else
                    size = size_t(bytes(type_of(w)));
            }
            std::string name = word();
            if (take("[")) size *= std::stoul(statement(']'));
            if (!align) align = size ? size : 1;
            f.parameter_bytes = (f.parameter_bytes + align - 1) / align * align;
            f.parameters.push_back({name, f.parameter_bytes, size});
            f.parameter_bytes += size;
        }
    }

    std::string statement_or_label() {
        skip();
        const size_t begin = at_;
        const std::string w = word();
        skip();
        if (!w.empty() && at_ < text_.size() && text_[at_] == ':') {
            at_++;
            labels_[w] = int(f_->code.size());
            return "";
        }
        at_ = begin;
        return statement(';');
    }

    int slot(const std::string& name) {
        const auto found = f_->registers.find(name);
        if (found != f_->registers.end()) return found->second;
        const int n = int(f_->registers.size());
        return f_->registers[name] = n;
    }

    void instruction(const std::string& text) {
        Reader line(text);
        line.f_ = f_;
        line.skip();
        if (line.take(".pragma") || line.take(".loc")) return;
        if (line.take(".reg")) {  // %r<8> are known when they are met, single names from here on
            line.word();
            for (std::string name = line.word(); !name.empty(); line.take(","), name = line.word())
                if (name.find('<') == std::string::npos) slot(name);
            return;
        }
        Instruction i;
        i.text = text;
        if (line.take("@")) {
            i.guard_not = line.take("!");
            i.guard = slot(line.word());
        }
        std::string name = line.word();
        for (size_t begin = 0; begin <= name.size();) {
            const size_t end = std::min(name.find('.', begin), name.size());
            i.words.push_back(name.substr(begin, end - begin));
            begin = end + 1;
        }
        for (const std::string& w : i.words)
            if (const Type t = type_of(w); t != Type::none) (i.type == Type::none ? i.type : i.from) = t;
        while (line.skip(), line.at_ < line.text_.size()) {
            if (line.take(",") || line.take("|")) continue;
            i.args.push_back(line.operand());
        }
        decode(i);
        f_->code.push_back(std::move(i));
    }

    Operand operand() {
        Operand o;
        skip();
        if (take("{")) {
            o.kind = Operand::vector;
            while (!take("}")) {
                take(",");
                o.items.push_back(operand());
            }
            return o;
        }
        if (take("[")) {
            Reader inside(statement(']'));
            inside.f_ = f_;
            o = inside.operand();
            Operand at;
            at.kind = Operand::address;
            if (o.kind == Operand::reg)
                at.slot = o.slot;
            else
                at.base = o.kind, at.value = o.value;
            inside.skip();
            if (inside.at_ < inside.text_.size()) {
                inside.take("+");
                at.value += inside.operand().value;
            }
            return at;
        }
        if (take("!")) throw Malformed("negated operand");
        const bool minus = take("-");
        const std::string w = word();
        if (w.empty()) throw Malformed("operand: " + text_.substr(at_, 60));
        if (std::isdigit(static_cast<unsigned char>(w[0]))) {
            o.kind = Operand::immediate;
            if (w.compare(0, 2, "0f") == 0 || w.compare(0, 2, "0F") == 0)
                o.value = std::stoull(w.substr(2), nullptr, 16);
            else
                o.value = std::stoull(w, nullptr, 0);
            if (minus) o.value = 0 - o.value;
            return o;
        }
        static const std::vector<std::string> specials = {"%tid.x",    "%tid.y",    "%tid.z",  "%ctaid.x", "%ctaid.y",
                                                          "%ctaid.z",  "%ntid.x",   "%ntid.y", "%ntid.z",  "%nctaid.x",
                                                          "%nctaid.y", "%nctaid.z", "%laneid"};
        const auto special = std::find(specials.begin(), specials.end(), w);
        if (special != specials.end()) {
            o.kind = Operand::special, o.value = uint64_t(special - specials.begin());
            return o;
        }
        if (w[0] == '%' || f_->registers.count(w)) {
            o.slot = slot(w);
            return o;
        }
        for (const Function::Parameter& p : f_->parameters)
            if (p.name == w) {
                o.kind = Operand::symbol_param, o.value = p.offset;
                return o;
            }
        if (w.find("shared") != std::string::npos) {
            o.kind = Operand::symbol_shared;
            return o;
        }
        o.kind = Operand::label, o.name = w;
        return o;
    }

    static bool has(const Instruction& i, const char* word) {
        return std::find(i.words.begin(), i.words.end(), word) != i.words.end();
    }
    static void decode(Instruction& i) {
        static const std::map<std::string, Code> plain = {
            {"add", c_add},  {"sub", c_sub},   {"div", c_div},   {"rem", c_rem},   {"min", c_min},   {"max", c_max},
            {"and", c_and},  {"or", c_or},     {"xor", c_xor},   {"not", c_not},   {"neg", c_neg},   {"abs", c_abs},
            {"shl", c_shl},  {"shr", c_shr},   {"fma", c_fma},   {"sqrt", c_sqrt}, {"setp", c_setp}, {"selp", c_selp},
            {"cvt", c_cvt},  {"cvta", c_cvta}, {"mov", c_mov},   {"ld", c_ld},     {"st", c_st},     {"bra", c_bra},
            {"ret", c_ret},  {"exit", c_ret},  {"shfl", c_shfl}, {"shf", c_shf},   {"prmt", c_prmt}, {"popc", c_popc},
            {"dp4a", c_dp4a}};
        const std::string& op = i.words[0];
        const bool f32 = i.type == Type::f32 && op != "cvt";
        // What would not be the arithmetic of docs/numerics.md is no instruction of this machine.
        for (const char* bad : {"ftz", "approx", "full", "sat", "rz", "rm", "rp"})
            if (has(i, bad)) throw Malformed("not exact: " + i.text);
        if (f32 &&
            (op == "add" || op == "sub" || op == "mul" || op == "div" || op == "fma" || op == "sqrt" || op == "mad") &&
            !has(i, "rn"))
            throw Malformed("unrounded: " + i.text);
        i.code = c_none;
        if (op == "mul")
            i.code = f32 || has(i, "lo") ? c_mul_lo : has(i, "hi") ? c_mul_hi : c_mul_wide;
        else if (op == "mad" && !f32)
            i.code = has(i, "lo") ? c_mad_lo : has(i, "wide") ? c_mad_wide : c_none;
        else if (op == "bar" || op == "barrier")
            i.code = has(i, "warp") ? c_warp : c_bar;
        else if (op == "cp" && has(i, "async"))
            i.code = has(i, "commit_group") ? c_commit
                     : has(i, "wait_all")   ? c_wait
                     : has(i, "shared")     ? c_async
                                            : c_none;
        else if (plain.count(op))
            i.code = plain.at(op);
        if (i.code == c_none) throw Malformed("unknown instruction: " + i.text);
        if (i.code == c_ld || i.code == c_st) {
            i.space = has(i, "param") ? 'p' : has(i, "shared") ? 's' : has(i, "local") ? 'l' : 'g';
            if (i.space == 'l') throw Malformed("local memory: " + i.text);
            i.width = has(i, "v2") ? 2 : has(i, "v4") ? 4 : 1;
        }
        if (i.code == c_setp && i.args.size() > 3) throw Malformed("compound comparison: " + i.text);
    }

    std::string text_;
    size_t at_ = 0;
    std::shared_ptr<Function> f_;
    std::map<std::string, int> labels_;
};

// ---- running

class Runner {
  public:
    Runner(const Function& f, const uint8_t* parameters)
        : f_(f), parameters_(parameters), r_(f.registers.size(), 0xBADBADBADBADBADBu) {}

    uint64_t& named(const char* name) { return r_[size_t(f_.registers.at(name))]; }

    void run() {
        for (size_t pc = 0; pc < f_.code.size();) {
            const Instruction& i = f_.code[pc++];
            if (i.guard >= 0 && bool(r_[size_t(i.guard)] & 1) == i.guard_not) continue;
            if (i.code == c_ret) return;
            if (i.code == c_bra)
                pc = size_t(i.args[0].slot);
            else
                step(i);
        }
    }

  private:
    uint64_t get(const Operand& o) const {
        switch (o.kind) {
            case Operand::reg:
                return r_[size_t(o.slot)];
            case Operand::immediate:
                return o.value;
            case Operand::special:
                return special(int(o.value));
            case Operand::symbol_param:
                return reinterpret_cast<uint64_t>(parameters_) + o.value;
            case Operand::symbol_shared:
                return 0;
            case Operand::vector:
                return get(o.items[0]) | get(o.items[1]) << 32;  // mov.b64 of two halves
            default:
                throw Malformed("operand");
        }
    }
    static uint64_t special(int n) {
        const emulation::Thread& t = *emulation::self;
        const emulation::Dim* const dims[] = {&t.thread, &t.block, &t.threads, &t.blocks};
        if (n == 12) return t.index % emulation::WARP;
        const emulation::Dim& d = *dims[n / 3];
        return n % 3 == 0 ? d.x : n % 3 == 1 ? d.y : d.z;
    }
    uint64_t address(const Operand& o) const {
        if (o.slot >= 0) return r_[size_t(o.slot)] + o.value;
        Operand base = o;
        base.kind = o.base;
        return o.base == Operand::symbol_shared ? o.value : get(base);
    }
    void set(const Operand& o, uint64_t value) { r_[size_t(o.slot)] = value; }
    float real(const Operand& o) const { return to_float(get(o)); }

    void step(const Instruction& i) {
        const auto& a = i.args;
        const Type t = i.type;
        const auto integer = [&](size_t n) { return extend(get(a[n]), t); };
        const auto natural = [&](size_t n) { return truncate(get(a[n]), t); };
        const bool f32 = t == Type::f32;
        switch (i.code) {
            case c_add:
                return set(a[0], f32 ? to_bits(real(a[1]) + real(a[2])) : truncate(get(a[1]) + get(a[2]), t));
            case c_sub:
                return set(a[0], f32 ? to_bits(real(a[1]) - real(a[2])) : truncate(get(a[1]) - get(a[2]), t));
            case c_mul_lo:
                return set(a[0], f32 ? to_bits(real(a[1]) * real(a[2])) : truncate(get(a[1]) * get(a[2]), t));
            case c_mul_hi:
                if (bytes(t) == 8) {
                    const unsigned __int128 p = is_signed(t)
                                                    ? static_cast<unsigned __int128>(__int128(integer(1)) * integer(2))
                                                    : static_cast<unsigned __int128>(natural(1)) * natural(2);
                    return set(a[0], uint64_t(p >> 64));
                }
                return set(a[0], truncate(uint64_t(integer(1) * integer(2)) >> 8 * bytes(t), t));
            case c_mul_wide:
                return set(a[0], wide(uint64_t(integer(1) * integer(2)), t));
            case c_mad_lo:
                return set(a[0], truncate(get(a[1]) * get(a[2]) + get(a[3]), t));
            case c_mad_wide:
                return set(a[0], wide(uint64_t(integer(1) * integer(2)) + get(a[3]), t));
            case c_div:
                if (f32) return set(a[0], to_bits(real(a[1]) / real(a[2])));
                return set(a[0],
                           truncate(is_signed(t) ? uint64_t(integer(1) / integer(2)) : natural(1) / natural(2), t));
            case c_rem:
                return set(a[0],
                           truncate(is_signed(t) ? uint64_t(integer(1) % integer(2)) : natural(1) % natural(2), t));
            case c_min:
                return set(a[0], less(i, 1, 2) ? get(a[1]) : get(a[2]));
            case c_max:
                return set(a[0], less(i, 1, 2) ? get(a[2]) : get(a[1]));
            case c_and:
                return set(a[0], get(a[1]) & get(a[2]));
            case c_or:
                return set(a[0], get(a[1]) | get(a[2]));
            case c_xor:
                return set(a[0], get(a[1]) ^ get(a[2]));
            case c_not:
                return set(a[0], t == Type::pred ? ~get(a[1]) & 1 : truncate(~get(a[1]), t));
            case c_neg:
                return set(a[0], f32 ? get(a[1]) ^ 0x80000000u : truncate(0 - get(a[1]), t));
            case c_abs:
                return set(a[0], f32 ? get(a[1]) & 0x7FFFFFFFu : truncate(uint64_t(std::abs(integer(1))), t));
            case c_popc:
                return set(a[0], uint64_t(__builtin_popcountll(natural(1))));
            case c_shl: {
                const uint64_t n = uint32_t(get(a[2]));
                return set(a[0], n >= uint64_t(8 * bytes(t)) ? 0 : truncate(get(a[1]) << n, t));
            }
            case c_shr: {
                const uint64_t n = std::min<uint64_t>(uint32_t(get(a[2])), 63);
                return set(a[0], truncate(is_signed(t) ? uint64_t(integer(1) >> n) : natural(1) >> n, t));
            }
            case c_fma:
                return set(a[0], to_bits(__builtin_fmaf(real(a[1]), real(a[2]), real(a[3]))));
            case c_sqrt:
                return set(a[0], to_bits(std::sqrt(real(a[1]))));
            case c_setp:
                return set(a[0], compare(i));
            case c_selp:
                return set(a[0], get(a[3]) & 1 ? get(a[1]) : get(a[2]));
            case c_cvt:
                return set(a[0], convert(i));
            case c_cvta: {
                if (std::find(i.words.begin(), i.words.end(), "shared") == i.words.end()) return set(a[0], get(a[1]));
                const uint64_t base = reinterpret_cast<uint64_t>(emulation::shared_memory());
                return set(a[0], i.words[1] == "to" ? get(a[1]) - base : get(a[1]) + base);
            }
            case c_mov:
                if (a[0].kind == Operand::vector) {
                    const int half = 4 * bytes(t);  // bits
                    set(a[0].items[0], get(a[1]) & ((uint64_t(1) << half) - 1));
                    set(a[0].items[1], get(a[1]) >> half & ((uint64_t(1) << half) - 1));
                    return;
                }
                if (a[1].kind == Operand::vector)
                    return set(a[0], get(a[1].items[0]) | get(a[1].items[1]) << 4 * bytes(t));
                return set(a[0], get(a[1]));
            case c_ld:
                return load(i);
            case c_st:
                return store(i);
            case c_bar:
                return emulation::barrier();
            case c_warp:
                return emulation::warp_barrier(uint32_t(get(a[0])));
            case c_shfl:
                return shuffle(i);
            case c_shf: {
                const uint64_t both = truncate(get(a[2]), Type::b32) << 32 | truncate(get(a[1]), Type::b32);
                const uint64_t n = get(a[3]) & 31;  // .wrap
                return set(a[0], uint32_t(i.words[1] == "l" ? both << n >> 32 : both >> n));
            }
            case c_prmt: {
                const uint64_t both = truncate(get(a[2]), Type::b32) << 32 | truncate(get(a[1]), Type::b32);
                uint32_t out = 0;
                for (int k = 0; k < 4; k++) {
                    const uint64_t n = get(a[3]) >> 4 * k & 15, byte = both >> 8 * (n & 7) & 255;
                    out |= uint32_t(n & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * k;
                }
                return set(a[0], out);
            }
            case c_dp4a: {
                uint64_t sum = get(a[3]);
                for (int byte = 0; byte < 32; byte += 8)
                    sum += uint64_t(extend(get(a[1]) >> byte, four(t)) * extend(get(a[2]) >> byte, four(i.from)));
                return set(a[0], truncate(sum, Type::b32));
            }
            case c_async: {
                const int size = int(get(a[2])), valid = a.size() > 3 ? int(get(a[3])) : size;
                return emulation::copy_async(pointer(shared(address(a[0]))), pointer(address(a[1])), size, valid);
            }
            case c_commit:
                return emulation::commit_async();
            case c_wait:
                return emulation::wait_async();
            default:
                throw Malformed(i.text);
        }
    }
    static Type four(Type t) { return is_signed(t) ? Type::s8 : Type::u8; }  // of which a register has four
    static uint64_t wide(uint64_t x, Type t) { return bytes(t) == 4 ? x : uint32_t(x); }
    static void* pointer(uint64_t at) { return reinterpret_cast<void*>(at); }

    bool less(const Instruction& i, size_t x, size_t y) const {
        if (i.type == Type::f32) throw Malformed(i.text);
        const uint64_t p = get(i.args[x]), q = get(i.args[y]);
        return is_signed(i.type) ? extend(p, i.type) < extend(q, i.type) : truncate(p, i.type) < truncate(q, i.type);
    }
    uint64_t compare(const Instruction& i) const {
        const std::string& c = i.words[1];
        if (i.type == Type::f32) {
            const float x = real(i.args[1]), y = real(i.args[2]);
            const bool nan = x != x || y != y;
            if (c == "nan") return nan;
            if (c == "num") return !nan;
            if (c == "eq") return x == y;
            if (c == "ne") return x < y || x > y;
            if (c == "lt") return x < y;
            if (c == "le") return x <= y;
            if (c == "gt") return x > y;
            if (c == "ge") return x >= y;
            if (c == "neu") return x != y;
            if (c == "equ") return nan || x == y;
            if (c == "ltu") return !(x >= y);
            if (c == "leu") return !(x > y);
            if (c == "gtu") return !(x <= y);
            if (c == "geu") return !(x < y);
            throw Malformed(i.text);
        }
        const bool below = less(i, 1, 2), above = less(i, 2, 1);
        if (c == "eq") return !below && !above;
        if (c == "ne") return below || above;
        if (c == "lt" || c == "lo") return below;
        if (c == "le" || c == "ls") return !above;
        if (c == "gt" || c == "hi") return above;
        if (c == "ge" || c == "hs") return !below;
        throw Malformed(i.text);
    }
    uint64_t convert(const Instruction& i) const {
        const uint64_t x = get(i.args[1]);
        if (i.type == Type::f32 && i.from == Type::f16) return to_bits(emulation::f16_to_f32(uint16_t(x)));
        if (i.type == Type::f16 && i.from == Type::f32) return emulation::f32_to_f16(to_float(x));
        if (i.type == Type::f32) {
            const int64_t n = extend(x, i.from);
            return to_bits(is_signed(i.from) ? float(n) : float(truncate(x, i.from)));
        }
        if (i.from == Type::f32) {  // .rzi: toward zero, saturating, NaN gives 0
            if (i.words[1] != "rzi" || bytes(i.type) != 4) throw Malformed(i.text);
            const float f = to_float(x);
            const double low = is_signed(i.type) ? -2147483648.0 : 0.0,
                         high = is_signed(i.type) ? 2147483647.0 : 4294967295.0;
            return f != f ? 0 : truncate(uint64_t(int64_t(std::min(std::max(double(f), low), high))), i.type);
        }
        return truncate(uint64_t(extend(x, i.from)), i.type);
    }
    static uint64_t shared(uint64_t at) {
        return reinterpret_cast<uint64_t>(emulation::shared_memory()) + uint32_t(at);
    }
    // Accesses of one size each, which ThreadSanitizer sees.
    template <class T>
    static uint64_t fetched(const void* from) {
        T x;
        std::memcpy(&x, from, sizeof x);
        return x;
    }
    template <class T>
    static void stored(void* to, T x) {
        std::memcpy(to, &x, sizeof x);
    }
    static uint64_t fetch(const void* from, int size) {
        return size == 1   ? fetched<uint8_t>(from)
               : size == 2 ? fetched<uint16_t>(from)
               : size == 4 ? fetched<uint32_t>(from)
                           : fetched<uint64_t>(from);
    }
    static void put(void* to, uint64_t x, int size) {
        if (size == 1) return stored(to, uint8_t(x));
        if (size == 2) return stored(to, uint16_t(x));
        if (size == 4) return stored(to, uint32_t(x));
        stored(to, x);
    }
    void load(const Instruction& i) {
        uint64_t at = address(i.args[1]);
        if (i.space == 'p' && i.args[1].slot < 0) at = reinterpret_cast<uint64_t>(parameters_) + i.args[1].value;
        if (i.space == 's') at = shared(at);
        if (at % uint64_t(i.width * bytes(i.type))) emulation::fail("a load that is not aligned");
        for (int n = 0; n < i.width; n++) {
            const uint64_t x = fetch(pointer(at + uint64_t(n * bytes(i.type))), bytes(i.type));
            set(i.width > 1 ? i.args[0].items[size_t(n)] : i.args[0], uint64_t(extend(x, i.type)));
        }
    }
    void store(const Instruction& i) {
        const uint64_t at = i.space == 's' ? shared(address(i.args[0])) : address(i.args[0]);
        if (at % uint64_t(i.width * bytes(i.type))) emulation::fail("a store that is not aligned");
        for (int n = 0; n < i.width; n++) {
            const uint64_t x = get(i.width > 1 ? i.args[1].items[size_t(n)] : i.args[1]);
            put(pointer(at + uint64_t(n * bytes(i.type))), x, bytes(i.type));
        }
    }
    void shuffle(const Instruction& i) {
        const size_t first = i.args.size() == 6 ? 2 : 1;  // d|p, or d
        const unsigned lane = emulation::self->index % emulation::WARP, b = unsigned(get(i.args[first + 1]));
        const std::string& mode = i.words[2];
        const unsigned source = mode == "idx" ? b % 32 : mode == "down" ? lane + b : mode == "bfly" ? lane ^ b : ~0u;
        if (source == ~0u || (get(i.args[first + 2]) & 0x1F1F) != 0x1F) throw Malformed(i.text);
        const uint32_t got =
            emulation::exchange(uint32_t(get(i.args[first + 3])), uint32_t(get(i.args[first])), source);
        set(i.args[0], got);
        if (first == 2) set(i.args[1], source < 32);
    }

    const Function& f_;
    const uint8_t* parameters_;
    std::vector<uint64_t> r_;
};

}  // namespace ptx
