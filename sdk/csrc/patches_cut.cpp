// Patches of a picture and its masks, resized into the network's input.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common.h"
#include "patches.h"
#include "thread_pool.h"
#include "vec.h"

namespace kerf {
namespace {

// One axis of a patch. Pixels of the patch that lie inside the picture are stored from slot 1 on; slot 0 stands for all that lie outside.
struct PatchAxis {
    int64_t begin = 0, end = 0;           // pixels of the picture that the patch holds
    std::vector<int32_t> first, second;   // slots that bilinear resizing reads
    std::vector<float> fraction;          // of the second
    std::vector<int32_t> nearest;

    void set(int64_t low, int64_t high, int64_t size, int64_t output) {
        begin = std::max<int64_t>(low, 0);
        end = std::min(high, size);
        first.resize(static_cast<size_t>(output));
        second.resize(static_cast<size_t>(output));
        fraction.resize(static_cast<size_t>(output));
        nearest.resize(static_cast<size_t>(output));
        const int64_t extent = high - low;
        const double scale = static_cast<double>(extent) / static_cast<double>(output);
        for (int64_t i = 0; i < output; ++i) {
            const double centre = std::clamp((static_cast<double>(i) + 0.5) * scale - 0.5, 0.0, static_cast<double>(extent - 1));
            const int64_t pixel = static_cast<int64_t>(centre);
            first[i] = slot(low + pixel);
            second[i] = slot(low + std::min(pixel + 1, extent - 1));
            fraction[i] = static_cast<float>(centre - static_cast<double>(pixel));
            nearest[i] = slot(low + (2 * i + 1) * extent / (2 * output));
        }
    }
    int64_t count() const { return std::max<int64_t>(end - begin, 0); }

private:
    int32_t slot(int64_t pixel) const { return pixel < begin || pixel >= end ? 0 : static_cast<int32_t>(pixel - begin + 1); }
};

// Pixels as four floats: three normalised channels and one that nobody reads.
KERF_CLONES void normalise_row(const uint8_t* row, int64_t pixel_stride, int64_t channel_stride, int64_t count, const float* scale,
                               const float* offset, float* pixels) {
    const f32x4 factor = load<f32x4>(scale), shift = load<f32x4>(offset);
    for (int64_t x = 0; x < count; ++x, row += pixel_stride, pixels += 4) {
        const f32x4 value = {static_cast<float>(row[0]), static_cast<float>(row[channel_stride]), static_cast<float>(row[2 * channel_stride]),
                             0.0f};
        store(pixels, value * factor + shift);
    }
}

KERF_CLONES void resize_row(const float* pixels, const int32_t* first, const int32_t* second, const float* fraction, int64_t count,
                            float* out) {
    for (int64_t x = 0; x < count; ++x) {
        const f32x4 a = load<f32x4>(pixels + 4 * first[x]), b = load<f32x4>(pixels + 4 * second[x]);
        store(out + 4 * x, a + fraction[x] * (b - a));
    }
}

// One output row of three planes between two rows of pixels. `out` has planes of `plane` floats.
KERF_CLONES void blend_rows(const float* upper, const float* lower, float fraction, int64_t count, float* out, int64_t plane) {
    const int64_t fours = count & ~int64_t{3};
    f32x4 mixed[4];
    for (int64_t x = 0; x < fours; x += 4) {
        for (int64_t k = 0; k < 4; ++k) {
            const f32x4 a = load<f32x4>(upper + 4 * (x + k)), b = load<f32x4>(lower + 4 * (x + k));
            mixed[k] = a + fraction * (b - a);
        }
        const Block4x4 block = load_transposed(reinterpret_cast<const float*>(mixed), 4);
        for (int64_t c = 0; c < 3; ++c) store(out + c * plane + x, block.rows[c]);
    }
    for (int64_t x = fours; x < count; ++x)
        for (int64_t c = 0; c < 3; ++c) {
            const float a = upper[4 * x + c], b = lower[4 * x + c];
            out[c * plane + x] = a + fraction * (b - a);
        }
}

KERF_CLONES void signs(const uint8_t* labels, int64_t count, float* out) {
    for (int64_t x = 0; x < count; ++x) out[x] = labels[x] != 0 ? 1.0f : -1.0f;
}

class PatchCutter {
public:
    PatchCutter(const PictureView& picture, const CropsView* masks, const PatchesView& patches, const CutRule& rule)
        : picture_(picture), masks_(masks), patches_(patches), size_(rule.input_size), upper_(static_cast<size_t>(4 * size_)),
          lower_(static_cast<size_t>(4 * size_)) {
        channel_stride_ = picture.channels == 3 ? picture.channel_stride : 0;
        first_channel_ = picture.data;
        if (rule.swap_channels) {
            first_channel_ += 2 * channel_stride_;
            channel_stride_ = -channel_stride_;
        }
        for (int c = 0; c < 3; ++c) {
            scale_[c] = 1.0f / rule.std[c];
            offset_[c] = -rule.mean[c] / rule.std[c];
        }
    }

