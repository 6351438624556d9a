// One output element of multi-level RoIAlign; contract in docs/operators.md. Shared by the CUDA kernel and its host build, so that the
// arithmetic is tested where there is no GPU. Reads like the definition: the mean of n x n bilinear samples of one bin.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define KERF_HD __host__ __device__ __forceinline__
#else
#define KERF_HD inline
#endif

namespace kerf {

constexpr int kMaxLevels = 8;

// Channels-first maps (B, C, H, W) of all levels, finest first.
template <typename T>
struct RoiPyramid {
    const T* data[kMaxLevels];
    int32_t height[kMaxLevels];
    int32_t width[kMaxLevels];
    float stride[kMaxLevels];  // input pixels per cell
    int32_t levels;
    int32_t batch;
    int32_t channels;
};

struct RoiRule {
    int32_t output_size;     // P
    int32_t sampling_ratio;  // samples per bin and side; 0 = ceil(extent / P)
    int32_t level;           // -1 = by size
    bool aligned = true;     // false = no half-cell shift, and extents of at least one cell
};

KERF_HD float roi_load(float value) { return value; }
#if defined(__CUDACC__)
KERF_HD float roi_load(__half value) { return __half2float(value); }
#endif

// Level of a box: floor(log2(sqrt(w h) / 56 + 1e-6)), clamped.
KERF_HD int roi_level(const float* box, int levels) {
    const float side = sqrtf((box[2] - box[0]) * (box[3] - box[1]));
    const float level = floorf(log2f(side / 56.0f + 1e-6f));
    return level <= 0.0f ? 0 : (level >= static_cast<float>(levels - 1) ? levels - 1 : static_cast<int>(level));
}

// A sample position on one axis: the two cells and the weight of the upper one; false when it counts as zero.
KERF_HD bool roi_sample(float position, int size, int* low, int* high, float* upper) {
    if (!(position >= -1.0f) || !(position <= static_cast<float>(size))) return false;
    const float last = static_cast<float>(size - 1);
    const float clamped = position < 0.0f ? 0.0f : (position > last ? last : position);
    *low = static_cast<int>(clamped);
    *high = *low + 1 < size ? *low + 1 : size - 1;
    *upper = clamped - static_cast<float>(*low);
    return true;
}

KERF_HD int roi_samples(float extent, int bins, int sampling_ratio) {
    if (sampling_ratio > 0) return sampling_ratio;
    const int needed = static_cast<int>(ceilf(extent / static_cast<float>(bins)));
    return needed < 1 ? 1 : needed;
}

// Mean over the samples of bin (py, px) of channel `channel`. Empty, inverted and non-finite boxes and images outside the batch give 0.
template <typename T>
KERF_HD float roi_align_element(
    const RoiPyramid<T>& pyramid, const RoiRule& rule, const float* box, int32_t image, int32_t channel, int32_t py, int32_t px) {
    const float extent_sum = (box[2] - box[0]) + (box[3] - box[1]);
    if (!(box[2] > box[0]) || !(box[3] > box[1]) || !(extent_sum < 3e38f) || image < 0 || image >= pyramid.batch) return 0.0f;
    const int level = rule.level >= 0 ? rule.level : roi_level(box, pyramid.levels);
    const int height = pyramid.height[level], width = pyramid.width[level], bins = rule.output_size;
    const float x1 = box[0] / pyramid.stride[level], y1 = box[1] / pyramid.stride[level];
    float w = box[2] / pyramid.stride[level] - x1, h = box[3] / pyramid.stride[level] - y1;
    if (!rule.aligned) {
        w = w < 1.0f ? 1.0f : w;
        h = h < 1.0f ? 1.0f : h;
    }
    const float shift = rule.aligned ? 0.5f : 0.0f;
    const int ny = roi_samples(h, bins, rule.sampling_ratio), nx = roi_samples(w, bins, rule.sampling_ratio);
    const float step_y = h / static_cast<float>(bins), step_x = w / static_cast<float>(bins);
    const T* map = pyramid.data[level] + (static_cast<int64_t>(image) * pyramid.channels + channel) * height * width;

    float sum = 0.0f;
    for (int i = 0; i < ny; ++i) {
        const float v = y1 - shift + (static_cast<float>(py) + (static_cast<float>(i) + 0.5f) / static_cast<float>(ny)) * step_y;
        int top, bottom;
        float down;
        if (!roi_sample(v, height, &top, &bottom, &down)) continue;
        for (int j = 0; j < nx; ++j) {
            const float u = x1 - shift + (static_cast<float>(px) + (static_cast<float>(j) + 0.5f) / static_cast<float>(nx)) * step_x;
            int left, right;
            float across;
            if (!roi_sample(u, width, &left, &right, &across)) continue;
            const T *upper_row = map + static_cast<int64_t>(top) * width, *lower_row = map + static_cast<int64_t>(bottom) * width;
            const float upper = roi_load(upper_row[left]) * (1.0f - across) + roi_load(upper_row[right]) * across;
            const float lower = roi_load(lower_row[left]) * (1.0f - across) + roi_load(lower_row[right]) * across;
            sum += upper * (1.0f - down) + lower * down;
        }
    }
    return sum / static_cast<float>(ny * nx);
}

}  // namespace kerf
