// Multi-level RoIAlign over a feature pyramid. Contract: sdk/ops/roi_align.py.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "axis_taps.h"
#include "boxes.h"
#include "channels_last.h"

namespace kerf {

struct PooledBoxes {
    const Box* boxes;      // (N) pixels of the input
    const int32_t* batch;  // (N) image of each box
    int64_t count;
};

struct PoolRule {
    int64_t output_size;     // P
    int64_t sampling_ratio;  // 0 = adaptive
    int64_t level;           // -1 = by size
    bool aligned = true;     // false = no half-cell shift, and extents of at least one cell
};

// Holds the channels-last copy that several calls share. A call copies only the cells that its boxes touch and that no earlier call copied.
// The feature maps are not owned and must stay alive and unchanged until the next set(). Calls from several threads take turns.
class Pyramid {
public:
    explicit Pyramid(std::vector<double> strides);

    int64_t num_levels() const { return static_cast<int64_t>(strides_.size()); }

    // One map per stride, all with the same B and C.
    void set(const std::vector<FeatureMap>& maps);

    // Forgets the maps, keeps the memory of the copy.
    void clear();

    // out: (N, C, P, P). Throws InputError when an image index is outside the batch or the maps do not have `channels` channels
    // (another thread may have called set() since the caller made `out`).
    void roi_align(const PooledBoxes& rois, const PoolRule& rule, int64_t channels, float* out);

private:
    std::mutex mutex_;
    std::vector<double> strides_;
    std::vector<ChannelsLast> levels_;
};

}  // namespace kerf
