#include "decode.h"

#include <pybind11/stl.h>

#include "arrays.h"

namespace kerf::bindings {
namespace {

py::array_t<float> run(const py::object& deltas_in, const py::object& boxes_in, std::pair<int64_t, int64_t> size,
                       std::array<float, 4> weights) {
    const auto boxes = input<float>(boxes_in, "boxes", {"N", 4});
    const int64_t count = boxes.shape(0);
    const auto deltas = input<float>(deltas_in, "deltas", {Dim("N", count), 4});
    const Shape shape = to_shape(size, "size");
    const BoxCoder coder = to_coder(weights);
    auto result = empty<float>({count, 4});
    auto* out = reinterpret_cast<Box*>(result.mutable_data());
    {
        const py::gil_scoped_release release;
        decode_boxes(deltas.data(), as_boxes(boxes), count, coder, static_cast<float>(shape.height), static_cast<float>(shape.width), out);
    }
    return result;
}

}  // namespace

void bind_decode(py::module_& module) {
    module.def("decode_boxes", &run, py::arg("deltas"), py::arg("boxes"), py::arg("size"), py::arg("coder_weights"));
}

}  // namespace kerf::bindings
