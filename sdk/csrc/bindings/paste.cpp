#include "paste.h"

#include <limits>

#include "arrays.h"

namespace kerf::bindings {
namespace {

struct PasteArguments {
    PasteArguments(const py::object& mask_logits, const py::object& boxes_in, std::pair<int64_t, int64_t> size, double limit)
        : boxes(input<float>(boxes_in, "boxes", {"N", 4})),
          logits(input<float>(mask_logits, "mask_logits", {Dim("N", boxes.shape(0)), "Hm", "Wm"})),
          shape(to_shape(size, "shape")),
          threshold(limit) {
        // At 0 every pixel of the crop would be foreground, those outside the grid too.
        check_range(threshold, "threshold", std::numeric_limits<double>::min(), 1.0);
        require(logits.shape(1) > 0 && logits.shape(2) > 0, "mask_logits: expected Hm and Wm of at least 1, got " + describe(logits));
    }
    MaskGrids grids() const { return {logits.data(), as_boxes(boxes), boxes.shape(0), logits.shape(1), logits.shape(2)}; }

    py::array_t<float, py::array::c_style> boxes, logits;
    Shape shape;
    double threshold;
};

py::tuple crops(const py::object& mask_logits, const py::object& boxes, std::pair<int64_t, int64_t> size, double threshold) {
    const PasteArguments arguments(mask_logits, boxes, size, threshold);
    std::vector<PixelBox> crop_boxes;
    std::vector<int64_t> offsets;
    {
        const py::gil_scoped_release release;
        crop_boxes = paste_boxes(arguments.grids(), arguments.shape);
        offsets = crop_offsets(crop_boxes);
    }
    auto data = empty<uint8_t>({offsets.back()});
    uint8_t* to = data.mutable_data();
    {
        const py::gil_scoped_release release;
        std::fill_n(to, offsets.back(), uint8_t{0});
        paste_crops(arguments.grids(), crop_boxes, offsets, threshold, to);
    }
    return py::make_tuple(to_array(crop_boxes), to_array(offsets), data);
}

py::list rle(const py::object& mask_logits, const py::object& boxes, std::pair<int64_t, int64_t> size, double threshold) {
    const PasteArguments arguments(mask_logits, boxes, size, threshold);
    std::vector<std::string> texts;
    {
        const py::gil_scoped_release release;
        texts = paste_rle(arguments.grids(), arguments.shape, threshold);
    }
    return to_bytes(texts);
}

}  // namespace

void bind_paste(py::module_& module) {
    module.def("paste_masks", &crops, py::arg("mask_logits"), py::arg("boxes"), py::arg("shape"), py::arg("threshold"));
    module.def("paste_rle", &rle, py::arg("mask_logits"), py::arg("boxes"), py::arg("shape"), py::arg("threshold"));
}

}  // namespace kerf::bindings
