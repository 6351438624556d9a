// Region proposals from the heads of a feature pyramid. Contract: sdk/ops/proposals.py.
#pragma once

#include <cstdint>
#include <vector>

#include "boxes.h"

namespace kerf {

struct ProposalLevel {
    const float* objectness;  // (A, H, W) logits
    const float* deltas;      // (4A, H, W)
    const Box* anchors;       // (A) around the origin
    int64_t num_anchors, height, width;
    float stride;
};

struct ProposalRule {
    int64_t pre_nms, post_nms;
    float nms_threshold, min_size;
    float height, width;  // of the picture, for clipping
};

struct Proposals {
    std::vector<Box> boxes;
    std::vector<float> scores;  // sigmoid of the logits, descending
};

Proposals proposals(const std::vector<ProposalLevel>& levels, const ProposalRule& rule);

}  // namespace kerf
