#include "arrays.h"

#include <limits>
#include <sstream>

namespace kerf::bindings {
namespace {

// A stored element of a row-major text such as "(3, 5)".
template <class Size>
std::string tuple_text(const std::vector<Size>& sizes) {
    std::ostringstream text;
    text << "(";
    for (size_t i = 0; i < sizes.size(); ++i) text << (i ? ", " : "") << sizes[i];
    text << (sizes.size() == 1 ? ",)" : ")");
    return text.str();
}

std::string number_text(double value) {
    std::ostringstream text;
    text << value;
    return text.str();
}

}  // namespace

std::string describe(const py::handle& value) {
    if (!py::isinstance<py::array>(value)) return std::string(py::str(py::type::of(value).attr("__name__")));
    const auto array = py::reinterpret_borrow<py::array>(value);
    const std::vector<py::ssize_t> shape(array.shape(), array.shape() + array.ndim());
    return std::string(py::str(array.dtype())) + " array of shape " + tuple_text(shape);
}

void check_array(const py::handle& value, const std::string& name, const py::dtype& dtype, Dims dims) {
    bool fits = py::isinstance<py::array>(value);
    if (fits) {
        const auto array = py::reinterpret_borrow<py::array>(value);
        fits = array.dtype().equal(dtype) && array.ndim() == static_cast<py::ssize_t>(dims.size());
        py::ssize_t axis = 0;
        for (const Dim& dim : dims) {
            if (!fits) break;
            fits = dim.size < 0 || array.shape(axis) == dim.size;
            ++axis;
        }
    }
    if (fits) return;
    std::vector<std::string> names;
    for (const Dim& dim : dims) names.push_back(dim.name);
    throw InputError(name + ": expected " + std::string(py::str(dtype)) + " array of shape " + tuple_text(names) + ", got " + describe(value));
}

Shape to_shape(const std::pair<int64_t, int64_t>& shape, const std::string& name, int64_t least) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    const auto [height, width] = shape;
    require(height >= least && width >= least && height <= kMost && width <= kMost,
            name + ": expected (height, width) of at least " + std::to_string(least) + " and below 2^31, got (" + std::to_string(height) +
                ", " + std::to_string(width) + ")");
    return {height, width};
}

void check_range(double value, const std::string& name, double low, double high) {
    if (value >= low && value <= high) return;
    const std::string range = high == std::numeric_limits<double>::infinity() ? "at least " + number_text(low)
                                                                              : number_text(low) + " to " + number_text(high);
    throw InputError(name + ": expected " + range + ", got " + number_text(value));
}

BoxCoder to_coder(const std::array<float, 4>& weights) {
    for (const float weight : weights) check_range(weight, "coder_weights", std::numeric_limits<float>::min(), std::numeric_limits<float>::max());
    return {weights[0], weights[1], weights[2], weights[3]};
}

CropArrays::CropArrays(const py::handle& b, const py::handle& o, const py::handle& d)
    : boxes(input<int32_t>(b, "boxes", {"N", 4})),
      offsets(input<int64_t>(o, "offsets", {Dim("N+1", boxes.shape(0) + 1)})),
      data(input<uint8_t>(d, "data", {"total"})) {
    check_crops(view(), data.shape(0));
}

CropsView CropArrays::view() const { return {as_boxes(boxes), offsets.data(), data.data(), boxes.shape(0)}; }

std::vector<std::string_view> to_texts(const py::list& counts) {
    std::vector<std::string_view> texts;
    for (size_t i = 0; i < counts.size(); ++i) {
        const py::handle item = counts[i];
        const bool is_text = py::isinstance<py::bytes>(item) || py::isinstance<py::str>(item);
        require(is_text, "counts[" + std::to_string(i) + "]: expected bytes or str, got " + describe(item));
        texts.push_back(item.cast<std::string_view>());
    }
    return texts;
}

py::list to_bytes(const std::vector<std::string>& texts) {
    py::list list;
    for (const std::string& text : texts) list.append(py::bytes(text));
    return list;
}

}  // namespace kerf::bindings
