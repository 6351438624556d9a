#include "channels_last.h"

#include <algorithm>

#include "common.h"
#include "vec.h"

namespace kerf {
namespace {

constexpr int64_t kMaxRunTiles = 8;
constexpr int64_t kChannelBlock = 16;  // floats of a cache line: a cell's line is written whole

// (channels, cells) with row stride `plane` -> (cells, padded channels).
KERF_CLONES void interleave(const float* from, int64_t plane, int64_t channels, int64_t cells, float* to, int64_t padded) {
    for (int64_t c = 0; c < channels; c += kChannelBlock) {
        const int64_t rows = std::min(kChannelBlock, channels - c);
        transpose(from + c * plane, plane, rows, cells, to + c, padded);
        for (int64_t i = 0; rows < kChannelBlock && i < cells; ++i) std::fill(to + i * padded + c + rows, to + (i + 1) * padded, 0.0f);
    }
}

}  // namespace

void ChannelsLast::set(const FeatureMap& map) {
    map_ = FeatureMap{};  // unusable until all memory is there
    padded_channels_ = (map.channels + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
    tiles_per_image_ = (map.height * map.width + kTileCells - 1) / kTileCells;
    const int64_t tiles = map.batch * tiles_per_image_;
    state_.assign(static_cast<size_t>(tiles), kMissing);
    buffer_.reserve(static_cast<size_t>(tiles * kTileCells * padded_channels_));
    map_ = map;
}

void ChannelsLast::want(int64_t image, int64_t top, int64_t bottom, int64_t left, int64_t right) {
    uint8_t* state = state_.data() + image * tiles_per_image_;
    for (int64_t y = top; y <= bottom; ++y)
        for (int64_t tile = (y * map_.width + left) / kTileCells; tile <= (y * map_.width + right) / kTileCells; ++tile)
            if (state[tile] == kMissing) state[tile] = kWanted;
}

std::vector<ChannelsLast::Run> ChannelsLast::wanted() const {
    std::vector<Run> runs;
    const int64_t tiles = static_cast<int64_t>(state_.size());
    for (int64_t tile = 0; tile < tiles; ++tile) {
        if (state_[tile] != kWanted) continue;
        const bool grows = !runs.empty() && runs.back().first_tile + runs.back().tiles == tile && runs.back().tiles < kMaxRunTiles &&
                           tile % tiles_per_image_ != 0;
        if (grows)
            ++runs.back().tiles;
        else
            runs.push_back({tile, 1});
    }
    return runs;
}

void ChannelsLast::copy(const Run& run) {
    const int64_t plane = map_.height * map_.width, image = run.first_tile / tiles_per_image_;
    const int64_t first_cell = run.first_tile % tiles_per_image_ * kTileCells;
    const int64_t cells = std::min(run.tiles * kTileCells, plane - first_cell);
    interleave(map_.data + image * map_.channels * plane + first_cell, plane, map_.channels, cells,
               buffer_.data() + run.first_tile * kTileCells * padded_channels_, padded_channels_);
    std::fill_n(state_.begin() + run.first_tile, run.tiles, kCopied);
}

}  // namespace kerf
