// Runs launches of CUDA kernels, linked to this, with a thread of the operating system for every thread of a block, so
// that ThreadSanitizer sees what a missing barrier lets happen: `races BASE ARENA LAUNCHES SEED [PTX]`. ARENA are the
// bytes that the kernels work on, at address BASE; they are written back when all launches are done. Kernels that are
// not linked are executed as the PTX says. A line of LAUNCHES is a
// kernel's name, blocks (x, y, z), threads of a block, bytes of shared memory, and its parameters in hexadecimal.
#include <dlfcn.h>
#include <sys/mman.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "ptx.h"

int main(int count, char** argv) {
    std::ifstream file(argv[2], std::ios::binary), launches(argv[3]);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    void* const base = reinterpret_cast<void*>(std::stoull(argv[1]));
    char* const arena = static_cast<char*>(
        mmap(base, bytes.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    if (arena != base) emulation::fail("no memory at BASE");
    std::memcpy(arena, bytes.data(), bytes.size());
    ptx::Module module;
    if (count > 5) {
        std::ifstream text(argv[5]);
        module =
            ptx::Reader(std::string((std::istreambuf_iterator<char>(text)), std::istreambuf_iterator<char>())).read();
    }
    for (std::string line; std::getline(launches, line);) {
        std::istringstream words(line);
        std::string name, digits;
        emulation::Dim blocks, threads;
        size_t shared;
        words >> name >> blocks.x >> blocks.y >> blocks.z >> threads.x >> shared >> digits;
        std::vector<uint64_t> parameters(digits.size() / 16);
        for (size_t i = 0; i < digits.size() / 2; i++)
            reinterpret_cast<uint8_t*>(parameters.data())[i] =
                uint8_t(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
        const auto kernel = reinterpret_cast<void (*)(const void*)>(dlsym(RTLD_DEFAULT, name.c_str()));
        const auto written = module.find(name);
        if (!kernel && written == module.end()) emulation::fail(name.c_str());
        emulation::schedule = emulation::Schedule();
        emulation::schedule.seed = std::stoull(argv[4]);
        emulation::launch(blocks, threads, shared, [&] {
            if (kernel) return kernel(parameters.data());
            ptx::Runner(*written->second, reinterpret_cast<const uint8_t*>(parameters.data())).run();
        });
    }
    std::ofstream(argv[2], std::ios::binary).write(arena, std::streamsize(bytes.size()));
}
