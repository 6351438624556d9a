// Multi-level RoIAlign on the GPU: all levels in one launch. Nothing is allocated, nothing waits for the device.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "roi_align_element.h"

namespace kerf {

// boxes (N, 4) float32 xyxy in input pixels, batch (N) int32, out (N, C, P, P), all in device memory and owned by the caller.
// The element arithmetic is float32 for both feature types. Returns the launch's error.
cudaError_t roi_align(
    const RoiPyramid<float>& pyramid, const RoiRule& rule, const float* boxes, const int32_t* batch, int32_t count, float* out, cudaStream_t stream);
cudaError_t roi_align(
    const RoiPyramid<__half>& pyramid, const RoiRule& rule, const float* boxes, const int32_t* batch, int32_t count, __half* out, cudaStream_t stream);

}  // namespace kerf
