#include "preprocess.h"

#include <pybind11/stl.h>

#include <array>
#include <cmath>

#include "arrays.h"
#include "picture.h"

namespace kerf::bindings {

PictureView picture_view(const py::object& image) {
    require(py::isinstance<py::array>(image), "image: expected uint8 array of shape (H, W), (H, W, 1) or (H, W, 3), got " + describe(image));
    const auto array = py::reinterpret_borrow<py::array>(image);
    const int64_t channels = array.ndim() == 3 ? array.shape(2) : 1;
    const bool fits = array.dtype().equal(py::dtype::of<uint8_t>()) && (array.ndim() == 2 || array.ndim() == 3) &&
                      (channels == 1 || channels == 3);
    require(fits, "image: expected uint8 array of shape (H, W), (H, W, 1) or (H, W, 3), got " + describe(image));
    require(array.shape(0) > 0 && array.shape(1) > 0, "image: expected at least one pixel, got " + describe(image));
    return {static_cast<const uint8_t*>(array.data()), array.shape(0), array.shape(1), channels, array.strides(0), array.strides(1),
            array.ndim() == 3 ? array.strides(2) : 1};
}

void check_statistics(const std::array<float, 3>& mean, const std::array<float, 3>& std) {
    for (int c = 0; c < 3; ++c) {
        require(std::isfinite(mean[c]), "mean: expected finite values, got " + std::to_string(mean[c]));
        require(std[c] > 0.0f && std::isfinite(std[c]), "std: expected positive values, got " + std::to_string(std[c]));
    }
}

namespace {

py::array_t<float> run(const py::object& image, std::pair<int64_t, int64_t> size, std::pair<int64_t, int64_t> padded,
                       std::array<float, 3> mean, std::array<float, 3> std, bool swap_channels, bool antialias, const py::object& out) {
    const PictureView picture = picture_view(image);
    const Shape inner = to_shape(size, "size", 1), outer = to_shape(padded, "padded", 1);
    require(outer.height >= inner.height && outer.width >= inner.width,
            "padded: expected at least size (" + std::to_string(inner.height) + ", " + std::to_string(inner.width) + "), got (" +
                std::to_string(outer.height) + ", " + std::to_string(outer.width) + ")");
    check_statistics(mean, std);
    py::array_t<float> result = out.is_none() ? empty<float>({3, outer.height, outer.width})
                                              : py::array_t<float>(output<float>(out, "out", {3, outer.height, outer.width}));
    const PreprocessRule rule{inner.height, inner.width, outer.height, outer.width, {mean[0], mean[1], mean[2]}, {std[0], std[1], std[2]},
                              swap_channels, antialias};
    float* to = result.mutable_data();
    {
        const py::gil_scoped_release release;
        preprocess(picture, rule, to);
    }
    return result;
}

}  // namespace

void bind_preprocess(py::module_& module) {
    module.def("preprocess", &run, py::arg("image"), py::arg("size"), py::arg("padded"), py::arg("mean"), py::arg("std"),
               py::arg("swap_channels"), py::arg("antialias"), py::arg("out"));
}

}  // namespace kerf::bindings
