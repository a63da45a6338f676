// Output types of nodes from input types: gensyn_verify/program/ops.py, `infer`, class by class. Attributes are any
// 64-bit integers here, so whatever is computed from one before it is bounded is computed in 128 bits.
#include <algorithm>
#include <numeric>

#include "program.h"

namespace gv {
namespace {

using Wide = __int128;

[[noreturn]] void refuse(const std::string& text) { throw Refusal(text); }

std::string number(int64_t n) { return std::to_string(n); }

void arity(const Types& types, size_t n) {
    if (types.size() != n) refuse(std::to_string(n) + " inputs expected, " + std::to_string(types.size()) + " found");
}

void index_type(const TensorType& t) {
    if (t.dtype != Dtype::i32) refuse("the index tensor must be i32, found " + t.text());
}

bool broadcasts_to(const Ints& source, const Ints& target) {
    if (source.size() > target.size()) return false;
    const size_t lead = target.size() - source.size();
    for (size_t i = 0; i < source.size(); i++)
        if (source[i] != 1 && source[i] != target[lead + i]) return false;
    return true;
}

// A dimension that was computed wide; what is beyond the limit becomes a number that the check of the type refuses.
int64_t dimension(Wide n) { return int64_t(std::clamp<Wide>(n, -1, int64_t(1) << 62)); }

std::vector<TensorType> results(const Map& op, const Types& types, const std::vector<ScalarProgram>& programs) {
    if (op.program < 0 || op.program >= int64_t(programs.size()))
        refuse("scalar program " + number(op.program) + " does not exist; there are " +
               std::to_string(programs.size()));
    const ScalarProgram& scalar = programs[size_t(op.program)];
    arity(types, size_t(scalar.inputs));
    for (size_t i = 0; i < types.size(); i++) {
        const std::string input = "input " + std::to_string(i) + " is " + types[i]->text();
        if (uint8_t(reg_of(types[i]->dtype)) != scalar.types[i])
            refuse(input + ", not what the scalar program expects");
        if (!broadcasts_to(types[i]->shape, op.shape))
            refuse(input + ", which does not broadcast to " + list_text(op.shape));
    }
    bool stores = op.dtypes.size() == scalar.outputs.size();
    for (size_t i = 0; stores && i < op.dtypes.size(); i++)
        stores = uint8_t(reg_of(op.dtypes[i])) == scalar.types[scalar.outputs[i]];
    if (!stores) refuse("the output dtypes do not store what the scalar program gives");
    std::vector<TensorType> out;
    for (Dtype d : op.dtypes) out.push_back({d, op.shape});
    return out;
}

std::vector<TensorType> results(const Dot& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 2);
    const TensorType &a = *types[0], &b = *types[1];
    const bool floats = is_float(a.dtype) && is_float(b.dtype) && is_float(op.dtype);
    if (!floats && !(a.dtype == Dtype::i8 && b.dtype == Dtype::i8 && op.dtype == Dtype::i32))
        refuse("dot multiplies floats into floats, or i8 into i32; found " + a.text() + " and " + b.text());
    const size_t ra = a.shape.size(), rb = b.shape.size();
    if (ra < 2 || rb < 2) refuse("dot takes matrices, found " + a.text() + " and " + b.text());
    const int64_t m = a.shape[ra - (op.transpose_a ? 1 : 2)], k = a.shape[ra - (op.transpose_a ? 2 : 1)];
    const int64_t k2 = b.shape[rb - (op.transpose_b ? 1 : 2)], n = b.shape[rb - (op.transpose_b ? 2 : 1)];
    if (k != k2)
        refuse("inner dimensions differ: " + number(k) + " of " + a.text() + " against " + number(k2) + " of " +
               b.text());
    Ints batch_a(a.shape.begin(), a.shape.end() - 2), batch_b(b.shape.begin(), b.shape.end() - 2);
    if (!batch_a.empty() && !batch_b.empty() && batch_a != batch_b)
        refuse("batch dimensions differ: " + a.text() + " against " + b.text());
    Ints shape = batch_a.empty() ? std::move(batch_b) : std::move(batch_a);
    shape.push_back(m);
    shape.push_back(n);
    return {{op.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const Reduce& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    if (op.op < 0 || op.op > int64_t(Reduction::argmin)) refuse("reduction " + number(op.op) + " is unknown");
    const Reduction reduction = Reduction(op.op);
    Ints kept, reduced;
    size_t next = 0;
    for (size_t axis = 0; axis < x.shape.size(); axis++) {
        const bool taken = next < op.axes.size() && op.axes[next] == int64_t(axis);
        next += taken;
        (taken ? reduced : kept).push_back(x.shape[axis]);
    }
    if (next != op.axes.size()) refuse("axes " + list_text(op.axes) + " are not ascending axes of " + x.text());
    if (x.dtype == Dtype::boolean) refuse("reductions take numbers, found " + x.text());
    if (reduction == Reduction::sum) {
        if (reg_of(op.dtype) != reg_of(x.dtype)) refuse("a sum of " + x.text() + " cannot be stored as this dtype");
    } else {
        const bool position = reduction == Reduction::argmax || reduction == Reduction::argmin;
        if (op.dtype != (position ? Dtype::i32 : x.dtype))
            refuse("a reduction of " + x.text() + " gives another dtype");
        const int64_t n = element_count(reduced);
        if (n == 0) refuse("a reduction over no values: " + x.text() + " over axes " + list_text(op.axes));
        if (n > int64_t(1) << 31) refuse("a reduction over more than 2^31 values: " + x.text());
    }
    return {{op.dtype, std::move(kept)}};
}

std::vector<TensorType> results(const Reshape& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    for (int64_t d : op.shape)
        if (d < 0) refuse("shape " + list_text(op.shape) + " has a negative dimension");
    if (element_count(op.shape) != types[0]->elements())
        refuse(types[0]->text() + " has another number of elements than " + list_text(op.shape));
    return {{types[0]->dtype, op.shape}};
}

std::vector<TensorType> results(const Permute& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    Ints sorted = op.axes, all(x.shape.size()), shape;
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    if (sorted != all) refuse("axes " + list_text(op.axes) + " are no permutation of the axes of " + x.text());
    for (int64_t axis : op.axes) shape.push_back(x.shape[size_t(axis)]);
    return {{x.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const Slice& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    const size_t rank = x.shape.size();
    if (op.start.size() != rank || op.shape.size() != rank || op.step.size() != rank)
        refuse("start, shape and step need one number an axis of " + x.text());
    for (size_t axis = 0; axis < rank; axis++) {
        const int64_t d = x.shape[axis], first = op.start[axis], n = op.shape[axis], step = op.step[axis];
        const Wide last = first + (Wide(n) - 1) * step;
        const bool inside = first >= 0 && first < d && last >= 0 && last < d;
        if (step == 0 || n < 0 || (n > 0 && !inside))
            refuse("axis " + std::to_string(axis) + " of " + x.text() + ": start " + number(first) + ", " + number(n) +
                   " elements, step " + number(step) + " leave the tensor");
        if (n == 0 && (first != 0 || step != 1))
            refuse("axis " + std::to_string(axis) + ": an empty slice is written as start 0, step 1");
    }
    return {{x.dtype, op.shape}};
}

std::vector<TensorType> results(const Pad& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    const size_t rank = x.shape.size();
    if (op.low.size() != rank || op.high.size() != rank || op.interior.size() != rank)
        refuse("low, high and interior need one number an axis of " + x.text());
    for (const Ints* list : {&op.low, &op.high, &op.interior})
        for (int64_t n : *list)
            if (n < 0) refuse("padding is negative; use a slice to cut");
    const int64_t top = x.dtype == Dtype::boolean ? 1 : (int64_t(1) << (8 * dtype_size(x.dtype))) - 1;
    if (op.fill < 0 || op.fill > top)
        refuse("fill " + number(op.fill) + " is no bit pattern of an element of " + x.text());
    Ints shape;
    for (size_t i = 0; i < rank; i++) {
        const Wide gaps = Wide(std::max<int64_t>(x.shape[i] - 1, 0)) * op.interior[i];
        shape.push_back(dimension(Wide(op.low[i]) + x.shape[i] + gaps + op.high[i]));
    }
    return {{x.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const Concat& op, const Types& types, const std::vector<ScalarProgram>&) {
    if (types.empty()) refuse("concat of nothing");
    TensorType out = *types[0];
    if (op.axis < 0 || op.axis >= int64_t(out.shape.size()))
        refuse("axis " + number(op.axis) + " is no axis of " + out.text());
    const size_t axis = size_t(op.axis);
    int64_t length = 0;
    for (const TensorType* t : types) {
        Ints shape = t->shape;
        if (shape.size() == out.shape.size()) {
            length += shape[axis];
            shape[axis] = out.shape[axis];  // every other axis must agree
        }
        if (t->dtype != out.dtype || shape != out.shape)
            refuse(t->text() + " does not fit " + out.text() + " along axis " + number(op.axis));
    }
    out.shape[axis] = length;
    return {std::move(out)};
}

std::vector<TensorType> results(const Broadcast& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    if (!broadcasts_to(types[0]->shape, op.shape))
        refuse(types[0]->text() + " does not broadcast to " + list_text(op.shape));
    return {{types[0]->dtype, op.shape}};
}

std::vector<TensorType> results(const Window& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    const size_t d = op.size.size();
    if (d < 1 || op.stride.size() != d || op.dilation.size() != d || d > x.shape.size())
        refuse("size, stride and dilation need equal lengths, at most the rank of " + x.text());
    for (const Ints* list : {&op.size, &op.stride, &op.dilation})
        for (int64_t n : *list)
            if (n < 1) refuse("window sizes, strides and dilations are at least 1");
    const size_t lead = x.shape.size() - d;
    Ints shape(x.shape.begin(), x.shape.begin() + ptrdiff_t(lead));
    shape.insert(shape.end(), op.size.begin(), op.size.end());
    for (size_t i = 0; i < d; i++) {
        const Wide room = Wide(x.shape[lead + i]) - 1 - (Wide(op.size[i]) - 1) * op.dilation[i];
        if (room < 0) refuse("a window of " + list_text(op.size) + " does not fit into " + x.text());
        shape.push_back(dimension(room / op.stride[i] + 1));
    }
    return {{x.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const Gather&, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 2);
    const TensorType &data = *types[0], &index = *types[1];
    index_type(index);
    if (data.shape.empty()) refuse("gather from a scalar");
    Ints shape = index.shape;
    shape.insert(shape.end(), data.shape.begin() + 1, data.shape.end());
    return {{data.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const ScatterAdd& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 2);
    const TensorType &source = *types[0], &index = *types[1];
    index_type(index);
    const size_t n = index.shape.size();
    if (source.shape.size() < n || !std::equal(index.shape.begin(), index.shape.end(), source.shape.begin()))
        refuse("source " + source.text() + " does not start with the shape of the index " + index.text());
    if (source.dtype == Dtype::boolean || reg_of(op.dtype) != reg_of(source.dtype))
        refuse("cannot add " + source.text() + " into another kind of number");
    if (op.rows < 0) refuse(number(op.rows) + " rows");
    Ints shape{op.rows};
    shape.insert(shape.end(), source.shape.begin() + ptrdiff_t(n), source.shape.end());
    return {{op.dtype, std::move(shape)}};
}

std::vector<TensorType> results(const Random& op, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 2);
    if (!(*types[0] == TensorType{Dtype::u32, {2}}) || !(*types[1] == TensorType{Dtype::u32, {}}))
        refuse("random takes a seed u32[2] and a step u32[], found " + types[0]->text() + " and " + types[1]->text());
    if (op.stream < 0 || op.stream > int64_t(0xFFFFFFFF)) refuse("stream " + number(op.stream) + " is no u32");
    return {{Dtype::u32, op.shape}};
}

std::vector<TensorType> results(const Sort&, const Types& types, const std::vector<ScalarProgram>&) {
    arity(types, 1);
    const TensorType& x = *types[0];
    if (x.shape.empty()) refuse("sort of a scalar");
    if (x.dtype == Dtype::boolean) refuse("sort takes numbers, found " + x.text());
    if (x.shape.back() > int64_t(1) << 31) refuse("sort of " + number(x.shape.back()) + " values; the limit is 2^31");
    return {{Dtype::i32, x.shape}};
}

std::vector<TensorType> results(const Scan& op, const Types& types, const std::vector<ScalarProgram>& programs) {
    if (op.shape.empty()) refuse("scan over a scalar");
    const Ints step(op.shape.begin() + 1, op.shape.end());
    for (size_t i = 0; i < std::min(types.size(), op.dtypes.size()); i++) {
        const std::string input = "input " + std::to_string(i) + " is " + types[i]->text();
        if (types[i]->dtype != op.dtypes[i]) refuse(input + ", of another dtype than the output that it begins");
        if (!broadcasts_to(types[i]->shape, step)) refuse(input + ", which does not broadcast to " + list_text(step));
    }
    std::vector<TensorType> outputs = results(Map{op.program, op.shape, op.dtypes}, types, programs);
    if (types.size() < outputs.size())
        refuse("outputs begin with as many inputs, found " + std::to_string(types.size()));
    return outputs;
}

}  // namespace

std::vector<TensorType> infer(const Op& op, const Types& inputs, const std::vector<ScalarProgram>& scalar_programs) {
    return std::visit([&](const auto& o) { return results(o, inputs, scalar_programs); }, op);
}

}  // namespace gv
