// Pictures and their normalisation as arguments, for every operator that reads a picture.
#pragma once

#include <array>

#include "arrays.h"
#include "preprocess.h"

namespace kerf::bindings {

// A uint8 array (H, W), (H, W, 1) or (H, W, 3) of any strides and at least one pixel; throws InputError otherwise.
PictureView picture_view(const py::object& image);

// Throws InputError unless the means are finite and the deviations positive.
void check_statistics(const std::array<float, 3>& mean, const std::array<float, 3>& std);

}  // namespace kerf::bindings
