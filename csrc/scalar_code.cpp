#include "scalar_code.h"

#include <algorithm>

#include "operations.h"
#include "published.h"

namespace gv {
namespace {

constexpr uint8_t operands[] = {
#define GV_X1(name, R, A) 1,
#define GV_X2(name, R, A, B) 2,
#define GV_X3(name, R, A, B, C) 3,
    GV_OPERATIONS(GV_X1, GV_X2, GV_X3)
#undef GV_X1
#undef GV_X2
#undef GV_X3
};

bool published = true;

// A record of published.h, laid out by `record` of emit.py.
struct Record {
    explicit Record(const uint32_t* words)
        : inputs(int(words[0])),
          constants(int(words[1])),
          instructions(int(words[2])),
          outputs(int(words[3])),
          input_types(words + 4),
          constant_words(input_types + inputs),
          code(constant_words + 2 * constants),
          output_values(code + 4 * instructions) {}
    int inputs, constants, instructions, outputs;
    const uint32_t *input_types, *constant_words, *code, *output_values;
};

bool equals(const ScalarCode& p, const Record& r) {
    if (r.inputs != p.n_inputs || r.constants != p.n_constants || r.instructions != p.n_instructions ||
        r.outputs != p.n_outputs)
        return false;
    bool same = true;
    for (int i = 0; i < r.inputs; i++) same &= r.input_types[i] == p.value_types[i];
    for (int i = 0; i < r.constants; i++) {
        same &= r.constant_words[2 * i] == p.value_types[r.inputs + i];
        same &= r.constant_words[2 * i + 1] == p.constants[i];
    }
    for (int i = 0; i < 4 * r.instructions; i++) same &= r.code[i] == p.code[i];
    for (int i = 0; i < r.outputs; i++) same &= r.output_values[i] == p.outputs[i];
    return same;
}

// Whether value `mine` of p is what value `theirs` of a published program computes, from some values of p as its
// inputs.
class Match {
  public:
    Match(const ScalarCode& p, const Record& r)
        : p_(p), r_(r), bound_(size_t(r.inputs + r.constants + r.instructions), -1) {}

    bool value(int theirs, int mine) {
        if (bound_[size_t(theirs)] >= 0) return bound_[size_t(theirs)] == mine;
        if (!fits(theirs, mine)) return false;
        bound_[size_t(theirs)] = mine;
        return true;
    }
    int input(int i) const { return bound_[size_t(i)]; }

  private:
    bool fits(int theirs, int mine) {
        if (theirs < r_.inputs) return r_.input_types[theirs] == p_.value_types[mine];
        const int constant = theirs - r_.inputs, my_constant = mine - p_.n_inputs;
        if (constant < r_.constants)
            return my_constant >= 0 && my_constant < p_.n_constants &&
                   p_.constants[my_constant] == r_.constant_words[2 * constant + 1] &&
                   p_.value_types[mine] == r_.constant_words[2 * constant];
        if (my_constant < p_.n_constants) return false;
        const uint32_t* a = r_.code + 4 * (constant - r_.constants);
        const uint16_t* b = p_.code + 4 * (my_constant - p_.n_constants);
        if (a[0] != b[0]) return false;
        for (int k = 1; k <= operands[b[0]]; k++)
            if (!value(int(a[k]), b[k])) return false;
        return true;
    }
    const ScalarCode& p_;
    const Record& r_;
    std::vector<int> bound_;
};

constexpr int WORTH_A_STEP = 3;  // instructions

// The step that computes value v: the longest published program that ends there, or the instruction itself.
Step step_for(const ScalarCode& p, int v) {
    const uint16_t* code = p.code + 4 * (v - p.n_inputs - p.n_constants);
    Step step{code[0], uint16_t(v), {code[1], code[2], code[3]}};
    for (int k = operands[code[0]]; k < 3; k++) step.args[k] = step.args[0];
    int longest = WORTH_A_STEP - 1, number = 0;
    for (const uint32_t* words : published_records) {
        const Record r(words);
        Match match(p, r);
        if (published && r.outputs == 1 && r.inputs <= 3 && r.instructions > longest &&
            match.value(int(r.output_values[0]), v)) {
            longest = r.instructions;
            step.op = uint16_t(operation_count + number);
            for (int i = 0; i < 3; i++) step.args[i] = uint16_t(match.input(i < r.inputs ? i : 0));
        }
        number++;
    }
    return step;
}

int arguments(const Step& step) {
    return step.op < operation_count ? operands[step.op] : Record(published_records[step.op - operation_count]).inputs;
}

// A result's register is free after its last reader, and for that reader's own result: lanes do not meet. Outputs keep
// theirs.
void allocate_registers(const ScalarCode& p, Schedule& s) {
    const int first = p.n_inputs + p.n_constants, n = int(s.steps.size());
    std::vector<int> last(size_t(first + p.n_instructions), -1), of(last);
    for (int k = 0; k < n; k++)
        for (int a = 0; a < arguments(s.steps[size_t(k)]); a++) last[s.steps[size_t(k)].args[a]] = k;
    for (int o = 0; o < p.n_outputs; o++) last[p.outputs[o]] = n;
    std::vector<int> free;
    for (int k = 0; k < n; k++) {
        const Step& step = s.steps[size_t(k)];
        for (int a = 0; a < arguments(step); a++) {
            const int v = step.args[a];
            if (v < first || last[size_t(v)] != k) continue;
            free.push_back(of[size_t(v)]);
            last[size_t(v)] = -1;  // an operand that is read twice is freed once
        }
        if (free.empty()) free.push_back(s.n_registers++);
        of[step.result] = free.back();
        free.pop_back();
        s.registers.push_back(uint16_t(of[step.result]));
    }
}

}  // namespace

Schedule schedule(const ScalarCode& p) {
    const int first = p.n_inputs + p.n_constants;
    std::vector<bool> wanted(size_t(first + p.n_instructions));
    for (int o = 0; o < p.n_outputs; o++) wanted[p.outputs[o]] = true;
    Schedule s;
    for (int v = first + p.n_instructions - 1; v >= first; v--) {
        if (!wanted[size_t(v)]) continue;
        s.steps.push_back(step_for(p, v));
        for (int a = 0; a < arguments(s.steps.back()); a++) wanted[s.steps.back().args[a]] = true;
    }
    std::reverse(s.steps.begin(), s.steps.end());
    allocate_registers(p, s);
    return s;
}

int find_published(const ScalarCode& p) {
    int number = 0;
    for (const uint32_t* words : published_records) {
        if (published && equals(p, Record(words))) return number;
        number++;
    }
    return -1;
}

void use_published(bool on) { published = on; }

const char* const* operation_names() {
    static const char* const names[] = {
#define GV_X(name, ...) #name,
        GV_OPERATIONS(GV_X, GV_X, GV_X)
#undef GV_X
            nullptr};
    return names;
}

}  // namespace gv
