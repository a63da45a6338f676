#include "threads.h"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gv {

uint32_t raw_control_register() {
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    uint64_t fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr));
    return uint32_t(fpcr);
#else
    return 0;
#endif
}

void set_control_register(uint32_t bits) {
#if defined(__x86_64__)
    _mm_setcsr(bits);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" ::"r"(uint64_t(bits)));
#else
    (void)bits;
#endif
}

// `result_bits` change results and are 0 in the numerics. x86: flush-to-zero 15, rounding 14:13, denormals-are-zero 6.
// Arm: alternative half 26, default NaN 25, flush 24, rounding 23:22, flush half 19, alternate handling 2:0.
// `control_bits` are all that a caller can set, exceptions that trap among them: NaN and overflow are results here, not
// errors. Sticky flags are left alone.
#if defined(__x86_64__)
static constexpr uint32_t result_bits = 0xE040, control_bits = 0xFFC0, numerics = 0x1F80;  // 0x1F80: nothing traps
#elif defined(__aarch64__)
static constexpr uint32_t result_bits = 0x07C80007, control_bits = 0xFFFFFFFF, numerics = 0;
#else
static constexpr uint32_t result_bits = 0, control_bits = 0, numerics = 0;
#endif

uint32_t control_register() { return raw_control_register() & result_bits; }

static bool foreign(uint32_t bits) { return ((bits ^ numerics) & control_bits) != 0; }

NumericsScope::NumericsScope() : saved(raw_control_register()) {
    if (foreign(saved)) set_control_register((saved & ~control_bits) | numerics);
}
NumericsScope::~NumericsScope() {
    if (foreign(saved)) set_control_register(saved);
}

namespace {

thread_local bool inside = false;

#if defined(__linux__)
// Wakes a worker elsewhere than on the processor of the caller. Linux wakes a thread where it slept if it sees no idle
// processor, and a virtual machine's halted one does not count as idle: the worker would queue behind its caller, call
// after call, until the load balancer moves it. `sleeping` and `mask` are guarded by the pool's mutex.
class Placement {
  public:
    void sleeps() { sleeping_ = sched_getcpu(); }
    void wakes() {
        if (moved_) pthread_setaffinity_np(pthread_self(), sizeof mask_, &mask_);
        moved_ = false, sleeping_ = -1;
    }
    void move_off(pthread_t thread, int processor) {
        if (sleeping_ != processor || moved_ || pthread_getaffinity_np(thread, sizeof mask_, &mask_) != 0) return;
        cpu_set_t others = mask_;
        CPU_CLR(processor, &others);
        moved_ = CPU_COUNT(&others) > 0 && pthread_setaffinity_np(thread, sizeof others, &others) == 0;
    }
    static int here() { return sched_getcpu(); }

  private:
    int sleeping_ = -1;  // the processor
    bool moved_ = false;
    cpu_set_t mask_;  // before it was moved
};
#else
struct Placement {
    void sleeps() {}
    void wakes() {}
    void move_off(pthread_t, int) {}
    static int here() { return 0; }
};
#endif

class Pool {
  public:
    // One parallel region at a time; a second caller computes alone.
    std::mutex use;

    void resize(int workers) {
        asked_ = workers;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (Worker& w : workers_) w.thread.join();
        workers_.clear();
        stop_ = false;
        std::lock_guard<std::mutex> lock(mutex_);
        try {
            for (int i = 0; i < workers; i++) {
                Worker& w = workers_.emplace_back();
                w.placement.sleeps();
                w.thread = std::thread([this, &w, g = generation_.load()] { work(w.placement, g); });
                w.placement.move_off(w.thread.native_handle(), Placement::here());
            }
        } catch (const std::system_error&) {
            workers_.pop_back();  // the system has no more threads to give: fewer compute the same bits
        }
    }

    int asked() const { return asked_; }

    void run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            call_ = call;
            context_ = context;
            tasks_ = tasks;
            next_.store(0, std::memory_order_relaxed);
            open_.store(true);
            const int here = Placement::here();
            for (Worker& w : workers_) w.placement.move_off(w.thread.native_handle(), here);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        drain();
        // Only workers that came in are waited for; one that the system has not woken yet finds the door closed. Both
        // sides write, then read, in one total order: either the worker sees it closed, or it is counted here.
        open_.store(false);
        for (int spin = 0; busy_.load() != 0; spin++) {
            if (spin < SPINS)
                pause();
            else
                std::this_thread::yield();  // more threads than processors: let the last worker run
        }
    }

  private:
    static constexpr int SPINS = 4000;  // about the time between two kernels of one step

    static void pause() {
#if defined(__x86_64__)
        _mm_pause();
#else
        std::this_thread::yield();
#endif
    }

    void drain() {
        inside = true;
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) call_(context_, i);
        inside = false;
    }

    void work(Placement& placement, uint64_t seen) {
        NumericsScope numerics;
        if (control_register() != 0) {
            std::fprintf(stderr, "gensyn_verify: a worker thread cannot set its floating-point control register\n");
            std::abort();
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            placement.wakes();
        }
        for (;;) {
            for (int spin = 0; spin < SPINS && generation_.load(std::memory_order_acquire) == seen; spin++) pause();
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                placement.sleeps();
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
                placement.wakes();
            }
            seen = generation_.load(std::memory_order_acquire);
            if (stop_) return;
            busy_.fetch_add(1);
            if (open_.load()) drain();
            busy_.fetch_sub(1);
        }
    }

    struct Worker {
        std::thread thread;
        Placement placement;
    };

    std::list<Worker> workers_;  // none moves: a thread keeps a reference
    int asked_ = 0;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> generation_{0};
    std::atomic<bool> stop_{false};
    std::atomic<int64_t> next_{0};
    std::atomic<bool> open_{false};  // whether there are tasks to take
    std::atomic<int> busy_{0};       // workers inside
    void (*call_)(void*, int64_t) = nullptr;
    void* context_ = nullptr;
    int64_t tasks_ = 0;
};

// Never destroyed: at exit, workers and other callers may still be inside. After a fork the child has none of the
// workers, and a lock may be held by a thread that it does not have either; so it starts with a new pool, made in place
// because a forked child should not allocate.
alignas(Pool) unsigned char pool_memory[sizeof(Pool)];
Pool* make_pool() { return new (pool_memory) Pool; }
void after_fork_in_child() { make_pool(); }

Pool& pool() {
    static Pool* const made = [] {
        pthread_atfork(nullptr, nullptr, after_fork_in_child);
        return make_pool();
    }();
    return *made;
}

std::atomic<int> wanted{0};

int default_threads() {
    if (const char* text = std::getenv("GENSYN_VERIFY_THREADS")) {
        const int n = std::atoi(text);
        if (n >= 1 && n <= 1024) return n;
    }
    const unsigned n = std::thread::hardware_concurrency();
    return n ? int(n) : 1;
}

}  // namespace

int get_threads() {
    int n = wanted.load();
    if (n == 0) wanted.store(n = default_threads());
    return n;
}

void set_threads(int n) { wanted.store(n < 1 ? 1 : n); }

void detail::run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
    NumericsScope numerics;
    const int threads = get_threads();
    if (tasks > 1 && threads > 1 && !inside) {
        Pool& p = pool();
        std::unique_lock<std::mutex> lock(p.use, std::try_to_lock);
        if (lock.owns_lock()) {
            if (p.asked() != threads - 1) p.resize(threads - 1);
            p.run(tasks, call, context);
            return;
        }
    }
    for (int64_t i = 0; i < tasks; i++) call(context, i);
}

}  // namespace gv
