// Resize, normalise and pad a picture in one pass. Contract: sdk/ops/preprocess.py.
#pragma once

#include <cstdint>

namespace kerf {

// Strides in bytes, of any sign. 1 or 3 channels.
struct PictureView {
    const uint8_t* data;
    int64_t height, width, channels;
    int64_t row_stride, pixel_stride, channel_stride;
};

struct PreprocessRule {
    int64_t height, width;                // of the resized picture, >= 1
    int64_t padded_height, padded_width;  // at least as large
    float mean[3], std[3];                // of the output channels
    bool swap_channels, antialias;
};

// out: (3, padded height, padded width).
void preprocess(const PictureView& picture, const PreprocessRule& rule, float* out);

}  // namespace kerf
