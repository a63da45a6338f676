// Bindings alone: argument conversion, and nothing computed here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "executor.h"
#include "keccak.h"
#include "kernels.h"
#include "program.h"
#include "regions.h"
#include "scalar_code.h"
#include "threads.h"

namespace py = pybind11;
using gv::Executor;

namespace {

py::bytes digest(const uint8_t* bytes) { return py::bytes(reinterpret_cast<const char*>(bytes), 32); }

// Any C-contiguous buffer as bytes.
struct Bytes {
    explicit Bytes(const py::buffer& buffer) {
        if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
    }
    ~Bytes() { PyBuffer_Release(&view); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    const uint8_t* data() const { return static_cast<const uint8_t*>(view.buf); }
    size_t size() const { return size_t(view.len); }
    Py_buffer view{};
};

std::vector<std::string> names(const char* const* list) {
    std::vector<std::string> out;
    for (; *list; list++) out.emplace_back(*list);
    return out;
}

void bind_machine(py::module_& m) {
    m.def("built_isas", [] { return names(gv::built_isas()); });
    m.def("supported_isas", [] { return names(gv::supported_isas()); });
    m.def("isa", [] { return std::string(gv::kernels().name); });
    m.def("use_isa", [](const std::string& name) {
        if (!gv::use_isa(name.c_str())) throw py::value_error("instruction set '" + name + "' is not supported here");
    });
    m.def("get_threads", &gv::get_threads);
    m.def("set_threads", &gv::set_threads);
    m.def("raw_control_register", &gv::raw_control_register);
    m.def("set_control_register", &gv::set_control_register);
    m.def("control_register", &gv::control_register,
          "Bits of the control register that would change results; 0 when the numerics hold.");
    m.def("use_published", &gv::use_published,
          "For tests: off, programs planned from now on run in the virtual machine even where a compiled one exists.");
    m.def("operation_names", [] {
        std::vector<std::string> names;
        for (const char* const* n = gv::operation_names(); *n; n++) names.emplace_back(*n);
        return names;
    });
    m.def("worker_control_registers", [] {
        std::vector<uint32_t> found(size_t(gv::get_threads()));
        gv::parallel_for(int64_t(found.size()), [&](int64_t i) { found[size_t(i)] = gv::control_register(); });
        return found;
    });
}

void bind_hashes(py::module_& m) {
    m.def("keccak256", [](const py::buffer& data) {
        Bytes bytes(data);
        uint8_t out[32];
        gv::keccak256(bytes.data(), bytes.size(), out);
        return digest(out);
    });
    m.def("blake3_root", [](const py::buffer& data) {
        Bytes bytes(data);
        uint8_t root[32];
        {
            py::gil_scoped_release release;
            gv::kernels().blake3({bytes.data(), bytes.size(), nullptr, root});
        }
        return digest(root);
    });
    m.def("blake3_tree", [](const py::buffer& data) {
        Bytes bytes(data);
        PyObject* tree = PyBytes_FromStringAndSize(nullptr, py::ssize_t(gv::blake3_tree_bytes(bytes.size())));
        if (!tree) throw py::error_already_set();
        uint8_t root[32];
        {
            uint8_t* levels = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(tree));
            py::gil_scoped_release release;
            gv::kernels().blake3({bytes.data(), bytes.size(), levels, root});
        }
        return py::reinterpret_steal<py::bytes>(tree);
    });
    m.def("merkle_root", [](const std::vector<py::bytes>& leaves) {
        uint8_t root[32];
        gv::merkle_root({leaves.begin(), leaves.end()}, root);
        return digest(root);
    });
}

void bind_program(py::module_& m) {
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const gv::Refusal& refusal) {
            const py::object errors = py::module_::import("gensyn_verify.errors");
            const py::object kind = errors.attr(refusal.limit ? "LimitError" : "ProgramError");
            PyErr_SetString(kind.ptr(), refusal.what());
        }
    });
    m.def(
        "program_digest",
        [](const py::buffer& data) {
            Bytes bytes(data);
            return digest(gv::decode_program(bytes.data(), bytes.size()).digest.data());
        },
        "Decodes and checks a program; its digest. ProgramError or LimitError as program.decode.");
}

