#include "proposals.h"

#include <pybind11/stl.h>

#include <limits>

#include "arrays.h"

namespace kerf::bindings {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

struct LevelArrays {
    FloatArray objectness, deltas, anchors;
};

LevelArrays level_arrays(const py::list& objectness, const py::list& deltas, const py::list& anchors, size_t l) {
    const std::string at = "[" + std::to_string(l) + "]";
    auto base = input<float>(anchors[l], "anchors" + at, {"A", 4});
    const int64_t count = base.shape(0);
    auto logits = input<float>(objectness[l], "objectness" + at, {Dim("A", count), "H", "W"});
    auto shifts = input<float>(deltas[l], "deltas" + at, {Dim("4A", 4 * count), Dim("H", logits.shape(1)), Dim("W", logits.shape(2))});
    require(logits.size() < std::numeric_limits<uint32_t>::max(), "objectness" + at + ": too many candidates");
    return {std::move(logits), std::move(shifts), std::move(base)};
}

void check_rule(const ProposalRule& rule) {
    constexpr double kNoLimit = std::numeric_limits<double>::infinity();
    check_range(static_cast<double>(rule.pre_nms), "pre_nms", 0.0, kNoLimit);
    check_range(static_cast<double>(rule.post_nms), "post_nms", 0.0, kNoLimit);
    check_range(rule.nms_threshold, "nms_threshold", 0.0, 1.0);
    check_range(rule.min_size, "min_size", 0.0, kNoLimit);
}

py::tuple run(const py::list& objectness, const py::list& deltas, const py::list& anchors, const std::vector<float>& strides,
              std::pair<int64_t, int64_t> size, int64_t pre_nms, int64_t post_nms, float nms_threshold, float min_size) {
    const size_t count = strides.size();
    require(objectness.size() == count && deltas.size() == count && anchors.size() == count,
            "levels: expected as many objectness, deltas and anchors as strides (" + std::to_string(count) + "), got " +
                std::to_string(objectness.size()) + ", " + std::to_string(deltas.size()) + ", " + std::to_string(anchors.size()));
    const Shape shape = to_shape(size, "size");
    const ProposalRule rule{pre_nms, post_nms, nms_threshold, min_size, static_cast<float>(shape.height), static_cast<float>(shape.width)};
    check_rule(rule);
    std::vector<LevelArrays> arrays;
    std::vector<ProposalLevel> levels;
    for (size_t l = 0; l < count; ++l) {
        check_range(strides[l], "strides", std::numeric_limits<float>::min(), std::numeric_limits<float>::max());
        const LevelArrays& a = arrays.emplace_back(level_arrays(objectness, deltas, anchors, l));
        levels.push_back({a.objectness.data(), a.deltas.data(), as_boxes(a.anchors), a.anchors.shape(0), a.objectness.shape(1),
                          a.objectness.shape(2), strides[l]});
    }
    Proposals found;
    {
        const py::gil_scoped_release release;
        found = proposals(levels, rule);
    }
    return py::make_tuple(to_array(found.boxes), to_array(found.scores));
}

}  // namespace

void bind_proposals(py::module_& module) {
    module.def("proposals", &run, py::arg("objectness"), py::arg("deltas"), py::arg("anchors"), py::arg("strides"), py::arg("size"),
               py::arg("pre_nms"), py::arg("post_nms"), py::arg("nms_threshold"), py::arg("min_size"));
}

}  // namespace kerf::bindings
