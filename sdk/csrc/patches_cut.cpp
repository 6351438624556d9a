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
    int64_t begin = 0, end = 0;          // pixels of the picture that the patch holds
    bool doubles = false;                // the patch lies inside and every pixel becomes two
    std::vector<int32_t> first, second;  // slots that bilinear resizing reads
    std::vector<float> fraction;         // of the second
    std::vector<int32_t> nearest;

    void set(int64_t low, int64_t high, int64_t size, int64_t output) {
        const bool inside = low >= 0 && high <= size;
        begin = std::max<int64_t>(low, 0);
        end = std::min(high, size);
        if (inside && high - low == inside_extent_) return;  // patches mostly share one size: the slots are those of the last one
        inside_extent_ = inside ? high - low : -1;
        doubles = inside && output == 2 * (high - low);
        find_slots(low, high - low, output);
    }
    int64_t count() const { return end - begin; }

private:
    void find_slots(int64_t low, int64_t extent, int64_t output) {
        for (auto* slots : {&first, &second, &nearest}) slots->resize(static_cast<size_t>(output));
        fraction.resize(static_cast<size_t>(output));
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
    int32_t slot(int64_t pixel) const { return pixel < begin || pixel >= end ? 0 : static_cast<int32_t>(pixel - begin + 1); }

    int64_t inside_extent_ = -1;
};

// Strides in bytes; the channels in the order of the result.
struct PixelLayout {
    int64_t pixel_stride, channel_stride;
    const float *scale, *offset;  // 3 each, and a fourth that is read and not used
};

// Pixels as four floats: three normalised channels and one that nobody reads.
KERF_CLONES void normalise_pixels(const uint8_t* row, const PixelLayout& layout, int64_t count, float* pixels) {
    const f32x4 factor = load<f32x4>(layout.scale), shift = load<f32x4>(layout.offset);
    for (int64_t x = 0; x < count; ++x, row += layout.pixel_stride, pixels += 4) {
        const f32x4 value = {static_cast<float>(row[0]), static_cast<float>(row[layout.channel_stride]),
                             static_cast<float>(row[2 * layout.channel_stride]), 0.0f};
        store(pixels, value * factor + shift);
    }
}

// From pixels of four floats to three planes of `count`.
KERF_CLONES void resize_pixels(const float* pixels, const int32_t* first, const int32_t* second, const float* fraction, int64_t count,
                               float* planes) {
    const auto resized = [&](int64_t x) {
        const f32x4 a = load<f32x4>(pixels + 4 * first[x]), b = load<f32x4>(pixels + 4 * second[x]);
        return a + fraction[x] * (b - a);
    };
    float four[16];
    int64_t x = 0;
    for (; x + 4 <= count; x += 4) {
        for (int64_t k = 0; k < 4; ++k) store(four + 4 * k, resized(x + k));
        const Block4x4 block = load_transposed(four, 4);
        for (int64_t c = 0; c < 3; ++c) store(planes + c * count + x, block.rows[c]);
    }
    for (; x < count; ++x) {
        store(four, resized(x));
        for (int64_t c = 0; c < 3; ++c) planes[c * count + x] = four[c];
    }
}

// Three normalised planes of `count` and one more float at either end, which repeats its neighbour.
KERF_CLONES void normalise_planes(const uint8_t* row, const PixelLayout& layout, int64_t count, float* planes) {
    const int64_t plane = count + 2;
    if (layout.pixel_stride == 3 && layout.channel_stride == 1) {  // what nearly every picture is, and what vectorises
        const float scale[3] = {layout.scale[0], layout.scale[1], layout.scale[2]};
        const float offset[3] = {layout.offset[0], layout.offset[1], layout.offset[2]};
        float *__restrict a = planes + 1, *__restrict b = a + plane, *__restrict c = b + plane;
        for (int64_t x = 0; x < count; ++x) {
            a[x] = static_cast<float>(row[3 * x]) * scale[0] + offset[0];
            b[x] = static_cast<float>(row[3 * x + 1]) * scale[1] + offset[1];
            c[x] = static_cast<float>(row[3 * x + 2]) * scale[2] + offset[2];
        }
    } else {
        for (int64_t k = 0; k < 3; ++k)
            for (int64_t x = 0; x < count; ++x)
                planes[k * plane + 1 + x] =
                    static_cast<float>(row[x * layout.pixel_stride + k * layout.channel_stride]) * layout.scale[k] + layout.offset[k];
    }
    for (int64_t k = 0; k < 3; ++k, planes += plane) {
        planes[0] = planes[1];
        planes[count + 1] = planes[count];
    }
}

