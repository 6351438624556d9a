// Detections from the box head's scores and box deltas. Contract: sdk/ops/select.py.
#pragma once

#include <cstdint>
#include <vector>

#include "boxes.h"

namespace kerf {

struct BoxHeadOutput {
    const float* scores;      // (N, K), no background
    const float* box_deltas;  // (N, 4K), or (N, 4) for all classes
    const Box* proposals;     // (N)
    int64_t count, classes;   // N, K
    bool class_agnostic;      // which of the two
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
