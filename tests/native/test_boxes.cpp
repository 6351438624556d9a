#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "arithmetic.h"
#include "check.h"
#include "decode.h"
#include "nms.h"
#include "proposals.h"
#include "select.h"

using kerf::Box;

TEST(fast_exp_is_exact_to_3e_7) {
    double worst = 0.0;
    for (float x = -87.0f; x <= 88.0f; x += 0.00731f) worst = std::max(worst, std::abs(kerf::fast_exp(x) / std::exp(double{x}) - 1.0));
    CHECK(worst < 3e-7);
    CHECK(kerf::fast_exp(0.0f) == 1.0f);
    CHECK(std::isnan(kerf::fast_exp(std::nanf(""))));
    CHECK(std::isfinite(kerf::fast_exp(std::numeric_limits<float>::infinity())));
}

TEST(sortable_keys_order_like_the_floats) {
    const float inf = std::numeric_limits<float>::infinity();
    const float ascending[] = {-inf, -3e38f, -1.0f, -1e-40f, 0.0f, 1e-40f, 1.0f, 3e38f, inf};
    for (size_t i = 0; i + 1 < std::size(ascending); ++i) CHECK(kerf::sortable(ascending[i]) < kerf::sortable(ascending[i + 1]));
    CHECK(kerf::sortable(-0.0f) == kerf::sortable(0.0f));
    CHECK(kerf::sortable(std::nanf("")) < kerf::sortable(-inf));
    CHECK(kerf::rank_key(1.0f, 5) < kerf::rank_key(1.0f, 6));
    CHECK(kerf::rank_key(2.0f, 9) < kerf::rank_key(1.0f, 0));
    CHECK(kerf::rank_index(kerf::rank_key(2.0f, 9)) == 9);
}

TEST(nms_keeps_the_best_of_each_group) {
    const std::vector<Box> boxes{{0, 0, 10, 10}, {1, 0, 11, 10}, {0, 1, 10, 11}, {30, 30, 40, 40}};
    const std::vector<float> scores{0.5f, 0.9f, 0.9f, 0.1f};
    const std::vector<int64_t> groups{1, 1, 2, 1};
    CHECK((kerf::nms(boxes.data(), scores.data(), nullptr, 4, 0.5f) == std::vector<int64_t>{1, 3}));
    CHECK((kerf::nms(boxes.data(), scores.data(), groups.data(), 4, 0.5f) == std::vector<int64_t>{1, 2, 3}));
    CHECK(kerf::nms(nullptr, nullptr, nullptr, 0, 0.5f).empty());
}

TEST(nms_of_many_boxes_crosses_blocks) {
    // 300 boxes side by side and a copy of each: exactly the copies go.
    std::vector<Box> boxes;
    std::vector<float> scores;
    for (int i = 0; i < 600; ++i) {
        const float x = static_cast<float>(i % 300) * 10.0f;
        boxes.push_back({x, 0, x + 9, 9});
        scores.push_back(static_cast<float>(600 - i));
    }
    const std::vector<int64_t> keep = kerf::nms(boxes.data(), scores.data(), nullptr, 600, 0.3f);
    CHECK(keep.size() == 300 && keep.front() == 0 && keep.back() == 299);
}

TEST(decoding_clamps_clips_and_refuses_what_is_not_finite) {
    const kerf::BoxCoder coder{10, 10, 5, 5};
    const auto same = coder.decode({2, 3, 6, 9}, {0, 0, 0, 0}, 100, 100);
    CHECK(same && same->x1 == 2 && same->y1 == 3 && same->x2 == 6 && same->y2 == 9);
    const auto huge = coder.decode({40, 40, 42, 42}, {0, 0, 1e9f, 0}, 100, 1000);
    CHECK(huge && std::abs(huge->x2 - huge->x1 - (41 + 62.5)) < 1e-3);  // grows 62.5 times each way, cut at 0
    CHECK(!coder.decode({0, 0, 1, 1}, {std::nanf(""), 0, 0, 0}, 10, 10));
    CHECK(!coder.decode({0, 0, 1, 1}, {0, 0, 0, std::nanf("")}, 10, 10));
    CHECK(!coder.decode({0, 0, std::numeric_limits<float>::infinity(), 1}, {0, 0, 0, 0}, 10, 10));
}

TEST(proposals_come_by_logit_and_level) {
    const Box anchor{-2, -2, 2, 2};
    const std::vector<float> zeros(4 * 6, 0.0f);
    const std::vector<float> fine{0, 1, 2, 3, 4, 5}, coarse{5, -1};
    const std::vector<kerf::ProposalLevel> levels{{fine.data(), zeros.data(), &anchor, 1, 2, 3, 8.0f}, {coarse.data(), zeros.data(), &anchor, 1, 1, 2, 16.0f}};
    const kerf::Proposals found = kerf::proposals(levels, {4, 3, 0.5f, 0.0f, 100, 100});
    CHECK(found.boxes.size() == 3);
    CHECK(found.boxes[0].x1 == 14 && found.boxes[0].y1 == 6);  // level 0, cell (1, 2)
    CHECK(found.boxes[1].x1 == 0 && found.boxes[1].x2 == 2);   // level 1, same logit
    CHECK(std::abs(found.scores[2] - 1.0f / (1.0f + std::exp(-4.0f))) < 1e-6f);
}

TEST(select_takes_the_best_of_each_class) {
    const std::vector<Box> boxes{{0, 0, 10, 10}, {1, 1, 11, 11}};
    const std::vector<float> scores{0.9f, 0.05f, 0.96f, 0.02f}, deltas(2 * 8, 0.0f);
    const kerf::SelectRule rule{{10, 10, 5, 5}, 0.04f, 0.5f, 10, 20, 20};
    const kerf::Detections found = kerf::select_detections({scores.data(), deltas.data(), boxes.data(), 2, 2, false}, rule);
    CHECK(found.labels.size() == 2);
    CHECK(found.labels[0] == 0 && found.boxes[0].x1 == 1);
    CHECK(found.labels[1] == 1 && found.boxes[1].x1 == 0);

    const std::vector<float> shared{10, 0, 0, 0, 0, 0, 0, 0};  // one delta a proposal: the first moves right by its width
    const kerf::Detections moved = kerf::select_detections({scores.data(), shared.data(), boxes.data(), 2, 2, true}, rule);
    CHECK(moved.labels.size() == 3);
    CHECK(moved.labels[1] == 0 && moved.boxes[1].x1 == 10 && moved.boxes[1].x2 == 20);
    CHECK(moved.labels[2] == 1 && moved.boxes[2].x1 == 10);
}

TEST(decode_gives_a_box_for_every_source) {
    const std::vector<Box> boxes{{0, 0, 10, 10}, {5, 5, 5, 9}, {0, 0, 10, std::nanf("")}};
    const std::vector<float> deltas{10, 0, 0, 0, 10, 10, 0, 0, 0, 0, 0, 0};
    std::vector<Box> out(3);
    kerf::decode_boxes(deltas.data(), boxes.data(), 3, {10, 10, 5, 5}, 8, 30, out.data());
    CHECK(out[0].x1 == 10 && out[0].y1 == 0 && out[0].x2 == 20 && out[0].y2 == 8);  // moved by its width, cut to 8 x 30
    CHECK(out[1].x1 == out[1].x2);                                                  // stays empty
    CHECK(out[2].x1 == 0 && out[2].x2 == 0 && out[2].y2 == 0);                      // not finite: the empty box
}
