// Window attention, forward and backward, for float32 on the CPU.
//
// Threads take window by window, head by head: query, key and value are fetched from the
// projection by index, so that padding, shift and partition cost nothing, and scores never leave
// the cache. Backward computes the scores again. Padded places are live keys and values; as
// queries nobody asks for their output, so their rows are left out.
//
// swin_mm/ops/cpp/window_attention.py lays out the arguments, swin_mm/ops/reference.py has the
// readable definition.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr int64_t QUERY_BLOCK = 64;   // queries whose scores are held at a time
constexpr float MASK_VALUE = -100.f;  // between regions, as in swin_mm/ops/window.py

}  // namespace

extern "C" {

// Mirrored by `Problem` in window_attention.py.
struct Problem {
  int64_t batch, num_windows, num_tokens;  // images, windows of one, tokens of one
  int64_t window_tokens, num_heads, head_dim;
  int64_t threads, parts;    // the windows are divided into parts, which threads take in turn
  const float* qkv;          // (batch, num_tokens, 3, num_heads, head_dim)
  const float* pad_token;    // (3, num_heads, head_dim)
  const float* bias;         // (num_heads, window_tokens, keys), -inf where there is no key
  const int32_t* token_at;   // (num_windows, window_tokens), num_tokens where there is padding
  const int32_t* regions;    // (num_windows, keys), null without a shift
  float* out;                // (batch, num_tokens, num_heads, head_dim)
  float* normalisers;        // (batch, num_windows, num_heads, window_tokens, 2), the largest score
                             // and the reciprocal of the sum; null if not wanted
  const float* grad_out;     // as out
  float* grad_qkv;           // as qkv
  double* grad_pad_token;    // (parts, 3, num_heads, head_dim), zero at first
  double* grad_bias;         // (parts, num_heads, window_tokens, keys), zero at first
  RunParallel run_parallel;
  float scale;
};

}  // extern "C"

namespace {

// The memory of one thread, and what it knows of the window at hand.
struct Worker {
  const Problem& p;
  const int64_t keys, width;  // window_tokens and head_dim in whole vectors
  const int64_t channels = p.num_heads * p.head_dim;
  std::vector<float> memory;
  float *q, *k, *v, *k_columns, *v_columns, *scores, *grad_scores, *grad_q, *grad_k, *grad_v;
  float *rows, *factors, *tops;
  std::vector<int64_t> queries;  // places of the window that hold a token
  const int32_t *tokens, *regions;
  int64_t image, window;

  explicit Worker(const Problem& problem)
      : p(problem), keys(round_up(p.window_tokens)), width(round_up(p.head_dim)) {
    const int64_t map = keys * width, block = QUERY_BLOCK * keys;
    memory.resize(9 * map + 2 * block + 2 * QUERY_BLOCK + LANES);  // zeros: the margins stay so
    // A vector that straddles two cache lines costs two accesses.
    const auto start = reinterpret_cast<uintptr_t>(memory.data());
    float* next = memory.data() + (-start / sizeof(float)) % LANES;
    for (float** part : {&q, &k, &v, &k_columns, &v_columns, &grad_q, &grad_k, &grad_v, &rows})
      *part = next, next += map;
    scores = next, grad_scores = next + block, factors = next + 2 * block;
    tops = factors + QUERY_BLOCK;
    queries.reserve(p.window_tokens);
  }

  void enter(int64_t number) {
    image = number / p.num_windows, window = number % p.num_windows;
    tokens = p.token_at + window * p.window_tokens;
    queries.clear();
    for (int64_t i = 0; i < p.window_tokens; ++i)
      if (tokens[i] < p.num_tokens) queries.push_back(i);
    regions = p.regions ? p.regions + window * keys : nullptr;
    if (regions && std::all_of(regions, regions + p.window_tokens,
                               [&](int32_t region) { return region == regions[0]; }))
      regions = nullptr;
  }

  // Offset of a token's channels of a head in maps of one (out) or three (qkv) times the channels.
  int64_t offset(int64_t place, int64_t head, int64_t times = 1, int64_t which = 0) const {
    return (image * p.num_tokens + tokens[place]) * times * channels + which * channels +
           head * p.head_dim;
  }