// The memory of a place as a NumPy array of the carrier dtype (backends/arrays.py) that keeps the executor alive.
py::array array(const py::object& self, const gv::Place& place) {
    constexpr const char* carriers[] = {"<f4", "<u2", "<f2", "<i4", "<u4", "u1", "?", "i1"};
    std::vector<py::ssize_t> shape(place.type.shape.begin(), place.type.shape.end()), strides;
    for (int64_t s : place.strides) strides.push_back(py::ssize_t(s) * gv::dtype_size(place.type.dtype));
    return py::array(py::dtype(carriers[size_t(place.type.dtype)]), std::move(shape), std::move(strides),
                     self.cast<const Executor&>().at(place), self);
}

void check_index(size_t n, size_t count) {
    if (n >= count) throw py::index_error(std::to_string(n) + " of " + std::to_string(count));
}

void bind_executor(py::module_& m) {
    py::class_<Executor>(m, "Executor")
        .def(py::init([](const py::buffer& program, bool keep, bool fuse, int64_t memory_limit) {
                 Bytes bytes(program);
                 py::gil_scoped_release release;
                 return std::make_unique<Executor>(
                     gv::decode_program(bytes.data(), bytes.size()),
                     gv::ExecutorOptions{keep, fuse ? gv::RegionsOf::cpu : gv::RegionsOf::none, memory_limit});
             }),
             py::arg("program"), py::arg("keep") = false, py::arg("fuse") = true, py::arg("memory_limit") = -1)
        .def_property_readonly("arena_bytes", &Executor::arena_bytes)
        .def_property_readonly("calls", &Executor::calls)
        .def_property_readonly("regions", &Executor::regions)
        .def("input",
             [](const py::object& self, size_t value) {
                 const Executor& e = self.cast<const Executor&>();
                 check_index(value, e.program().inputs.size());
                 return array(self, e.input(value));
             })
        .def("state",
             [](const py::object& self, size_t number) {
                 const Executor& e = self.cast<const Executor&>();
                 check_index(number, e.states());
                 return array(self, e.state(number));
             })
        .def("metric",
             [](const py::object& self, size_t number) {
                 const Executor& e = self.cast<const Executor&>();
                 check_index(number, e.metrics());
                 return array(self, e.metric(number));
             })
        .def("value",
             [](const py::object& self, size_t value) {
                 const Executor& e = self.cast<const Executor&>();
                 check_index(value, e.keeps() ? e.program().types.size() : 0);
                 return array(self, e.value(value));
             })
        .def("run", &Executor::run, py::call_guard<py::gil_scoped_release>());
    m.def("set_region_elements", &gv::set_region_elements, py::arg("least") = 1 << 14, py::arg("block") = 1 << 15,
          "For tests: programs planned from now on have regions of at least so many elements, in blocks of so many.");
}

// A plan as data for gensyn_verify/backends/device/plan.py: a tuple a call, its kind first.
struct Told : gv::PlanWriter {
    using Ints = std::vector<int64_t>;
    py::list calls;

    static py::tuple ints(const Ints& values) { return py::tuple(py::cast(values)); }
    static py::tuple views(const std::vector<gv::View>& all) {
        py::list out;
        for (const gv::View& v : all) out.append(py::make_tuple(v.offset, int(v.dtype), ints(v.strides)));
        return py::tuple(out);
    }
    template <class... Args>
    void call(const char* kind, const Args&... args) {
        calls.append(py::make_tuple(kind, args...));
    }

