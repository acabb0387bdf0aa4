// Vectors as wide as the processor's registers, and products of matrices that keep their sums in
// them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace {

// A vector wider than a register goes through memory at each step, which takes five times as long.
#if defined(__AVX512F__)
constexpr int LANES = 16;       // floats of a vector
constexpr int MAX_VECTORS = 4;  // of a tile's row; with MAX_SUMS below, what registers hold
constexpr int MAX_SUMS = 24;
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr int MAX_VECTORS = 2;
constexpr int MAX_SUMS = 12;
#elif defined(__ARM_NEON)
constexpr int LANES = 4;
constexpr int MAX_VECTORS = 4;
constexpr int MAX_SUMS = 24;
#else
constexpr int LANES = 4;
constexpr int MAX_VECTORS = 2;
constexpr int MAX_SUMS = 12;
#endif
constexpr int MAX_ROWS = 8;
constexpr int64_t CACHE_LINE = 16;  // floats

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float HalfFloats __attribute__((vector_size(LANES * 2)));
typedef double HalfDoubles __attribute__((vector_size(LANES * 4)));

inline Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline Floats all(float value) { return Floats{} + value; }

// Many small numbers are summed in float64, as precisely as PyTorch's sums in pairs.
inline void accumulate(double* total, const float* value) {
  for (int half = 0; half < LANES; half += LANES / 2) {
    HalfFloats part;
    HalfDoubles sum;
    std::memcpy(&part, value + half, sizeof part);
    std::memcpy(&sum, total + half, sizeof sum);
    sum += __builtin_convertvector(part, HalfDoubles);
    std::memcpy(total + half, &sum, sizeof sum);
  }
}

