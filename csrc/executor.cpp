// From program to plan. First pass (the constructor of Planner): places and lifetimes. Second pass (`write`): kernel
// calls with final offsets.
#include "executor.h"

#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <new>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace gv {
namespace {

constexpr int64_t DEVICE_SCRATCH = int64_t(24) << 10;  // bytes of a row's private values

int64_t physical_memory() { return int64_t(sysconf(_SC_PAGESIZE)) * int64_t(sysconf(_SC_PHYS_PAGES)); }

// The place with its last two axes swapped, where that is contiguous.
bool is_flipped_matrix(const Place& place) {
    Ints shape = place.type.shape, strides = place.strides;
    const size_t rank = shape.size();
    if (rank < 2) return false;
    std::swap(shape[rank - 1], shape[rank - 2]);
    std::swap(strides[rank - 1], strides[rank - 2]);
    return is_contiguous(shape, strides);
}

// Operations whose kernels take their inputs as strided views.
bool reads_any_strides(const Op& op) {
    return std::holds_alternative<Map>(op) || std::holds_alternative<Reduce>(op) || std::holds_alternative<Scan>(op);
}

View as_view(const Place& place) { return {place.byte_offset(), place.type.dtype, place.strides}; }

void write_copy(PlanWriter& plan, const Place& from, const Place& to) {
    if (from.type.elements())
        plan.copy(dtype_size(from.type.dtype), from.type.shape, from.strides, to.strides, from.byte_offset(),
                  to.byte_offset());
}

}  // namespace

class Planner {
  public:
    Planner(const Program& program, const ExecutorOptions& options);
    void write(PlanWriter& plan) const;

    int64_t arena_bytes = 0;
    std::vector<Place> places;       // of every value
    std::vector<Place> next_states;  // where a step leaves the state: in place of the old one, or beside it if kept
    std::vector<Place> metrics;
    std::vector<Region> regions;

  private:
    struct Uses {
        size_t written, read;  // nodes that write it first, read it last
    };
    struct Staged {
        Place from, to;
        bool staged;  // the source lies in another state's memory, and is copied to `staging` first
        Place staging;
    };
    // A region's part of the plan: values that nothing outside reads exist for one block of rows at a time.
    struct Private {
        std::vector<Root*> roots;  // of all values that the region writes; then of its private ones
        std::vector<PrivateValue> values;
        int64_t scratch_bytes = 0;
    };

    size_t end() const { return p_.nodes.size(); }
    Place add(const TensorType& type, int64_t born);
    const Region* region_of(size_t n) const { return region_of_[n] < 0 ? nullptr : &regions[size_t(region_of_[n])]; }
    void find_in_place_states();
    void find_fused(RegionsOf kind);
    void place_node(size_t n);
    void read(uint32_t v, size_t n);
    void copy_before(size_t n, uint32_t v);
    void place_metrics();
    void place_states();
    void assign_arena();
    static void keep_small(std::vector<Root*>& roots, int64_t rows);
    void assign_scratch(const Region& region, Private& part);
    const Place* output_to_share(const Root& root, const std::unordered_set<const Root*>& taken) const;
    bool usable(const Op& op, uint32_t v) const;
    const Place& input(const Node& node, size_t i) const;

    void write_node(PlanWriter& plan, size_t n) const;
    void call(PlanWriter& plan, const Node& node, const Map& op) const;
    void call(PlanWriter& plan, const Node& node, const Dot& op) const;
    void call(PlanWriter& plan, const Node& node, const Reduce& op) const;
    void call(PlanWriter& plan, const Node& node, const Gather& op) const;
    void call(PlanWriter& plan, const Node& node, const ScatterAdd& op) const;
    void call(PlanWriter& plan, const Node& node, const Random& op) const;
    void call(PlanWriter& plan, const Node& node, const Sort& op) const;
    void call(PlanWriter& plan, const Node& node, const Scan& op) const;
    void call(PlanWriter& plan, const Node& node, const Pad& op) const;
    void call(PlanWriter& plan, const Node& node, const Concat& op) const;
    template <class Layout>
    void call(PlanWriter& plan, const Node& node, const Layout& op) const;

