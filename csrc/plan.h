// A planned program: kernel calls on one arena, walked on the CPU without allocation or Python, or told to a device.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"
#include "program.h"

namespace gv {

// A strided tensor in the arena: byte offset, strides in elements.
struct View {
    int64_t offset;
    Dtype dtype;
    std::vector<int64_t> strides;
};

// A value that only a region reads and writes: it has no place in the arena, but offsets from `offset` on, beyond the
// arena's end. The rows at work lie in the region's scratch memory, from `scratch` on.
struct PrivateValue {
    int64_t offset, bytes, row_bytes, scratch;
};

// A value from outside of which a region reads row after row.
struct Stream {
    int64_t offset, row_bytes;
};

// What a planner tells, in order: kernel calls on one arena. `Plan` runs them on the CPU; for a device they are data.
class PlanWriter {
  public:
    virtual ~PlanWriter() = default;

    virtual int scalar_program(const ScalarProgram& s) = 0;  // its number; the plan refers to `s`
    virtual void map(int program, std::vector<int64_t> shape, std::vector<View> inputs, std::vector<View> outputs) = 0;
    virtual void dot(const DotArgs& args, int64_t a, int64_t b, int64_t c) = 0;
    virtual void reduce(Reduction op, std::vector<int64_t> kept_shape, std::vector<int64_t> kept_strides,
                        std::vector<int64_t> reduced_shape, std::vector<int64_t> reduced_strides, int64_t x,
                        Dtype x_dtype, int64_t y, Dtype y_dtype) = 0;
    virtual void copy(int size, std::vector<int64_t> shape, std::vector<int64_t> source_strides,
                      std::vector<int64_t> target_strides, int64_t source, int64_t target) = 0;
    virtual void fill(int size, uint32_t bits, int64_t count, int64_t target) = 0;
    virtual void gather(int64_t data, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                        Dtype dtype) = 0;
    virtual void scatter_add(int64_t source, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                             Dtype source_dtype, Dtype out_dtype) = 0;
    virtual void random(int64_t seed, int64_t step, uint32_t stream, int64_t count, int64_t out) = 0;
    virtual void sort(int64_t x, Dtype dtype, int64_t out, int64_t rows, int64_t row) = 0;
    // A map for every position of the first axis of `shape`, after each other; the first inputs begin the outputs.
    virtual void scan(int program, std::vector<int64_t> shape, const std::vector<View>& inputs,
                      const std::vector<View>& outputs) = 0;

    // The maps and reductions written between these two have outputs of `rows` rows each, and a row depends on nothing
    // but the same rows of values written between them. They run one block of rows after the other, so that what they
    // hand to each other stays in cache.
    virtual void begin_region(int64_t rows, int64_t block_rows, int64_t scratch_bytes, std::vector<PrivateValue> values,
                              std::vector<Stream> streams) = 0;
    virtual void end_region() = 0;
};

class Plan final : public PlanWriter {
  public:
    explicit Plan(int64_t arena_bytes);  // throws std::bad_alloc
    ~Plan() override;
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    uint8_t* at(int64_t offset) const { return arena_ + offset; }
    int64_t arena_bytes() const { return bytes_; }
    size_t calls() const { return calls_.size(); }  // a region is one

    int scalar_program(const ScalarProgram& s) override;
    void map(int program, std::vector<int64_t> shape, std::vector<View> inputs, std::vector<View> outputs) override;
    void dot(const DotArgs& args, int64_t a, int64_t b, int64_t c) override;
    void reduce(Reduction op, std::vector<int64_t> kept_shape, std::vector<int64_t> kept_strides,
                std::vector<int64_t> reduced_shape, std::vector<int64_t> reduced_strides, int64_t x, Dtype x_dtype,
                int64_t y, Dtype y_dtype) override;
    void copy(int size, std::vector<int64_t> shape, std::vector<int64_t> source_strides,
              std::vector<int64_t> target_strides, int64_t source, int64_t target) override;
    void fill(int size, uint32_t bits, int64_t count, int64_t target) override;
    void gather(int64_t data, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                Dtype dtype) override;
    void scatter_add(int64_t source, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                     Dtype source_dtype, Dtype out_dtype) override;
    void random(int64_t seed, int64_t step, uint32_t stream, int64_t count, int64_t out) override;
    void sort(int64_t x, Dtype dtype, int64_t out, int64_t rows, int64_t row) override;
    void scan(int program, std::vector<int64_t> shape, const std::vector<View>& inputs,
              const std::vector<View>& outputs) override;
    void begin_region(int64_t rows, int64_t block_rows, int64_t scratch_bytes, std::vector<PrivateValue> values,
                      std::vector<Stream> streams) override;
    void end_region() override;

    void run() const;  // all calls in order, with the kernels in force

    struct Call {
        virtual ~Call() = default;
        virtual void run(const Kernels&) const = 0;
    };
    struct RowCall;
    struct Region;
    struct Scalar;

  private:
    void add(std::unique_ptr<RowCall> call);

    uint8_t* arena_;
    int64_t bytes_;
    std::vector<std::unique_ptr<Scalar>> scalars_;
    std::vector<std::unique_ptr<Call>> calls_;
    std::unique_ptr<Region> region_;  // the open one
};

}  // namespace gv
