#include "plan.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "scalar_code.h"
#include "scratch.h"
#include "threads.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gv {

struct Plan::Scalar {
    Schedule schedule;
    ScalarCode code;
};

namespace {

constexpr int64_t huge_page = int64_t(2) << 20;

// A call owns the arrays that its arguments point to.
template <class Args, void (*Kernels::*kernel)(const Args&)>
struct PlainCall : Plan::Call {
    Args args{};
    std::vector<std::vector<int64_t>> arrays;
    void run(const Kernels& k) const override { (k.*kernel)(args); }
};

}  // namespace

// A call that can compute any range of its output's elements. In a region, some of its tensors are private values.
struct Plan::RowCall : Plan::Call {
    std::vector<std::vector<int64_t>> arrays;
    std::vector<const uint8_t*> tensors;  // inputs, then outputs
    struct Moved {
        size_t tensor;
        int64_t scratch, row_bytes;
    };
    std::vector<Moved> moved;
    int64_t elements = 0;  // of the output
    Stream ahead{0, 0};    // whose next block of rows to fetch meanwhile, if it has rows
    struct Range {
        int64_t begin, end;
        const void* ahead;
        int64_t ahead_bytes;
    };

    void run(const Kernels& k) const override { run_range(k, tensors.data(), {0, elements, nullptr, 0}); }
    void run_rows(const Kernels& k, int64_t rows, int64_t first, int64_t last, uint8_t* scratch,
                  const uint8_t* arena) const {
        const uint8_t* at[MAX_TENSORS];
        std::copy(tensors.begin(), tensors.end(), at);
        for (const Moved& m : moved) {  // so that row `first` lies at the start of its scratch memory
            const intptr_t base = reinterpret_cast<intptr_t>(scratch) + m.scratch - first * m.row_bytes;
            at[m.tensor] = reinterpret_cast<const uint8_t*>(base);
        }
        const int64_t next = std::min(rows - last, last - first);
        run_range(k, at,
                  {elements / rows * first, elements / rows * last, arena + ahead.offset + last * ahead.row_bytes,
                   next * ahead.row_bytes});
    }

  protected:
    static constexpr int MAX_TENSORS = 80;  // 64 inputs and 16 outputs
  public:
    // How long computing takes beside reading: what is fetched ahead comes along with the longest.
    virtual int64_t weight() const { return 0; }

  protected:
    virtual void run_range(const Kernels& k, const uint8_t* const* at, const Range& range) const = 0;
};

namespace {

struct MapCall : Plan::RowCall {
    const ScalarCode* program;
    std::vector<const int64_t*> strides;
    std::vector<Dtype> input_dtypes, output_dtypes;

    int64_t weight() const override { return program->n_instructions * elements; }
    void run_range(const Kernels& k, const uint8_t* const* at, const Range& range) const override {
        const void* in[MAX_TENSORS];
        void* out[MAX_TENSORS];
        const size_t n = input_dtypes.size();
        for (size_t i = 0; i < n; i++) in[i] = at[i];
        for (size_t o = 0; o < output_dtypes.size(); o++) out[o] = const_cast<uint8_t*>(at[n + o]);
        k.map({program, int(arrays[0].size()), arrays[0].data(), in, strides.data(), input_dtypes.data(), out,
               output_dtypes.data(), range.begin, range.end, range.ahead_bytes ? range.ahead : nullptr,
               range.ahead_bytes});
    }
};

struct ReduceCall : Plan::RowCall {
    Reduction op;
    Dtype x_dtype, y_dtype;

    void run_range(const Kernels& k, const uint8_t* const* at, const Range& range) const override {
        k.reduce({op, int(arrays[0].size()), int(arrays[2].size()), arrays[0].data(), arrays[1].data(),
                  arrays[2].data(), arrays[3].data(), at[0], const_cast<uint8_t*>(at[1]), x_dtype, y_dtype, range.begin,
                  range.end});
    }
};

// One map a step, over the same elements at other addresses. Threads share the elements: each takes its own through all
// steps, since an element's steps read no other element.
struct ScanCall : Plan::Call {
    static constexpr int64_t SHARE = 1 << 10;  // elements a thread takes at least
    const ScalarCode* program;
    int64_t steps, elements;
    std::vector<int64_t> shape;                      // of one step
    std::vector<std::vector<int64_t>> strides;       // [input][axis], first those of the steps after the first
    std::vector<const int64_t*> first, later;        // the inputs' strides at step 0 and after it
    std::vector<const uint8_t*> inputs;              // at step 0
    std::vector<int64_t> input_bytes, output_bytes;  // from one step to the next
    std::vector<uint8_t*> outputs;
    std::vector<Dtype> input_dtypes, output_dtypes;