    const Program& p_;
    const bool keep_, device_;
    std::deque<Root> roots_;
    std::vector<bool> is_view_;                          // nodes whose value is a view: nothing is called
    std::unordered_map<uint32_t, size_t> in_place_;      // value -> state input whose memory it takes
    std::vector<int> region_of_;                         // node -> number of its region, or -1
    std::unordered_map<const Root*, Uses> used_;         // roots of values of regions
    std::vector<Private> parts_;                         // by region
    std::unordered_map<uint32_t, Place> contiguous_;     // value -> its copy, made by the first node that needs one
    std::map<size_t, std::vector<uint32_t>> copied_at_;  // node -> values copied before it runs
    std::vector<std::pair<Place, Place>> saved_metrics_;
    std::vector<Staged> state_copies_;
};

Planner::Planner(const Program& program, const ExecutorOptions& options)
    : p_(program),
      keep_(options.keep),
      device_(options.regions == RegionsOf::device),
      is_view_(program.nodes.size()),
      region_of_(program.nodes.size(), -1) {
    for (size_t v = 0; v < p_.inputs.size(); v++) {
        places.push_back(add(p_.types[v], -1));
        places.back().root->dies = FOREVER;
    }
    if (!keep_) find_in_place_states();
    if (!keep_) find_fused(options.regions);
    for (size_t n = 0; n < end(); n++) place_node(n);
    for (const Output& o : p_.outputs) read(o.value, end() + 1);
    place_metrics();
    place_states();
    assign_arena();
}

Place Planner::add(const TensorType& type, int64_t born) {
    roots_.push_back({type.nbytes(), born, keep_ ? FOREVER : born});
    return {&roots_.back(), type, 0, row_major(type.shape)};
}

// ---- first pass

// A value may take a state's memory: it is the next state, computed elementwise by the last node that reads the old
// one, which that node reads unbroadcast.
void Planner::find_in_place_states() {
    std::vector<uint32_t> owner(p_.types.size());  // value -> the value whose memory it may view
    std::unordered_map<uint32_t, size_t> last;     // that -> the last node that may read it
    for (uint32_t v = 0; v < owner.size(); v++) owner[v] = v;
    for (size_t n = 0; n < end(); n++) {
        const Node& node = p_.nodes[n];
        for (uint32_t v : node.inputs) last[owner[v]] = n;
        const bool moves = std::holds_alternative<Pad>(node.op) || std::holds_alternative<Concat>(node.op);
        if (is_layout(node.op) && !moves) owner[node.first] = owner[node.inputs[0]];
    }
    std::map<std::string_view, size_t> number;
    for (size_t v = 0; v < p_.inputs.size() && p_.inputs[v].role == Role::state; v++) number[p_.inputs[v].name] = v;
    std::unordered_map<uint32_t, size_t> wanted;
    for (const Output& o : p_.outputs) {
        if (o.role == OutputRole::metric || owner[o.value] < p_.inputs.size()) last[owner[o.value]] = end();
        if (o.role == OutputRole::state) wanted.emplace(o.value, number.at(o.name));
    }
    for (size_t n = 0; n < end(); n++) {
        const Node& node = p_.nodes[n];
        if (!std::holds_alternative<Map>(node.op)) continue;
        for (uint32_t v = node.first; v < node.first + node.count; v++) {
            const auto state = wanted.find(v);
            if (state == wanted.end()) continue;
            const uint32_t old = uint32_t(state->second);
            const auto read = last.find(old);
            const bool viewed = std::any_of(node.inputs.begin(), node.inputs.end(),
                                            [&](uint32_t i) { return owner[i] == old && i != old; });
            if ((read == last.end() || read->second <= n) && !viewed) in_place_[v] = old;
        }
    }
}