    // out: (3 or 4, S, S).
    void cut(int64_t i, float* out) {
        const PixelBox& box = patches_.boxes[i];
        const int64_t p = patches_.padding;
        across_.set(box.x1 - p, box.x2 + p, patches_.shape.width, size_);
        down_.set(box.y1 - p, box.y2 + p, patches_.shape.height, size_);
        cut_picture(out);
        if (masks_) cut_mask(patches_.instance[i], out + 3 * size_ * size_);
    }

private:
    void cut_picture(float* out) {
        pixels_.resize(static_cast<size_t>(4 * (across_.count() + 1)));
        std::copy_n(offset_, 4, pixels_.data());  // black
        int32_t have_upper = -1, have_lower = -1;
        for (int64_t y = 0; y < size_; ++y) {
            if (have_lower == down_.first[y]) {
                upper_.swap(lower_);
                std::swap(have_upper, have_lower);
            }
            make_row(down_.first[y], have_upper, upper_);
            make_row(down_.second[y], have_lower, lower_);
            blend_rows(upper_.data(), lower_.data(), down_.fraction[y], size_, out + y * size_, size_ * size_);
        }
    }

    // The row of this slot, resized across, unless `row` holds it already.
    void make_row(int32_t slot, int32_t& held, std::vector<float>& row) {
        if (held == slot) return;
        held = slot;
        if (slot == 0) {
            for (int64_t x = 0; x < size_; ++x) std::copy_n(offset_, 4, row.data() + 4 * x);
            return;
        }
        const uint8_t* from = first_channel_ + (down_.begin + slot - 1) * picture_.row_stride + across_.begin * picture_.pixel_stride;
        normalise_row(from, picture_.pixel_stride, channel_stride_, across_.count(), scale_, offset_, pixels_.data() + 4);
        resize_row(pixels_.data(), across_.first.data(), across_.second.data(), across_.fraction.data(), size_, row.data());
    }

    void cut_mask(int64_t n, float* out) {
        const PixelBox& crop = masks_->boxes[n];
        const int64_t x1 = std::max<int64_t>(across_.begin, crop.x1), x2 = std::min<int64_t>(across_.end, crop.x2);
        labels_.assign(static_cast<size_t>(across_.count() + 1), -1.0f);
        for (int64_t y = 0; y < size_; ++y, out += size_) {
            if (y > 0 && down_.nearest[y] == down_.nearest[y - 1]) {
                std::copy_n(out - size_, size_, out);
                continue;
            }
            const int64_t row = down_.begin + down_.nearest[y] - 1;
            if (down_.nearest[y] == 0 || row < crop.y1 || row >= crop.y2 || x1 >= x2) {
                std::fill_n(out, size_, -1.0f);
                continue;
            }
            const uint8_t* from = masks_->data + masks_->offsets[n] + (row - crop.y1) * crop.width() + x1 - crop.x1;
            signs(from, x2 - x1, labels_.data() + 1 + x1 - across_.begin);
            for (int64_t x = 0; x < size_; ++x) out[x] = labels_[across_.nearest[x]];
        }
    }

    const PictureView& picture_;
    const CropsView* masks_;
    const PatchesView& patches_;
    int64_t size_;
    const uint8_t* first_channel_;
    int64_t channel_stride_;
    float scale_[4] = {0, 0, 0, 0}, offset_[4] = {0, 0, 0, 0};
    PatchAxis across_, down_;
    std::vector<float> pixels_, upper_, lower_, labels_;
};

}  // namespace

void cut_patches(const PictureView& picture, const CropsView* masks, const PatchesView& patches, const CutRule& rule, float* out) {
    const int64_t channels = masks ? 4 : 3;
    parallel_for(patches.count, 4, [&](int64_t begin, int64_t end) {
        PatchCutter cutter(picture, masks, patches, rule);
        for (int64_t i = begin; i < end; ++i) cutter.cut(i, out + i * channels * rule.input_size * rule.input_size);
    });
}

}  // namespace kerf
