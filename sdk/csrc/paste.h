// Mask logits on a grid inside a box -> pixels of the picture. Contract: sdk/ops/paste.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "boxes.h"
#include "crops.h"

namespace kerf {

struct MaskGrids {
    const float* logits;  // (N, Hm, Wm)
    const Box* boxes;     // (N)
    int64_t count, height, width;
};

// The pixels that can be foreground; empty when the box is empty, not finite or outside.
std::vector<PixelBox> paste_boxes(const MaskGrids& masks, const Shape& shape);

// data: zeroed by the caller, laid out by crop_offsets(boxes); foreground becomes 1.
void paste_crops(const MaskGrids& masks, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets, double threshold,
                 uint8_t* data);

// The run lengths of the same masks, without making the crops.
std::vector<std::string> paste_rle(const MaskGrids& masks, const Shape& shape, double threshold);

}  // namespace kerf