void Planner::find_fused(RegionsOf kind) {
    std::vector<bool> updates(end(), false);
    for (size_t n = 0; n < end(); n++)
        for (uint32_t i = 0; i < p_.nodes[n].count; i++)
            if (in_place_.count(p_.nodes[n].first + i)) updates[n] = true;
    regions = find_regions(p_, updates, kind);
    parts_.resize(regions.size());
    for (size_t r = 0; r < regions.size(); r++)
        for (size_t n = regions[r].first; n <= regions[r].last; n++) region_of_[n] = int(r);
}

void Planner::read(uint32_t v, size_t n) {
    Root* root = places[v].root;
    if (const Region* region = n < end() ? region_of(n) : nullptr) {
        // The nodes of a region run side by side: what one reads lives until all are done.
        const auto used = used_.find(root);
        if (used != used_.end()) used->second.read = n;
        n = region->last;
    }
    root->dies = std::max(root->dies, int64_t(n));
}

void Planner::place_node(size_t n) {
    const Node& node = p_.nodes[n];
    for (uint32_t v : node.inputs) read(v, n);
    if (is_layout(node.op)) {
        if (auto seen = view(node.op, places[node.inputs[0]], p_.types[node.first])) {
            is_view_[n] = true;
            places.push_back(std::move(*seen));
            return;
        }
    } else if (!reads_any_strides(node.op)) {
        for (uint32_t v : node.inputs)
            if (!usable(node.op, v)) copy_before(n, v);
    }
    const Region* region = region_of(n);
    for (uint32_t v = node.first; v < node.first + node.count; v++) {
        const auto state = in_place_.find(v);
        if (state != in_place_.end()) {
            places.push_back(places[state->second]);
            continue;
        }
        places.push_back(add(p_.types[v], int64_t(region ? region->first : n)));
        if (!region) continue;
        used_[places.back().root] = {n, n};
        parts_[size_t(region_of_[n])].roots.push_back(places.back().root);
    }
}

// Whether the kernel reads this view as it is: contiguous, or for dot a whole transposed matrix.
bool Planner::usable(const Op& op, uint32_t v) const {
    return places[v].contiguous() || (std::holds_alternative<Dot>(op) && is_flipped_matrix(places[v]));
}

void Planner::copy_before(size_t n, uint32_t v) {
    auto copy = contiguous_.find(v);
    if (copy == contiguous_.end()) {
        copy = contiguous_.emplace(v, add(places[v].type, int64_t(n))).first;
        copied_at_[n].push_back(v);
    }
    Root* root = copy->second.root;
    root->dies = std::max(root->dies, int64_t(n));
}

// Metrics lie where they are computed; those inside the old state are saved from the new one.
void Planner::place_metrics() {
    std::unordered_set<const Root*> old;
    for (size_t v = 0; v < p_.inputs.size(); v++) old.insert(places[v].root);
    for (const Output& o : p_.outputs) {
        if (o.role != OutputRole::metric) continue;
        Place place = places[o.value];
        if (old.count(place.root) && !in_place_.count(o.value)) {
            Place saved = add(place.type, int64_t(end()));
            saved.root->dies = FOREVER;
            saved_metrics_.push_back({place, saved});
            place = saved;
        }
        metrics.push_back(std::move(place));
    }
}

// The copies that end a step.
void Planner::place_states() {
    std::unordered_set<const Root*> targets;
    for (size_t v = 0; v < p_.inputs.size() && p_.inputs[v].role == Role::state; v++) {
        next_states.push_back(keep_ ? add(p_.types[v], -1) : places[v]);
        targets.insert(next_states.back().root);
    }
    for (size_t s = 0; s < next_states.size(); s++) {  // state outputs come first, in the order of the state inputs
        const Place &from = places[p_.outputs[s].value], &to = next_states[s];
        if (from.root == to.root && from.start == 0 && from.strides == to.strides) continue;
        Staged copy{from, to, targets.count(from.root) > 0, from};
        if (copy.staged) {
            copy.staging = add(from.type, int64_t(end()));
            copy.staging.root->dies = int64_t(end()) + 1;
        }
        state_copies_.push_back(std::move(copy));
    }
}

