// The thread pool under ThreadSanitizer: callers at once, nested regions, changes of the number of threads.
#include "threads.h"

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

// Every index once, by plain writes, which a sanitizer sees if two threads make them.
bool covers(int64_t tasks) {
    std::vector<int> hits(size_t(tasks), 0);
    gv::parallel_for(tasks, [&](int64_t i) { hits[size_t(i)]++; });
    for (int h : hits)
        if (h != 1) return false;
    return true;
}

bool nests() {
    std::atomic<int64_t> sum{0};
    gv::parallel_for(6, [&](int64_t i) { gv::parallel_for(5, [&](int64_t j) { sum += 10 * i + j; }); });
    return sum == 5 * 150 + 6 * 10;
}

}  // namespace

int main() {
    std::atomic<int> failures{0};
    gv::set_threads(3);
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; c++)
        callers.emplace_back([&, c] {
            for (int i = 0; i < 300; i++) {
                if (!covers(i % 17) || !nests()) failures++;
                if (c == 0 && i % 40 == 0) gv::set_threads(1 + i / 40 % 4);
            }
        });
    for (auto& t : callers) t.join();
    for (int i = 0; i < 2000; i++) failures += !covers(4);  // short regions: workers come late, or not at all
    std::printf("threads: %d failures\n", failures.load());
    return failures != 0;
}