  const float* source(int64_t place, int64_t head, int64_t which) const {
    if (tokens[place] < p.num_tokens) return p.qkv + offset(place, head, 3, which);
    return p.pad_token + which * channels + head * p.head_dim;
  }

  void copy_row(float* to, const float* from, float factor = 1.f) const {
    int64_t d = 0;
    for (; d + LANES <= p.head_dim; d += LANES) store(to + d, load(from + d) * factor);
    for (; d < p.head_dim; ++d) to[d] = from[d] * factor;
  }

  // Asks for the rows of the next head, or of the next window, which no processor foresees.
  void fetch_ahead(int64_t head) const {
    const bool is_last = head + 1 == p.num_heads;
    if (is_last && window + 1 == p.num_windows) return;
    const int32_t* next = tokens + (is_last ? p.window_tokens : 0);
    const int64_t first = (is_last ? 0 : head + 1) * p.head_dim;
    for (int64_t j = 0; j < p.window_tokens; ++j) {
      if (next[j] == p.num_tokens) continue;
      const float* row = p.qkv + (image * p.num_tokens + next[j]) * 3 * channels + first;
      for (int64_t d = 0; d < p.head_dim; d += CACHE_LINE)
        for (int which = 0; which < 3; ++which) __builtin_prefetch(row + which * channels + d);
    }
  }

  void fetch(int64_t head) {
    fetch_ahead(head);
    for (size_t i = 0; i < queries.size(); ++i)
      copy_row(q + i * width, source(queries[i], head, 0), p.scale);
    for (int64_t j = 0; j < p.window_tokens; ++j) {
      copy_row(k + j * width, source(j, head, 1));
      copy_row(v + j * width, source(j, head, 2));
    }
    transpose(p.window_tokens, p.head_dim, k, width, k_columns, keys);
  }

  // Scores of the queries from `first` on, with bias and mask, and the largest of each.
  void score(int64_t head, int64_t first, int64_t count) {
    multiply(count, p.head_dim, keys, {q + first * width, width, 1}, k_columns, keys, scores, keys);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t place = queries[first + i];
      const float* bias = p.bias + (head * p.window_tokens + place) * keys;
      float* row = scores + i * keys;
      Floats largest = all(-INFINITY);
      for (int64_t j = 0; j < keys; j += LANES) {
        Floats value = load(row + j) + load(bias + j);
        if (regions) {
          Ints other;
          std::memcpy(&other, regions + j, sizeof other);
          value += other != regions[place] ? all(MASK_VALUE) : Floats{};
        }
        store(row + j, value);
        largest = larger(value, largest);
      }
      tops[i] = largest_of(largest);
    }
  }

  void forward(int64_t head) {
    fetch(head);
    const int64_t wanted = queries.size();
    for (int64_t first = 0; first < wanted; first += QUERY_BLOCK) {
      const int64_t count = std::min(QUERY_BLOCK, wanted - first);
      score(head, first, count);
      for (int64_t i = 0; i < count; ++i) factors[i] = soften(head, first + i, i);
      multiply(count, p.window_tokens, width, {scores, keys, 1}, v, width, rows, width);
      for (int64_t i = 0; i < count; ++i)
        copy_row(p.out + offset(queries[first + i], head), rows + i * width, factors[i]);
    }
  }

  // Puts e^(score - largest) in place of the scores of a row; returns what normalises them.
  float soften(int64_t head, int64_t query, int64_t i) const {
    float* row = scores + i * keys;
    const float top = tops[i];
    Floats total{};
    for (int64_t j = 0; j < keys; j += LANES) {
      const Floats value = exponential(load(row + j) - top);
      store(row + j, value);
      total += value;
    }
    const float factor = 1.f / sum_of(total);
    if (p.normalisers) {
      float* kept = normaliser(head, queries[query]);
      kept[0] = top, kept[1] = factor;
    }
    return factor;
  }