void Planner::assign_arena() {
    std::unordered_set<const Root*> hidden;
    for (size_t r = 0; r < regions.size(); r++) {
        std::vector<Root*>& roots = parts_[r].roots;
        const int64_t last = int64_t(regions[r].last);
        roots.erase(std::remove_if(roots.begin(), roots.end(), [&](Root* root) { return root->dies > last; }),
                    roots.end());
        if (device_ && regions[r].rows > 1) keep_small(roots, regions[r].rows);
        hidden.insert(roots.begin(), roots.end());
    }
    std::vector<Root*> open;
    for (Root& root : roots_)
        if (!hidden.count(&root)) open.push_back(&root);
    arena_bytes = std::max<int64_t>(assign_offsets(std::move(open)), 64);
    for (size_t r = 0; r < regions.size(); r++) {
        std::unordered_set<const Root*> taken(parts_[r].roots.begin(), parts_[r].roots.end());
        std::vector<Root*> alone;
        for (Root* root : parts_[r].roots) {
            const Place* output = device_ ? nullptr : output_to_share(*root, taken);
            if (output) {
                root->offset = output->root->offset;
                taken.insert(output->root);
            } else {
                alone.push_back(root);
            }
        }
        parts_[r].roots = std::move(alone);
        assign_scratch(regions[r], parts_[r]);
    }
}

// Of a device's private values, those whose rows fit its scratch memory together; the others lie in the arena.
void Planner::keep_small(std::vector<Root*>& roots, int64_t rows) {
    int64_t left = DEVICE_SCRATCH;
    const auto too_large = [&](const Root* root) {
        const int64_t bytes = aligned(root->nbytes / rows);
        if (bytes > left) return true;
        left -= bytes;
        return false;
    };
    roots.erase(std::remove_if(roots.begin(), roots.end(), too_large), roots.end());
}

// The output of a region in whose memory one of its private values may lie: the map that writes it reads that value
// last, unbroadcast. So that memory comes to cache while the value is computed.
const Place* Planner::output_to_share(const Root& root, const std::unordered_set<const Root*>& taken) const {
    const Node& node = p_.nodes[used_.at(&root).read];
    if (!std::holds_alternative<Map>(node.op)) return nullptr;
    std::vector<const Place*> seen;
    for (uint32_t v : node.inputs)
        if (places[v].root == &root) seen.push_back(&places[v]);
    for (uint32_t v = node.first; !seen.empty() && v < node.first + node.count; v++) {
        const Place& out = places[v];
        const bool same = std::all_of(seen.begin(), seen.end(), [&](const Place* p) {
            return p->type == out.type && p->contiguous() && p->start == 0;
        });
        if (same && !taken.count(out.root) && root.nbytes == out.root->nbytes) return &out;
    }
    return nullptr;
}

// Private values lie beyond the arena, as far as the plan is concerned; the rows at work in scratch memory.
void Planner::assign_scratch(const Region& region, Private& part) {
    std::deque<Root> blocks;
    std::vector<Root*> pointers;
    for (const Root* root : part.roots) {
        const Uses& uses = used_.at(root);
        blocks.push_back({root->nbytes / region.rows * region.block_rows, int64_t(uses.written), int64_t(uses.read)});
        pointers.push_back(&blocks.back());
    }
    part.scratch_bytes = assign_offsets(pointers);
    int64_t offset = aligned(arena_bytes);
    for (size_t i = 0; i < part.roots.size(); i++) {
        Root& root = *part.roots[i];
        root.offset = offset;
        offset += aligned(root.nbytes);
        part.values.push_back({root.offset, root.nbytes, root.nbytes / region.rows, blocks[i].offset});
    }
}

// ---- second pass

