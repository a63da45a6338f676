// Where every value of a program lies in one block of memory, for how long, and which values are only views.
//
// A root is a piece of the arena with a lifetime in nodes; a place is a strided view of a root. Reshapes of contiguous
// values, permutations, slices, broadcasts and windows are places over their input's root: no bytes move until a kernel
// needs them contiguous. Roots whose lifetimes do not meet share memory.
#pragma once
#include <optional>
#include <vector>

#include "program.h"

namespace gv {

constexpr int64_t ALIGN = 64;
constexpr int64_t FOREVER = int64_t(1) << 60;
inline int64_t aligned(int64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

// `nbytes` of memory that is written first by node `born` and read last by node `dies`.
struct Root {
    int64_t nbytes, born, dies, offset = -1;
};

// A strided view: element offset and strides count elements of `type` inside the root. Strides of tensors without
// elements and of axes of one element mean nothing.
struct Place {
    Root* root;
    TensorType type;
    int64_t start;
    Ints strides;

    int64_t byte_offset() const { return root->offset + start * dtype_size(type.dtype); }
    bool contiguous() const;
};

Ints row_major(const Ints& shape);
bool is_contiguous(const Ints& shape, const Ints& strides);

// The value of a layout node as a view of its input, or nothing where bytes must move.
std::optional<Place> view(const Op& op, const Place& x, const TensorType& out);
Place broadcast(const Place& x, const Ints& shape);

// Gives every root an offset so that roots alive at the same node do not overlap; the bytes needed.
int64_t assign_offsets(std::vector<Root*> roots);

}  // namespace gv
