#include "nms.h"

#include "arrays.h"

namespace kerf::bindings {
namespace {

py::array_t<int64_t> keep(const py::object& boxes_in, const py::object& scores_in, double iou_threshold, const py::object& groups_in) {
    const auto boxes = input<float>(boxes_in, "boxes", {"N", 4});
    const int64_t count = boxes.shape(0);
    const auto scores = input<float>(scores_in, "scores", {Dim("N", count)});
    py::array_t<int64_t, py::array::c_style> groups;
    if (!groups_in.is_none()) groups = input<int64_t>(groups_in, "groups", {Dim("N", count)});
    check_range(iou_threshold, "iou_threshold", 0.0, 1.0);
    std::vector<int64_t> kept;
    {
        const py::gil_scoped_release release;
        kept = nms(as_boxes(boxes), scores.data(), groups_in.is_none() ? nullptr : groups.data(), count, static_cast<float>(iou_threshold));
    }
    return to_array(kept);
}

}  // namespace

void bind_nms(py::module_& module) {
    module.def("nms", &keep, py::arg("boxes"), py::arg("scores"), py::arg("iou_threshold"), py::arg("groups"));
}

}  // namespace kerf::bindings
