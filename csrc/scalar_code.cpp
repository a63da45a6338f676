#include "scalar_code.h"

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

// Compares p, word by word, with a record of published.h: the layout is `record` of emit.py.
bool equals(const ScalarCode& p, const uint32_t* r) {
    if (int(r[0]) != p.n_inputs || int(r[1]) != p.n_constants || int(r[2]) != p.n_instructions ||
        int(r[3]) != p.n_outputs)
        return false;
    r += 4;
    bool same = true;
    for (int i = 0; i < p.n_inputs; i++) same &= *r++ == p.value_types[i];
    for (int i = 0; i < p.n_constants; i++) {
        same &= *r++ == p.value_types[p.n_inputs + i];
        same &= *r++ == p.constants[i];
    }
    for (int i = 0; i < 4 * p.n_instructions; i++) same &= *r++ == p.code[i];
    for (int i = 0; i < p.n_outputs; i++) same &= *r++ == p.outputs[i];
    return same;
}

}  // namespace

int allocate_registers(const ScalarCode& p, std::vector<uint16_t>& of) {
    const int first = p.n_inputs + p.n_constants;
    std::vector<int> last(size_t(first + p.n_instructions), -1);
    for (int n = 0; n < p.n_instructions; n++)
        for (int k = 0; k < operands[p.code[4 * n]]; k++) last[p.code[4 * n + 1 + k]] = n;
    for (int o = 0; o < p.n_outputs; o++) last[p.outputs[o]] = p.n_instructions;
    std::vector<uint16_t> free;
    int registers = 0;
    of.assign(size_t(p.n_instructions), 0);
    for (int n = 0; n < p.n_instructions; n++) {
        for (int k = 0; k < operands[p.code[4 * n]]; k++) {
            const int v = p.code[4 * n + 1 + k];
            if (v < first || last[v] != n) continue;
            free.push_back(of[v - first]);
            last[v] = -1;  // an operand that is read twice is freed once
        }
        if (free.empty()) free.push_back(uint16_t(registers++));
        of[n] = free.back();
        free.pop_back();
        if (last[first + n] < 0) free.push_back(of[n]);
    }
    return registers;
}

int find_published(const ScalarCode& p) {
    int number = 0;
    for (const uint32_t* record : published_records) {
        if (published && equals(p, record)) return number;
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
