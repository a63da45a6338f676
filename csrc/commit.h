// Commitments over tensor roots: docs/formats.md, sections 3 to 6. The definition is gensyn_verify/commit.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "program.h"

namespace gv {

using Digest = std::array<uint8_t, 32>;

struct GroupEntry {
    const std::string* name;
    const TensorType* type;
    Digest root;
};
// The root of named tensors, sorted by name.
Digest group_root(const std::vector<GroupEntry>& entries);

// An append-only Merkle log; holds 32 bytes a level, not a leaf.
class Log {
  public:
    void append(const void* data, size_t n);
    uint64_t size() const { return size_; }
    Digest root() const;

  private:
    uint64_t size_ = 0;
    std::vector<Digest> peaks_;  // of the full subtrees, one a set bit of the size, the largest first
};

struct StepRoots {
    Digest state, batch, scalars;
};
// Appends the entry of the log's next step.
void append_step(Log& log, const StepRoots& roots);

Digest run_commitment(const uint8_t task[32], const uint8_t solver[20], const uint8_t salt[32], const Log& log);

}  // namespace gv
