// Detections from the box head's class scores and box deltas. Contract: sdk/ops/select.py.
#pragma once

#include <cstdint>
#include <vector>

#include "boxes.h"

namespace kerf {

struct BoxHeadOutput {
    const float* class_logits;  // (N, K + 1), background last
    const float* box_deltas;    // (N, 4K)
    const Box* proposals;       // (N)
    int64_t count, classes;     // N, K
};

struct SelectRule {
    BoxCoder coder;
    float score_threshold, nms_threshold;
    int64_t max_detections;
    float height, width;  // of the picture, for clipping
};

struct Detections {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int64_t> labels;
};

Detections select_detections(const BoxHeadOutput& head, const SelectRule& rule);

}  // namespace kerf
