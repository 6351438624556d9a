#include "patches.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "arrays.h"
#include "picture.h"

namespace kerf::bindings {
namespace {

constexpr int64_t kMostPixels = 1024;  // of a patch's side, its padding and a network's input

// What all calls on patches need of a Patches.
struct PatchArrays {
    PatchArrays(const py::object& b, const py::object& i, std::pair<int64_t, int64_t> size, int64_t ring)
        : boxes(input<int32_t>(b, "patches.boxes", {"P", 4})),
          instance(input<int32_t>(i, "patches.instance", {Dim("P", boxes.shape(0))})),
          shape(to_shape(size, "patches.shape")),
          padding(ring) {
        check_range(static_cast<double>(padding), "padding", 0, kMostPixels);
        check_patches(view());
    }
    PatchesView view() const { return {as_boxes(boxes), instance.data(), boxes.shape(0), shape, padding}; }

    py::array_t<int32_t, py::array::c_style> boxes, instance;
    Shape shape;
    int64_t padding;
};

void check(const py::object& boxes, const py::object& instance, const py::object& scores, std::pair<int64_t, int64_t> shape,
           int64_t padding) {
    const PatchArrays patches(boxes, instance, shape, padding);
    check_array(scores, "patches.scores", py::dtype::of<float>(), {Dim("P", patches.boxes.shape(0))});
}

PatchScheme to_scheme(const std::string& name) {
    if (name == "dense") return PatchScheme::dense;
    if (name == "grid") return PatchScheme::grid;
    if (name == "instance") return PatchScheme::instance;
    throw InputError("scheme: expected dense, grid or instance, got " + name);
}

py::tuple to_tuple(const std::vector<std::vector<Patch>>& found) {
    int64_t count = 0;
    for (const auto& patches : found) count += static_cast<int64_t>(patches.size());
    auto boxes = empty<int32_t>({count, 4}), instance = empty<int32_t>({count});
    auto scores = empty<float>({count});
    auto* box = reinterpret_cast<PixelBox*>(boxes.mutable_data());
    int32_t* of = instance.mutable_data();
    float* score = scores.mutable_data();
    for (size_t n = 0; n < found.size(); ++n)
        for (const Patch& patch : found[n]) {
            *box++ = patch.box;
            *of++ = static_cast<int32_t>(n);
            *score++ = patch.score;
        }
    return py::make_tuple(boxes, instance, scores);
}

py::tuple extract(const py::object& mask_boxes, const py::object& offsets, const py::object& data, std::pair<int64_t, int64_t> size,
                  int64_t side, int64_t padding, double threshold, const std::string& scheme, double enlarge, bool frame, bool pad_small) {
    const CropArrays masks(mask_boxes, offsets, data);
    const Shape shape = to_shape(size, "shape");
    check_crops_inside(masks.view(), shape);
    check_range(static_cast<double>(side), "size", 2, kMostPixels);
    check_range(static_cast<double>(padding), "padding", 0, kMostPixels);
    check_range(threshold, "threshold", 0, 1);
    check_range(enlarge, "enlarge", 0, 4);
    const PatchRule rule{side, static_cast<float>(threshold), to_scheme(scheme), enlarge, frame, pad_small};
    std::vector<std::vector<Patch>> found;
    {
        const py::gil_scoped_release release;
        found = boundary_patches(masks.view(), shape, rule);
    }
    return to_tuple(found);
}

py::array_t<float> cut(const py::object& image, const std::optional<std::array<py::object, 3>>& crops, const py::object& boxes,
                       const py::object& instance, std::pair<int64_t, int64_t> shape, int64_t padding, int64_t input_size,
                       std::array<float, 3> mean, std::array<float, 3> std, bool swap_channels, const py::object& out) {
    const PictureView picture = picture_view(image);
    const PatchArrays patches(boxes, instance, shape, padding);
    require(picture.height == shape.first && picture.width == shape.second,
            "image: expected the patches' height and width (" + std::to_string(shape.first) + ", " + std::to_string(shape.second) + "), got " +
                describe(image));
    check_range(static_cast<double>(input_size), "input_size", 1, kMostPixels);
    check_statistics(mean, std);
    std::optional<CropArrays> masks;
    std::optional<CropsView> view;
    if (crops) {
        masks.emplace((*crops)[0], (*crops)[1], (*crops)[2]);
        view = masks->view();
        check_instances(patches.view(), view->count, "masks");
    }
    const int64_t count = patches.boxes.shape(0), channels = view ? 4 : 3;
    py::array_t<float> result = out.is_none()
                                    ? empty<float>({count, channels, input_size, input_size})
                                    : py::array_t<float>(output<float>(out, "out", {Dim("P", count), channels, input_size, input_size}));
    const CutRule rule{input_size, {mean[0], mean[1], mean[2]}, {std[0], std[1], std[2]}, swap_channels};
    float* to = result.mutable_data();
    {
        const py::gil_scoped_release release;
        cut_patches(picture, view ? &*view : nullptr, patches.view(), rule, to);
    }
    return result;
}

py::tuple merge(const py::object& mask_boxes, const py::object& offsets, const py::object& data, const py::object& boxes,
                const py::object& instance, std::pair<int64_t, int64_t> shape, int64_t padding, const py::object& values_in,
                double threshold, bool logits, bool soft) {
    const CropArrays masks(mask_boxes, offsets, data);
    const PatchArrays patches(boxes, instance, shape, padding);
    check_crops_inside(masks.view(), patches.shape);
    check_instances(patches.view(), masks.view().count, "masks");
    const int64_t count = patches.boxes.shape(0);
    const auto values = input<float>(values_in, "values", {Dim("P", count), "S", "S"});
    const int64_t side = values.shape(1);
    require(values.shape(2) == side && (count == 0 || (side >= 1 && side <= kMostPixels)),
            "values: expected float32 array of shape (P=" + std::to_string(count) + ", S, S) with S of 1 to 1024, got " + describe(values));
    require(std::isfinite(threshold), "threshold: expected a finite number, got " + std::to_string(threshold));
    const std::vector<PixelBox> grown = merged_boxes(masks.view(), patches.view());
    const std::vector<int64_t> ends = crop_offsets(grown);
    auto labels = empty<uint8_t>({ends.back()});
    auto means = empty<float>({soft ? ends.back() : 0});
    uint8_t* to = labels.mutable_data();
    float* mean = soft ? means.mutable_data() : nullptr;
    {
        const py::gil_scoped_release release;
        merge_patches(masks.view(), patches.view(), {values.data(), side, logits}, static_cast<float>(threshold), grown, ends, to, mean);
    }
    return py::make_tuple(to_array(grown), to_array(ends), labels, means);
}

py::array_t<float> uncertainty(const py::object& boxes, const py::object& instance, std::pair<int64_t, int64_t> shape,
                               const py::object& mask_logits, const py::object& mask_boxes) {
    const PatchArrays patches(boxes, instance, shape, 0);
    const auto covered = input<float>(mask_boxes, "boxes", {"N", 4});
    const auto logits = input<float>(mask_logits, "mask_logits", {Dim("N", covered.shape(0)), "Hm", "Wm"});
    require(logits.shape(1) > 0 && logits.shape(2) > 0, "mask_logits: expected Hm and Wm of at least 1, got " + describe(logits));
    check_instances(patches.view(), covered.shape(0), "mask_logits");
    auto result = empty<float>({patches.boxes.shape(0)});
    float* to = result.mutable_data();
    {
        const py::gil_scoped_release release;
        patch_uncertainty(patches.view(), {logits.data(), as_boxes(covered), covered.shape(0), logits.shape(1), logits.shape(2)}, to);
    }
    return result;
}

}  // namespace

void bind_patches(py::module_& module) {
    module.def("check_patches", &check, py::arg("boxes"), py::arg("instance"), py::arg("scores"), py::arg("shape"), py::arg("padding"));
    module.def("boundary_patches", &extract, py::arg("mask_boxes"), py::arg("offsets"), py::arg("data"), py::arg("shape"), py::arg("size"),
               py::arg("padding"), py::arg("threshold"), py::arg("scheme"), py::arg("enlarge"), py::arg("frame"), py::arg("pad_small"));
    module.def("cut_patches", &cut, py::arg("image"), py::arg("masks"), py::arg("boxes"), py::arg("instance"), py::arg("shape"),
               py::arg("padding"), py::arg("input_size"), py::arg("mean"), py::arg("std"), py::arg("swap_channels"), py::arg("out"));
    module.def("merge_patches", &merge, py::arg("mask_boxes"), py::arg("offsets"), py::arg("data"), py::arg("boxes"), py::arg("instance"),
               py::arg("shape"), py::arg("padding"), py::arg("values"), py::arg("threshold"), py::arg("logits"), py::arg("soft"));
    module.def("patch_uncertainty", &uncertainty, py::arg("boxes"), py::arg("instance"), py::arg("shape"), py::arg("mask_logits"),
               py::arg("mask_boxes"));
}

}  // namespace kerf::bindings