void Planner::write(PlanWriter& plan) const {
    for (const ScalarProgram& s : p_.scalar_programs) plan.scalar_program(s);
    for (size_t s = 0; keep_ && s < next_states.size(); s++) write_copy(plan, next_states[s], places[s]);
    for (size_t n = 0; n < end(); n++) {
        const auto copied = copied_at_.find(n);
        if (copied != copied_at_.end())
            for (uint32_t v : copied->second) write_copy(plan, places[v], contiguous_.at(v));
        const Region* region = region_of(n);
        if (region && n == region->first) {
            const Private& part = parts_[size_t(region_of_[n])];
            std::vector<Stream> streams;
            for (uint32_t v : region->streams)
                streams.push_back({places[v].root->offset, places[v].root->nbytes / region->rows});
            plan.begin_region(region->rows, region->block_rows, part.scratch_bytes, part.values, std::move(streams));
        }
        write_node(plan, n);
        if (region && n == region->last) plan.end_region();
    }
    for (const auto& [from, to] : saved_metrics_) write_copy(plan, from, to);
    for (const Staged& copy : state_copies_)
        if (copy.staged) write_copy(plan, copy.from, copy.staging);
    for (const Staged& copy : state_copies_) write_copy(plan, copy.staged ? copy.staging : copy.from, copy.to);
}

void Planner::write_node(PlanWriter& plan, size_t n) const {
    const Node& node = p_.nodes[n];
    if (is_view_[n] || p_.types[node.first].elements() == 0) return;
    std::visit([&](const auto& op) { call(plan, node, op); }, node.op);
}

const Place& Planner::input(const Node& node, size_t i) const {
    const uint32_t v = node.inputs[i];
    return usable(node.op, v) ? places[v] : contiguous_.at(v);
}

void Planner::call(PlanWriter& plan, const Node& node, const Map& op) const {
    std::vector<View> inputs, outputs;
    for (uint32_t v : node.inputs) inputs.push_back(as_view(broadcast(places[v], op.shape)));
    for (uint32_t v = node.first; v < node.first + node.count; v++) outputs.push_back(as_view(places[v]));
    plan.map(int(op.program), op.shape, std::move(inputs), std::move(outputs));
}

void Planner::call(PlanWriter& plan, const Node& node, const Dot& op) const {
    const Place &a = input(node, 0), &b = input(node, 1), &out = places[node.first];
    const auto last = [](const Place& p, size_t i) { return p.type.shape[p.type.shape.size() - i]; };
    const auto batch_stride = [&](const Place& p) { return p.type.shape.size() == 2 ? 0 : last(p, 1) * last(p, 2); };
    DotArgs args{};
    args.m = last(out, 2), args.n = last(out, 1), args.k = last(a, op.transpose_a ? 2 : 1);
    args.batch = out.type.elements() / (args.m * args.n);
    args.a_batch_stride = batch_stride(a), args.b_batch_stride = batch_stride(b);
    args.a_dtype = a.type.dtype, args.b_dtype = b.type.dtype, args.c_dtype = out.type.dtype;
    args.transpose_a = op.transpose_a != !a.contiguous();  // what is not contiguous is a transposed matrix
    args.transpose_b = op.transpose_b != !b.contiguous();
    plan.dot(args, a.byte_offset(), b.byte_offset(), out.byte_offset());
}

void Planner::call(PlanWriter& plan, const Node& node, const Reduce& op) const {
    const Place &x = places[node.inputs[0]], &out = places[node.first];
    Ints shapes[2], strides[2];  // kept axes, reduced axes
    for (size_t axis = 0; axis < x.strides.size(); axis++) {
        const bool reduced = std::find(op.axes.begin(), op.axes.end(), int64_t(axis)) != op.axes.end();
        shapes[reduced].push_back(x.type.shape[axis]);
        strides[reduced].push_back(x.strides[axis]);
    }
    plan.reduce(Reduction(op.op), std::move(shapes[0]), std::move(strides[0]), std::move(shapes[1]),
                std::move(strides[1]), x.byte_offset(), x.type.dtype, out.byte_offset(), out.type.dtype);
}

void Planner::call(PlanWriter& plan, const Node& node, const Gather&) const {
    const Place &data = input(node, 0), &index = input(node, 1), &out = places[node.first];
    const int64_t count = index.type.elements();
    plan.gather(data.byte_offset(), index.byte_offset(), out.byte_offset(), data.type.shape[0],
                out.type.elements() / count, count, data.type.dtype);
}

