// Runs the threads of a GPU's grid on the host, for kernels that were written in C++ for a GPU.
//
// Thread blocks run one after the other. The threads of a block are fibers that run until they wait: at a barrier, or
// for the other threads of their warp. `schedule.seed` decides who runs next: 0 is ascending order, 1 descending,
// others shuffle blocks and threads. With EMULATION_THREADS every thread of a block is a thread of the operating
// system, so that ThreadSanitizer sees what a missing barrier lets happen. It is shown no lock of the emulation, which
// would order more than a GPU does, but what a GPU promises: a barrier orders memory among its threads, a shuffle does
// not.
//
// What a GPU leaves undefined is made visible: shared memory begins as 0xFF bytes, a copy_async arrives as late as
// wait_async allows (or at once, by the seed), a barrier that some threads never reach ends the process, and so does a
// shuffle from a thread that takes no part.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>
#ifdef EMULATION_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#else
#include <ucontext.h>

#include <csetjmp>
#endif

namespace emulation {

struct Dim {
    unsigned x = 1, y = 1, z = 1;
    size_t count() const { return size_t(x) * y * z; }
};
inline Dim position(size_t i, const Dim& d) {
    return {unsigned(i % d.x), unsigned(i / d.x % d.y), unsigned(i / d.x / d.y)};
}

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
}

struct Schedule {
    uint64_t seed = 0;
    uint64_t next() {  // splitmix64
        uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    void order(std::vector<size_t>& items) {
        std::iota(items.begin(), items.end(), size_t(0));
        if (seed == 1) std::reverse(items.begin(), items.end());
        if (seed > 1)
            for (size_t i = items.size(); i > 1; i--) std::swap(items[i - 1], items[next() % i]);
    }
    bool late() { return seed % 2 == 0; }  // whether asynchronous copies arrive as late as they may

  private:
    uint64_t state_ = seed;
};
inline Schedule schedule;

constexpr unsigned WARP = 32;

struct AsyncCopy {
    void* to;
    const void* from;
    int bytes, valid;  // what lies behind `valid` bytes is set to 0
    void run() const {
        std::memset(to, 0, size_t(bytes));
        std::memcpy(to, from, size_t(valid));
    }
};

// Where threads meet. Two of them take turns, so that a thread that comes late meets nobody of the next time.
struct Meeting {
    char places[2];
};
struct Warp {
    uint64_t values[WARP];
    Meeting meeting;
};

// What a thread knows of itself.
struct Thread {
    Dim thread, block, threads, blocks;
    unsigned index = 0;  // in the block
    std::vector<AsyncCopy> copies;
    enum { running, at_barrier, in_warp, done } state = running;
    uint32_t mask = 0;
    unsigned met_block = 0, met_warp = 0;  // how often
#ifndef EMULATION_THREADS
    ucontext_t begin;
    jmp_buf here;
    bool started = false;
#endif
};

struct Block {
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<uint64_t> shared;  // two words are 16 bytes
    const std::function<void()>* body = nullptr;
    Meeting meeting;
#ifdef EMULATION_THREADS
    std::mutex mutex;
    std::condition_variable woken;
#else
    jmp_buf scheduler;
    std::vector<std::vector<char> > stacks;
#endif
};
inline Block* block;
#ifdef EMULATION_THREADS
inline thread_local Thread* self;
#else
inline Thread* self;
#endif

#if defined(EMULATION_THREADS) && defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void AnnotateIgnoreSyncBegin(const char*, int);
void AnnotateIgnoreSyncEnd(const char*, int);
void __tsan_release(void*);
void __tsan_acquire(void*);
}
// While there is one, ThreadSanitizer does not look at this thread.
struct Unseen {
    Unseen() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    }
    ~Unseen() {
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
    Unseen(const Unseen&) = delete;
};
// What a thread did before it came is before what all do when they leave.
inline void come(char* place) { __tsan_release(place); }
inline void leave(char* place) { __tsan_acquire(place); }
#else
struct Unseen {
    Unseen() {}  // not trivial: a variable of this type is not unused
};
inline void come(char*) {}
inline void leave(char*) {}
#endif

inline Warp& warp() { return block->warps[self->index / WARP]; }
inline void* shared_memory() {
    const auto at = reinterpret_cast<uintptr_t>(block->shared.data());
    return reinterpret_cast<void*>((at + 15) / 16 * 16);
}

// Releases the threads that wait for nobody any more; whether there were any.
inline bool release() {
    auto& threads = block->threads;
    size_t waiting = 0, ended = 0;
    for (Thread& t : threads) waiting += t.state == Thread::at_barrier, ended += t.state == Thread::done;
    bool any = false;
    if (waiting && waiting + ended == threads.size()) {
        if (ended) fail("a barrier that some threads of the block never reach");
        for (Thread& t : threads) t.state = Thread::running;
        any = true;
    }
    for (size_t first = 0; first < threads.size(); first += WARP) {
        const size_t lanes = std::min<size_t>(WARP, threads.size() - first);
        for (size_t lane = 0; lane < lanes; lane++) {
            const Thread& t = threads[first + lane];
            if (t.state != Thread::in_warp) continue;
            const uint32_t mask = t.mask;
            bool ready = true;
            for (size_t i = 0; i < lanes && ready; i++) {
                const Thread& other = threads[first + i];
                if (!(mask >> i & 1)) continue;
                if (other.state == Thread::done) fail("a warp waits for a thread that has ended");
                ready = other.state == Thread::in_warp && other.mask == mask;
            }
            if (!ready) continue;
            for (size_t i = 0; i < lanes; i++)
                if (mask >> i & 1) threads[first + i].state = Thread::running;
            any = true;
        }
    }
    return any;
}

