// Grow-only memory of one thread: the steady state allocates nothing.
#pragma once
#include <cstddef>
#include <cstdlib>

namespace {

struct Scratch {
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(p_); }
    void* get(size_t bytes) {
        if (bytes > n_) {
            std::free(p_);
            n_ = (bytes + 63) / 64 * 64;
            p_ = std::aligned_alloc(64, n_);
            if (!p_) std::abort();
        }
        return p_;
    }

  private:
    void* p_ = nullptr;
    size_t n_ = 0;
};

}  // namespace