void Planner::call(PlanWriter& plan, const Node& node, const ScatterAdd& op) const {
    const Place &source = input(node, 0), &index = input(node, 1), &out = places[node.first];
    plan.scatter_add(source.byte_offset(), index.byte_offset(), out.byte_offset(), op.rows,
                     out.type.elements() / op.rows, index.type.elements(), source.type.dtype, out.type.dtype);
}

void Planner::call(PlanWriter& plan, const Node& node, const Random& op) const {
    const Place& out = places[node.first];
    plan.random(input(node, 0).byte_offset(), input(node, 1).byte_offset(), uint32_t(op.stream), out.type.elements(),
                out.byte_offset());
}

void Planner::call(PlanWriter& plan, const Node& node, const Sort&) const {
    const Place &x = input(node, 0), &out = places[node.first];
    const int64_t row = x.type.shape.back();
    plan.sort(x.byte_offset(), x.type.dtype, out.byte_offset(), x.type.elements() / row, row);
}

void Planner::call(PlanWriter& plan, const Node& node, const Scan& op) const {
    const Ints step(op.shape.begin() + 1, op.shape.end());
    std::vector<View> inputs, outputs;
    for (size_t i = 0; i < node.inputs.size(); i++)
        inputs.push_back(as_view(broadcast(places[node.inputs[i]], i < node.count ? step : op.shape)));
    for (uint32_t v = node.first; v < node.first + node.count; v++) outputs.push_back(as_view(places[v]));
    plan.scan(int(op.program), op.shape, inputs, outputs);
}

void Planner::call(PlanWriter& plan, const Node& node, const Pad& op) const {
    const Place &x = places[node.inputs[0]], &out = places[node.first];
    plan.fill(dtype_size(out.type.dtype), uint32_t(op.fill), out.type.elements(), out.byte_offset());
    Place inside{out.root, x.type, out.start, {}};
    if (x.type.elements() == 0) return;
    for (size_t i = 0; i < out.strides.size(); i++) {
        inside.start += op.low[i] * out.strides[i];
        inside.strides.push_back(x.type.shape[i] > 1 ? (op.interior[i] + 1) * out.strides[i] : out.strides[i]);
    }
    write_copy(plan, x, inside);
}

void Planner::call(PlanWriter& plan, const Node& node, const Concat& op) const {
    const Place& out = places[node.first];
    int64_t start = 0;
    for (uint32_t v : node.inputs) {
        const Place& x = places[v];
        write_copy(plan, x, {out.root, x.type, start, out.strides});
        start += x.type.shape[size_t(op.axis)] * out.strides[size_t(op.axis)];
    }
}

// A reshape of something that is not contiguous; every other layout is a view.
template <class Layout>
void Planner::call(PlanWriter& plan, const Node& node, const Layout&) const {
    const Place &x = places[node.inputs[0]], &out = places[node.first];
    write_copy(plan, x, {out.root, x.type, 0, row_major(x.type.shape)});
}

// ----

PlannedProgram::PlannedProgram(Program program, const ExecutorOptions& options)
    : program_(std::move(program)), planner_(std::make_unique<Planner>(program_, options)) {
    const int64_t limit = options.memory_limit < 0 ? physical_memory() / 10 * 9 : options.memory_limit;
    if (planner_->arena_bytes > limit)
        throw Refusal("the program needs " + std::to_string(planner_->arena_bytes) + " bytes of memory; the limit is " +
                          std::to_string(limit),
                      true);
}

PlannedProgram::~PlannedProgram() = default;

int64_t PlannedProgram::arena_bytes() const { return planner_->arena_bytes; }
size_t PlannedProgram::regions() const { return planner_->regions.size(); }
const std::vector<Place>& PlannedProgram::places() const { return planner_->places; }
const std::vector<Place>& PlannedProgram::states() const { return planner_->next_states; }
const std::vector<Place>& PlannedProgram::metrics() const { return planner_->metrics; }
void PlannedProgram::write(PlanWriter& plan) const { planner_->write(plan); }

Executor::Executor(Program program, const ExecutorOptions& options)
    : keeps_(options.keep), planned_(std::move(program), options), plan_(planned_.arena_bytes()) {
    planned_.write(plan_);
}

}  // namespace gv
