#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common.h"
#include "thread_pool.h"
#include "vec.h"

namespace kerf {
namespace {

// Separable resampling weights of one axis: output i is the sum of weight[i * taps + k] * input[first[i] + k]. All windows have the same
// number of taps (zero weights at the end where fewer are needed) and lie inside the input.
struct Resampling {
    int64_t taps = 0;
    std::vector<int64_t> first;
    std::vector<float> weight;
};

// Triangle filter around the output's centre. `widen` >= 1 is its support in input pixels: 1 interpolates between two neighbours, more
// averages (antialiasing). The part of the window outside the picture is cut and the rest normalised, as PIL and torch do; for plain
// interpolation that equals clamping at the edge.
Resampling triangle_filter(int64_t input, int64_t output, bool antialias) {
    const double scale = static_cast<double>(input) / static_cast<double>(output);
    const double support = antialias ? std::max(scale, 1.0) : 1.0;
    Resampling r;
    r.taps = std::min(input, static_cast<int64_t>(std::ceil(2.0 * support)) + 1);
    for (int64_t i = 0; i < output; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
        const int64_t reach = static_cast<int64_t>(std::floor(centre - support)) + 1;
        const int64_t first = std::clamp<int64_t>(reach, 0, input - r.taps);
        std::vector<double> weights;
        double sum = 0.0;
        for (int64_t k = 0; k < r.taps; ++k) {
            weights.push_back(std::max(0.0, 1.0 - std::abs(static_cast<double>(first + k) - centre) / support));
            sum += weights.back();
        }
        r.first.push_back(first);
        for (const double w : weights) r.weight.push_back(static_cast<float>(w / sum));
    }
    return r;
}

// sums += or = weight * row, over `count` bytes.
KERF_CLONES void weighted_bytes(const uint8_t* row, float weight, int64_t count, bool add, float* sums) {
    if (add)
        for (int64_t i = 0; i < count; ++i) sums[i] += weight * static_cast<float>(row[i]);
    else
        for (int64_t i = 0; i < count; ++i) sums[i] = weight * static_cast<float>(row[i]);
}

// One output row from interleaved RGB sums; four lanes a pixel (the fourth is not used). `row` must be readable 4 floats past its end.
KERF_CLONES void resample_rgb(const float* row, const Resampling& r, int64_t width, float* pixels) {
    const float* weight = r.weight.data();
    for (int64_t x = 0; x < width; ++x, weight += r.taps) {
        const float* from = row + 3 * r.first[x];
        f32x4 sum = weight[0] * load<f32x4>(from);
        for (int64_t k = 1; k < r.taps; ++k) sum += weight[k] * load<f32x4>(from + 3 * k);
        store(pixels + 4 * x, sum);
    }
}

KERF_CLONES void resample_gray(const float* row, const Resampling& r, int64_t width, float* values) {
    const float* weight = r.weight.data();
    for (int64_t x = 0; x < width; ++x, weight += r.taps) {
        float sum = 0.0f;
        for (int64_t k = 0; k < r.taps; ++k) sum += weight[k] * row[r.first[x] + k];
        values[x] = sum;
    }
}

// out[x] = values[step * x] * scale + offset.
template <int Step>
KERF_INLINE void normalise(const float* values, int64_t width, float scale, float offset, float* out) {
    for (int64_t x = 0; x < width; ++x) out[x] = values[Step * x] * scale + offset;
}
KERF_CLONES void normalise_rgb(const float* values, int64_t width, float scale, float offset, float* out) {
    normalise<4>(values, width, scale, offset, out);
}
KERF_CLONES void normalise_gray(const float* values, int64_t width, float scale, float offset, float* out) {
    normalise<1>(values, width, scale, offset, out);
}

// A view whose channels ascend in memory where that is possible: a BGR view of an RGB picture is the RGB picture with channels swapped.
PictureView with_ascending_channels(PictureView picture, bool& swap) {
    if (picture.channels == 3 && picture.channel_stride < 0) {
        picture.data += 2 * picture.channel_stride;
        picture.channel_stride = -picture.channel_stride;
        swap = !swap;
    }
    return picture;
}

class Resizer {
public:
    Resizer(const PictureView& picture, const PreprocessRule& rule, float* out)
        : swap_(rule.swap_channels), picture_(with_ascending_channels(picture, swap_)), rule_(rule), out_(out),
          down_(triangle_filter(picture.height, rule.height, rule.antialias)), across_(triangle_filter(picture.width, rule.width, rule.antialias)) {}

    void rows(int64_t begin, int64_t end) const {
        const int64_t bytes = picture_.width * picture_.channels;
        std::vector<float> sums(static_cast<size_t>(bytes + 4)), pixels(static_cast<size_t>(4 * rule_.width));
        std::vector<uint8_t> packed(static_cast<size_t>(bytes));
        for (int64_t y = begin; y < end; ++y) {
            sum_down(y, packed, sums);
            if (picture_.channels == 3)
                resample_rgb(sums.data(), across_, rule_.width, pixels.data());
            else
                resample_gray(sums.data(), across_, rule_.width, pixels.data());
            write_row(y, pixels);
        }
    }

private:
    void sum_down(int64_t y, std::vector<uint8_t>& packed, std::vector<float>& sums) const {
        bool add = false;
        for (int64_t k = 0; k < down_.taps; ++k) {
            const float weight = down_.weight[y * down_.taps + k];
            if (weight == 0.0f) continue;
            weighted_bytes(packed_row(down_.first[y] + k, packed), weight, picture_.width * picture_.channels, add, sums.data());
            add = true;
        }
    }

    // Row y as interleaved bytes: the picture's own memory when it is packed, else a copy.
    const uint8_t* packed_row(int64_t y, std::vector<uint8_t>& packed) const {
        const uint8_t* row = picture_.data + y * picture_.row_stride;
        const bool is_packed = picture_.pixel_stride == picture_.channels && (picture_.channels == 1 || picture_.channel_stride == 1);
        if (is_packed) return row;
        uint8_t* to = packed.data();
        for (int64_t x = 0; x < picture_.width; ++x)
            for (int64_t c = 0; c < picture_.channels; ++c) *to++ = row[x * picture_.pixel_stride + c * picture_.channel_stride];
        return packed.data();
    }

    void write_row(int64_t y, const std::vector<float>& pixels) const {
        for (int c = 0; c < 3; ++c) {
            float* to = out_ + (c * rule_.padded_height + y) * rule_.padded_width;
            const float scale = 1.0f / rule_.std[c], offset = -rule_.mean[c] / rule_.std[c];
            if (picture_.channels == 3)
                normalise_rgb(pixels.data() + (swap_ ? 2 - c : c), rule_.width, scale, offset, to);
            else
                normalise_gray(pixels.data(), rule_.width, scale, offset, to);
            std::fill(to + rule_.width, to + rule_.padded_width, 0.0f);
        }
    }

    bool swap_;
    PictureView picture_;
    const PreprocessRule& rule_;
    float* out_;
    Resampling down_, across_;
};

}  // namespace

void preprocess(const PictureView& picture, const PreprocessRule& rule, float* out) {
    const Resizer resizer(picture, rule, out);
    parallel_for(rule.height, 16, [&](int64_t begin, int64_t end) { resizer.rows(begin, end); });
    const int64_t below = (rule.padded_height - rule.height) * rule.padded_width;
    for (int c = 0; c < 3; ++c) std::fill_n(out + (c * rule.padded_height + rule.height) * rule.padded_width, below, 0.0f);
}

}  // namespace kerf
