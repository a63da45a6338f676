// Reading strided boxes of elements in row-major order.
#pragma once
#include <algorithm>

#include "scalar_ops.h"

namespace gv {
namespace {

// A position in a box, and the offset in elements of what lies there.
class Cursor {
  public:
    Cursor(int rank, const int64_t* shape, const int64_t* strides, int64_t element)
        : offset(0), last_(rank - 1), shape_(shape), strides_(strides) {
        for (int axis = last_; axis >= 0; element /= shape[axis--])
            offset += (index_[axis] = element % shape[axis]) * strides[axis];
    }
    int64_t run() const { return shape_[last_] - index_[last_]; }  // elements left on the last axis
    void skip(int64_t n) {                                         // at most run()
        index_[last_] += n;
        offset += n * strides_[last_];
        for (int axis = last_; axis > 0 && index_[axis] == shape_[axis]; axis--) {
            offset += strides_[axis - 1] - index_[axis] * strides_[axis];
            index_[axis] = 0;
            index_[axis - 1]++;
        }
    }
    int64_t offset;

  private:
    int last_;
    const int64_t *shape_, *strides_;
    int64_t index_[MAX_RANK];
};

// n elements from number e on into registers. A run is written in whole vectors, and the next one overwrites what lies
// past its end: `to` needs room for W - 1 registers more.
template <Dtype D>
inline void load_box(int rank, const int64_t* shape, const int64_t* strides, const void* base, int64_t e, int64_t n,
                     uint32_t* to) {
    Cursor at(rank, shape, strides, e);
    while (n > 0) {
        const int64_t length = std::min(n, at.run());
        load_elements<D>(static_cast<const uint8_t*>(base) + at.offset * dtype_size(D), strides[rank - 1], length, to);
        at.skip(length);
        to += length, n -= length;
    }
}

}  // namespace
}  // namespace gv
