#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
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

// x86: flush-to-zero 15, rounding 14:13, denormals-are-zero 6. Arm: alternative half 26, default NaN 25, flush 24,
// rounding 23:22, flush half 19. Sticky flags and masks do not change results.
#if defined(__x86_64__)
static constexpr uint32_t numerics_mask = 0xE040;
#elif defined(__aarch64__)
static constexpr uint32_t numerics_mask = 0x07C80000;
#else
static constexpr uint32_t numerics_mask = 0;
#endif

uint32_t control_register() { return raw_control_register() & numerics_mask; }

NumericsScope::NumericsScope() : saved(raw_control_register()) {
    if (saved & numerics_mask) set_control_register(saved & ~numerics_mask);
}
NumericsScope::~NumericsScope() {
    if (saved & numerics_mask) set_control_register(saved);
}

namespace {

thread_local bool inside = false;

class Pool {
  public:
    ~Pool() { resize(0); }

    void resize(int workers) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (auto& t : threads_) t.join();
        threads_.clear();
        stop_ = false;
        for (int i = 0; i < workers; i++) threads_.emplace_back([this, g = generation_.load()] { work(g); });
    }

    size_t workers() const { return threads_.size(); }

    void run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            call_ = call;
            context_ = context;
            tasks_ = tasks;
            next_.store(0, std::memory_order_relaxed);
            busy_.store(int(threads_.size()), std::memory_order_relaxed);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        drain();
        while (busy_.load(std::memory_order_acquire) != 0) pause();
    }

  private:
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

    void work(uint64_t seen) {
        NumericsScope numerics;
        if (control_register() != 0) {
            std::fprintf(stderr, "gensyn_verify: a worker thread cannot set its floating-point control register\n");
            std::abort();
        }
        for (;;) {
            // Spin for about the time between two kernels of one step, then sleep.
            for (int spin = 0; spin < 4000 && generation_.load(std::memory_order_acquire) == seen; spin++) pause();
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            seen = generation_.load(std::memory_order_acquire);
            if (stop_) return;
            drain();
            busy_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> generation_{0};
    std::atomic<bool> stop_{false};
    std::atomic<int64_t> next_{0};
    std::atomic<int> busy_{0};
    void (*call_)(void*, int64_t) = nullptr;
    void* context_ = nullptr;
    int64_t tasks_ = 0;
};

std::mutex use;  // one parallel region at a time; a second caller computes alone
Pool pool;
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
        std::unique_lock<std::mutex> lock(use, std::try_to_lock);
        if (lock.owns_lock()) {
            if (int(pool.workers()) != threads - 1) pool.resize(threads - 1);
            pool.run(tasks, call, context);
            return;
        }
    }
    for (int64_t i = 0; i < tasks; i++) call(context, i);
}

}  // namespace gv
