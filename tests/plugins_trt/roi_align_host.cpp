// The kernel's arithmetic, run by the host: every output element through the header that the CUDA kernel uses.
#include "roi_align_element.h"

extern "C" void roi_align_host(
    const float* const* maps, const int32_t* sizes, const float* strides, int32_t levels, int32_t batch_size, int32_t channels,
    const float* boxes, const int32_t* batch, int32_t count, int32_t output_size, int32_t sampling_ratio, int32_t level, bool aligned, float* out) {
    kerf::RoiPyramid<float> pyramid{};
    pyramid.levels = levels;
    pyramid.batch = batch_size;
    pyramid.channels = channels;
    for (int32_t l = 0; l < levels; ++l) {
        pyramid.data[l] = maps[l];
        pyramid.height[l] = sizes[2 * l];
        pyramid.width[l] = sizes[2 * l + 1];
        pyramid.stride[l] = strides[l];
    }
    const kerf::RoiRule rule{output_size, sampling_ratio, level, aligned};
    for (int32_t n = 0; n < count; ++n)
        for (int32_t c = 0; c < channels; ++c)
            for (int32_t y = 0; y < output_size; ++y)
                for (int32_t x = 0; x < output_size; ++x) *out++ = kerf::roi_align_element(pyramid, rule, boxes + 4 * n, batch[n], c, y, x);
}
