// A channels-last copy of a feature map, made tile by tile where it is needed.
#pragma once

#include <cstdint>
#include <vector>

#include "huge_buffer.h"

namespace kerf {

struct FeatureMap {
    const float* data;  // (B, C, H, W)
    int64_t batch, channels, height, width;
};

class ChannelsLast {
public:
    // Cells of one tile: consecutive in row-major order, 128 bytes of every channel.
    static constexpr int64_t kTileCells = 32;

    // Forgets all tiles; keeps the memory.
    void set(const FeatureMap& map);

    const FeatureMap& map() const { return map_; }
    int64_t padded_channels() const { return padded_channels_; }  // C rounded up to 16; the rest is zero
    const float* cells(int64_t image) const { return buffer_.data() + image * tiles_per_image_ * kTileCells * padded_channels_; }

    // Marks the tiles of a rectangle of cells (bounds included) that are not copied yet as wanted.
    void want(int64_t image, int64_t top, int64_t bottom, int64_t left, int64_t right);

    // A run of wanted tiles that lie behind each other.
    struct Run {
        int64_t first_tile, tiles;
    };
    std::vector<Run> wanted() const;
    // Different runs may be copied by different threads at once.
    void copy(const Run& run);

private:
    enum : uint8_t { kMissing, kWanted, kCopied };

    FeatureMap map_{};
    int64_t padded_channels_ = 0, tiles_per_image_ = 0;
    HugeBuffer buffer_;  // (B, tiles, kTileCells, padded C)
    std::vector<uint8_t> state_;
};

}  // namespace kerf
