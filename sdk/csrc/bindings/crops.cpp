#include "crops.h"

#include "arrays.h"

namespace kerf::bindings {
namespace {

py::array_t<bool> dense(const py::object& boxes, const py::object& offsets, const py::object& data, std::pair<int64_t, int64_t> size) {
    const CropArrays crops(boxes, offsets, data);
    const Shape shape = to_shape(size, "shape");
    check_crops_inside(crops.view(), shape);
    auto masks = empty<bool>({crops.boxes.shape(0), shape.height, shape.width});
    bool* out = masks.mutable_data();
    {
        const py::gil_scoped_release release;
        std::fill_n(out, masks.size(), false);
        crops_to_dense(crops.view(), shape, reinterpret_cast<uint8_t*>(out));
    }
    return masks;
}

py::tuple cut(const py::object& dense_masks) {
    const auto masks = input<bool>(dense_masks, "masks", {"N", "H", "W"});
    const Shape shape = to_shape({masks.shape(1), masks.shape(2)}, "masks");
    const auto* from = reinterpret_cast<const uint8_t*>(masks.data());
    std::vector<PixelBox> boxes;
    std::vector<int64_t> offsets;
    {
        const py::gil_scoped_release release;
        boxes = tight_boxes(from, masks.shape(0), shape);
        offsets = crop_offsets(boxes);
    }
    auto data = empty<uint8_t>({offsets.back()});
    uint8_t* to = data.mutable_data();
    {
        const py::gil_scoped_release release;
        cut_crops(from, shape, boxes, offsets, to);
    }
    return py::make_tuple(to_array(boxes), to_array(offsets), data);
}

}  // namespace

void bind_crops(py::module_& module) {
    module.def("check_crops", [](const py::object& b, const py::object& o, const py::object& d) { const CropArrays checked(b, o, d); },
               py::arg("boxes"), py::arg("offsets"), py::arg("data"));
    module.def("crops_to_dense", &dense, py::arg("boxes"), py::arg("offsets"), py::arg("data"), py::arg("shape"));
    module.def("dense_to_crops", &cut, py::arg("masks"));
}

}  // namespace kerf::bindings
