#include "roi_align.h"

#include <pybind11/stl.h>

#include <atomic>
#include <limits>
#include <mutex>

#include "arrays.h"

namespace kerf::bindings {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;

// The core's pyramid and the arrays that it reads.
class PyramidHandle {
public:
    explicit PyramidHandle(std::vector<double> strides) : pyramid_(check_strides(std::move(strides))) {}

    void set(const py::list& features) {
        require(static_cast<int64_t>(features.size()) == pyramid_.num_levels(),
                "features: expected one array per stride (" + std::to_string(pyramid_.num_levels()) + "), got " +
                    std::to_string(features.size()));
        std::vector<FloatArray> arrays;
        std::vector<FeatureMap> maps;
        for (size_t l = 0; l < features.size(); ++l) {
            arrays.push_back(feature_array(features[l], "features[" + std::to_string(l) + "]", maps));
            const FloatArray& a = arrays.back();
            maps.push_back({a.data(), a.shape(0), a.shape(1), a.shape(2), a.shape(3)});
        }
        replace(maps, arrays);
        // `arrays` now holds the old ones, and they go with the interpreter's lock held.
    }

    void clear() {
        std::vector<FloatArray> none;
        replace({}, none);
    }

    py::array_t<float> roi_align(const py::object& boxes_in, const py::object& batch_in, int64_t output_size, int64_t sampling_ratio,
                                 const py::object& level_in, const py::object& out, bool aligned) {
        const auto boxes = input<float>(boxes_in, "boxes", {"N", 4});
        const int64_t count = boxes.shape(0), channels = channels_;
        require(channels > 0, "the pyramid was cleared; call set() with feature maps first");
        const auto batch = input<int32_t>(batch_in, "batch", {Dim("N", count)});
        check_range(static_cast<double>(output_size), "output_size", 1, 256);
        check_range(static_cast<double>(sampling_ratio), "sampling_ratio", 0, 64);
        const int64_t level = level_in.is_none() ? -1 : level_in.cast<int64_t>();
        if (!level_in.is_none()) check_range(static_cast<double>(level), "level", 0, static_cast<double>(pyramid_.num_levels() - 1));
        py::array_t<float> result =
            out.is_none() ? empty<float>({count, channels, output_size, output_size})
                          : py::array_t<float>(output<float>(out, "out", {Dim("N", count), Dim("C", channels), output_size, output_size}));
        float* to = result.mutable_data();
        {
            const py::gil_scoped_release release;
            pyramid_.roi_align({as_boxes(boxes), batch.data(), count}, {output_size, sampling_ratio, level, aligned}, channels, to);
        }
        return result;
    }

private:
    // Maps and the arrays that they point into change together, whatever order threads get the interpreter's lock in. Swapping handles
    // does not touch reference counts, so it needs that lock as little as the core does.
    void replace(const std::vector<FeatureMap>& maps, std::vector<FloatArray>& arrays) {
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(replacing_);
        if (maps.empty())
            pyramid_.clear();
        else
            pyramid_.set(maps);
        channels_ = maps.empty() ? 0 : maps.front().channels;
        arrays_.swap(arrays);
    }

    static std::vector<double> check_strides(std::vector<double> strides) {
        require(!strides.empty() && strides.size() <= 16, "strides: expected 1 to 16 levels, got " + std::to_string(strides.size()));
        for (const double stride : strides)
            check_range(stride, "strides", std::numeric_limits<float>::min(), std::numeric_limits<float>::max());
        return strides;
    }

    // All levels have the batch and the channels of the first.
    static FloatArray feature_array(const py::handle& feature, const std::string& name, const std::vector<FeatureMap>& before) {
        if (before.empty()) {
            auto array = input<float>(feature, name, {"B", "C", "H", "W"});
            require(array.size() > 0, name + ": expected B, C, H and W of at least 1, got " + describe(array));
            return array;
        }
        auto array = input<float>(feature, name, {Dim("B", before.front().batch), Dim("C", before.front().channels), "H", "W"});
        require(array.size() > 0, name + ": expected B, C, H and W of at least 1, got " + describe(array));
        return array;
    }

    Pyramid pyramid_;
    std::mutex replacing_;
    std::vector<FloatArray> arrays_;
    std::atomic<int64_t> channels_{0};
};

}  // namespace

void bind_roi_align(py::module_& module) {
    py::class_<PyramidHandle>(module, "Pyramid")
        .def(py::init([](const py::list& features, std::vector<double> strides) {
                 auto handle = std::make_unique<PyramidHandle>(std::move(strides));
                 handle->set(features);
                 return handle;
             }),
             py::arg("features"), py::arg("strides"))
        .def("set", &PyramidHandle::set, py::arg("features"))
        .def("clear", &PyramidHandle::clear)
        .def("roi_align", &PyramidHandle::roi_align, py::arg("boxes"), py::arg("batch"), py::arg("output_size"), py::arg("sampling_ratio"),
             py::arg("level"), py::arg("out"), py::arg("aligned") = true);
}

}  // namespace kerf::bindings
