#include "nms.h"

#include <algorithm>
#include <unordered_map>

#include "arithmetic.h"
#include "common.h"

namespace kerf {
namespace {

struct Columns {
    const float *x1, *y1, *x2, *y2, *area;
};

// Blocks of 64 comparisons without a branch vectorise; between blocks one may stop early.
KERF_CLONES bool overlaps_any(Columns kept, size_t count, Box box, float area, float threshold) {
    constexpr size_t kBlock = 64;
    for (size_t begin = 0; begin < count; begin += kBlock) {
        const size_t end = begin + kBlock < count ? begin + kBlock : count;
        int any = 0;
        for (size_t i = begin; i < end; ++i) {
            const float left = kept.x1[i] > box.x1 ? kept.x1[i] : box.x1;
            const float top = kept.y1[i] > box.y1 ? kept.y1[i] : box.y1;
            const float right = kept.x2[i] < box.x2 ? kept.x2[i] : box.x2;
            const float bottom = kept.y2[i] < box.y2 ? kept.y2[i] : box.y2;
            const float w = right - left > 0.0f ? right - left : 0.0f;
            const float h = bottom - top > 0.0f ? bottom - top : 0.0f;
            const float inter = w * h;
            any |= inter > threshold * (area + kept.area[i] - inter);
        }
        if (any) return true;
    }
    return false;
}

}  // namespace

bool KeptBoxes::offer(const Box& box) {
    const float area = box_area(box);
    if (overlaps_any({x1_.data(), y1_.data(), x2_.data(), y2_.data(), area_.data()}, size(), box, area, threshold_)) return false;
    x1_.push_back(box.x1);
    y1_.push_back(box.y1);
    x2_.push_back(box.x2);
    y2_.push_back(box.y2);
    area_.push_back(area);
    return true;
}

std::vector<int64_t> nms(const Box* boxes, const float* scores, const int64_t* groups, int64_t count, float iou_threshold) {
    std::vector<uint64_t> order(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) order[i] = rank_key(scores[i], static_cast<uint32_t>(i));
    std::sort(order.begin(), order.end());

    std::unordered_map<int64_t, KeptBoxes> kept;
    std::vector<int64_t> keep;
    for (const uint64_t key : order) {
        const int64_t i = rank_index(key);
        KeptBoxes& group = kept.try_emplace(groups ? groups[i] : 0, iou_threshold).first->second;
        if (group.offer(boxes[i])) keep.push_back(i);
    }
    return keep;
}

}  // namespace kerf
