#include "regions.h"

#include <algorithm>
#include <deque>

#include "places.h"

namespace gv {
namespace {

int64_t least_elements = 1 << 14;  // below, everything is in cache anyway
int64_t block_elements = 1 << 15;  // of the widest value, a block of rows: a few of these fit the second cache level
constexpr int64_t MOST_ROW_ELEMENTS = 1 << 16;
constexpr size_t MOST_NODES = 64;
constexpr size_t MOST_TENSORS = 256;                        // of a device's regions: parameters of a kernel
constexpr int64_t MANY_ROWS = 128, FEW_ELEMENTS = 1 << 15;  // and so many rows, or so few elements
constexpr int NONE = -1;

// How many leading axes hold exactly `rows` (2 or more) positions, or NONE.
int leading_axes(const Ints& shape, int64_t rows) {
    int64_t n = 1;
    for (size_t axis = 0; axis < shape.size(); axis++) {
        if (n == rows) return int(axis);
        if (shape[axis] == 0 || shape[axis] > rows / n) return NONE;
        n *= shape[axis];
    }
    return n == rows ? int(shape.size()) : NONE;
}

// Whether position r of the first `lead` axes reads row r of the memory, and nothing outside it.
bool walks_rows(const Place& place, int lead, int64_t rows) {
    const int64_t elements = place.root->nbytes / dtype_size(place.type.dtype);
    const int64_t row = elements / rows;
    if (elements % rows || row == 0) return false;
    int64_t step = row, last = place.start;
    for (int axis = lead; axis-- > 0;) {
        const int64_t d = place.type.shape[size_t(axis)];
        if (d != 1 && place.strides[size_t(axis)] != step) return false;
        step *= d;
    }
    for (size_t axis = size_t(lead); axis < place.strides.size(); axis++) {
        const int64_t d = place.type.shape[axis];
        if (d == 1) continue;
        if (place.strides[axis] < 0) return false;
        last += (d - 1) * place.strides[axis];
    }
    return place.start >= 0 && last < row;
}

class Finder {
  public:
    Finder(const Program& program, const std::vector<bool>& excluded, bool device)
        : p_(program), device_(device), taken_(excluded) {
        place_values();
    }

    std::vector<Region> find() {
        // Reductions first: their rows are given, while a chain of maps may be cut in any way.
        for (size_t n = 0; n < p_.nodes.size(); n++) {
            const Reduce* reduce = std::get_if<Reduce>(&p_.nodes[n].op);
            if (!reduce || reduce->axes.empty()) continue;
            const Ints& shape = read(n, 0).type.shape;
            grow(n, element_count(Ints(shape.begin(), shape.begin() + reduce->axes[0])));
        }
        for (size_t n = 0; device_ && n < p_.nodes.size(); n++)
            if (std::holds_alternative<Dot>(p_.nodes[n].op)) add_epilogue(n);
        for (size_t n = 0; n < p_.nodes.size(); n++)
            if (const Map* map = std::get_if<Map>(&p_.nodes[n].op)) grow(n, element_count(map->shape));
        std::sort(regions_.begin(), regions_.end(), [](const Region& a, const Region& b) { return a.first < b.first; });
        return std::move(regions_);
    }

  private:
    // Every value as a view of the value that holds its memory.
    void place_values() {
        const auto own = [&](size_t v, int64_t producer) {
            roots_.push_back({p_.types[v].nbytes(), producer, producer});
            places_.push_back({&roots_.back(), p_.types[v], 0, row_major(p_.types[v].shape)});
        };
        for (size_t v = 0; v < p_.inputs.size(); v++) own(v, -1);
        for (size_t n = 0; n < p_.nodes.size(); n++) {
            const Node& node = p_.nodes[n];
            std::optional<Place> seen;
            if (is_layout(node.op)) seen = view(node.op, places_[node.inputs[0]], p_.types[node.first]);
            if (seen) places_.push_back(std::move(*seen));
            for (uint32_t i = 0; !seen && i < node.count; i++) own(node.first + i, int64_t(n));
        }
    }

    const Place& read(size_t n, size_t i) const { return places_[p_.nodes[n].inputs[i]]; }
    // The node that writes the memory of a place; -1 for inputs.
    static int64_t producer(const Place& place) { return place.root->born; }

    // Adds the largest region of so many rows around the node `seed`, if it has two nodes that compute.
    void grow(size_t seed, int64_t rows) {
        if (rows < 2 || !fits(seed, seed, rows)) return;
        size_t first = seed, last = seed;
        while (last - first < MOST_NODES && last + 1 < p_.nodes.size() && fits(last + 1, first, rows)) last++;
        while (last - first < MOST_NODES && first > 0 && all_fit(first - 1, last, rows)) first--;
        std::vector<size_t> nodes;
        int64_t widest = 0;
        size_t tensors = 0;
        for (size_t n = first; n <= last; n++) {
            if (is_layout(p_.nodes[n].op)) continue;
            nodes.push_back(n);
            tensors += p_.nodes[n].inputs.size() + p_.nodes[n].count;
            widest = std::max(widest, elements(n));
        }
        if (nodes.size() < 2 || widest / rows > MOST_ROW_ELEMENTS) return;
        if (device_ ? rows < MANY_ROWS && widest > FEW_ELEMENTS : widest < least_elements) return;
        if (device_ && tensors > MOST_TENSORS) return;
        const int64_t block_rows = device_ ? 1 : std::max<int64_t>(1, block_elements * rows / widest);
        regions_.push_back({nodes.front(), nodes.back(), rows, block_rows, streams(nodes, rows)});
        for (size_t n = nodes.front(); n <= nodes.back(); n++) taken_[n] = true;
    }