    int scalar_program(const gv::ScalarProgram&) override { return 0; }
    void map(int program, Ints shape, std::vector<gv::View> inputs, std::vector<gv::View> outputs) override {
        call("map", program, ints(shape), views(inputs), views(outputs));
    }
    void scan(int program, Ints shape, const std::vector<gv::View>& inputs,
              const std::vector<gv::View>& outputs) override {
        call("scan", program, ints(shape), views(inputs), views(outputs));
    }
    void dot(const gv::DotArgs& d, int64_t a, int64_t b, int64_t c) override {
        call("dot", d.batch, d.m, d.n, d.k, a, b, c, d.a_batch_stride, d.b_batch_stride, int(d.a_dtype), int(d.b_dtype),
             int(d.c_dtype), d.transpose_a, d.transpose_b);
    }
    void reduce(gv::Reduction op, Ints kept_shape, Ints kept_strides, Ints reduced_shape, Ints reduced_strides,
                int64_t x, gv::Dtype x_dtype, int64_t y, gv::Dtype y_dtype) override {
        call("reduce", int(op), ints(kept_shape), ints(kept_strides), ints(reduced_shape), ints(reduced_strides), x,
             int(x_dtype), y, int(y_dtype));
    }
    void copy(int size, Ints shape, Ints source_strides, Ints target_strides, int64_t source, int64_t target) override {
        call("copy", size, ints(shape), ints(source_strides), ints(target_strides), source, target);
    }
    void fill(int size, uint32_t bits, int64_t count, int64_t target) override {
        call("fill", size, bits, count, target);
    }
    void gather(int64_t data, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                gv::Dtype dtype) override {
        call("gather", data, index, out, rows, row, count, int(dtype));
    }
    void scatter_add(int64_t source, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                     gv::Dtype source_dtype, gv::Dtype out_dtype) override {
        call("scatter_add", source, index, out, rows, row, count, int(source_dtype), int(out_dtype));
    }
    void random(int64_t seed, int64_t step, uint32_t stream, int64_t count, int64_t out) override {
        call("random", seed, step, stream, count, out);
    }
    void sort(int64_t x, gv::Dtype dtype, int64_t out, int64_t rows, int64_t row) override {
        call("sort", x, int(dtype), out, rows, row);
    }
    void begin_region(int64_t rows, int64_t, int64_t scratch_bytes, std::vector<gv::PrivateValue> values,
                      std::vector<gv::Stream>) override {
        py::list out;
        for (const gv::PrivateValue& v : values) out.append(py::make_tuple(v.offset, v.bytes, v.row_bytes, v.scratch));
        call("begin_region", rows, scratch_bytes, py::tuple(out));
    }
    void end_region() override { call("end_region"); }
};

void bind_device_plan(py::module_& m) {
    m.def(
        "device_plan",
        [](const py::buffer& program, bool keep, bool regions) {
            Bytes bytes(program);
            const gv::RegionsOf kind = regions ? gv::RegionsOf::device : gv::RegionsOf::none;
            const gv::ExecutorOptions options{keep, kind, INT64_MAX};
            const gv::PlannedProgram planned(gv::decode_program(bytes.data(), bytes.size()), options);
            const auto places = [](const std::vector<gv::Place>& all) {
                py::list out;
                for (const gv::Place& p : all)
                    out.append(py::make_tuple(p.byte_offset(), int(p.type.dtype), Told::ints(p.type.shape),
                                              Told::ints(p.strides)));
                return out;
            };
            Told told;
            planned.write(told);
            return py::make_tuple(planned.arena_bytes(), told.calls, places(planned.places()), places(planned.states()),
                                  places(planned.metrics()));
        },
        py::arg("program"), py::arg("keep"), py::arg("regions"),
        "Where a program's values lie in an arena and the calls of a step: (bytes, calls, values, states, metrics).");
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The native backend of gensyn_verify; see gensyn_verify.backends.cpu.";
    bind_machine(m);
    bind_hashes(m);
    bind_program(m);
    bind_executor(m);
    bind_device_plan(m);
}
