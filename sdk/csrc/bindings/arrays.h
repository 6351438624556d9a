// NumPy arrays in and out of the core. Arrays are checked here and nowhere else: a message names the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "boxes.h"
#include "common.h"
#include "crops.h"

namespace kerf::bindings {

namespace py = pybind11;

// One axis of an expected shape: a letter (any size), a letter with a size, or a size.
struct Dim {
    Dim(const char* letter) : name(letter) {}
    Dim(const char* letter, int64_t expected) : name(std::string(letter) + "=" + std::to_string(expected)), size(expected) {}
    Dim(int64_t expected) : name(std::to_string(expected)), size(expected) {}
    Dim(int expected) : Dim(static_cast<int64_t>(expected)) {}

    std::string name;
    int64_t size = -1;
};
using Dims = std::initializer_list<Dim>;

// "float64 array of shape (3, 5)", or the type's name when it is no array.
std::string describe(const py::handle& value);

// Throws InputError unless `value` is an array of this dtype and shape.
void check_array(const py::handle& value, const std::string& name, const py::dtype& dtype, Dims dims);

// The array itself when it is C-contiguous and aligned, else a copy that is.
template <class T>
py::array_t<T, py::array::c_style> input(const py::handle& value, const std::string& name, Dims dims) {
    check_array(value, name, py::dtype::of<T>(), dims);
    return py::array_t<T, py::array::c_style | py::array::forcecast>(py::reinterpret_borrow<py::object>(value));
}

// An array that is written in place: also C-contiguous and writeable.
template <class T>
py::array_t<T, py::array::c_style> output(const py::handle& value, const std::string& name, Dims dims) {
    check_array(value, name, py::dtype::of<T>(), dims);
    const auto array = py::reinterpret_borrow<py::array>(value);
    require((array.flags() & py::array::c_style) && array.writeable(), name + ": expected a C-contiguous, writeable array");
    return py::reinterpret_borrow<py::array_t<T, py::array::c_style>>(array);
}

template <class T>
py::array_t<T> empty(std::vector<py::ssize_t> shape) {
    return py::array_t<T>(std::move(shape));
}

// (N) and (N, 4) arrays that own a copy of small results.
template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}
inline py::array_t<float> to_array(const std::vector<Box>& boxes) {
    return py::array_t<float>({static_cast<py::ssize_t>(boxes.size()), py::ssize_t{4}}, reinterpret_cast<const float*>(boxes.data()));
}
inline py::array_t<int32_t> to_array(const std::vector<PixelBox>& boxes) {
    return py::array_t<int32_t>({static_cast<py::ssize_t>(boxes.size()), py::ssize_t{4}}, reinterpret_cast<const int32_t*>(boxes.data()));
}

// (N, 4) arrays as boxes.
inline const Box* as_boxes(const py::array_t<float, py::array::c_style>& boxes) { return reinterpret_cast<const Box*>(boxes.data()); }
inline const PixelBox* as_boxes(const py::array_t<int32_t, py::array::c_style>& boxes) {
    return reinterpret_cast<const PixelBox*>(boxes.data());
}

// A pair (height, width) with both at least `least`.
Shape to_shape(const std::pair<int64_t, int64_t>& shape, const std::string& name, int64_t least = 0);

// Throws InputError unless low <= value <= high (NaN fails).
void check_range(double value, const std::string& name, double low, double high);

// The coder with these four positive weights.
BoxCoder to_coder(const std::array<float, 4>& weights);

// The three arrays of a MaskCrops, checked to agree with each other.
struct CropArrays {
    CropArrays(const py::handle& boxes, const py::handle& offsets, const py::handle& data);
    CropsView view() const;

    py::array_t<int32_t, py::array::c_style> boxes;
    py::array_t<int64_t, py::array::c_style> offsets;
    py::array_t<uint8_t, py::array::c_style> data;
};

// bytes or str of COCO counts, as borrowed text: the list keeps them alive.
std::vector<std::string_view> to_texts(const py::list& counts);
py::list to_bytes(const std::vector<std::string>& texts);

void bind_boundary_band(py::module_& module);
void bind_crops(py::module_& module);
void bind_decode(py::module_& module);
void bind_nms(py::module_& module);
void bind_paste(py::module_& module);
void bind_patches(py::module_& module);
void bind_polygons(py::module_& module);
void bind_preprocess(py::module_& module);
void bind_proposals(py::module_& module);
void bind_rle(py::module_& module);
void bind_roi_align(py::module_& module);
void bind_select(py::module_& module);
void bind_thread_pool(py::module_& module);

}  // namespace kerf::bindings
