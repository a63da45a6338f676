// A persistent pool. Every thread that runs kernels, the caller included, has the control register of the numerics
// (round to nearest even, no flushing, no traps) for the time of the work; the caller's own is restored afterwards.
// A forked child makes a pool of its own.
#pragma once
#include <cstdint>
#include <type_traits>

namespace gv {

void set_threads(int n);  // 1 or more; takes effect at the next parallel_for
int get_threads();

namespace detail {
void run(int64_t tasks, void (*call)(void*, int64_t), void* context);
}

// call(i) for i in [0, tasks), each once, in any order, on any of the threads; returns when all are done. Not
// reentrant: a call from inside a task runs its tasks on the calling thread.
template <class Call>
void parallel_for(int64_t tasks, Call&& call) {
    detail::run(tasks, [](void* c, int64_t i) { (*static_cast<std::remove_reference_t<Call>*>(c))(i); }, &call);
}

// MXCSR or FPCR bits that change results: 0 when the numerics hold in the calling thread.
uint32_t control_register();
void set_control_register(uint32_t bits);  // for tests: what a hostile caller might have done
uint32_t raw_control_register();

// Holds the numerics in the calling thread for a scope.
struct NumericsScope {
    NumericsScope();
    ~NumericsScope();
    uint32_t saved;
};

}  // namespace gv
