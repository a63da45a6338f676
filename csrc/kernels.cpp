// The table of one instruction set.
#include "kernels.h"

namespace gv {
#define GV_STRING_(x) #x
#define GV_STRING(x) GV_STRING_(x)
extern const Kernels GV_CONCAT(kernels_, GV_ISA);
const Kernels GV_CONCAT(kernels_, GV_ISA) = {
    GV_STRING(GV_ISA), GV_ISA::dot,         GV_ISA::map,    GV_ISA::reduce, GV_ISA::copy,   GV_ISA::fill,
    GV_ISA::gather,    GV_ISA::scatter_add, GV_ISA::random, GV_ISA::sort,   GV_ISA::blake3,
};
}  // namespace gv
