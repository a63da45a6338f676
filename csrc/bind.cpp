// Bindings alone: argument conversion, and nothing computed here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "keccak.h"
#include "kernels.h"
#include "plan.h"
#include "program.h"
#include "scalar_code.h"
#include "threads.h"

namespace py = pybind11;
using gv::Dtype;
using gv::Plan;

namespace {

using Ints = std::vector<int64_t>;
using PyView = std::tuple<int64_t, int, Ints>;  // offset, dtype code, strides

std::vector<gv::View> views(const std::vector<PyView>& list) {
    std::vector<gv::View> out;
    for (const auto& [offset, dtype, strides] : list) out.push_back({offset, Dtype(dtype), strides});
    return out;
}

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

void bind_plan(py::module_& m) {
    py::class_<Plan>(m, "Plan")
        .def(py::init<int64_t>())
        .def_property_readonly("arena_bytes", &Plan::arena_bytes)
        .def_property_readonly("calls", &Plan::calls)
        .def("view",
             [](py::object self, int64_t offset, int64_t bytes) {
                 Plan& plan = self.cast<Plan&>();
                 if (offset < 0 || bytes < 0 || bytes > plan.arena_bytes() - offset)
                     throw py::index_error("view outside the arena");
                 return py::array_t<uint8_t>({bytes}, {1}, plan.at(offset), self);
             })
        .def("scalar_program",
             [](Plan& plan, int inputs, std::vector<uint32_t> constants, std::vector<uint16_t> code,
                std::vector<uint16_t> outputs, std::vector<uint8_t> types) {
                 return plan.scalar_program(
                     {inputs, std::move(constants), std::move(code), std::move(outputs), std::move(types)});
             })
        .def("map", [](Plan& plan, int program, Ints shape, const std::vector<PyView>& in,
                       const std::vector<PyView>& out) { plan.map(program, std::move(shape), views(in), views(out)); })
        .def("dot",
             [](Plan& plan, int64_t batch, int64_t rows, int64_t columns, int64_t inner, PyView a, PyView b, PyView c,
                bool transpose_a, bool transpose_b) {
                 gv::DotArgs args{};
                 args.batch = batch, args.m = rows, args.n = columns, args.k = inner;
                 args.a_batch_stride = std::get<2>(a).at(0), args.b_batch_stride = std::get<2>(b).at(0);
                 args.a_dtype = Dtype(std::get<1>(a)), args.b_dtype = Dtype(std::get<1>(b));
                 args.c_dtype = Dtype(std::get<1>(c));
                 args.transpose_a = transpose_a, args.transpose_b = transpose_b;
                 plan.dot(args, std::get<0>(a), std::get<0>(b), std::get<0>(c));
             })
        .def("reduce",
             [](Plan& plan, int op, Ints kept_shape, Ints kept_strides, Ints reduced_shape, Ints reduced_strides,
                int64_t x, int x_dtype, int64_t y, int y_dtype) {
                 plan.reduce(gv::Reduction(op), std::move(kept_shape), std::move(kept_strides),
                             std::move(reduced_shape), std::move(reduced_strides), x, Dtype(x_dtype), y,
                             Dtype(y_dtype));
             })
        .def("copy", &Plan::copy)
        .def("fill", &Plan::fill)
        .def("gather", [](Plan& plan, int64_t data, int64_t index, int64_t out, int64_t rows, int64_t row,
                          int64_t count, int dtype) { plan.gather(data, index, out, rows, row, count, Dtype(dtype)); })
        .def("scatter_add",
             [](Plan& plan, int64_t source, int64_t index, int64_t out, int64_t rows, int64_t row, int64_t count,
                int source_dtype, int out_dtype) {
                 plan.scatter_add(source, index, out, rows, row, count, Dtype(source_dtype), Dtype(out_dtype));
             })
        .def("random", &Plan::random)
        .def("begin_region",
             [](Plan& plan, int64_t rows, int64_t block_rows, int64_t scratch_bytes,
                const std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>& values,
                const std::vector<std::tuple<int64_t, int64_t>>& streams) {
                 std::vector<gv::PrivateValue> own;
                 std::vector<gv::Stream> outside;
                 for (const auto& [offset, bytes, row_bytes, scratch] : values)
                     own.push_back({offset, bytes, row_bytes, scratch});
                 for (const auto& [offset, row_bytes] : streams) outside.push_back({offset, row_bytes});
                 plan.begin_region(rows, block_rows, scratch_bytes, std::move(own), std::move(outside));
             })
        .def("end_region", &Plan::end_region)
        .def("run", &Plan::run, py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Native kernels of gensyn_verify. Callers validate; see gensyn_verify.backends.cpu.";
    bind_machine(m);
    bind_hashes(m);
    bind_program(m);
    bind_plan(m);
}
