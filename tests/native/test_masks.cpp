#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common.h"
#include "crops.h"
#include "paste.h"
#include "polygons.h"
#include "rle.h"
#include "thread_pool.h"

namespace {

struct Crops {
    std::vector<kerf::PixelBox> boxes;
    std::vector<int64_t> offsets;
    std::vector<uint8_t> data;

    kerf::CropsView view() const { return {boxes.data(), offsets.data(), data.data(), static_cast<int64_t>(boxes.size())}; }
};

Crops paste(const kerf::MaskGrids& grids, const kerf::Shape& shape) {
    Crops crops{kerf::paste_boxes(grids, shape), {}, {}};
    crops.offsets = kerf::crop_offsets(crops.boxes);
    crops.data.assign(static_cast<size_t>(crops.offsets.back()), 0);
    kerf::paste_crops(grids, crops.boxes, crops.offsets, 0.5, crops.data.data());
    return crops;
}

int64_t twice_area(const kerf::Ring& ring) {
    int64_t sum = 0;
    for (size_t i = 0; i < ring.size(); ++i) {
        const kerf::Point &a = ring[i], &b = ring[(i + 1) % ring.size()];
        sum += int64_t{a.x} * b.y - int64_t{b.x} * a.y;
    }
    return sum;
}

}  // namespace

TEST(pasting_encoding_and_tracing_agree) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> logit(-4, 4), place(-15, 45), extent(0, 50);
    for (const int threads : {1, 4}) {
        kerf::set_num_threads(threads);
        for (int repeat = 0; repeat < 20; ++repeat) {
            constexpr int64_t kCount = 12, kHeight = 9, kWidth = 7;
            std::vector<float> logits(kCount * kHeight * kWidth);
            for (float& value : logits) value = logit(random);
            std::vector<kerf::Box> boxes{{3, 3, 3, 8}, {9, 9, 2, 2}, {std::nanf(""), 0, 4, 4}, {-3e38f, -3e38f, 3e38f, 3e38f}};
            while (boxes.size() < kCount) {
                const float x = place(random), y = place(random);
                boxes.push_back({x, y, x + extent(random), y + extent(random)});
            }
            const kerf::MaskGrids grids{logits.data(), boxes.data(), kCount, kHeight, kWidth};
            const kerf::Shape shape{31, 37};
            const Crops crops = paste(grids, shape);
            kerf::check_crops(crops.view(), static_cast<int64_t>(crops.data.size()));
            kerf::check_crops_inside(crops.view(), shape);

            const std::vector<std::string> texts = kerf::rle_encode(crops.view(), shape);
            CHECK(texts == kerf::paste_rle(grids, shape, 0.5));
            const auto parts = kerf::polygons(crops.view());
            for (size_t n = 0; n < kCount; ++n) {
                int64_t area = 0, traced = 0;
                for (int64_t i = crops.offsets[n]; i < crops.offsets[n + 1]; ++i) area += crops.data[i];
                for (const kerf::Part& part : parts[n])
                    for (const kerf::Ring& ring : part) traced += twice_area(ring);
                CHECK(traced == 2 * area);
                const kerf::DecodedMask decoded = kerf::rle_decode(kerf::rle_counts(texts[n], "text"), shape, "text");
                int64_t decoded_area = 0;
                for (const uint8_t v : decoded.crop) decoded_area += v;
                CHECK(decoded_area == area);
            }
        }
    }
}

TEST(random_text_decodes_or_is_refused) {
    std::mt19937 random(2);
    int accepted = 0;
    for (int repeat = 0; repeat < 20000; ++repeat) {
        const std::string text = [&] {
            std::string s(random() % 9, ' ');
            for (char& c : s) c = static_cast<char>(repeat % 2 ? random() % 256 : 48 + random() % 64);
            return s;
        }();
        try {
            const std::vector<uint32_t> counts = kerf::rle_counts(text, "text");
            int64_t total = 0;
            for (const uint32_t count : counts) total += count;
            if (total > 4000) continue;
            const kerf::DecodedMask mask = kerf::rle_decode(counts, {1, total}, "text");
            CHECK(static_cast<int64_t>(mask.crop.size()) == mask.box.area());
            ++accepted;
        } catch (const kerf::InputError&) {
        }
    }
    CHECK(accepted > 200);
}

TEST(dense_masks_and_back) {
    std::mt19937 random(3);
    const kerf::Shape shape{17, 23};
    const int64_t pixels = shape.height * shape.width;
    std::vector<uint8_t> masks(static_cast<size_t>(6 * pixels), 0);
    for (int64_t i = pixels; i < 5 * pixels; ++i) masks[i] = random() % 5 == 0;  // the first and the last stay empty
    Crops crops{kerf::tight_boxes(masks.data(), 6, shape), {}, {}};
    crops.offsets = kerf::crop_offsets(crops.boxes);
    crops.data.resize(static_cast<size_t>(crops.offsets.back()));
    kerf::cut_crops(masks.data(), shape, crops.boxes, crops.offsets, crops.data.data());
    CHECK(crops.boxes.front().area() == 0 && crops.boxes.back().area() == 0);
    std::vector<uint8_t> again(masks.size(), 0);
    kerf::crops_to_dense(crops.view(), shape, again.data());
    CHECK(again == masks);
}

TEST(crops_that_do_not_agree_are_refused) {
    const std::vector<int64_t> offsets{0, 6};
    const auto view = [&](const kerf::PixelBox& box) { return kerf::CropsView{&box, offsets.data(), nullptr, 1}; };
    const kerf::PixelBox good{1, 1, 3, 4}, inverted{3, 1, 1, 4}, negative{-1, 1, 1, 4}, small{0, 0, 1, 1};
    kerf::check_crops(view(good), 6);
    CHECK_THROWS(kerf::InputError, kerf::check_crops(view(good), 5));
    CHECK_THROWS(kerf::InputError, kerf::check_crops(view(inverted), 6));
    CHECK_THROWS(kerf::InputError, kerf::check_crops(view(negative), 6));
    CHECK_THROWS(kerf::InputError, kerf::check_crops(view(small), 6));
    CHECK_THROWS(kerf::InputError, kerf::check_crops_inside(view(good), {3, 3}));
}

TEST(a_ring_that_meets_itself_becomes_two) {
    const kerf::PixelBox box{10, 20, 13, 23};
    const std::vector<uint8_t> mask{1, 1, 1, 1, 0, 1, 1, 1, 0};
    const std::vector<int64_t> offsets{0, 9};
    const auto found = kerf::polygons({&box, offsets.data(), mask.data(), 1});
    CHECK(found.size() == 1 && found[0].size() == 1 && found[0][0].size() == 2);
    CHECK(found[0][0][0].size() == 6 && twice_area(found[0][0][0]) == 16);
    CHECK(found[0][0][1].size() == 4 && twice_area(found[0][0][1]) == -2);
    CHECK(found[0][0][1].front().x == 11 && found[0][0][1].front().y == 21);
}