// Twice as many values: bilinear resizing with half-pixel centres has the fractions .75 and .25 then.
KERF_CLONES void double_plane(const float* from, int64_t count, float* __restrict out) {
    for (int64_t x = 0; x < count; ++x) {
        out[2 * x] = from[x] + 0.75f * (from[x + 1] - from[x]);
        out[2 * x + 1] = from[x + 1] + 0.25f * (from[x + 2] - from[x + 1]);
    }
}

KERF_CLONES void blend_rows(const float* upper, const float* lower, float fraction, int64_t count, float* __restrict out) {
    for (int64_t x = 0; x < count; ++x) out[x] = upper[x] + fraction * (lower[x] - upper[x]);
}

KERF_CLONES void signs(const uint8_t* labels, int64_t count, float* __restrict out) {
    for (int64_t x = 0; x < count; ++x) out[x] = labels[x] != 0 ? 1.0f : -1.0f;
}

KERF_CLONES void pick(const float* values, const int32_t* slots, int64_t count, float* out) {
    for (int64_t x = 0; x < count; ++x) out[x] = values[slots[x]];
}

KERF_CLONES void repeat_twice(const float* values, int64_t count, float* __restrict out) {
    for (int64_t x = 0; x < count; ++x) out[2 * x] = out[2 * x + 1] = values[x];
}

class PatchCutter {
public:
    PatchCutter(const PictureView& picture, const CropsView* masks, const PatchesView& patches, const CutRule& rule)
        : picture_(picture), masks_(masks), patches_(patches), size_(rule.input_size), upper_(static_cast<size_t>(3 * size_)),
          lower_(static_cast<size_t>(3 * size_)) {
        layout_ = {picture.pixel_stride, picture.channels == 3 ? picture.channel_stride : 0, scale_, offset_};
        first_channel_ = picture.data;
        if (rule.swap_channels) {
            first_channel_ += 2 * layout_.channel_stride;
            layout_.channel_stride = -layout_.channel_stride;
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
        pixels_.resize(static_cast<size_t>(4 * (across_.count() + 2)));
        int32_t have_upper = -1, have_lower = -1;
        for (int64_t y = 0; y < size_; ++y, out += size_) {
            if (have_lower == down_.first[y]) {
                upper_.swap(lower_);
                std::swap(have_upper, have_lower);
            }
            make_row(down_.first[y], have_upper, upper_);
            make_row(down_.second[y], have_lower, lower_);
            for (int64_t c = 0; c < 3; ++c)
                blend_rows(upper_.data() + c * size_, lower_.data() + c * size_, down_.fraction[y], size_, out + c * size_ * size_);
        }
    }

    // The row of this slot, resized across, as three planes, unless `row` holds it already.
    void make_row(int32_t slot, int32_t& held, std::vector<float>& row) {
        if (held == slot) return;
        held = slot;
        if (slot == 0) {
            for (int64_t c = 0; c < 3; ++c) std::fill_n(row.data() + c * size_, size_, offset_[c]);
            return;
        }
        const uint8_t* from = first_channel_ + (down_.begin + slot - 1) * picture_.row_stride + across_.begin * picture_.pixel_stride;
        if (across_.doubles) {
            const int64_t count = across_.count();
            normalise_planes(from, layout_, count, pixels_.data());
            for (int64_t c = 0; c < 3; ++c) double_plane(pixels_.data() + c * (count + 2), count, row.data() + c * size_);
            return;
        }
        std::copy_n(offset_, 4, pixels_.data());  // outside the picture it is black
        normalise_pixels(from, layout_, across_.count(), pixels_.data() + 4);
        resize_pixels(pixels_.data(), across_.first.data(), across_.second.data(), across_.fraction.data(), size_, row.data());
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
            if (across_.doubles)
                repeat_twice(labels_.data() + 1, across_.count(), out);
            else
                pick(labels_.data(), across_.nearest.data(), size_, out);
        }
    }

    const PictureView& picture_;
    const CropsView* masks_;
    const PatchesView& patches_;
    int64_t size_;
    const uint8_t* first_channel_;
    PixelLayout layout_;
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
