// What a kernel is asked to do: plain arguments, validated and planned by the caller. One table of functions an
// instruction set. Kernels never allocate in the steady state, never throw, and give the same bits for any thread
// count.
#pragma once
#include <cfloat>
#include <cstddef>
#include <cstdint>

// What the kernels take for granted of a compiler; elsewhere bits would differ, so nothing is built.
#if defined(__FAST_MATH__)
#error "-ffast-math (or -Ofast) changes results"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are little-endian and are read as they lie"
#endif
static_assert(FLT_EVAL_METHOD == 0, "float is computed in a wider format (x87?)");

namespace gv {

enum class Dtype : uint8_t { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, u32 = 4, u8 = 5, boolean = 6, i8 = 7 };
inline constexpr int dtype_size(Dtype d) { return d == Dtype::bf16 || d == Dtype::f16 ? 2 : d >= Dtype::u8 ? 1 : 4; }
constexpr int MAX_RANK = 16;  // a window of a rank-8 tensor has rank 16

// c[s, i, j] = blocked fma chain over k of a[s, i, k] * b[s, k, j], of i8 the exact sum modulo 2^32 in i32; c row-major
// and contiguous, s < batch.
// a is stored [m, k] or, transposed, [k, m]; b [k, n] or [n, k]; a batch stride (elements) of 0 reuses one matrix.
struct DotArgs {
    int64_t batch, m, n, k;
    const void *a, *b;
    void* c;
    int64_t a_batch_stride, b_batch_stride;
    Dtype a_dtype, b_dtype, c_dtype;
    bool transpose_a, transpose_b;
};

// What the machine of map.cpp does next: operation `op`, or from `operation_count` on a program compiled ahead of time.
struct Step {
    uint16_t op, result, args[3];  // value numbers
};

// A scalar program. Values are numbered: inputs, constants, then one an instruction. The last four members are found
// once, by scalar_code.cpp.
struct ScalarCode {
    int n_inputs, n_constants, n_instructions, n_outputs;
    const uint32_t* constants;   // bits
    const uint16_t* code;        // n_instructions x 4: operation code, arg0, arg1, arg2
    const uint16_t* outputs;     // value numbers
    const uint8_t* value_types;  // register type of every value
    const Step* steps;
    int n_steps;
    const uint16_t* registers;  // of every step's result
    int n_registers;
    int compiled;  // number of the equal program that was compiled ahead of time, or -1
};

// outputs[o][e] = program(inputs...[broadcast e]) for elements begin <= e < end of `shape` in row-major order; strides
// are in elements, 0 along broadcast axes; outputs contiguous. An output may lie over an input of its type that is read
// unbroadcast.
struct MapArgs {
    const ScalarCode* program;
    int rank;
    const int64_t* shape;
    const void* const* inputs;
    const int64_t* const* strides;  // [input][axis]
    const Dtype* input_dtypes;
    void* const* outputs;
    const Dtype* output_dtypes;
    int64_t begin, end;
    const void* ahead;  // bytes to bring to cache meanwhile, for whoever comes next; may be null
    int64_t ahead_bytes;
};

enum class Reduction : uint8_t { sum = 0, max = 1, min = 2, argmax = 3, argmin = 4 };

// y[o] for begin <= o < end over row-major kept axes = reduction, in row-major order of the reduced axes, of x; strides
// in elements.
struct ReduceArgs {
    Reduction op;
    int kept_rank, reduced_rank;
    const int64_t *kept_shape, *kept_strides, *reduced_shape, *reduced_strides;
    const void* x;
    void* y;
    Dtype x_dtype, y_dtype;
    int64_t begin, end;
};

// dst[i.dst_strides] = src[i.src_strides] for i in shape; strides in elements of `size` bytes. All layouts become this.
struct CopyArgs {
    int size, rank;
    const int64_t *shape, *src_strides, *dst_strides;
    const void* src;
    void* dst;
};
struct FillArgs {
    int size;
    uint32_t bits;
    int64_t count;
    void* dst;
};

struct GatherArgs {
    const void* data;
    const int32_t* index;
    void* out;
    int64_t rows, row, count;  // rows of data, elements a row, indices
    Dtype dtype;
};
struct ScatterAddArgs {
    const void* source;
    const int32_t* index;
    void* out;
    int64_t rows, row, count;
    Dtype source_dtype, out_dtype;
};

struct RandomArgs {
    const uint32_t* seed;  // 2 words
    const uint32_t* step;
    uint32_t stream;
    int64_t count;
    uint32_t* out;
};

// out[r, k] = position of the k-th of the `row` elements x[r, ..] in ascending order; equal ones in order of position.
struct SortArgs {
    const void* x;
    int32_t* out;
    int64_t rows, row;
    Dtype dtype;
};

// Bytes of the whole BLAKE3 tree over n bytes: every level's chaining values, 32 bytes each; the last 32 are the root.
inline constexpr size_t blake3_tree_bytes(size_t n) {
    size_t level = n ? (n + 1023) / 1024 : 1, total = level;
    for (; level > 1; total += level) level = (level + 1) / 2;
    return 32 * total;
}

// Chaining values of BLAKE3 subtrees: see blake3.cpp. `tree` has blake3_tree_bytes(n) bytes; `root` 32.
struct Blake3Args {
    const uint8_t* data;
    size_t n;
    uint8_t* tree;  // level 0 = chunk chaining values, then parents level by level (odd node promoted); may be null
    uint8_t* root;
};

struct Kernels {
    const char* name;
    void (*dot)(const DotArgs&);
    void (*map)(const MapArgs&);
    void (*reduce)(const ReduceArgs&);
    void (*copy)(const CopyArgs&);
    void (*fill)(const FillArgs&);
    void (*gather)(const GatherArgs&);
    void (*scatter_add)(const ScatterAddArgs&);
    void (*random)(const RandomArgs&);
    void (*sort)(const SortArgs&);
    void (*blake3)(const Blake3Args&);
};

// The kernels in force: GENSYN_VERIFY_ISA if set, else the best the CPU supports (dispatch.cpp).
const Kernels& kernels();
// Names this build and CPU can run, best first; use_isa returns false for any other name.
const char* const* supported_isas();
const char* const* built_isas();  // also those that this CPU does not have
bool use_isa(const char* name);

}  // namespace gv

// Kernel units define their functions inside gv::<isa>.
#define GV_CONCAT_(a, b) a##b
#define GV_CONCAT(a, b) GV_CONCAT_(a, b)
#ifdef GV_ISA
namespace gv::GV_ISA {
void dot(const DotArgs&);
void map(const MapArgs&);
void reduce(const ReduceArgs&);
void copy(const CopyArgs&);
void fill(const FillArgs&);
void gather(const GatherArgs&);
void scatter_add(const ScatterAddArgs&);
void random(const RandomArgs&);
void sort(const SortArgs&);
void blake3(const Blake3Args&);
}  // namespace gv::GV_ISA
#endif