  void backward(int64_t head, int64_t part) {
    const int64_t wanted = queries.size();
    fetch(head);
    transpose(p.window_tokens, p.head_dim, v, width, v_columns, keys);
    for (int64_t i = 0; i < wanted; ++i)
      copy_row(rows + i * width, p.grad_out + offset(queries[i], head));
    for (int64_t first = 0; first < wanted; first += QUERY_BLOCK) {
      const int64_t count = std::min(QUERY_BLOCK, wanted - first);
      score(head, first, count);
      const float* grad_rows = rows + first * width;
      multiply(count, p.head_dim, keys, {grad_rows, width, 1}, v_columns, keys, grad_scores, keys);
      for (int64_t i = 0; i < count; ++i) soften_backward(head, part, first, i);
      multiply(count, p.window_tokens, width, {grad_scores, keys, 1}, k, width,
               grad_q + first * width, width);
      multiply(p.window_tokens, count, width, {grad_scores, 1, keys}, q + first * width, width,
               grad_k, width, first > 0);
      multiply(p.window_tokens, count, width, {scores, 1, keys}, grad_rows, width, grad_v, width,
               first > 0);
    }
    for (int64_t i = 0; i < wanted; ++i)
      copy_row(p.grad_qkv + offset(queries[i], head, 3), grad_q + i * width, p.scale);
    for (int64_t j = 0; j < p.window_tokens; ++j) return_to_key(head, part, j);
  }

  // Both numbers, not the logarithm of their product: its rounding, in the units of the scores,
  // would leave weights that do not sum to 1, and so gradients where there are none.
  float* normaliser(int64_t head, int64_t place) const {
    const int64_t map = (image * p.num_windows + window) * p.num_heads + head;
    return p.normalisers + 2 * (map * p.window_tokens + place);
  }

  // From scores to weights, and from the gradient of weights to that of scores, in place.
  void soften_backward(int64_t head, int64_t part, int64_t first, int64_t i) {
    const int64_t place = queries[first + i];
    const float *kept = normaliser(head, place), top = kept[0], factor = kept[1];
    float *row = scores + i * keys, *grad = grad_scores + i * keys;
    Floats total{};
    for (int64_t j = 0; j < keys; j += LANES) {
      const Floats weight = exponential(load(row + j) - top) * factor;
      store(row + j, weight);
      total += weight * load(grad + j);
    }
    const float mean = sum_of(total);
    double* grad_bias =
        p.grad_bias + ((part * p.num_heads + head) * p.window_tokens + place) * keys;
    for (int64_t j = 0; j < keys; j += LANES) {
      const Floats value = load(row + j) * (load(grad + j) - mean);
      store(grad + j, value);
      accumulate(grad_bias + j, grad + j);
    }
  }

  void return_to_key(int64_t head, int64_t part, int64_t place) {
    const float *key = grad_k + place * width, *value = grad_v + place * width;
    if (tokens[place] < p.num_tokens) {
      copy_row(p.grad_qkv + offset(place, head, 3, 1), key);
      copy_row(p.grad_qkv + offset(place, head, 3, 2), value);
      return;
    }
    double* pad = p.grad_pad_token + part * 3 * channels + head * p.head_dim;
    for (int64_t d = 0; d < p.head_dim; ++d) {
      pad[channels + d] += key[d];
      pad[2 * channels + d] += value[d];
    }
  }
};

void start(const Problem& p, bool is_backward) {
  const int64_t windows = p.batch * p.num_windows;
  share<Worker>(p, p.parts, [&](Worker& worker, int64_t part) {
    for (int64_t i = part * windows / p.parts; i < (part + 1) * windows / p.parts; ++i) {
      worker.enter(i);
      for (int64_t head = 0; head < p.num_heads; ++head)
        is_backward ? worker.backward(head, part) : worker.forward(head);
    }
  });
}

}  // namespace

extern "C" {

// For a test that window_attention.py agrees.
int64_t lanes() { return LANES; }
int64_t problem_size() { return sizeof(Problem); }

void window_attention_forward(const Problem* problem) { start(*problem, false); }

void window_attention_backward(const Problem* problem) { start(*problem, true); }

}  // extern "C"
