#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "boundary_band.h"
#include "check.h"
#include "common.h"
#include "crops.h"
#include "patches.h"
#include "thread_pool.h"

namespace {

// Exactly sized heap blocks, so that a sanitizer sees any read or write beyond them.
template <class T>
struct Block {
    std::unique_ptr<T[]> data;
    size_t size;

    explicit Block(size_t count) : data(std::make_unique<T[]>(count)), size(count) {}
    bool operator==(const Block& other) const {
        return size == other.size && std::memcmp(data.get(), other.data.get(), size * sizeof(T)) == 0;
    }
};

struct Masks {
    std::vector<kerf::PixelBox> boxes;
    std::vector<int64_t> offsets;
    Block<uint8_t> data{0};

    kerf::CropsView view() const { return {boxes.data(), offsets.data(), data.data.get(), static_cast<int64_t>(boxes.size())}; }
};

// Noise, full, empty crops and crops without foreground, on every border of the picture.
Masks random_masks(std::mt19937& random, const kerf::Shape& shape) {
    Masks masks;
    for (int n = 0; n < 9; ++n) {
        const auto interval = [&](int64_t extent) {
            const int32_t a = static_cast<int32_t>(random() % (extent + 1)), b = static_cast<int32_t>(random() % (extent + 1));
            return n == 0 ? std::pair<int32_t, int32_t>(0, static_cast<int32_t>(extent)) : std::pair(std::min(a, b), std::max(a, b));
        };
        const auto [x1, x2] = interval(shape.width);
        const auto [y1, y2] = interval(shape.height);
        masks.boxes.push_back(n == 1 ? kerf::PixelBox{0, 0, 0, 0} : kerf::PixelBox{x1, y1, x2, y2});
    }
    masks.offsets = kerf::crop_offsets(masks.boxes);
    masks.data = Block<uint8_t>(static_cast<size_t>(masks.offsets.back()));
    const uint32_t density = random() % 11;
    for (size_t i = 0; i < masks.data.size; ++i) masks.data.data[i] = random() % 10 < density;
    return masks;
}

struct PatchList {
    std::vector<kerf::PixelBox> boxes;
    std::vector<int32_t> instance;
    kerf::Shape shape;
    int64_t padding;

    kerf::PatchesView view() const { return {boxes.data(), instance.data(), static_cast<int64_t>(boxes.size()), shape, padding}; }
};

PatchList extract(const Masks& masks, const kerf::Shape& shape, const kerf::PatchRule& rule, int64_t padding) {
    PatchList patches{{}, {}, shape, padding};
    const auto found = kerf::boundary_patches(masks.view(), shape, rule);
    for (size_t n = 0; n < found.size(); ++n)
        for (const kerf::Patch& patch : found[n]) {
            patches.boxes.push_back(patch.box);
            patches.instance.push_back(static_cast<int32_t>(n));
        }
    kerf::check_patches(patches.view());
    kerf::check_instances(patches.view(), masks.view().count, "masks");
    return patches;
}

struct Results {
    Block<float> input, uncertainty, means;
    Block<uint8_t> labels, band;

    bool operator==(const Results& other) const {
        return input == other.input && uncertainty == other.uncertainty && means == other.means && labels == other.labels && band == other.band;
    }
};

Results run(const Masks& masks, const PatchList& patches, int64_t input_size, int64_t channels, bool logits) {
    const kerf::Shape& shape = patches.shape;
    const size_t count = patches.boxes.size();
    Block<uint8_t> picture(static_cast<size_t>(shape.height * shape.width * channels));
    for (size_t i = 0; i < picture.size; ++i) picture.data[i] = static_cast<uint8_t>(i * 37);
    const kerf::PictureView view{picture.data.get(), shape.height, shape.width, channels, shape.width * channels, channels, 1};
    const kerf::CropsView crops = masks.view();
    Block<float> input(count * 4 * static_cast<size_t>(input_size * input_size));
    kerf::cut_patches(view, &crops, patches.view(), {input_size, {1, 2, 3}, {4, 5, 6}, logits}, input.data.get());

    Block<float> values(count * static_cast<size_t>(input_size * input_size));
    for (size_t i = 0; i < values.size; ++i) values.data[i] = static_cast<float>(i * 7919 % 1009) / 1009.0f;
    const std::vector<kerf::PixelBox> boxes = kerf::merged_boxes(crops, patches.view());
    const std::vector<int64_t> offsets = kerf::crop_offsets(boxes);
    Block<float> means(static_cast<size_t>(offsets.back()));
    Block<uint8_t> labels(static_cast<size_t>(offsets.back()));
    kerf::merge_patches(crops, patches.view(), {values.data.get(), input_size, logits}, 0.5f, boxes, offsets, labels.data.get(), means.data.get());

    constexpr int64_t kHeight = 5, kWidth = 7;
    std::vector<kerf::Box> covered;
    for (const kerf::PixelBox& b : masks.boxes)
        covered.push_back({static_cast<float>(b.x1), static_cast<float>(b.y1), b.x2 + 0.3f, covered.empty() ? std::nanf("") : b.y2 + 0.4f});
    Block<float> grids(covered.size() * kHeight * kWidth), uncertainty(count);
    for (size_t i = 0; i < grids.size; ++i) grids.data[i] = static_cast<float>(i % 13) - 6.0f;
    kerf::patch_uncertainty(patches.view(), {grids.data.get(), covered.data(), crops.count, kHeight, kWidth}, uncertainty.data.get());

    const std::vector<kerf::PixelBox> around = kerf::band_boxes(crops, shape, 2);
    const std::vector<int64_t> ends = kerf::crop_offsets(around);
    Block<uint8_t> band(static_cast<size_t>(ends.back()));
    kerf::boundary_band(crops, {2, 2}, around, ends, band.data.get());
    return {std::move(input), std::move(uncertainty), std::move(means), std::move(labels), std::move(band)};
}

}  // namespace

