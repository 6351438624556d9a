#include "select.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "common.h"
#include "nms.h"
#include "thread_pool.h"

namespace kerf {
namespace {

struct Candidate {
    Box box;
    float score;
    uint32_t proposal, label;
};

bool ranks_before(const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.proposal != b.proposal ? a.proposal < b.proposal : a.label < b.label;
}

// Candidates of the proposals [begin, end): only what passes the threshold is decoded.
void gather_candidates(const BoxHeadOutput& head, const SelectRule& rule, int64_t begin, int64_t end, std::vector<Candidate>& found) {
    for (int64_t n = begin; n < end; ++n) {
        const float* scores = head.scores + n * head.classes;
        for (int64_t k = 0; k < head.classes; ++k) {
            // NaN passes no threshold; an infinite score is no score either.
            if (!(scores[k] > rule.score_threshold) || std::isinf(scores[k])) continue;
            const float* d = head.box_deltas + 4 * (head.class_agnostic ? n : n * head.classes + k);
            const auto box = rule.coder.decode(head.proposals[n], {d[0], d[1], d[2], d[3]}, rule.height, rule.width);
            if (box && box->x2 > box->x1 && box->y2 > box->y1)
                found.push_back({*box, scores[k], static_cast<uint32_t>(n), static_cast<uint32_t>(k)});
        }
    }
}

std::vector<Candidate> all_candidates(const BoxHeadOutput& head, const SelectRule& rule) {
    std::vector<Candidate> all;
    std::mutex mutex;
    parallel_for(head.count, 64, [&](int64_t begin, int64_t end) {
        std::vector<Candidate> found;
        gather_candidates(head, rule, begin, end, found);
        const std::lock_guard<std::mutex> lock(mutex);
        all.insert(all.end(), found.begin(), found.end());
    });
    std::sort(all.begin(), all.end(), ranks_before);  // a total order: the threads' order of arrival does not matter
    return all;
}

}  // namespace

Detections select_detections(const BoxHeadOutput& head, const SelectRule& rule) {
    std::vector<KeptBoxes> kept(static_cast<size_t>(head.classes), KeptBoxes(rule.nms_threshold));
    Detections result;
    for (const Candidate& candidate : all_candidates(head, rule)) {
        if (static_cast<int64_t>(result.boxes.size()) == rule.max_detections) break;
        if (!kept[candidate.label].offer(candidate.box)) continue;
        result.boxes.push_back(candidate.box);
        result.scores.push_back(candidate.score);
        result.labels.push_back(candidate.label);
    }
    return result;
}

}  // namespace kerf
