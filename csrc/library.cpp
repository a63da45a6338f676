// The C interface: arguments in, C++ objects called, exceptions turned into status and text. Nothing is computed here.
#include <cstring>
#include <new>
#include <string>

#include "commit.h"
#include "executor.h"
#include "gensyn_verify.h"
#include "keccak.h"
#include "kernels.h"
#include "sampler.h"
#include "threads.h"

struct gv_program {
    gv::Program program;
    std::vector<gv_tensor> groups[4];
};

struct gv_executor {
    gv_executor(const gv::Program& program, int64_t memory_limit)
        : executor(program, {false, gv::RegionsOf::cpu, memory_limit}),
          roots(executor.states()),
          known(executor.states(), false) {}
    gv::Executor executor;
    std::vector<gv::Digest> roots;  // of state tensors
    std::vector<bool> known;        // constants whose root was computed since the last load
    bool loaded = false;
};

struct gv_log {
    gv::Log log;
};

namespace {

using gv::Refusal;

// Fixed memory: an error about memory must not need any.
thread_local char error_text[1024] = "";

gv_status fail(gv_status status, const char* text) noexcept {
    std::strncpy(error_text, text, sizeof error_text - 1);
    return status;
}

template <class Call>
gv_status guarded(Call&& call) noexcept {
    try {
        call();
        return GV_OK;
    } catch (const Refusal& refusal) {
        return fail(refusal.limit ? GV_LIMIT : GV_INVALID, refusal.what());
    } catch (const std::bad_alloc&) {
        return fail(GV_NO_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return fail(GV_INVALID, error.what());
    }
}

void check(bool ok, const std::string& text) {
    if (!ok) throw Refusal(text);
}

// No step changes a state whose next value is itself.
bool is_constant(const gv::Program& p, size_t state) { return p.outputs[state].value == state; }

gv_tensor describe(const std::string& name, const gv::TensorType& type) {
    return {name.c_str(), gv_dtype(type.dtype), int(type.shape.size()), type.shape.data(), size_t(type.nbytes()), 0};
}

void fill_groups(gv_program& p) {
    for (size_t v = 0; v < p.program.inputs.size(); v++) {
        const gv::Input& input = p.program.inputs[v];
        gv_tensor tensor = describe(input.name, p.program.types[v]);
        tensor.constant = input.role == gv::Role::state && is_constant(p.program, v);
        p.groups[size_t(input.role)].push_back(tensor);
    }
    for (const gv::Output& o : p.program.outputs)
        if (o.role == gv::OutputRole::metric) p.groups[GV_METRIC].push_back(describe(o.name, p.program.types[o.value]));
}

void copy_in(const gv::Executor& e, const gv::Place& place, const std::string& name, const void* bytes) {
    check(bytes, "tensor " + name + " is null");
    const size_t n = size_t(place.type.nbytes());
    if (place.type.dtype == gv::Dtype::boolean)
        for (size_t i = 0; i < n; i++)
            check(static_cast<const uint8_t*>(bytes)[i] <= 1, "tensor " + name + ": a boolean is stored as 0 or 1");
    std::memcpy(e.at(place), bytes, n);
}

void copy_out(const gv::Executor& e, const gv::Place& place, void* bytes) {
    const gv::Ints target = gv::row_major(place.type.shape);
    const gv::CopyArgs args{gv::dtype_size(place.type.dtype),
                            int(target.size()),
                            place.type.shape.data(),
                            place.strides.data(),
                            target.data(),
                            e.at(place),
                            bytes};
    if (place.type.elements()) gv::kernels().copy(args);
}

// The inputs of one role, given in the order of their names.
void copy_group(const gv::Executor& e, gv::Role role, const void* const* given) {
    const gv::Program& p = e.program();
    size_t n = 0;
    for (size_t v = 0; v < p.inputs.size(); v++) {
        if (p.inputs[v].role != role) continue;
        check(given, "a group of inputs is null");
        copy_in(e, role == gv::Role::state ? e.state(v) : e.input(v), p.inputs[v].name, given[n++]);
    }
}

gv::Digest tensor_root(const void* bytes, size_t n) {
    gv::Digest root;
    gv::NumericsScope numerics;
    gv::kernels().blake3({static_cast<const uint8_t*>(bytes), n, nullptr, root.data()});
    return root;
}

const gv::Digest& state_tensor_root(gv_executor& x, size_t state) {
    const gv::Place& place = x.executor.state(state);
    if (!x.known[state]) x.roots[state] = tensor_root(x.executor.at(place), size_t(place.type.nbytes()));
    x.known[state] = is_constant(x.executor.program(), state);
    return x.roots[state];
}

}  // namespace

const char* gv_error(void) { return error_text; }

const char* gv_isa(void) { return gv::kernels().name; }

gv_status gv_use_isa(const char* name) {
    return guarded([&] { check(name && gv::use_isa(name), "the instruction set is not supported here"); });
}

int gv_threads(void) { return gv::get_threads(); }

gv_status gv_set_threads(int n) {
    return guarded([&] {
        check(n >= 1, "threads: 1 or more expected");
        gv::set_threads(n);
    });
}

gv_status gv_program_load(const void* bytes, size_t size, gv_program** program) {
    return guarded([&] {
        check(bytes && program, "gv_program_load: a null argument");
        auto p = std::make_unique<gv_program>();
        p->program = gv::decode_program(static_cast<const uint8_t*>(bytes), size);
        fill_groups(*p);
        *program = p.release();
    });
}

void gv_program_free(gv_program* program) { delete program; }

void gv_program_digest(const gv_program* program, uint8_t digest[32]) {
    std::memcpy(digest, program->program.digest.data(), 32);
}

size_t gv_program_count(const gv_program* program, int group) {
    return group >= GV_STATE && group <= GV_METRIC ? program->groups[group].size() : 0;
}

gv_status gv_program_tensor(const gv_program* program, int group, size_t index, gv_tensor* tensor) {
    return guarded([&] {
        check(program && tensor, "gv_program_tensor: a null argument");
        const size_t count = gv_program_count(program, group);
        check(index < count, "tensor " + std::to_string(index) + " of a group of " + std::to_string(count));
        *tensor = program->groups[group][index];
    });
}

gv_status gv_executor_create(const gv_program* program, int64_t memory_limit, gv_executor** executor) {
    return guarded([&] {
        check(program && executor, "gv_executor_create: a null argument");
        *executor = new gv_executor(program->program, memory_limit);
    });
}

void gv_executor_free(gv_executor* executor) { delete executor; }

gv_status gv_executor_load(gv_executor* executor, const void* const* state) {
    return guarded([&] {
        check(executor, "gv_executor_load: a null argument");
        executor->loaded = false;  // until every tensor was good
        executor->known.assign(executor->known.size(), false);
        copy_group(executor->executor, gv::Role::state, state);
        executor->loaded = true;
    });
}

gv_status gv_executor_step(gv_executor* executor, const void* const* batch, const void* const* scalars,
                           void* const* metrics) {
    return guarded([&] {
        check(executor, "gv_executor_step: a null argument");
        const gv::Executor& e = executor->executor;
        check(executor->loaded || e.states() == 0, "a step before gv_executor_load: there is no state yet");
        copy_group(e, gv::Role::batch, batch);
        copy_group(e, gv::Role::scalar, scalars);
        e.run();
        for (size_t n = 0; metrics && n < e.metrics(); n++)
            if (metrics[n]) copy_out(e, e.metric(n), metrics[n]);
    });
}

gv_status gv_executor_read(const gv_executor* executor, size_t index, void* bytes) {
    return guarded([&] {
        check(executor && bytes, "gv_executor_read: a null argument");
        const gv::Executor& e = executor->executor;
        check(executor->loaded, "no state was loaded yet");
        check(index < e.states(), "state tensor " + std::to_string(index) + " of " + std::to_string(e.states()));
        copy_out(e, e.state(index), bytes);
    });
}

gv_status gv_executor_roots(gv_executor* executor, uint8_t (*tensor_roots)[32], uint8_t state_root[32]) {
    return guarded([&] {
        check(executor, "gv_executor_roots: a null argument");
        const gv::Program& p = executor->executor.program();
        check(executor->loaded || executor->executor.states() == 0, "no state was loaded yet");
        std::vector<gv::GroupEntry> entries;
        for (size_t s = 0; s < executor->executor.states(); s++)
            entries.push_back({&p.inputs[s].name, &p.types[s], state_tensor_root(*executor, s)});
        const gv::Digest root = gv::group_root(entries);
        for (size_t s = 0; tensor_roots && s < entries.size(); s++)
            std::memcpy(tensor_roots[s], entries[s].root.data(), 32);
        if (state_root) std::memcpy(state_root, root.data(), 32);
    });
}

void gv_tensor_root(const void* bytes, size_t size, uint8_t root[32]) {
    std::memcpy(root, tensor_root(bytes, size).data(), 32);
}

void gv_keccak256(const void* bytes, size_t size, uint8_t digest[32]) {
    gv::keccak256(static_cast<const uint8_t*>(bytes), size, digest);
}

gv_status gv_merkle_root(const void* const* leaves, const size_t* sizes, size_t count, uint8_t root[32]) {
    return guarded([&] {
        check(root && (count == 0 || (leaves && sizes)), "gv_merkle_root: a null argument");
        std::vector<std::string_view> views;
        for (size_t i = 0; i < count; i++) views.emplace_back(static_cast<const char*>(leaves[i]), sizes[i]);
        gv::merkle_root(views, root);
    });
}

gv_status gv_group_root(const gv_tensor* tensors, const uint8_t (*tensor_roots)[32], size_t count, uint8_t root[32]) {
    return guarded([&] {
        check(root && (count == 0 || (tensors && tensor_roots)), "gv_group_root: a null argument");
        std::vector<std::string> names;
        std::vector<gv::TensorType> types;
        for (size_t i = 0; i < count; i++) {
            const gv_tensor& t = tensors[i];
            check(t.name && t.dtype >= GV_F32 && t.dtype <= GV_I8 && t.rank >= 0 && t.rank <= 8, "no tensor type");
            check(t.rank == 0 || t.shape, "a tensor without its shape");
            names.emplace_back(t.name);
            check(names.back().size() <= 200, "a name has at most 200 characters");
            check(i == 0 || names[i - 1] < names[i], "the tensors of a group stand in the order of their names");
            types.push_back({gv::Dtype(t.dtype), gv::Ints(t.shape, t.shape + t.rank)});
        }
        std::vector<gv::GroupEntry> entries(count);
        for (size_t i = 0; i < count; i++) {
            entries[i] = {&names[i], &types[i], {}};
            std::memcpy(entries[i].root.data(), tensor_roots[i], 32);
        }
        std::memcpy(root, gv::group_root(entries).data(), 32);
    });
}

gv_status gv_log_create(gv_log** log) {
    return guarded([&] {
        check(log, "gv_log_create: a null argument");
        *log = new gv_log;
    });
}

void gv_log_free(gv_log* log) { delete log; }

gv_status gv_log_append(gv_log* log, const uint8_t state_root[32], const uint8_t batch_root[32],
                        const uint8_t scalars_root[32]) {
    return guarded([&] {
        check(log && state_root && batch_root && scalars_root, "gv_log_append: a null argument");
        gv::StepRoots roots;
        std::memcpy(roots.state.data(), state_root, 32);
        std::memcpy(roots.batch.data(), batch_root, 32);
        std::memcpy(roots.scalars.data(), scalars_root, 32);
        gv::append_step(log->log, roots);
    });
}

uint64_t gv_log_steps(const gv_log* log) { return log->log.size(); }

gv_status gv_log_root(const gv_log* log, uint8_t root[32]) {
    return guarded([&] {
        check(log && root, "gv_log_root: a null argument");
        std::memcpy(root, log->log.root().data(), 32);
    });
}

gv_status gv_log_commitment(const gv_log* log, const uint8_t task[32], const uint8_t solver[20], const uint8_t salt[32],
                            uint8_t commitment[32]) {
    return guarded([&] {
        check(log && task && solver && salt && commitment, "gv_log_commitment: a null argument");
        std::memcpy(commitment, gv::run_commitment(task, solver, salt, log->log).data(), 32);
    });
}

gv_status gv_sample(const uint32_t seed[2], int64_t rows, int64_t batch, uint64_t step, int64_t* out) {
    return guarded([&] {
        check(seed && out, "gv_sample: a null argument");
        check(batch >= 1 && batch <= rows && rows <= gv::MAX_SAMPLER_ROWS && batch <= gv::MAX_SAMPLER_BATCH,
              "a batch of " + std::to_string(batch) + " from " + std::to_string(rows) + " rows");
        gv::sample({{seed[0], seed[1]}, rows, batch}, step, out);
    });
}
