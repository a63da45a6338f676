// Which kernels run: a table from instruction set to what the CPU must have, best first.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace gv {

extern const Kernels kernels_portable;
#ifdef GV_HAVE_AVX2
extern const Kernels kernels_avx2;
#endif
#ifdef GV_HAVE_AVX512
extern const Kernels kernels_avx512;
#endif
#ifdef GV_HAVE_NEON
extern const Kernels kernels_neon;
#endif

namespace {

struct Entry {
    const Kernels* kernels;
    bool supported;
};

const Entry* entries() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    static const Entry table[] = {
#ifdef GV_HAVE_AVX512
        {&kernels_avx512, avx512},
#endif
#ifdef GV_HAVE_AVX2
        {&kernels_avx2, avx2},
#endif
#ifdef GV_HAVE_NEON
        {&kernels_neon, true},
#endif
        {&kernels_portable, true}, {nullptr, false},
    };
    return table;
}

const Kernels* find(const char* name) {
    for (const Entry* e = entries(); e->kernels; e++)
        if (e->supported && std::strcmp(e->kernels->name, name) == 0) return e->kernels;
    return nullptr;
}

const Kernels* best() {
    const Entry* e = entries();
    while (!e->supported) e++;
    return e->kernels;
}

const Kernels*& current() {
    static const Kernels* k = best();
    return k;
}

}  // namespace

const Kernels& kernels() { return *current(); }

const char* const* supported_isas() {
    static const char* names[8] = {};
    int n = 0;
    for (const Entry* e = entries(); e->kernels; e++)
        if (e->supported) names[n++] = e->kernels->name;
    return names;
}

const char* const* built_isas() {
    static const char* names[8] = {};
    int n = 0;
    for (const Entry* e = entries(); e->kernels; e++) names[n++] = e->kernels->name;
    return names;
}

bool use_isa(const char* name) {
    const Kernels* k = find(name);
    if (k) current() = k;
    return k != nullptr;
}

}  // namespace gv
