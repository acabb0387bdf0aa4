// Linear layers and MLPs for float32 on the CPU, with a norm before them, and the GELU's part in
// their backward.
//
// Threads take chunks of tokens. Norm, bias, GELU and residual cost no pass over memory, and an
// MLP's hidden channels stay in the cache. Within a chunk tokens lie side by side in panels as wide
// as a product's tile, so that weights are read as they are. The products of backward are long, and
// PyTorch's serve; what lies between them is one pass here.
//
// swin_mm/ops/cpp/linear.py lays out the arguments, and has the readable definition.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr int64_t PANEL = MAX_VECTORS * LANES;  // tokens
constexpr int64_t ROWS = 48;                    // of weights at a time; whole tiles of 6 and 8
constexpr int64_t PARTS_OF_A_THREAD = 4;        // so that one that is held up leaves its share
constexpr int64_t SUMMED = 192;                 // channels at a time, whose sum joins the total
constexpr int64_t AVERAGED = 16;                // likewise

}  // namespace

extern "C" {

// Mirrored by `_Problem` in linear.py. Without a first layer, hidden is 0.
struct Problem {
  int64_t tokens, channels, hidden, out_channels;
  int64_t threads, chunk;     // chunk: panels of a part
  const float* x;             // (tokens, channels)
  const float* norm_weight;   // (channels), null for no norm
  const float* norm_bias;     // (channels)
  const float* weight1;       // (hidden, channels)
  const float* bias1;         // (hidden)
  const float* weight2;       // (out_channels, hidden or else channels)
  const float* bias2;         // (out_channels), null for none
  const float* residual;      // (tokens, out_channels), null for none
  float* out;                 // (tokens, out_channels)
  float* kept;                // (tokens, hidden), before the GELU; null if not wanted in forward
  float* grad_hidden;         // as kept: gradient after the GELU, which becomes that before it
  float* activated;           // as kept: after the GELU; null if not wanted
  RunParallel run_parallel;
  float epsilon;              // of the norm
};

}  // extern "C"

namespace {

struct Normal {
  Floats share;    // of the normal distribution below x
  Floats density;  // at x
};

// The share beyond |x| is density times a polynomial in 1 / (1 + 0.46 |x| / sqrt 2), fitted to
// erfcx: 1.5e-9 from the exact one, and so well below what float32 rounds to.
Normal normal(Floats x) {
  const Floats size = x < 0.f ? -x : x;
  const Floats t = 1.f / (size * 0.325269119f + 1.f);
  const Floats bell = exponential(x * x * -0.5f);
  Floats y = t * 0.0903572991f - 0.455143898f;
  y = y * t + 0.722573157f;
  y = y * t - 0.235620565f;
  y = y * t + 0.387442546f;
  y = y * t + 0.228258695f;
  y = y * t + 0.262132768f;
  const Floats beyond = y * t * bell * 0.5f;
  return {x < 0.f ? beyond : 1.f - beyond, bell * 0.398942280f};
}

// The memory of one thread.
struct Worker {
  const Problem& p;
  std::unique_ptr<float[]> memory;
  float *in, *middle, *out;  // a chunk, its hidden channels, and some of its outputs

  explicit Worker(const Problem& problem) : p(problem) {
    const int64_t tokens = p.chunk * PANEL;
    memory.reset(new float[tokens * (p.channels + p.hidden + ROWS) + CACHE_LINE]);
    const auto start = reinterpret_cast<uintptr_t>(memory.get());
    in = memory.get() + (-start / sizeof(float)) % CACHE_LINE;
    middle = in + tokens * p.channels, out = middle + tokens * p.hidden;
  }

  int64_t size_of(int64_t panel) const { return std::min(PANEL, p.tokens - panel * PANEL); }

  void fetch(int64_t panel, float* to) const {
    transpose(size_of(panel), p.channels, p.x + panel * PANEL * p.channels, p.channels, to, PANEL);
    if (p.norm_weight)
      for (int64_t i = 0; i < PANEL; i += LANES) normalise(to + i);
  }

  // Some tokens of a panel.
  void normalise(float* tokens) const {
    const Floats mean = average(tokens, [](Floats x) { return x; });
    Floats scale = average(tokens, [=](Floats x) { return (x - mean) * (x - mean); });
    for (int lane = 0; lane < LANES; ++lane) scale[lane] = 1.f / std::sqrt(scale[lane] + p.epsilon);
    for (int64_t c = 0; c < p.channels; ++c) {
      const Floats value = (load(tokens + c * PANEL) - mean) * scale;
      store(tokens + c * PANEL, value * p.norm_weight[c] + p.norm_bias[c]);
    }
  }

  // Over the channels; by blocks, whose sums are as exact as PyTorch's.
  template <typename Body>
  Floats average(const float* tokens, Body body) const {
    Floats total{};
    for (int64_t first = 0; first < p.channels; first += AVERAGED) {
      Floats sum{};
      for (int64_t c = first; c < std::min(first + AVERAGED, p.channels); ++c)
        sum += body(load(tokens + c * PANEL));
      total += sum;
    }
    return total / static_cast<float>(p.channels);
  }

