#include "channels_last.h"

#include <algorithm>

#include "common.h"
#include "vec.h"

namespace kerf {
namespace {

constexpr int64_t kMaxRunTiles = 16;
constexpr int64_t kChannelBlock = 16;  // floats of a cache line: a cell's line is written whole
constexpr int64_t kTile = ChannelsLast::kTileCells;

// Every channel lies in another page, which the hardware does not foresee: ask for 16 channels of a tile while two other blocks are worked on.
KERF_INLINE void prefetch_block(const float* from, int64_t plane) {
    for (int64_t c = 0; c < kChannelBlock; ++c)
        for (int64_t i = 0; i < kTile; i += kChannelBlock) __builtin_prefetch(from + c * plane + i, 0, 2);
}

// 16 channels of `cells` cells, a multiple of 4.
KERF_INLINE void interleave_block(const float* from, int64_t plane, int64_t cells, float* to, int64_t padded) {
    for (int64_t i = 0; i < cells; i += 4) {
        Block4x4 blocks[4];
        for (int64_t b = 0; b < 4; ++b) blocks[b] = load_transposed(from + 4 * b * plane + i, plane);
        for (int64_t k = 0; k < 4; ++k)
            for (int64_t b = 0; b < 4; ++b) store_streaming(to + (i + k) * padded + 4 * b, blocks[b].rows[k]);
    }
}

// (channels, cells) with row stride `plane` -> (cells, padded channels).
KERF_CLONES void interleave(const float* from, int64_t plane, int64_t channels, int64_t cells, float* to, int64_t padded) {
    const int64_t whole_channels = channels / kChannelBlock * kChannelBlock, tiles = cells / kTile;
    const int64_t blocks = whole_channels / kChannelBlock * tiles;
    const auto block = [=](int64_t i) { return from + i / tiles * kChannelBlock * plane + i % tiles * kTile; };
    for (int64_t i = 0; i < blocks; ++i) {
        if (i + 2 < blocks) prefetch_block(block(i + 2), plane);
        interleave_block(block(i), plane, kTile, to + i % tiles * kTile * padded + i / tiles * kChannelBlock, padded);
    }
    finish_streaming();
    // What is left: the cells of a map's last, shorter tile, and the channels beyond the last whole block, padded with zeros.
    const int64_t done = tiles * kTile, rest = channels - whole_channels;
    transpose(from + done, plane, whole_channels, cells - done, to + done * padded, padded);
    transpose(from + whole_channels * plane, plane, rest, cells, to + whole_channels, padded);
    for (int64_t i = 0; rest > 0 && i < cells; ++i) std::fill(to + i * padded + channels, to + (i + 1) * padded, 0.0f);
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