#ifndef EMULATION_THREADS
inline void wait(decltype(Thread::state) state) {
    self->state = state;
    if (!_setjmp(self->here)) _longjmp(block->scheduler, 1);
}
inline void fiber() {
    (*block->body)();
    wait(Thread::done);
}
inline void run_block() {
    static std::vector<size_t> order;
    order.resize(block->threads.size());
    for (;;) {
        schedule.order(order);
        volatile bool ran = false;  // across longjmp
        for (size_t i : order) {
            Thread& t = block->threads[i];
            if (t.state != Thread::running) continue;
            self = &t;
            ran = true;
            if (_setjmp(block->scheduler)) continue;
            if (t.started) _longjmp(t.here, 1);
            t.started = true;
            setcontext(&t.begin);
        }
        const bool released = release();
        if (ran || released) continue;
        for (const Thread& t : block->threads)
            if (t.state != Thread::done) fail("threads wait for each other at different barriers");
        return;
    }
}
#else
inline void wait(decltype(Thread::state) state) {
    const Unseen unseen;
    std::unique_lock<std::mutex> lock(block->mutex);
    self->state = state;
    if (release()) block->woken.notify_all();
    block->woken.wait(lock, [] { return self->state == Thread::running; });
}
inline void run_block() {
    std::vector<std::thread> running;
    for (Thread& t : block->threads)
        running.emplace_back([&t] {
            self = &t;
            (*block->body)();
            const Unseen unseen;
            const std::lock_guard<std::mutex> lock(block->mutex);
            t.state = Thread::done;
            if (release()) block->woken.notify_all();
        });
    for (std::thread& t : running) t.join();
}
#endif

inline void barrier() {
    char* const place = &block->meeting.places[self->met_block++ % 2];
    come(place);
    wait(Thread::at_barrier);
    leave(place);
}
inline void wait_for_warp(uint32_t mask) {
    if (!(mask >> (self->index % WARP) & 1)) fail("a thread takes part in a warp operation without being in its mask");
    self->mask = mask;
    wait(Thread::in_warp);
}
inline void warp_barrier(uint32_t mask) {
    char* const place = &warp().meeting.places[self->met_warp++ % 2];
    come(place);
    wait_for_warp(mask);
    leave(place);
}

// The value that lane `source` of the warp gave to the same call.
template <class T>
T exchange(uint32_t mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 8, "at most 64 bits");
    const Unseen unseen;
    std::memcpy(&warp().values[self->index % WARP], &value, sizeof value);
    wait_for_warp(mask);
    if (source < WARP && !(mask >> source & 1)) fail("a shuffle from a thread outside of the mask");
    T result = value;
    if (source < WARP) std::memcpy(&result, &warp().values[source], sizeof result);
    wait_for_warp(mask);
    return result;
}

inline void copy_async(void* to, const void* from, int bytes, int valid) {
    const AsyncCopy copy{to, from, bytes, valid};
    if (schedule.late())
        self->copies.push_back(copy);
    else
        copy.run();
}
inline void commit_async() {}
inline void wait_async() {
    for (const AsyncCopy& c : self->copies) c.run();
    self->copies.clear();
}

// All threads of all blocks run `body`; threads.h has the rules.
inline void launch(const Dim& blocks, const Dim& threads, size_t shared_bytes, const std::function<void()>& body) {
    static Block memory;
    block = &memory;
    const size_t n = threads.count();
    memory.body = &body;
    memory.warps.resize((n + WARP - 1) / WARP);
    memory.shared.resize((shared_bytes + 7) / 8 + 2);
#ifndef EMULATION_THREADS
    constexpr size_t STACK = 64 << 10;
    while (memory.stacks.size() < n) memory.stacks.emplace_back(STACK);
#endif
    std::vector<size_t> order(blocks.count());
    schedule.order(order);
    for (size_t b : order) {
        std::memset(memory.shared.data(), 0xFF, memory.shared.size() * 8);
        memory.threads = std::vector<Thread>(n);
        for (size_t i = 0; i < n; i++) {
            Thread& t = memory.threads[i];
            t.thread = position(i, threads), t.block = position(b, blocks);
            t.threads = threads, t.blocks = blocks, t.index = unsigned(i);
#ifndef EMULATION_THREADS
            getcontext(&t.begin);
            t.begin.uc_stack.ss_sp = memory.stacks[i].data();
            t.begin.uc_stack.ss_size = STACK;
            t.begin.uc_link = nullptr;
            makecontext(&t.begin, fiber, 0);
#endif
        }
        run_block();
    }
}

// binary16 by integers: exact, rounded to nearest even.
inline float f16_to_f32(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7FFF;
    uint32_t bits;
    if (rest < 0x400) {
        const float x = float(rest) * 0x1p-24f;
        std::memcpy(&bits, &x, 4);
    } else {
        bits = rest >= 0x7C00 ? 0x7F800000 | (rest & 0x3FF) << 13 : (rest << 13) + 0x38000000;
    }
    bits |= sign;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline uint16_t f32_to_f16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    if (size > 0x7F800000) return uint16_t(sign | 0x7E00);
    if (size >= 0x477FF000) return uint16_t(sign | 0x7C00);  // from 65520 on
    if (size < 0x33000000) return uint16_t(sign);            // below half of the smallest
    if (size >= 0x38800000) return uint16_t(sign | ((size + 0xFFF + (size >> 13 & 1) - 0x38000000) >> 13));
    const uint32_t shift = 126 - (size >> 23), whole = (size & 0x7FFFFF) | 0x800000;
    const uint32_t kept = whole >> shift, lost = whole & ((1u << shift) - 1), half = 1u << (shift - 1);
    return uint16_t(sign | (kept + (lost > half || (lost == half && (kept & 1)))));
}

}  // namespace emulation
