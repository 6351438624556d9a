#include "rle.h"

#include <numeric>

#include "arrays.h"
#include "thread_pool.h"

namespace kerf::bindings {
namespace {

std::string item_name(int64_t i) { return "counts[" + std::to_string(i) + "]"; }

py::list encode(const py::object& boxes, const py::object& offsets, const py::object& data, std::pair<int64_t, int64_t> size) {
    const CropArrays crops(boxes, offsets, data);
    const Shape shape = to_shape(size, "shape");
    check_crops_inside(crops.view(), shape);
    std::vector<std::string> texts;
    {
        const py::gil_scoped_release release;
        texts = rle_encode(crops.view(), shape);
    }
    return to_bytes(texts);
}

py::tuple decode(const py::list& counts, std::pair<int64_t, int64_t> size) {
    const std::vector<std::string_view> texts = to_texts(counts);
    const Shape shape = to_shape(size, "shape");
    std::vector<DecodedMask> masks(texts.size());
    std::vector<PixelBox> boxes;
    std::vector<int64_t> offsets;
    {
        const py::gil_scoped_release release;
        check_rle_shape(shape);
        parallel_for(static_cast<int64_t>(texts.size()), 1, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) masks[n] = rle_decode(rle_counts(texts[n], item_name(n)), shape, item_name(n));
        });
        for (const DecodedMask& mask : masks) boxes.push_back(mask.box);
        offsets = crop_offsets(boxes);
    }
    auto data = empty<uint8_t>({offsets.back()});
    uint8_t* to = data.mutable_data();
    for (size_t n = 0; n < masks.size(); ++n) std::copy(masks[n].crop.begin(), masks[n].crop.end(), to + offsets[n]);
    return py::make_tuple(to_array(boxes), to_array(offsets), data);
}

py::array_t<int64_t> area(const py::list& counts) {
    std::vector<int64_t> areas;
    const std::vector<std::string_view> texts = to_texts(counts);
    for (size_t n = 0; n < texts.size(); ++n) {
        const std::vector<uint32_t> runs = rle_counts(texts[n], item_name(static_cast<int64_t>(n)));
        int64_t sum = 0;
        for (size_t i = 1; i < runs.size(); i += 2) sum += runs[i];
        areas.push_back(sum);
    }
    return to_array(areas);
}

py::array_t<uint32_t> counts(const py::object& text) {
    py::list one;
    one.append(text);
    return to_array(rle_counts(to_texts(one).front(), "counts"));
}

py::bytes string(const py::object& counts_in) {
    const auto runs = input<uint32_t>(counts_in, "counts", {"n"});
    return py::bytes(rle_string(runs.data(), static_cast<size_t>(runs.size())));
}

}  // namespace

void bind_rle(py::module_& module) {
    module.def("rle_encode", &encode, py::arg("boxes"), py::arg("offsets"), py::arg("data"), py::arg("shape"));
    module.def("rle_decode", &decode, py::arg("counts"), py::arg("shape"));
    module.def("rle_area", &area, py::arg("counts"));
    module.def("rle_counts", &counts, py::arg("text"));
    module.def("rle_string", &string, py::arg("counts"));
}

}  // namespace kerf::bindings
