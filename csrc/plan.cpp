#include "plan.h"

#include <cstdlib>
#include <new>

#include "scalar_code.h"
#include "threads.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gv {

struct Plan::Scalar {
    ScalarProgramData data;
    std::vector<uint16_t> registers;
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

struct MapCall : PlainCall<MapArgs, &Kernels::map> {
    std::vector<const void*> inputs;
    std::vector<const int64_t*> strides;
    std::vector<Dtype> input_dtypes, output_dtypes;
    std::vector<void*> outputs;
};

}  // namespace

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

int Plan::scalar_program(ScalarProgramData data) {
    auto s = std::make_unique<Scalar>();
    s->data = std::move(data);
    const ScalarProgramData& d = s->data;
    s->code = {d.inputs,           int(d.constants.size()), int(d.code.size() / 4), int(d.outputs.size()),
               d.constants.data(), d.code.data(),           d.outputs.data(),       d.types.data(),
               nullptr,            0,                       -1};
    s->code.n_registers = allocate_registers(s->code, s->registers);
    s->code.registers = s->registers.data();
    s->code.compiled = find_published(s->code);
    scalars_.push_back(std::move(s));
    return int(scalars_.size()) - 1;
}

void Plan::map(int program, std::vector<int64_t> shape, std::vector<View> inputs, std::vector<View> outputs) {
    auto call = std::make_unique<MapCall>();
    call->arrays.push_back(std::move(shape));
    for (View& v : inputs) {
        call->arrays.push_back(std::move(v.strides));
        call->inputs.push_back(at(v.offset));
        call->input_dtypes.push_back(v.dtype);
    }
    for (size_t i = 1; i < call->arrays.size(); i++) call->strides.push_back(call->arrays[i].data());
    for (const View& v : outputs) {
        call->outputs.push_back(at(v.offset));
        call->output_dtypes.push_back(v.dtype);
    }
    call->args = {&scalars_.at(size_t(program))->code,
                  int(call->arrays[0].size()),
                  call->arrays[0].data(),
                  call->inputs.data(),
                  call->strides.data(),
                  call->input_dtypes.data(),
                  call->outputs.data(),
                  call->output_dtypes.data()};
    calls_.push_back(std::move(call));
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
    auto call = std::make_unique<PlainCall<ReduceArgs, &Kernels::reduce>>();
    auto& own = call->arrays;
    own = {std::move(kept_shape), std::move(kept_strides), std::move(reduced_shape), std::move(reduced_strides)};
    call->args = {op,
                  int(own[0].size()),
                  int(own[2].size()),
                  own[0].data(),
                  own[1].data(),
                  own[2].data(),
                  own[3].data(),
                  at(x),
                  at(y),
                  x_dtype,
                  y_dtype};
    calls_.push_back(std::move(call));
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

void Plan::run() const {
    NumericsScope numerics;
    const Kernels& k = kernels();
    for (const auto& call : calls_) call->run(k);
}

}  // namespace gv
