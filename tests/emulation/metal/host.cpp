// Runs Metal kernels, compiled with metal_stdlib, on the threads of threads.h.
#include "threads.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

// Subnormal operands and results of float operations are zeros while it lives, as on an Apple GPU.
class Flushing {
  public:
#if defined(__x86_64__)
    explicit Flushing(bool on) : before_(_mm_getcsr()) {
        if (on) _mm_setcsr(before_ | 0x8040);  // FTZ, DAZ
    }
    ~Flushing() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#elif defined(__aarch64__)
    explicit Flushing(bool on) {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        if (on) asm volatile("msr fpcr, %0" ::"r"(before_ | 1ul << 24));  // FZ
    }
    ~Flushing() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

  private:
    unsigned long before_;
#endif
};

struct uint3 {
    unsigned x, y, z;
};
uint3 three(const emulation::Dim& d) { return {d.x, d.y, d.z}; }

// GV_KERNEL of kernels/metal/common.metal.
using Kernel = void(unsigned char* arena, const long* given, uint3 group, uint3 groups, uint3 size, unsigned me,
                    unsigned lane, unsigned simdgroup);

}  // namespace

extern "C" {
void gv_host_barrier() { emulation::barrier(); }
unsigned long gv_host_shuffle_down(unsigned long value, unsigned delta) {
    return emulation::exchange(0xFFFFFFFFu, value, emulation::self->index % emulation::WARP + delta);
}
void* gv_host_threadgroup_memory() { return emulation::shared_memory(); }

// groups[3] threadgroups of `size` threads, a multiple of 32.
void gv_host_run(Kernel* body, unsigned char* arena, const long* given, const unsigned* groups, unsigned size,
                 unsigned long seed, int flush) {
    emulation::schedule = emulation::Schedule();
    emulation::schedule.seed = seed;
    for (unsigned long i = 0; i < seed; i++) emulation::schedule.next();
    const emulation::Dim all{groups[0], groups[1], groups[2]}, one{size, 1, 1};
    const Flushing flushing(flush != 0);
    emulation::launch(all, one, 32768, [&] {
        const emulation::Thread& t = *emulation::self;
        body(arena, given, three(t.block), three(t.blocks), three(t.threads), t.index, t.index % emulation::WARP,
             t.index / emulation::WARP);
    });
}
}
