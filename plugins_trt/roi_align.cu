#include "roi_align.h"

namespace kerf {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ void store(float value, float* out) { *out = value; }
__device__ __forceinline__ void store(float value, __half* out) { *out = __float2half_rn(value); }

// One thread an output element, neighbours along a bin row: they read neighbouring cells of one map.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    roi_align_kernel(RoiPyramid<T> pyramid, RoiRule rule, const float* __restrict__ boxes, const int32_t* __restrict__ batch, int64_t elements, T* __restrict__ out) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    const int bins = rule.output_size;
    for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < elements; index += stride) {
        const int32_t px = static_cast<int32_t>(index % bins);
        const int32_t py = static_cast<int32_t>(index / bins % bins);
        const int64_t plane = index / (static_cast<int64_t>(bins) * bins);
        const int32_t channel = static_cast<int32_t>(plane % pyramid.channels);
        const int64_t roi = plane / pyramid.channels;
        store(roi_align_element(pyramid, rule, boxes + 4 * roi, batch[roi], channel, py, px), out + index);
    }
}

template <typename T>
cudaError_t launch(const RoiPyramid<T>& pyramid, const RoiRule& rule, const float* boxes, const int32_t* batch, int32_t count, T* out, cudaStream_t stream) {
    const int64_t elements = static_cast<int64_t>(count) * pyramid.channels * rule.output_size * rule.output_size;
    if (elements == 0) return cudaSuccess;
    const int64_t blocks = (elements + kThreads - 1) / kThreads;
    // The loop of the kernel takes what a grid of this size leaves over.
    const unsigned grid = static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
    roi_align_kernel<T><<<grid, kThreads, 0, stream>>>(pyramid, rule, boxes, batch, elements, out);
    return cudaGetLastError();
}

}  // namespace

cudaError_t roi_align(
    const RoiPyramid<float>& pyramid, const RoiRule& rule, const float* boxes, const int32_t* batch, int32_t count, float* out, cudaStream_t stream) {
    return launch(pyramid, rule, boxes, batch, count, out, stream);
}

cudaError_t roi_align(
    const RoiPyramid<__half>& pyramid, const RoiRule& rule, const float* boxes, const int32_t* batch, int32_t count, __half* out, cudaStream_t stream) {
    return launch(pyramid, rule, boxes, batch, count, out, stream);
}

}  // namespace kerf
