#include "select.h"

#include <pybind11/stl.h>

#include <array>
#include <limits>

#include "arrays.h"

namespace kerf::bindings {
namespace {

void check_rule(const SelectRule& rule) {
    constexpr double kNoLimit = std::numeric_limits<double>::infinity(), kSmallest = std::numeric_limits<float>::min();
    for (const float weight : {rule.coder.wx, rule.coder.wy, rule.coder.ww, rule.coder.wh})
        check_range(weight, "coder_weights", kSmallest, std::numeric_limits<float>::max());
    check_range(rule.score_threshold, "score_threshold", 0.0, 1.0);
    check_range(rule.nms_threshold, "nms_threshold", 0.0, 1.0);
    check_range(static_cast<double>(rule.max_detections), "max_detections", 0.0, kNoLimit);
}

py::tuple run(const py::object& class_logits, const py::object& box_deltas, const py::object& proposals_in, std::pair<int64_t, int64_t> size,
              std::array<float, 4> weights, float score_threshold, float nms_threshold, int64_t max_detections) {
    const auto boxes = input<float>(proposals_in, "proposals", {"N", 4});
    const int64_t count = boxes.shape(0);
    const auto logits = input<float>(class_logits, "class_logits", {Dim("N", count), "K+1"});
    const int64_t classes = logits.shape(1) - 1;
    require(classes >= 1, "class_logits: expected at least one class and the background, got " + describe(logits));
    const auto deltas = input<float>(box_deltas, "box_deltas", {Dim("N", count), Dim("4K", 4 * classes)});
    const Shape shape = to_shape(size, "size");
    const SelectRule rule{{weights[0], weights[1], weights[2], weights[3]}, score_threshold, nms_threshold, max_detections,
                          static_cast<float>(shape.height), static_cast<float>(shape.width)};
    check_rule(rule);
    Detections found;
    {
        const py::gil_scoped_release release;
        found = select_detections({logits.data(), deltas.data(), as_boxes(boxes), count, classes}, rule);
    }
    return py::make_tuple(to_array(found.boxes), to_array(found.scores), to_array(found.labels));
}

}  // namespace

void bind_select(py::module_& module) {
    module.def("select_detections", &run, py::arg("class_logits"), py::arg("box_deltas"), py::arg("proposals"), py::arg("size"),
               py::arg("coder_weights"), py::arg("score_threshold"), py::arg("nms_threshold"), py::arg("max_detections"));
}

}  // namespace kerf::bindings