    void run(const Kernels& k) const override {
        const int64_t share = std::max(SHARE, (elements + get_threads() - 1) / get_threads());
        parallel_for((elements + share - 1) / share, [&](int64_t i) {
            const void* in[64];
            void* out[16];
            for (int64_t t = 0; t < steps; t++) {
                for (size_t o = 0; o < outputs.size(); o++) out[o] = outputs[o] + t * output_bytes[o];
                for (size_t j = 0; j < inputs.size(); j++) {
                    const bool carried = t > 0 && j < outputs.size();
                    in[j] = carried ? outputs[j] + (t - 1) * output_bytes[j] : inputs[j] + t * input_bytes[j];
                }
                k.map({program, int(shape.size()), shape.data(), in, (t ? later : first).data(), input_dtypes.data(),
                       out, output_dtypes.data(), i * share, std::min(elements, (i + 1) * share), nullptr, 0});
            }
        });
    }
};

int64_t product(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

}  // namespace

struct Plan::Region : Plan::Call {
    int64_t rows, block_rows, scratch_bytes;
    const uint8_t* arena;
    std::vector<Stream> streams;
    std::vector<PrivateValue> values;
    std::vector<std::unique_ptr<RowCall>> members;

    void run(const Kernels& k) const override {
        parallel_for((rows + block_rows - 1) / block_rows, [&](int64_t b) {
            static thread_local Scratch scratch;
            uint8_t* memory = static_cast<uint8_t*>(scratch.get(size_t(scratch_bytes) + 64));
            const int64_t first = b * block_rows, last = std::min(rows, first + block_rows);
            for (const auto& call : members) call->run_rows(k, rows, first, last, memory, arena);
        });
    }
};

Plan::Plan(int64_t arena_bytes) : bytes_(arena_bytes) {
    const int64_t align = arena_bytes >= huge_page ? huge_page : 64;
    const int64_t size = (arena_bytes + align) / align * align;
    arena_ = static_cast<uint8_t*>(std::aligned_alloc(size_t(align), size_t(size)));
    if (!arena_) throw std::bad_alloc();
#if defined(__linux__)
    if (align == huge_page) madvise(arena_, size_t(size), MADV_HUGEPAGE);
#endif
}

Plan::~Plan() { std::free(arena_); }

int Plan::scalar_program(const ScalarProgram& d) {
    auto s = std::make_unique<Scalar>();
    ScalarCode& c = s->code;
    c = {};
    c.n_inputs = d.inputs;
    c.n_constants = int(d.constants.size());
    c.n_instructions = int(d.code.size() / 4);
    c.n_outputs = int(d.outputs.size());
    c.constants = d.constants.data();
    c.code = d.code.data();
    c.outputs = d.outputs.data();
    c.value_types = d.types.data();
    s->schedule = schedule(c);
    c.steps = s->schedule.steps.data();
    c.n_steps = int(s->schedule.steps.size());
    c.registers = s->schedule.registers.data();
    c.n_registers = s->schedule.n_registers;
    c.compiled = find_published(c);
    scalars_.push_back(std::move(s));
    return int(scalars_.size()) - 1;
}

void Plan::begin_region(int64_t rows, int64_t block_rows, int64_t scratch_bytes, std::vector<PrivateValue> values,
                        std::vector<Stream> streams) {
    region_ = std::make_unique<Region>();
    region_->rows = rows;
    region_->block_rows = block_rows;
    region_->scratch_bytes = scratch_bytes;
    region_->arena = arena_;
    region_->values = std::move(values);
    region_->streams = std::move(streams);
}

void Plan::end_region() {
    std::vector<RowCall*> maps;
    for (const auto& call : region_->members)
        if (call->weight() > 0) maps.push_back(call.get());
    std::sort(maps.begin(), maps.end(), [](RowCall* a, RowCall* b) { return a->weight() > b->weight(); });
    for (size_t i = 0; i < std::min(maps.size(), region_->streams.size()); i++) maps[i]->ahead = region_->streams[i];
    calls_.push_back(std::move(region_));
}

void Plan::add(std::unique_ptr<RowCall> call) {
    if (!region_) return calls_.push_back(std::move(call));
    for (size_t i = 0; i < call->tensors.size(); i++)
        for (const PrivateValue& v : region_->values) {
            const int64_t inside = call->tensors[i] - at(v.offset);
            if (inside >= 0 && inside < v.bytes) call->moved.push_back({i, v.scratch + inside, v.row_bytes});
        }
    region_->members.push_back(std::move(call));
}

void Plan::map(int program, std::vector<int64_t> shape, std::vector<View> inputs, std::vector<View> outputs) {
    auto call = std::make_unique<MapCall>();
    call->program = &scalars_.at(size_t(program))->code;
    call->elements = product(shape);
    call->arrays.push_back(std::move(shape));
    for (View& v : inputs) {
        call->arrays.push_back(std::move(v.strides));
        call->tensors.push_back(at(v.offset));
        call->input_dtypes.push_back(v.dtype);
    }
    for (size_t i = 1; i < call->arrays.size(); i++) call->strides.push_back(call->arrays[i].data());
    for (const View& v : outputs) {
        call->tensors.push_back(at(v.offset));
        call->output_dtypes.push_back(v.dtype);
    }
    add(std::move(call));
}

void Plan::dot(const DotArgs& args, int64_t a, int64_t b, int64_t c) {
    auto call = std::make_unique<PlainCall<DotArgs, &Kernels::dot>>();
    call->args = args;
    call->args.a = at(a);
    call->args.b = at(b);
    call->args.c = at(c);
    calls_.push_back(std::move(call));
}

void Plan::reduce(Reduction op, std::vector<int64_t> kept_shape, std::vector<int64_t> kept_strides,
                  std::vector<int64_t> reduced_shape, std::vector<int64_t> reduced_strides, int64_t x, Dtype x_dtype,
                  int64_t y, Dtype y_dtype) {
    auto call = std::make_unique<ReduceCall>();
    call->op = op;
    call->x_dtype = x_dtype;
    call->y_dtype = y_dtype;
    call->elements = product(kept_shape);
    call->arrays = {std::move(kept_shape), std::move(kept_strides), std::move(reduced_shape),
                    std::move(reduced_strides)};
    call->tensors = {at(x), at(y)};
    add(std::move(call));
}

void Plan::copy(int size, std::vector<int64_t> shape, std::vector<int64_t> source_strides,
                std::vector<int64_t> target_strides, int64_t source, int64_t target) {
    auto call = std::make_unique<PlainCall<CopyArgs, &Kernels::copy>>();
    auto& own = call->arrays;
    own = {std::move(shape), std::move(source_strides), std::move(target_strides)};
    call->args = {size, int(own[0].size()), own[0].data(), own[1].data(), own[2].data(), at(source), at(target)};
    calls_.push_back(std::move(call));
}

void Plan::fill(int size, uint32_t bits, int64_t count, int64_t target) {
    auto call = std::make_unique<PlainCall<FillArgs, &Kernels::fill>>();
    call->args = {size, bits, count, at(target)};
    calls_.push_back(std::move(call));
}

void Plan::gather(int64_t data, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count, Dtype dtype) {
    auto call = std::make_unique<PlainCall<GatherArgs, &Kernels::gather>>();
    call->args = {at(data), reinterpret_cast<const int32_t*>(at(index)), at(out), rows, row, count, dtype};
    calls_.push_back(std::move(call));
}

void Plan::scatter_add(int64_t source, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                       Dtype source_dtype, Dtype out_dtype) {
    auto call = std::make_unique<PlainCall<ScatterAddArgs, &Kernels::scatter_add>>();
    call->args = {at(source), reinterpret_cast<const int32_t*>(at(index)), at(out), rows, row, count, source_dtype,
                  out_dtype};
    calls_.push_back(std::move(call));
}

void Plan::random(int64_t seed, int64_t step, uint32_t stream, int64_t count, int64_t out) {
    auto call = std::make_unique<PlainCall<RandomArgs, &Kernels::random>>();
    call->args = {reinterpret_cast<const uint32_t*>(at(seed)), reinterpret_cast<const uint32_t*>(at(step)), stream,
                  count, reinterpret_cast<uint32_t*>(at(out))};
    calls_.push_back(std::move(call));
}

void Plan::sort(int64_t x, Dtype dtype, int64_t out, int64_t rows, int64_t row) {
    auto call = std::make_unique<PlainCall<SortArgs, &Kernels::sort>>();
    call->args = {at(x), reinterpret_cast<int32_t*>(at(out)), rows, row, dtype};
    calls_.push_back(std::move(call));
}

void Plan::scan(int program, std::vector<int64_t> shape, const std::vector<View>& inputs,
                const std::vector<View>& outputs) {
    auto call = std::make_unique<ScanCall>();
    call->program = &scalars_.at(size_t(program))->code;
    call->steps = shape.at(0);
    call->shape.assign(shape.begin() + 1, shape.end());
    call->elements = product(call->shape);
    std::vector<int64_t> dense(call->shape.size());
    int64_t stride = 1;
    for (size_t axis = dense.size(); axis-- > 0; stride *= call->shape[axis]) dense[axis] = stride;
    call->strides.push_back(dense);
    for (size_t i = 0; i < inputs.size(); i++) {
        const View& v = inputs[i];
        const bool carried = i < outputs.size();
        call->inputs.push_back(at(v.offset));
        call->input_dtypes.push_back(v.dtype);
        call->input_bytes.push_back(carried ? 0 : v.strides.at(0) * dtype_size(v.dtype));
        call->strides.emplace_back(v.strides.begin() + !carried, v.strides.end());
    }
    for (size_t i = 0; i < inputs.size(); i++) {
        call->first.push_back(call->strides[i + 1].data());
        call->later.push_back(call->strides[i < outputs.size() ? 0 : i + 1].data());
    }
    for (const View& v : outputs) {
        call->outputs.push_back(at(v.offset));
        call->output_dtypes.push_back(v.dtype);
        call->output_bytes.push_back(call->elements * dtype_size(v.dtype));
    }
    calls_.push_back(std::move(call));
}

void Plan::run() const {
    NumericsScope numerics;
    const Kernels& k = kernels();
    for (const auto& call : calls_) call->run(k);
}

}  // namespace gv