    // The dot n and the maps behind it that read nothing that is computed there but element by element, as it is
    // stored.
    void add_epilogue(size_t n) {
        const TensorType& c = p_.types[p_.nodes[n].first];
        if (taken_[n] || c.dtype != Dtype::f32 || c.elements() == 0) return;
        size_t last = n, tensors = 0;
        for (size_t m = n + 1; m < p_.nodes.size() && m - n < MOST_NODES && !taken_[m]; m++) {
            const Node& node = p_.nodes[m];
            if (is_layout(node.op) && producer(places_[node.first]) < int64_t(m)) continue;  // a view
            tensors += node.inputs.size() + node.count;
            if (tensors > MOST_TENSORS || !ends(m, n, c.elements())) break;
            last = m;
        }
        if (last == n) return;
        regions_.push_back({n, last, 1, 1, {}});
        for (size_t k = n; k <= last; k++) taken_[k] = true;
    }

    // Whether node m is a map of so many elements that reads values of the dot n or of maps behind it, as they lie.
    bool ends(size_t m, size_t n, int64_t elements) const {
        const Map* map = std::get_if<Map>(&p_.nodes[m].op);
        if (!map || element_count(map->shape) != elements) return false;
        bool reads = false;
        for (size_t i = 0; i < p_.nodes[m].inputs.size(); i++) {
            const Place place = as_read(m, i);
            if (producer(place) < int64_t(n)) continue;
            const bool narrow = dtype_size(place.type.dtype) != 4 && place.type.dtype != Dtype::boolean;
            if (narrow || !place.contiguous() || place.start != 0) return false;
            reads = true;
        }
        return reads;
    }

    int64_t elements(size_t n) const {
        const int64_t out = p_.types[p_.nodes[n].first].elements();
        return std::holds_alternative<Reduce>(p_.nodes[n].op) ? std::max(out, read(n, 0).type.elements()) : out;
    }

    std::vector<uint32_t> streams(const std::vector<size_t>& nodes, int64_t rows) const {
        std::vector<uint32_t> found;
        std::vector<const Root*> seen;
        for (size_t n : nodes)
            for (size_t i = 0; i < p_.nodes[n].inputs.size(); i++) {
                const Place place = as_read(n, i);
                const int lead = leading_axes(place.type.shape, rows);
                if (producer(place) >= int64_t(nodes.front()) || lead == NONE || !walks_rows(place, lead, rows))
                    continue;
                if (std::find(seen.begin(), seen.end(), place.root) != seen.end()) continue;
                seen.push_back(place.root);
                found.push_back(p_.nodes[n].inputs[i]);
            }
        return found;
    }

    bool all_fit(size_t first, size_t last, int64_t rows) const {
        for (size_t n = first; n <= last; n++)
            if (!fits(n, first, rows)) return false;
        return true;
    }

    // Whether node n, which no region has, computes row by row, and reads what nodes from `first` on wrote row by row.
    bool fits(size_t n, size_t first, int64_t rows) const {
        const Node& node = p_.nodes[n];
        if (taken_[n] || p_.types[node.first].elements() == 0) return false;
        if (is_layout(node.op)) return producer(places_[node.first]) < int64_t(n);  // a view of something
        const Map* map = std::get_if<Map>(&node.op);
        const Reduce* reduce = std::get_if<Reduce>(&node.op);
        if (!map && !reduce) return false;
        if (device_ && reduce) {
            const bool position =
                Reduction(reduce->op) == Reduction::argmax || Reduction(reduce->op) == Reduction::argmin;
            if (position || p_.types[node.first].elements() != rows || read(n, 0).type.elements() == 0) return false;
        }
        const Ints& shape = map ? map->shape : read(n, 0).type.shape;
        const int64_t axes = reduce && !reduce->axes.empty() ? reduce->axes[0] : int64_t(shape.size());
        const int lead = leading_axes(shape, rows);
        if (lead == NONE || lead > axes) return false;
        for (size_t i = 0; i < node.inputs.size(); i++)
            if (producer(read(n, i)) >= int64_t(first) && !walks_rows(as_read(n, i), lead, rows)) return false;
        return true;
    }

    Place as_read(size_t n, size_t i) const {
        const Map* map = std::get_if<Map>(&p_.nodes[n].op);
        return map ? broadcast(read(n, i), map->shape) : read(n, i);
    }

    const Program& p_;
    const bool device_;
    std::vector<bool> taken_;
    std::deque<Root> roots_;  // born: the node that writes it
    std::vector<Place> places_;
    std::vector<Region> regions_;
};

}  // namespace

std::vector<Region> find_regions(const Program& program, const std::vector<bool>& excluded, RegionsOf kind) {
    if (kind == RegionsOf::none) return {};
    return Finder(program, excluded, kind == RegionsOf::device).find();
}

void set_region_elements(int64_t least, int64_t block) { least_elements = least, block_elements = block; }

}  // namespace gv
