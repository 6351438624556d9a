// The pixels around the boundary of masks. Contract: sdk/ops/boundary_band.py.
#pragma once

#include <cstdint>
#include <vector>

#include "crops.h"

namespace kerf {

struct BandRule {
    int64_t width;      // pixels, 1 to 127 (16 bits count a square of 255 x 255)
    int64_t most_others;  // pixels of the other label in the square of side 2 width + 1 that are still too few
};

// The masks' boxes, larger by the band and cut to the picture; empty stays empty.
std::vector<PixelBox> band_boxes(const CropsView& masks, const Shape& shape, int64_t width);

// data: laid out by crop_offsets(boxes); becomes 0 or 1.
void boundary_band(const CropsView& masks, const BandRule& rule, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets,
                   uint8_t* data);

}  // namespace kerf
