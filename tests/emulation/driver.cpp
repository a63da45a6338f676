// A stand-in for the CUDA driver: the functions that gensyn_verify/backends/cuda/driver.py calls, on the host.
//
// Kernels of csrc/cuda run as they were compiled into this library, or, with EMULATION_PTX set, as the PTX that was
// loaded; kernels that only PTX has always run as PTX. A dot with an epilogue, KERNEL__DIGEST, runs as it was compiled
// too, and what it is to do with an element as the PTX that was loaded (build.py: stubs). Work on a stream waits until
// somebody synchronizes, as late as a GPU might do it, so that what reads too early sees old bytes. New device memory
// is filled with a pattern. EMULATION_SEED picks the schedule of threads, EMULATION_CAPABILITY the compute capability
// (default 90).
#include <dlfcn.h>

#include <deque>
#include <set>

#include "cuda.h"
#include "ptx.h"

namespace {

enum Status {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    no_context = 201,
    invalid_ptx = 218,
    not_found = 500,
    not_ready = 600
};

struct Function {
    void (*host)(const void*) = nullptr;
    size_t host_bytes = 0;  // of its parameters
    std::shared_ptr<ptx::Function> ptx;
    int shared_limit = 48 << 10;
};
struct Module {
    ptx::Module entries;
    std::map<std::string, std::unique_ptr<Function>> functions;
};
using Work = std::function<void()>;
struct Stream {
    std::deque<Work> waiting;
    size_t asked = 0, done = 0;
    bool capturing = false;
    std::vector<Work> captured;

    void ask(Work work) {
        if (capturing)
            captured.push_back(std::move(work));
        else
            waiting.push_back(std::move(work)), asked++;
    }
    void run_until(size_t count) {
        while (done < count) {
            Work work = std::move(waiting.front());
            waiting.pop_front();
            work();
            done++;
        }
    }
};
struct Event {
    Stream* stream = nullptr;
    size_t position = 0;
};
using Graph = std::vector<Work>;

std::map<uint64_t, size_t> memory;  // address -> bytes
int current = 0;                    // contexts on the stack of the one thread
std::set<Stream*> streams;
Stream default_stream;
constexpr size_t TOTAL = size_t(4) << 30;

int number(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}
Stream& stream_of(void* handle) { return handle ? *static_cast<Stream*>(handle) : default_stream; }
bool inside(uint64_t address, size_t bytes) {
    auto after = memory.upper_bound(address);
    if (after == memory.begin()) return false;
    --after;
    return address + bytes <= after->first + after->second;
}
int refuse(const std::string& why, Status status) {
    std::fprintf(stderr, "emulation: %s\n", why.c_str());
    return status;
}
size_t used() {
    size_t sum = 0;
    for (const auto& m : memory) sum += m.second;
    return sum;
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
    emulation::schedule = emulation::Schedule{};
    emulation::schedule.seed = uint64_t(number("EMULATION_SEED", 0));
    return success;
}
int cuDriverGetVersion(int* version) { return *version = 13000, success; }
int cuDeviceGetCount(int* count) { return *count = 1, success; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? success : invalid_value; }
int cuDeviceGetName(char* name, int length, int) {
    return std::snprintf(name, size_t(length), "emulation on this host"), success;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = number("EMULATION_CAPABILITY", 90);
    switch (attribute) {
        case 16:
            *value = number("EMULATION_MULTIPROCESSORS", 4);
            break;
        case 97:
            *value = capability >= 90 ? 227 << 10 : capability >= 80 ? 163 << 10 : 64 << 10;
            break;
        case 75:
            *value = capability / 10;
            break;
        case 76:
            *value = capability % 10;
            break;
        default:
            return invalid_value;
    }
    return success;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &memory, success; }
int cuCtxGetCurrent(void** context) { return *context = current > 0 ? &memory : nullptr, success; }
int cuCtxPushCurrent_v2(void* context) { return context == &memory ? (current++, success) : invalid_value; }
int cuCtxPopCurrent_v2(void** context) { return *context = &memory, current > 0 ? (current--, success) : no_context; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *total = TOTAL, *free = TOTAL - used(), success; }
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    if (current == 0) return refuse("no context is current", no_context);
    if (bytes == 0) return invalid_value;
    if (used() + bytes > TOTAL) return out_of_memory;
    void* const at = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(at, 0xA5, bytes);
    memory[*address = reinterpret_cast<uint64_t>(at)] = bytes;
    return success;
}
int cuMemFree_v2(uint64_t address) {
    if (current == 0) return refuse("no context is current", no_context);
    for (Stream* s : streams) s->run_until(s->asked);
    default_stream.run_until(default_stream.asked);
    if (!memory.erase(address)) return invalid_value;
    std::free(reinterpret_cast<void*>(address));
    return success;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    if (!inside(to, bytes)) return refuse("a copy to where no memory is", invalid_value);
    std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    stream_of(stream).ask(
        [=, staged = std::move(staged)] { std::memcpy(reinterpret_cast<void*>(to), staged.data(), bytes); });
    return success;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    if (!inside(from, bytes)) return refuse("a copy from where no memory is", invalid_value);
    stream_of(stream).ask([=] { std::memcpy(to, reinterpret_cast<const void*>(from), bytes); });
    return success;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    if (!inside(from, bytes) || !inside(to, bytes)) return refuse("a copy where no memory is", invalid_value);
    stream_of(stream).ask(
        [=] { std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes); });
    return success;
}

