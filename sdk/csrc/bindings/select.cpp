#include "select.h"

#include <pybind11/stl.h>

#include <limits>

#include "arrays.h"

namespace kerf::bindings {
namespace {

void check_rule(const SelectRule& rule) {
    check_range(rule.score_threshold, "score_threshold", 0.0, 1.0);
    check_range(rule.nms_threshold, "nms_threshold", 0.0, 1.0);
    check_range(static_cast<double>(rule.max_detections), "max_detections", 0.0, std::numeric_limits<double>::infinity());
}

py::tuple run(const py::object& scores_in, const py::object& box_deltas, const py::object& proposals_in, std::pair<int64_t, int64_t> size,
              std::array<float, 4> weights, float score_threshold, float nms_threshold, int64_t max_detections) {
    const auto boxes = input<float>(proposals_in, "proposals", {"N", 4});
    const int64_t count = boxes.shape(0);
    const auto scores = input<float>(scores_in, "scores", {Dim("N", count), "K"});
    const int64_t classes = scores.shape(1);
    require(classes >= 1, "scores: expected at least one class, got " + describe(scores));
    const auto deltas = input<float>(box_deltas, "box_deltas", {Dim("N", count), "4K or 4"});
    require(deltas.shape(1) == 4 || deltas.shape(1) == 4 * classes,
            "box_deltas: expected 4 or 4K=" + std::to_string(4 * classes) + " columns, got " + describe(deltas));
    const Shape shape = to_shape(size, "size");
    const SelectRule rule{to_coder(weights), score_threshold,
                          nms_threshold,     max_detections,
                          static_cast<float>(shape.height), static_cast<float>(shape.width)};
    check_rule(rule);
    Detections found;
    {
        const py::gil_scoped_release release;
        found = select_detections({scores.data(), deltas.data(), as_boxes(boxes), count, classes, deltas.shape(1) == 4}, rule);
    }
    return py::make_tuple(to_array(found.boxes), to_array(found.scores), to_array(found.labels));
}

}  // namespace

void bind_select(py::module_& module) {
    module.def("select_detections", &run, py::arg("scores"), py::arg("box_deltas"), py::arg("proposals"), py::arg("size"),
               py::arg("coder_weights"), py::arg("score_threshold"), py::arg("nms_threshold"), py::arg("max_detections"));
}

}  // namespace kerf::bindings
