#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "preprocess.h"
#include "thread_pool.h"

namespace {

kerf::PreprocessRule rule(int64_t height, int64_t width, bool antialias) {
    return {height, width, height + 3, width + 2, {10, 20, 30}, {1, 2, 4}, false, antialias};
}

}  // namespace

TEST(a_constant_picture_is_constant_and_no_access_is_outside) {
    for (const int threads : {1, 4}) {
        kerf::set_num_threads(threads);
        for (const int64_t channels : {1, 3})
            for (const auto& [in_h, in_w] : {std::pair<int64_t, int64_t>{1, 1}, {2, 9}, {31, 40}})
                for (const auto& [h, w] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {60, 81}}) {
                    // Exactly sized heap blocks, so that a sanitizer sees any access beyond them.
                    const auto picture = std::make_unique<uint8_t[]>(static_cast<size_t>(in_h * in_w * channels));
                    std::fill_n(picture.get(), in_h * in_w * channels, uint8_t{50});
                    const size_t size = static_cast<size_t>(3 * (h + 3) * (w + 2));
                    const auto out = std::make_unique<float[]>(size);
                    std::fill_n(out.get(), size, std::nanf(""));
                    for (const bool antialias : {false, true}) {
                        kerf::preprocess({picture.get(), in_h, in_w, channels, in_w * channels, channels, 1}, rule(h, w, antialias), out.get());
                        CHECK(std::abs(out[0] - 40.0f) < 1e-4f);
                        CHECK(std::abs(out[(h + 3) * (w + 2)] - 15.0f) < 1e-4f);
                        CHECK(out[size - 1] == 0.0f);
                        CHECK(std::none_of(out.get(), out.get() + size, [](float v) { return std::isnan(v); }));
                    }
                }
    }
}

TEST(negative_strides_read_the_mirrored_picture) {
    std::vector<uint8_t> picture(6 * 5 * 3), mirrored(picture.size());
    for (size_t i = 0; i < picture.size(); ++i) picture[i] = static_cast<uint8_t>(i * 37);
    std::reverse_copy(picture.begin(), picture.end(), mirrored.begin());
    std::vector<float> a(3 * 7 * 6), b(a.size());
    kerf::PreprocessRule same{4, 6, 7, 6, {0, 0, 0}, {1, 1, 1}, false, true};
    kerf::preprocess({picture.data() + picture.size() - 1, 6, 5, 3, -15, -3, -1}, same, a.data());
    kerf::preprocess({mirrored.data(), 6, 5, 3, 15, 3, 1}, same, b.data());
    CHECK(a == b);
}
