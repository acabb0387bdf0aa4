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

// e^x by Cephes' polynomial for expf, within 2 units in the last place; what is below the smallest
// normal number gives that number. NaN stays NaN.
inline Floats exponential(Floats x) {
  const Floats low = all(-87.33654f), high = all(88.37626f);
  const float magic = 12582912.f;  // 1.5 * 2^23 rounds
  x = x < low ? low : x;
  x = x > high ? high : x;
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

// Joins all lanes, halves with halves.
template <typename Join>
inline float across_lanes(Floats x, Join join) {
  float lanes[LANES];
  store(lanes, x);
  for (int distance = LANES / 2; distance > 0; distance /= 2)
    for (int i = 0; i < distance; ++i) lanes[i] = join(lanes[i], lanes[i + distance]);
  return lanes[0];
}

inline float largest_of(Floats x) {
  return across_lanes(x, [](float a, float b) { return a > b ? a : b; });
}

inline float sum_of(Floats x) {
  return across_lanes(x, [](float a, float b) { return a + b; });
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

// A tile of A (ROWS, inner) B (inner, VECTORS * LANES), with all sums in registers, handed row by
// row to `take(row, vector, sum)`.
template <int ROWS, int VECTORS, typename Take>
[[gnu::always_inline]] inline void multiply_tile(int64_t inner, Strided a, const float* b,
                                                 int64_t b_row, Take take) {
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
    unrolled<VECTORS>([&](auto v) INLINE { take(r, v, sums[r][v]); });
  });
}

// Calls the tile of `rows` rows, which is known only at run time.
template <int VECTORS, int ROWS, typename Take>
inline void multiply_rows(int64_t rows, int64_t inner, Strided a, const float* b, int64_t b_row,
                          Take take) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS)
      multiply_tile<ROWS, VECTORS>(inner, a, b, b_row, take);
    else
      multiply_rows<VECTORS, ROWS - 1>(rows, inner, a, b, b_row, take);
  }
}

// Some columns of a product, in tiles of nearly equal height.
template <int VECTORS, typename Take>
inline void multiply_columns(int64_t rows, int64_t inner, Strided a, const float* b, int64_t b_row,
                             Take take) {
  constexpr int most = std::min(MAX_ROWS, MAX_SUMS / VECTORS);
  const int64_t tiles = (rows + most - 1) / most;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = i * rows / tiles, count = (i + 1) * rows / tiles - first;
    multiply_rows<VECTORS, most>(
        count, inner, {a.at + first * a.row, a.row, a.column}, b, b_row,
        [&](int64_t r, int64_t v, Floats sum) INLINE { take(first + r, v, sum); });
  }
}

// A (rows, inner) B (inner, columns), columns in whole vectors, handed in pieces to
// `take(row, column, sum)`.
template <typename Take>
inline void multiply(int64_t rows, int64_t inner, int64_t columns, Strided a, const float* b,
                     int64_t b_row, Take take) {
  for (int64_t done = 0; done < columns;) {
    const int64_t left = (columns - done) / LANES, vectors = std::min<int64_t>(left, MAX_VECTORS);
    const auto take_here = [&](int64_t r, int64_t v, Floats sum) INLINE {
      take(r, done + v * LANES, sum);
    };
    if (vectors == 4) {
      if constexpr (MAX_VECTORS >= 4) multiply_columns<4>(rows, inner, a, b + done, b_row, take_here);
    } else if (vectors == 3) {
      if constexpr (MAX_VECTORS >= 3) multiply_columns<3>(rows, inner, a, b + done, b_row, take_here);
    } else if (vectors == 2) {
      multiply_columns<2>(rows, inner, a, b + done, b_row, take_here);
    } else {
      multiply_columns<1>(rows, inner, a, b + done, b_row, take_here);
    }
    done += vectors * LANES;
  }
}

// C = A B, or C += A B. Sums are added to C at the end, so that those of many short products stay
// as exact as sums of blocks.
inline void multiply(int64_t rows, int64_t inner, int64_t columns, Strided a, const float* b,
                     int64_t b_row, float* c, int64_t c_row, bool adds = false) {
  multiply(rows, inner, columns, a, b, b_row, [&](int64_t r, int64_t column, Floats sum) INLINE {
    float* to = c + r * c_row + column;
    store(to, adds ? load(to) + sum : sum);
  });
}

}  // namespace
