#include "places.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>
#include <tuple>

namespace gv {
namespace {

// Gaps of an arena that grows at its end: best fit, neighbours joined.
class FreeList {
  public:
    int64_t end = 0;

    int64_t take(int64_t size) {
        const auto fit = by_size_.lower_bound({size, 0});
        if (fit != by_size_.end()) {
            const auto [n, offset] = *fit;
            remove(offset, n);
            if (n > size) add(offset + size, n - size);
            return offset;
        }
        int64_t offset = end;
        if (!gaps_.empty() && gaps_.rbegin()->first + gaps_.rbegin()->second == end) {
            offset = gaps_.rbegin()->first;  // the last gap grows with the arena
            remove(offset, end - offset);
        }
        end = offset + size;
        return offset;
    }

    void give(int64_t offset, int64_t size) {
        const auto after = gaps_.find(offset + size);
        if (after != gaps_.end()) {
            const int64_t n = after->second;
            remove(offset + size, n);
            size += n;
        }
        auto before = gaps_.lower_bound(offset);
        if (before != gaps_.begin() && (--before)->first + before->second == offset) {
            const auto [at, n] = *before;
            remove(at, n);
            offset = at, size += n;
        }
        add(offset, size);
    }

  private:
    void add(int64_t offset, int64_t size) {
        gaps_[offset] = size;
        by_size_.insert({size, offset});
    }
    void remove(int64_t offset, int64_t size) {
        gaps_.erase(offset);
        by_size_.erase({size, offset});
    }
    std::map<int64_t, int64_t> gaps_;  // offset -> size, never touching
    std::set<std::pair<int64_t, int64_t>> by_size_;
};

std::optional<Place> viewed(const Reshape&, const Place& x, const TensorType& out) {
    if (!x.contiguous()) return std::nullopt;
    return Place{x.root, out, x.start, row_major(out.shape)};
}

std::optional<Place> viewed(const Permute& op, const Place& x, const TensorType& out) {
    Ints strides;
    for (int64_t axis : op.axes) strides.push_back(x.strides[size_t(axis)]);
    return Place{x.root, out, x.start, std::move(strides)};
}

std::optional<Place> viewed(const Broadcast&, const Place& x, const TensorType& out) { return broadcast(x, out.shape); }

// An axis of one element may have any step, even one that leaves 64 bits when it is multiplied: it keeps its stride.
int64_t stepped(int64_t stride, int64_t step, int64_t elements) { return elements > 1 ? stride * step : stride; }

std::optional<Place> viewed(const Slice& op, const Place& x, const TensorType& out) {
    if (out.elements() == 0) return Place{x.root, out, x.start, row_major(out.shape)};
    Place place{x.root, out, x.start, {}};
    for (size_t i = 0; i < x.strides.size(); i++) {
        place.start += op.start[i] * x.strides[i];
        place.strides.push_back(stepped(x.strides[i], op.step[i], out.shape[i]));
    }
    return place;
}

std::optional<Place> viewed(const Window& op, const Place& x, const TensorType& out) {
    const size_t d = op.size.size(), lead = x.strides.size() - d;
    Place place{x.root, out, x.start, {x.strides.begin(), x.strides.begin() + ptrdiff_t(lead)}};
    for (size_t i = 0; i < d; i++)
        place.strides.push_back(stepped(x.strides[lead + i], op.dilation[i], out.shape[lead + i]));
    for (size_t i = 0; i < d; i++)
        place.strides.push_back(stepped(x.strides[lead + i], op.stride[i], out.shape[lead + d + i]));
    return place;
}

template <class Other>
std::optional<Place> viewed(const Other&, const Place&, const TensorType&) {
    return std::nullopt;
}

}  // namespace

bool Place::contiguous() const { return is_contiguous(type.shape, strides); }

Ints row_major(const Ints& shape) {
    Ints strides(shape.size(), 0);
    if (element_count(shape) == 0) return strides;
    int64_t n = 1;
    for (size_t i = shape.size(); i-- > 0; n *= shape[i]) strides[i] = n;
    return strides;
}

bool is_contiguous(const Ints& shape, const Ints& strides) {
    if (element_count(shape) == 0) return true;
    int64_t n = 1;
    for (size_t i = shape.size(); i-- > 0; n *= shape[i])
        if (shape[i] != 1 && strides[i] != n) return false;
    return true;
}

Place broadcast(const Place& x, const Ints& shape) {
    const size_t lead = shape.size() - x.strides.size();
    Ints strides(lead, 0);
    for (size_t i = 0; i < x.strides.size(); i++)
        strides.push_back(x.type.shape[i] == 1 && shape[lead + i] != 1 ? 0 : x.strides[i]);
    return {x.root, {x.type.dtype, shape}, x.start, std::move(strides)};
}

std::optional<Place> view(const Op& op, const Place& x, const TensorType& out) {
    return std::visit([&](const auto& o) { return viewed(o, x, out); }, op);
}

int64_t assign_offsets(std::vector<Root*> roots) {
    using Living = std::tuple<int64_t, int64_t, int64_t>;  // dies, offset, size
    std::priority_queue<Living, std::vector<Living>, std::greater<>> alive;
    FreeList free;
    std::stable_sort(roots.begin(), roots.end(), [](const Root* a, const Root* b) { return a->born < b->born; });
    for (Root* root : roots) {
        for (; !alive.empty() && std::get<0>(alive.top()) < root->born; alive.pop())
            free.give(std::get<1>(alive.top()), std::get<2>(alive.top()));
        const int64_t size = aligned(root->nbytes);
        root->offset = size ? free.take(size) : 0;
        if (size) alive.push({root->dies, root->offset, size});
    }
    return free.end;
}

}  // namespace gv
