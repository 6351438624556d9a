#include "proposals.h"

#include <algorithm>
#include <cmath>

#include "arithmetic.h"
#include "nms.h"
#include "thread_pool.h"

namespace kerf {
namespace {

constexpr int kBinBits = 14;

struct Proposal {
    Box box;
    float logit;
    uint32_t level, index;
};

// The smallest logit bin such that all bins from it upwards hold at least `wanted` finite logits (0 when there are fewer).
uint32_t lowest_useful_bin(const float* logits, int64_t count, int64_t wanted) {
    std::vector<uint32_t> histogram(size_t{1} << kBinBits, 0);
    for (int64_t i = 0; i < count; ++i)
        if (std::isfinite(logits[i])) ++histogram[sortable(logits[i]) >> (32 - kBinBits)];
    int64_t seen = 0;
    uint32_t bin = 1u << kBinBits;
    while (bin > 0 && seen < wanted) seen += histogram[--bin];
    return bin;
}

// Rank keys of the best `pre_nms` candidates, best first. A histogram leaves few to sort: a full sort of a large level costs 20 ms.
std::vector<uint64_t> best_candidates(const ProposalLevel& level, int64_t pre_nms) {
    const int64_t cells = level.height * level.width, count = cells * level.num_anchors;
    const uint32_t floor_key = lowest_useful_bin(level.objectness, count, pre_nms) << (32 - kBinBits);
    std::vector<uint64_t> keys;
    for (int64_t a = 0; a < level.num_anchors; ++a) {
        const float* plane = level.objectness + a * cells;
        for (int64_t cell = 0; cell < cells; ++cell) {
            if (sortable(plane[cell]) < floor_key || !std::isfinite(plane[cell])) continue;
            keys.push_back(rank_key(plane[cell], static_cast<uint32_t>(cell * level.num_anchors + a)));
        }
    }
    if (static_cast<int64_t>(keys.size()) > pre_nms) {
        std::nth_element(keys.begin(), keys.begin() + pre_nms, keys.end());
        keys.resize(static_cast<size_t>(pre_nms));
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

std::optional<Box> decode_candidate(const ProposalLevel& level, int64_t a, int64_t cell, const ProposalRule& rule) {
    const int64_t cells = level.height * level.width;
    const float x = static_cast<float>(cell % level.width) * level.stride, y = static_cast<float>(cell / level.width) * level.stride;
    const Box& base = level.anchors[a];
    const float* d = level.deltas + 4 * a * cells + cell;
    const Box anchor{base.x1 + x, base.y1 + y, base.x2 + x, base.y2 + y};
    return BoxCoder{}.decode(anchor, {d[0], d[cells], d[2 * cells], d[3 * cells]}, rule.height, rule.width);
}

std::vector<Proposal> level_proposals(const ProposalLevel& level, uint32_t level_index, const ProposalRule& rule) {
    const int64_t cells = level.height * level.width;
    std::vector<Proposal> found;
    KeptBoxes kept(rule.nms_threshold);
    for (const uint64_t key : best_candidates(level, rule.pre_nms)) {
        if (static_cast<int64_t>(found.size()) == rule.post_nms) break;  // more of one level can never be wanted
        const uint32_t index = rank_index(key);
        const int64_t a = index % level.num_anchors, cell = index / level.num_anchors;
        const std::optional<Box> box = decode_candidate(level, a, cell, rule);
        if (!box || box->x2 - box->x1 <= rule.min_size || box->y2 - box->y1 <= rule.min_size) continue;
        if (kept.offer(*box)) found.push_back({*box, level.objectness[a * cells + cell], level_index, index});
    }
    return found;
}

bool ranks_before(const Proposal& a, const Proposal& b) {
    if (a.logit != b.logit) return a.logit > b.logit;
    return a.level != b.level ? a.level < b.level : a.index < b.index;
}

}  // namespace

Proposals proposals(const std::vector<ProposalLevel>& levels, const ProposalRule& rule) {
    std::vector<std::vector<Proposal>> found(levels.size());
    parallel_for(static_cast<int64_t>(levels.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t l = begin; l < end; ++l) found[l] = level_proposals(levels[l], static_cast<uint32_t>(l), rule);
    });
    std::vector<Proposal> all;
    for (const auto& level : found) all.insert(all.end(), level.begin(), level.end());
    std::sort(all.begin(), all.end(), ranks_before);
    if (static_cast<int64_t>(all.size()) > rule.post_nms) all.resize(static_cast<size_t>(rule.post_nms));

    Proposals result;
    for (const Proposal& p : all) {
        result.boxes.push_back(p.box);
        result.scores.push_back(1.0f / (1.0f + std::exp(-p.logit)));
    }
    return result;
}

}  // namespace kerf
