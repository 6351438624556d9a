// Greedy non-maximum suppression. Contract: sdk/ops/nms.py.
#pragma once

#include <cstdint>
#include <vector>

#include "boxes.h"

namespace kerf {

// The boxes kept so far, as arrays of coordinates so that one box is compared with many at once.
class KeptBoxes {
public:
    explicit KeptBoxes(float iou_threshold) : threshold_(iou_threshold) {}

    // Keeps the box unless a kept one overlaps it by more than the threshold; says whether it was kept.
    bool offer(const Box& box);
    size_t size() const { return x1_.size(); }

private:
    float threshold_;
    std::vector<float> x1_, y1_, x2_, y2_, area_;
};

// Positions of the kept boxes in `boxes`, by descending score (ties: lower position). `groups` may be null: one group.
std::vector<int64_t> nms(const Box* boxes, const float* scores, const int64_t* groups, int64_t count, float iou_threshold);

}  // namespace kerf
