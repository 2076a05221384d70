// Tiles of AMX for bf16 and int8: blocks of at most 32 rows of words by the 32 outputs of a panel, whatever the number of
// rows, so that a row has the same bits among any others. A tile of x is up to 16 rows of 64 bytes as they lie (16 steps), a tile
// of weights 16 steps of 16 outputs. Included by linear.cpp.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "linear.h"

namespace PS_ISA {

constexpr int kTileRows = 16;

/* Tiles 0..3 are sums (of rows 0.. and outputs 0.., 0.. and 16.., 16.. and 0.., 16.. and 16..), 4 and 5 rows of x, 6 and 7
 * weights. */
static void configure_tiles(int rows) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } config;
  const int upper = rows < kTileRows ? rows : kTileRows, lower = rows - upper > 0 ? rows - upper : 1;
  for (int tile : {0, 1, 4}) config.rows[tile] = uint8_t(upper);
  for (int tile : {2, 3, 5}) config.rows[tile] = uint8_t(lower);
  for (int tile : {6, 7}) config.rows[tile] = kTileSteps;
  asm volatile("" : : "r"(&config) : "memory");  // g++ 12 believes that only its first 8 bytes are read
  _tile_loadconfig(&config);
}

/* The intrinsics take literals only. */
static void multiply_upper(BF16) {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
}
static void multiply_lower(BF16) {
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}
static void multiply_upper(Int8) {
  _tile_dpbusd(0, 4, 6);
  _tile_dpbusd(1, 4, 7);
}
static void multiply_lower(Int8) {
  _tile_dpbusd(2, 5, 6);
  _tile_dpbusd(3, 5, 7);
}

/* The sums of a block, as tiles are stored: [row][output]. */
struct alignas(64) Sums {
  int32_t of[2 * kTileRows][kPanel];
};

template <class Format, bool HasLower>
static void sum_tiles(const Linear& job, int row, int panel, Sums& sums) {
  const char* w = job.w.panel(panel);
  const char *upper = job.x + row * job.row_bytes, *lower = upper + kTileRows * job.row_bytes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int step = 0; step < job.w.steps; step += kTileSteps, w += kTileSteps * kStepBytes) {
    _tile_loadd(6, w, kStepBytes);
    _tile_loadd(7, w + 64, kStepBytes);
    _tile_loadd(4, upper + step * 4, job.row_bytes);
    multiply_upper(Format());
    if (HasLower) {
      _tile_loadd(5, lower + step * 4, job.row_bytes);
      multiply_lower(Format());
    }
  }
  _tile_stored(0, sums.of[0], kStepBytes);
  _tile_stored(1, sums.of[0] + kLanes, kStepBytes);
  if (HasLower) {
    _tile_stored(2, sums.of[kTileRows], kStepBytes);
    _tile_stored(3, sums.of[kTileRows] + kLanes, kStepBytes);
  }
}

static void finish_row(const Linear& job, const Sums& sums, int m, int lane, int row, int vec, BF16) {
  const Vec found[] = {load(reinterpret_cast<const float*>(sums.of[m] + lane))};
  job.finish(found, row, vec);
}
static void finish_row(const Linear& job, const Sums& sums, int m, int lane, int row, int vec, Int8) {
  const Ints found[] = {load_ints(sums.of[2 * m] + lane), load_ints(sums.of[2 * m + 1] + lane)};
  job.finish(found, row, vec);
}

/* Rows [begin, end) of y, panels [first, last). */
template <class Format>
static void compute_by_tiles(const Linear& job, int begin, int end, int first, int last) {
  Sums sums;
  for (int row = begin, rows; row < end; row += rows) {
    rows = std::min(end - row, 2 * kTileRows / Format::kRows);
    configure_tiles(rows * Format::kRows);
    const auto sum = rows * Format::kRows > kTileRows ? sum_tiles<Format, true> : sum_tiles<Format, false>;
    for (int panel = first; panel < last; panel++) {
      sum(job, row * Format::kRows, panel, sums);
      for (int m = 0; m < rows; m++)
        for (int v = 0; v < kPanel / kLanes; v++) {
          const int vec = panel * (kPanel / kLanes) + v;
          if (vec < job.vecs()) finish_row(job, sums, m, v * kLanes, row + m, vec, Format());
        }
    }
  }
  _tile_release();
}

}  // namespace PS_ISA
