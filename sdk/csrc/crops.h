// Masks that live inside boxes. Contract: sdk/ops/crops.py.
#pragma once

#include <cstdint>
#include <vector>

namespace kerf {

// Integer box in pixels, x2 and y2 excluded; empty is 0, 0, 0, 0.
struct PixelBox {
    int32_t x1, y1, x2, y2;

    int64_t width() const { return x2 - x1; }
    int64_t height() const { return y2 - y1; }
    int64_t area() const { return width() * height(); }
};

// Row-major crops, one after the other; crop n is data[offsets[n] .. offsets[n + 1]), nonzero = foreground.
struct CropsView {
    const PixelBox* boxes;
    const int64_t* offsets;
    const uint8_t* data;
    int64_t count;
};

struct Shape {
    int64_t height, width;
};

// Throws InputError unless boxes, offsets and the size of the data agree.
void check_crops(const CropsView& crops, int64_t data_size);

// Throws InputError unless every box lies inside the picture.
void check_crops_inside(const CropsView& crops, const Shape& shape);

// Where each crop's data begins; one more entry than boxes.
std::vector<int64_t> crop_offsets(const std::vector<PixelBox>& boxes);

// masks: (N, H, W), zeroed by the caller; becomes 0 or 1.
void crops_to_dense(const CropsView& crops, const Shape& shape, uint8_t* masks);

// Tight boxes of masks (N, H, W); an empty mask gives the empty box.
std::vector<PixelBox> tight_boxes(const uint8_t* masks, int64_t count, const Shape& shape);

// Cuts the boxes out of masks (N, H, W); data has room for the last offset.
void cut_crops(const uint8_t* masks, const Shape& shape, const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets,
               uint8_t* data);

}  // namespace kerf
