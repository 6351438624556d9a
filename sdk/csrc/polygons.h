// Masks as polygons along pixel edges. Contract: sdk/ops/polygons.py.
#pragma once

#include <cstdint>
#include <vector>

#include "crops.h"

namespace kerf {

struct Point {
    int32_t x, y;
};
using Ring = std::vector<Point>;
using Part = std::vector<Ring>;  // outer ring, then its holes

std::vector<std::vector<Part>> polygons(const CropsView& crops);

}  // namespace kerf
