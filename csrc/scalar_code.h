// What is decided once for a scalar program: which steps the machine takes, the register of every result, and whether
// all of it was compiled ahead of time.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace gv {

struct Schedule {
    std::vector<Step> steps;
    std::vector<uint16_t> registers;  // of every step's result
    int n_registers = 0;
};

// The instructions in order, except that a part which is a published program (exp, tanh ...) becomes one step, and
// what nobody reads is left out. The steps' order is the instructions'.
Schedule schedule(const ScalarCode& p);

// The number of the program of program/published.py that equals p, input types and all, or -1.
int find_published(const ScalarCode& p);

// For tests: off, programs planned from now on are run instruction by instruction.
void use_published(bool on);

const char* const* operation_names();  // in code order, then null

}  // namespace gv
