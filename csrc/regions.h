// Which consecutive maps and reductions run together, block of rows by block of rows.
//
// A region is a run of nodes whose outputs all have the same number of rows (a row is what follows the leading axes),
// where a row of any output depends on nothing that the region computes but the same row. So the rows may be computed
// in blocks, small enough that what one node hands to the next stays in cache. Every element is still computed by the
// same operations in the same order: fusion changes no bit.
//
// Softmax, layer norm, losses and their gradients are regions around a reduction over the last axes; a chain of maps of
// one shape is a region whose rows are single elements.
//
// On a device a region is a kernel, in which threads share a row. Each of its reductions gives one value a row, and
// there are rows enough to occupy the device. There, a dot and the maps that read its elements are a region too.
#pragma once
#include <vector>

#include "program.h"

namespace gv {

enum class RegionsOf { none, cpu, device };

// Nodes `first` to `last`, views among them, with `rows` rows, `block_rows` of them at a time. `streams` are values
// from outside that are read row by row: the next block's rows may be fetched in advance. A dot and the maps behind it
// are one row.
struct Region {
    size_t first, last;
    int64_t rows, block_rows;
    std::vector<uint32_t> streams;
};

// Disjoint regions in node order; nodes that are `excluded` are in none.
std::vector<Region> find_regions(const Program& program, const std::vector<bool>& excluded, RegionsOf kind);

// For tests: regions of at least so many elements (of the widest value), in blocks of so many.
void set_region_elements(int64_t least, int64_t block);

}  // namespace gv
