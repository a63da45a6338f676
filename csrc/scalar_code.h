// What is decided once for a scalar program: the register of every value, and whether it was compiled ahead of time.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace gv {

// Registers for the values of instructions: one is free again after its value's last reader, and for that reader's own
// result, since lanes do not meet. Outputs keep theirs. Returns the number of registers; `of` holds one an instruction.
int allocate_registers(const ScalarCode& p, std::vector<uint16_t>& of);

// The number of the program of program/published.py that equals p, input types and all, or -1.
int find_published(const ScalarCode& p);

// For tests: off, programs planned from now on run in the virtual machine even where a compiled one exists.
void use_published(bool on);

const char* const* operation_names();  // in code order, then null

}  // namespace gv