TEST(patches_stay_inside_their_memory_and_do_not_depend_on_threads) {
    std::mt19937 random(1);
    size_t total = 0;
    for (int repeat = 0; repeat < 60; ++repeat) {
        const kerf::Shape shape{1 + static_cast<int64_t>(random() % 50), 1 + static_cast<int64_t>(random() % 50)};
        const Masks masks = random_masks(random, shape);
        const int64_t size = 2 + static_cast<int64_t>(random() % 20), padding = repeat % 3 ? 0 : random() % 9;
        const kerf::PatchScheme scheme = static_cast<kerf::PatchScheme>(repeat % 3);
        const float threshold = static_cast<float>(random() % 11) / 10.0f;
        const kerf::PatchRule rule{size, threshold, scheme, 0.3, random() % 2 == 0, random() % 2 == 0};
        const int64_t input_size = repeat % 4 == 0 ? 2 * size : 1 + static_cast<int64_t>(random() % 24);
        const bool logits = random() % 2 == 0;
        kerf::set_num_threads(1);
        const PatchList patches = extract(masks, shape, rule, padding);
        const Results alone = run(masks, patches, input_size, repeat % 5 ? 3 : 1, logits);
        total += patches.boxes.size();
        kerf::set_num_threads(4);
        const PatchList again = extract(masks, shape, rule, padding);
        CHECK(again.instance == patches.instance);
        CHECK(run(masks, again, input_size, repeat % 5 ? 3 : 1, logits) == alone);
    }
    CHECK(total > 1000);
}

TEST(the_ellipse_has_its_patches) {
    const kerf::Shape shape{480, 640};
    Masks masks;
    masks.boxes = {{0, 0, 640, 480}};
    masks.offsets = kerf::crop_offsets(masks.boxes);
    masks.data = Block<uint8_t>(480 * 640);
    for (int y = 0; y < 480; ++y)
        for (int x = 0; x < 640; ++x)
            masks.data.data[y * 640 + x] = (x - 320) * (x - 320) / 62500.0 + (y - 240) * (y - 240) / 32400.0 <= 1.0;
    const auto count = [&](float threshold) {
        return extract(masks, shape, {64, threshold, kerf::PatchScheme::dense, 0.0, true, false}, 0).boxes.size();
    };
    CHECK(count(0.25f) == 36);
    CHECK(count(0.55f) == 74);
    CHECK(count(1.0f) > 2000);
}

TEST(boxes_that_reach_far_outside_cost_no_more_than_the_picture) {
    Masks masks;
    masks.boxes = {{2, 2, 6, 6}};
    masks.offsets = kerf::crop_offsets(masks.boxes);
    masks.data = Block<uint8_t>(16);
    const PatchList patches{{{0, 0, 2147483647, 2147483647}, {19, 9, 20, 2147483647}}, {0, 0}, {10, 20}, 1024};
    const Results results = run(masks, patches, 9, 3, false);
    CHECK(results.labels.size == 200);
}

TEST(patches_that_do_not_agree_are_refused) {
    const auto check = [](const kerf::PixelBox& box, int32_t instance) { kerf::check_patches({&box, &instance, 1, {10, 20}, 0}); };
    check({19, 9, 100, 100}, 0);
    CHECK_THROWS(kerf::InputError, check({20, 0, 30, 5}, 0));
    CHECK_THROWS(kerf::InputError, check({0, 10, 5, 12}, 0));
    CHECK_THROWS(kerf::InputError, check({-1, 0, 5, 5}, 0));
    CHECK_THROWS(kerf::InputError, check({3, 3, 3, 5}, 0));
    CHECK_THROWS(kerf::InputError, check({3, 3, 4, 5}, -1));
    const kerf::PixelBox box{0, 0, 1, 1};
    const int32_t instance = 2;
    CHECK_THROWS(kerf::InputError, kerf::check_instances({&box, &instance, 1, {10, 20}, 0}, 2, "masks"));
}
