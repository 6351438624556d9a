// Boundary patches of masks: where they lie, the network's input, and reassembly. Contract: sdk/ops/patches.py.
#pragma once

#include <cstdint>
#include <vector>

#include "crops.h"
#include "paste.h"
#include "preprocess.h"

namespace kerf {

enum class PatchScheme { dense, grid, instance };

struct PatchRule {
    int64_t size;          // side of a patch, 2 to 1024 (float32 counts the pixels of two exactly)
    float threshold;       // IoU above which a candidate is dropped
    PatchScheme scheme;
    double enlarge;        // scheme instance: part of its extent by which a box grows on every side
    bool frame;            // scheme dense: the outside of the picture counts as background
    bool pad_small;        // a picture smaller than `size` has patches too
};

struct Patch {
    PixelBox box;  // begins inside the picture, may end outside
    float score;
};

// Patches of each mask; the masks lie inside the picture.
std::vector<std::vector<Patch>> boundary_patches(const CropsView& masks, const Shape& shape, const PatchRule& rule);

struct PatchesView {
    const PixelBox* boxes;
    const int32_t* instance;
    int64_t count;
    Shape shape;
    int64_t padding;
};

// Throws InputError unless the boxes have an area and begin inside the picture and no instance is negative.
void check_patches(const PatchesView& patches);

// Throws InputError unless every instance is below `count`, the number of `what`.
void check_instances(const PatchesView& patches, int64_t count, const char* what);

struct CutRule {
    int64_t input_size;
    float mean[3], std[3];  // of the output channels
    bool swap_channels;
};

// out: (P, 3 or, with masks, 4, S, S). `masks` may be null.
void cut_patches(const PictureView& picture, const CropsView* masks, const PatchesView& patches, const CutRule& rule, float* out);

struct PatchValues {
    const float* data;  // (P, S, S)
    int64_t size;
    bool logits;
};

// The crops that hold masks and patches.
std::vector<PixelBox> merged_boxes(const CropsView& masks, const PatchesView& patches);

// data, and means unless null: laid out by crop_offsets(boxes).
void merge_patches(const CropsView& masks, const PatchesView& patches, const PatchValues& values, float threshold,
                   const std::vector<PixelBox>& boxes, const std::vector<int64_t>& offsets, uint8_t* data, float* means);

// uncertainty: (P).
void patch_uncertainty(const PatchesView& patches, const MaskGrids& masks, float* uncertainty);

// Positions of the patches of each of `count` instances, in the order they come in.
std::vector<std::vector<int64_t>> patches_by_instance(const PatchesView& patches, int64_t count);

}  // namespace kerf
