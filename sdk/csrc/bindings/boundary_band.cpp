#include "boundary_band.h"

#include <pybind11/stl.h>

#include <cmath>

#include "arrays.h"

namespace kerf::bindings {
namespace {

py::tuple band(const py::object& boxes, const py::object& offsets, const py::object& data, std::pair<int64_t, int64_t> size, int64_t width,
               double min_frac) {
    const CropArrays masks(boxes, offsets, data);
    const Shape shape = to_shape(size, "shape");
    check_crops_inside(masks.view(), shape);
    check_range(static_cast<double>(width), "width", 1, 127);
    check_range(min_frac, "min_frac", 0, std::nextafter(1.0, 0.0));
    const double side = static_cast<double>(2 * width + 1);
    const BandRule rule{width, static_cast<int64_t>(std::floor(min_frac * side * side))};
    const std::vector<PixelBox> grown = band_boxes(masks.view(), shape, width);
    const std::vector<int64_t> ends = crop_offsets(grown);
    auto result = empty<uint8_t>({ends.back()});
    uint8_t* to = result.mutable_data();
    {
        const py::gil_scoped_release release;
        boundary_band(masks.view(), rule, grown, ends, to);
    }
    return py::make_tuple(to_array(grown), to_array(ends), result);
}

}  // namespace

void bind_boundary_band(py::module_& module) {
    module.def("boundary_band", &band, py::arg("boxes"), py::arg("offsets"), py::arg("data"), py::arg("shape"), py::arg("width"),
               py::arg("min_frac"));
}

}  // namespace kerf::bindings