inline int64_t round_up(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

// e^x for x <= 88, by Cephes' polynomial for expf, within 2 units in the last place; what is below
// the smallest normal number gives that number. NaN stays NaN.
inline Floats exponential(Floats x) {
  const Floats low = all(-87.33654f);
  const float magic = 12582912.f;  // 1.5 * 2^23 rounds
  x = x < low ? low : x;
  const Floats n = (x * 1.44269504f + magic) - magic;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  return y * (Floats)exponent;  // the same bits
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

template <int DISTANCE, int... LANE>
inline Floats swapped(Floats x, std::integer_sequence<int, LANE...>) {
  return __builtin_shufflevector(x, x, (LANE ^ DISTANCE)...);
}

// Joins each lane with the one at half the width, a quarter, ... : all come to hold the same.
template <int DISTANCE = LANES / 2, typename Join>
inline float across_lanes(Floats x, Join join) {
  x = join(x, swapped<DISTANCE>(x, std::make_integer_sequence<int, LANES>()));
  if constexpr (DISTANCE > 1)
    return across_lanes<DISTANCE / 2>(x, join);
  else
    return x[0];
}

inline float largest_of(Floats x) { return across_lanes(x, larger); }

inline float sum_of(Floats x) {
  return across_lanes(x, [](Floats a, Floats b) { return a + b; });
}

typedef float Four __attribute__((vector_size(16)));

// to[c][r] = from[r][c], in squares of four.
inline void transpose(int64_t rows, int64_t columns, const float* from, int64_t from_row, float* to,
                      int64_t to_row) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    int64_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      Four row[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&row[i], from + (r + i) * from_row + c, 16);
      const Four a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
      const Four b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
      const Four d = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
      const Four e = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
      row[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
      row[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
      row[2] = __builtin_shufflevector(d, e, 0, 1, 4, 5);
      row[3] = __builtin_shufflevector(d, e, 2, 3, 6, 7);
      for (int i = 0; i < 4; ++i) std::memcpy(to + (c + i) * to_row + r, &row[i], 16);
    }
    for (; c < columns; ++c)
      for (int i = 0; i < 4; ++i) to[c * to_row + r + i] = from[(r + i) * from_row + c];
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) to[c * to_row + r] = from[r * from_row + c];
}

// A matrix whose rows and columns lie at any distance.
struct Strided {
  const float* at;
  int64_t row, column;
};

// Calls with 0, 1, ... COUNT - 1 as constants: arrays so indexed can live in registers.
template <typename Body, int... INDICES>
[[gnu::always_inline]] inline void call_each(Body body, std::integer_sequence<int, INDICES...>) {
  (body(std::integral_constant<int, INDICES>()), ...);
}

template <int COUNT, typename Body>
[[gnu::always_inline]] inline void unrolled(Body body) {
  call_each(body, std::make_integer_sequence<int, COUNT>());
}

#define INLINE __attribute__((always_inline))

// C = A B, or C += A B, for tiles one below the other, with all sums of one in registers. Sums are
// added to C at the end, so that those of many short products stay as exact as sums of blocks.
template <int ROWS, int VECTORS>
[[gnu::noinline]] void multiply_tiles(int64_t tiles, int64_t inner, Strided a, const float* b,
                                      int64_t b_row, float* c, int64_t c_row, bool adds) {
  for (int64_t tile = 0; tile < tiles; ++tile, a.at += ROWS * a.row, c += ROWS * c_row) {
    Floats sums[ROWS][VECTORS];
    unrolled<ROWS>([&](auto r) INLINE {
      unrolled<VECTORS>([&](auto v) INLINE { sums[r][v] = Floats{}; });
    });
    for (int64_t k = 0; k < inner; ++k) {
      Floats right[VECTORS];
      unrolled<VECTORS>([&](auto v) INLINE { right[v] = load(b + k * b_row + v * LANES); });
      unrolled<ROWS>([&](auto r) INLINE {
        const float left = a.at[r * a.row + k * a.column];
        unrolled<VECTORS>([&](auto v) INLINE { sums[r][v] += left * right[v]; });
      });
    }
    unrolled<ROWS>([&](auto r) INLINE {
      unrolled<VECTORS>([&](auto v) INLINE {
        float* to = c + r * c_row + v * LANES;
        store(to, adds ? load(to) + sums[r][v] : sums[r][v]);
      });
    });
  }
}

// Some columns of a product, in tiles of two heights that differ by one, ROWS or less.
template <int VECTORS, int ROWS = std::min(MAX_ROWS, MAX_SUMS / VECTORS)>
void multiply_columns(int64_t rows, int64_t inner, Strided a, const float* b, int64_t b_row,
                      float* c, int64_t c_row, bool adds) {
  constexpr int most = std::min(MAX_ROWS, MAX_SUMS / VECTORS);
  const int64_t tiles = (rows + most - 1) / most;
  if constexpr (ROWS > 1) {
    if (tiles * (ROWS - 1) >= rows)
      return multiply_columns<VECTORS, ROWS - 1>(rows, inner, a, b, b_row, c, c_row, adds);
  }
  const int64_t lower = tiles * ROWS - rows, higher = tiles - lower;
  multiply_tiles<ROWS, VECTORS>(higher, inner, a, b, b_row, c, c_row, adds);
  if constexpr (ROWS > 1) {
    const int64_t done = higher * ROWS;
    multiply_tiles<ROWS - 1, VECTORS>(lower, inner, {a.at + done * a.row, a.row, a.column}, b,
                                      b_row, c + done * c_row, c_row, adds);
  }
}

// C (rows, columns) = A (rows, inner) B (inner, columns), or C += A B; columns in whole vectors.
inline void multiply(int64_t rows, int64_t inner, int64_t columns, Strided a, const float* b,
                     int64_t b_row, float* c, int64_t c_row, bool adds = false) {
  for (int64_t left = columns / LANES; left > 0;) {
    const int64_t vectors = std::min<int64_t>(left, MAX_VECTORS);
    if (vectors == 4) {
      if constexpr (MAX_VECTORS >= 4)
        multiply_columns<4>(rows, inner, a, b, b_row, c, c_row, adds);
    } else if (vectors == 3) {
      if constexpr (MAX_VECTORS >= 3)
        multiply_columns<3>(rows, inner, a, b, b_row, c, c_row, adds);
    } else if (vectors == 2) {
      multiply_columns<2>(rows, inner, a, b, b_row, c, c_row, adds);
    } else {
      multiply_columns<1>(rows, inner, a, b, b_row, c, c_row, adds);
    }
    b += vectors * LANES, c += vectors * LANES, left -= vectors;
  }
}

}  // namespace
