#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "axis_taps.h"
#include "check.h"
#include "common.h"
#include "roi_align.h"
#include "thread_pool.h"

namespace {

// Exactly sized heap blocks, so that a sanitizer sees any read or write beyond them.
struct Maps {
    std::vector<std::unique_ptr<float[]>> memory;
    std::vector<kerf::FeatureMap> maps;

    void add(int64_t batch, int64_t channels, int64_t height, int64_t width) {
        const size_t size = static_cast<size_t>(batch * channels * height * width);
        memory.push_back(std::make_unique<float[]>(size));
        for (size_t i = 0; i < size; ++i) memory.back()[i] = static_cast<float>(i * 7919 % 1009) / 1009.0f;
        maps.push_back({memory.back().get(), batch, channels, height, width});
    }
};

std::vector<kerf::Box> odd_boxes() {
    const float big = 3e38f, nan = std::nanf("");
    std::vector<kerf::Box> boxes{{5, 5, 5, 9}, {9, 9, 5, 5}, {-40, -40, -20, -20}, {500, 500, 520, 530}, {-6, -3, 9, 7}, {-big, -big, big, big},
                                 {nan, 0, 1, 1}, {0, 0, INFINITY, 4}, {3, 3, 3.000001f, 20}, {-1, -1, 0, 0}, {39.9f, 0, 41, 60}};
    std::mt19937 random(1);
    std::uniform_real_distribution<float> place(-20, 70), extent(0, 60);
    for (int i = 0; i < 60; ++i) {
        const float x = place(random), y = place(random);
        boxes.push_back({x, y, x + extent(random), y + extent(random)});
    }
    return boxes;
}

}  // namespace

TEST(taps_of_a_bin_are_its_mean_weights) {
    kerf::AxisTaps taps;
    taps.build({0.5, 8.0, 20, 4, 2});
    for (int64_t p = 0; p < 4; ++p) {
        double sum = 0.0, centre = 0.0;
        for (int32_t k = 0; k < taps.count(p); ++k) {
            const size_t i = static_cast<size_t>(taps.begin(p) + k);
            sum += taps.weights()[i];
            centre += taps.weights()[i] * taps.cells()[i];
            if (k > 0) CHECK(taps.cells()[i] > taps.cells()[i - 1]);
        }
        CHECK(std::abs(sum - 1.0) < 1e-6);
        CHECK(std::abs(centre - (0.5 + 2.0 * static_cast<double>(p) + 1.0)) < 1e-5);
    }
}

TEST(taps_lie_in_the_touched_cells) {
    kerf::AxisTaps taps;
    for (double start = -12.0; start < 14.0; start += 0.37)
        for (const double extent : {1e-6, 0.3, 1.0, 5.5, 40.0, 1e12})
            for (const int64_t samples : {0, 1, 2, 3})
                for (const int64_t size : {1, 2, 9}) {
                    const kerf::AxisSpan span{start, extent, size, 3, samples};
                    taps.build(span);
                    const kerf::CellRange range = kerf::touched_cells(span);
                    for (const int32_t cell : taps.cells()) CHECK(cell >= range.first && cell <= range.last && cell < size);
                }
}

TEST(no_access_outside_whatever_the_boxes_and_sizes) {
    const std::vector<kerf::Box> boxes = odd_boxes();
    const int64_t count = static_cast<int64_t>(boxes.size());
    for (const int threads : {1, 4}) {
        kerf::set_num_threads(threads);
        for (const int64_t channels : {1, 16, 19}) {
            Maps maps;
            maps.add(2, channels, 13, 11);
            maps.add(2, channels, 1, 5);
            kerf::Pyramid pyramid({4.0, 8.0});
            pyramid.set(maps.maps);
            std::vector<int32_t> batch;
            for (int64_t n = 0; n < count; ++n) batch.push_back(static_cast<int32_t>(n % 2));
            for (const kerf::PoolRule rule : {kerf::PoolRule{7, 2, -1}, kerf::PoolRule{3, 0, 0}, kerf::PoolRule{2, 1, 1}}) {
                const size_t size = static_cast<size_t>(count * channels * rule.output_size * rule.output_size);
                const auto out = std::make_unique<float[]>(size);
                std::fill_n(out.get(), size, std::nanf(""));
                pyramid.roi_align({boxes.data(), batch.data(), count}, rule, channels, out.get());
                for (size_t i = 0; i < size; ++i) CHECK(out[i] >= 0.0f && out[i] <= 1.0f);
            }
        }
    }
}

TEST(a_constant_map_pools_to_its_constant) {
    std::vector<float> map(3 * 8 * 8, 2.5f), out(3 * 4 * 4);
    const kerf::Box box{4, 4, 27, 25};
    const int32_t image = 0;
    kerf::Pyramid pyramid({4.0});
    pyramid.set({{map.data(), 1, 3, 8, 8}});
    pyramid.roi_align({&box, &image, 1}, {4, 2, -1}, 3, out.data());
    for (const float value : out) CHECK(std::abs(value - 2.5f) < 1e-6f);
}

TEST(a_call_that_does_not_fit_the_maps_is_refused) {
    std::vector<float> map(3 * 8 * 8), out(5 * 4);
    const kerf::Box box{0, 0, 8, 8};
    const int32_t image = 1;
    kerf::Pyramid pyramid({4.0});
    CHECK_THROWS(kerf::InputError, pyramid.roi_align({&box, &image, 1}, {2, 2, -1}, 3, out.data()));  // no maps yet
    pyramid.set({{map.data(), 1, 3, 8, 8}});
    CHECK_THROWS(kerf::InputError, pyramid.roi_align({&box, &image, 1}, {2, 2, -1}, 5, out.data()));
    CHECK_THROWS(kerf::InputError, pyramid.roi_align({&box, &image, 1}, {2, 2, -1}, 3, out.data()));
}