  void forward(int64_t first, int64_t end) const {
    const int64_t inner = p.hidden ? p.hidden : p.channels;
    for (int64_t panel = first; panel < end; ++panel)
      fetch(panel, in + (panel - first) * p.channels * PANEL);
    if (p.hidden) {
      const auto place = [&](int64_t i, int64_t row) { return middle + (i * inner + row) * PANEL; };
      apply(end - first, p.weight1, p.channels, inner, in, place,
            [&](int64_t i, int64_t row, int64_t count, float* rows) {
              activate(first + i, row, count, rows);
            });
    }
    const auto place = [&](int64_t i, int64_t) { return out + i * ROWS * PANEL; };
    apply(end - first, p.weight2, inner, p.out_channels, p.hidden ? middle : in, place,
          [&](int64_t i, int64_t row, int64_t count, float* rows) {
            give_out(first + i, row, count, rows);
          });
  }

  // A layer: some of its outputs at a time, at the place for them, and then something with them.
  // Sums are of so many inputs at a time that they are exact, and that weights stay in the cache.
  template <typename Place, typename Then>
  void apply(int64_t panels, const float* weight, int64_t inputs, int64_t outputs,
             const float* from, Place place, Then then) const {
    for (int64_t row = 0; row < outputs; row += ROWS) {
      const int64_t count = std::min(ROWS, outputs - row);
      for (int64_t start = 0; start < inputs; start += SUMMED) {
        const int64_t summed = std::min(SUMMED, inputs - start);
        for (int64_t i = 0; i < panels; ++i) {
          float* to = place(i, row);
          multiply(count, summed, PANEL, {weight + row * inputs + start, inputs, 1},
                   from + (i * inputs + start) * PANEL, PANEL, to, PANEL, start > 0);
          if (start + summed == inputs) then(i, row, count, to);
        }
      }
    }
  }

  // Some hidden channels of a panel, which are kept before the GELU.
  void activate(int64_t panel, int64_t row, int64_t count, float* hidden) const {
    if (p.kept) {
      add_bias(p.bias1 + row, count, hidden);
      transpose(count, size_of(panel), hidden, PANEL, p.kept + panel * PANEL * p.hidden + row,
                p.hidden);
    }
    for (int64_t r = 0; r < count; ++r) {
      const float bias = p.kept ? 0.f : p.bias1[row + r];
      for (int64_t i = r * PANEL; i < (r + 1) * PANEL; i += LANES) {
        const Floats value = load(hidden + i) + bias;
        store(hidden + i, value * normal(value).share);
      }
    }
  }

  static void add_bias(const float* bias, int64_t count, float* rows) {
    for (int64_t r = 0; r < count; ++r)
      for (int64_t i = r * PANEL; i < (r + 1) * PANEL; i += LANES)
        store(rows + i, load(rows + i) + bias[r]);
  }

  // Some channels of a panel of the output, with bias and residual.
  void give_out(int64_t panel, int64_t row, int64_t count, float* rows) const {
    if (p.bias2) add_bias(p.bias2 + row, count, rows);
    const int64_t tokens = size_of(panel), start = panel * PANEL * p.out_channels + row;
    transpose(count, tokens, rows, PANEL, p.out + start, p.out_channels);
    if (!p.residual) return;
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t r = 0; r < count; ++r)
        p.out[start + token * p.out_channels + r] += p.residual[start + token * p.out_channels + r];
  }
};

// Numbers of the hidden map.
void activate_part_backward(const Problem& p, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; i += LANES) {
    const Floats value = load(p.kept + i);
    const Normal at = normal(value);
    store(p.grad_hidden + i, load(p.grad_hidden + i) * (at.share + value * at.density));
    if (p.activated) store(p.activated + i, value * at.share);
  }
}

}  // namespace

extern "C" {

// For tests, and for those who make room.
int64_t panel() { return PANEL; }
int64_t lanes() { return LANES; }
int64_t problem_size() { return sizeof(Problem); }

void linear_forward(const Problem* problem) {
  const Problem& p = *problem;
  const int64_t panels = (p.tokens + PANEL - 1) / PANEL, parts = (panels + p.chunk - 1) / p.chunk;
  share<Worker>(p, parts, [&](Worker& worker, int64_t part) {
    worker.forward(part * panels / parts, (part + 1) * panels / parts);
  });
}

// hidden is a multiple of LANES.
void activate_backward(const Problem* problem) {
  struct Nothing {
    explicit Nothing(const Problem&) {}
  };
  const int64_t vectors = problem->tokens * problem->hidden / LANES;
  const int64_t parts = PARTS_OF_A_THREAD * problem->threads;
  share<Nothing>(*problem, parts, [&](Nothing&, int64_t part) {
    activate_part_backward(*problem, part * vectors / parts * LANES,
                      (part + 1) * vectors / parts * LANES);
  });
}

}  // extern "C"