int cuStreamCreate(void** stream, unsigned) {
    if (current == 0) return refuse("no context is current", no_context);
    Stream* const s = new Stream;
    streams.insert(s);
    return *stream = s, success;
}
int cuStreamDestroy_v2(void* stream) {
    Stream& s = stream_of(stream);
    s.run_until(s.asked);
    streams.erase(&s);
    delete &s;
    return success;
}
int cuStreamSynchronize(void* stream) {
    Stream& s = stream_of(stream);
    if (s.capturing) return not_ready;
    s.run_until(s.asked);
    return success;
}
int cuEventCreate(void** event, unsigned) { return *event = new Event, success; }
int cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), success; }
int cuEventRecord(void* event, void* stream) {
    Stream& s = stream_of(stream);
    *static_cast<Event*>(event) = {&s, s.asked};
    return success;
}
int cuEventSynchronize(void* event) {
    const Event& e = *static_cast<Event*>(event);
    if (e.stream) e.stream->run_until(e.position);
    return success;
}
int cuEventElapsedTime(float* milliseconds, void*, void*) { return *milliseconds = 0.0f, success; }
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    const Event e = *static_cast<Event*>(event);
    if (e.stream) stream_of(stream).ask([e] { e.stream->run_until(e.position); });
    return success;
}

int cuModuleLoadData(void** module, const char* image) {
    if (current == 0) return refuse("no context is current", no_context);
    auto loaded = std::make_unique<Module>();
    try {
        loaded->entries = ptx::Reader(image).read();
    } catch (const std::exception& error) {
        return refuse(error.what(), invalid_ptx);
    }
    return *module = loaded.release(), success;
}
int cuModuleUnload(void* module) { return delete static_cast<Module*>(module), success; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    Module& m = *static_cast<Module*>(module);
    auto& slot = m.functions[name];
    if (!slot) slot = std::make_unique<Function>();
    const auto entry = m.entries.find(name);
    if (entry != m.entries.end()) slot->ptx = entry->second;
    if (!std::getenv("EMULATION_PTX") || !slot->ptx) {
        Dl_info here;
        dladdr(reinterpret_cast<void*>(&cuInit), &here);
        static void* const self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        const std::string compiled = std::string(name).substr(0, std::string(name).find("__"));
        slot->host = reinterpret_cast<void (*)(const void*)>(dlsym(self, compiled.c_str()));
        if (slot->host) slot->host_bytes = *static_cast<size_t*>(dlsym(self, (compiled + "_bytes").c_str()));
        if (slot->host && compiled == name) slot->ptx = nullptr;
    }
    if (!slot->ptx && !slot->host) return not_found;
    return *function = slot.get(), success;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    int most = 0;
    cuDeviceGetAttribute(&most, 97, 0);
    if (attribute != 8 || value > most) return invalid_value;
    return static_cast<Function*>(function)->shared_limit = value, success;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void**) {
    const Function& f = *static_cast<Function*>(function);
    const emulation::Dim grid{gx, gy, gz}, threads{bx, by, bz};
    if (grid.count() == 0 || gy > 65535 || gz > 65535 || threads.count() == 0 || threads.count() > 1024 ||
        int(shared) > f.shared_limit)
        return refuse("a launch outside of the limits", invalid_value);
    // The first parameter of a kernel that was compiled lies first in both.
    std::vector<uint8_t> block(f.ptx ? f.ptx->parameter_bytes : f.host_bytes);
    if (f.ptx)
        for (const ptx::Function::Parameter& p : f.ptx->parameters)
            std::memcpy(&block[p.offset], parameters[&p - f.ptx->parameters.data()], p.size);
    else
        std::memcpy(block.data(), parameters[0], block.size());
    stream_of(stream).ask([=] {
        const std::function<float(float, int64_t)> ending = [&](float x, int64_t at) {
            ptx::Runner runner(*f.ptx, block.data());
            runner.named("%value") = ptx::to_bits(x), runner.named("%position") = uint64_t(at);
            runner.run();
            return ptx::to_float(runner.named("%value"));
        };
        emulation::ending = f.ptx ? &ending : nullptr;
        emulation::launch(grid, threads, shared, [&] {
            if (f.host) return f.host(block.data());
            try {
                ptx::Runner(*f.ptx, block.data()).run();
            } catch (const std::exception& error) {
                emulation::fail(error.what());
            }
        });
    });
    return success;
}

int cuStreamBeginCapture_v2(void* stream, int) {
    Stream& s = stream_of(stream);
    if (s.capturing) return invalid_value;
    return s.capturing = true, success;
}
int cuStreamEndCapture(void* stream, void** graph) {
    Stream& s = stream_of(stream);
    if (!s.capturing) return invalid_value;
    s.capturing = false;
    *graph = new Graph(std::move(s.captured));
    s.captured.clear();
    return success;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    return *executable = new Graph(*static_cast<Graph*>(graph)), success;
}
int cuGraphLaunch(void* executable, void* stream) {
    for (const Work& work : *static_cast<Graph*>(executable)) stream_of(stream).ask(work);
    return success;
}
int cuGraphExecDestroy(void* executable) { return delete static_cast<Graph*>(executable), success; }
int cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), success; }
int cuGetErrorName(int status, const char** name) {
    return *name = status == out_of_memory ? "CUDA_ERROR_OUT_OF_MEMORY"
                   : status == invalid_ptx ? "CUDA_ERROR_INVALID_PTX"
                                           : "CUDA_ERROR",
           success;
}
int cuGetErrorString(int, const char** text) { return *text = "see the emulation's own words", success; }
}
