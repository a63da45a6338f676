// Runs launches of Metal kernels, linked to this, with a thread of the operating system for every thread of a group, so
// that ThreadSanitizer sees what a missing barrier lets happen: `races ARENA LAUNCHES`. ARENA are the bytes that the
// kernels work on; a line of LAUNCHES is a kernel's name, groups (x, y, z), threads of a group, and what it is given.
#include <dlfcn.h>

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "host.cpp"

int main(int, char** argv) {
    std::ifstream file(argv[1], std::ios::binary), launches(argv[2]);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<unsigned long> arena(bytes.size() / 8 + 1);
    std::memcpy(arena.data(), bytes.data(), bytes.size());
    for (std::string line; std::getline(launches, line);) {
        std::istringstream words(line);
        std::string name;
        unsigned groups[3], size;
        words >> name >> groups[0] >> groups[1] >> groups[2] >> size;
        const std::vector<long> given((std::istream_iterator<long>(words)), std::istream_iterator<long>());
        auto* const kernel = reinterpret_cast<Kernel*>(dlsym(RTLD_DEFAULT, name.c_str()));
        if (!kernel) emulation::fail(name.c_str());
        gv_host_run(kernel, reinterpret_cast<unsigned char*>(arena.data()), given.data(), groups, size, 0, 0);
    }
}
