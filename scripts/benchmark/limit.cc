// The machine's limit for cases of the benchmark: the arithmetic of jthermo/engines/fused/dense.h on every core, with sizes
// fixed when it is compiled and no JAX around it. `scripts/benchmark.py` builds it and lets it take its turn.
//
//   g++ -std=c++17 -O3 -march=x86-64-v4 -fno-math-errno -pthread -w -Ijthermo/engines/fused scripts/benchmark/limit.cc -o limit
//   ./limit small 20000 512      prints nanoseconds of wall time per step of one run

#include <new>

#include "dense.h"
#include "timed.h"

using namespace jthermo;

// Steps of the g-th group of L runs of a net with widths D, H × DEPTH, 1.
template <int L, int D, int H, int DEPTH, bool BIAS, int SOURCE, int B> void work(int g, int steps) {
  static constexpr int64_t hidden = H;
  int64_t widths[DEPTH + 2];
  widths[0] = D;
  for (int l = 1; l <= DEPTH; ++l) widths[l] = hidden;
  widths[DEPTH + 1] = 1;
  const Net net{widths, DEPTH + 1, BIAS, BIAS && (DEPTH > 1), B, SOURCE, FRESH, BCE, FULL, 0, 2, false, false};
  int64_t params = 0;
  for (int l = 0; l <= DEPTH; ++l) params += widths[l] * widths[l + 1] + (BIAS ? widths[l + 1] : 0);
  const size_t bytes = (params + scratch(net)) * L * sizeof(float);
  auto* memory = static_cast<float*>(::operator new(bytes, std::align_val_t(64)));
  Group<L> group{};
  for (int l = 0; l < L; ++l) group.batch_key[0][l] = g, group.batch_key[1][l] = l;
  group.learning_rate += 0.05f;
  group.a += SOURCE == GAUSSIAN ? 1.0f : 0.0f;
  group.b += 1.0f;
  uint32_t seed = 1;
  for (int64_t i = 0; i < params * L; ++i) memory[i] = ((seed = seed * 1664525u + 1013904223u) >> 8) * 0x1p-24f / H - 0.5f / H;
  auto* weights = reinterpret_cast<F<L>*>(memory);
  train<L, PLAIN>(net, group, 0, steps, weights, weights + params);
  volatile float keep = memory[0];
  (void)keep;
  ::operator delete(memory, std::align_val_t(64));
}

// The inputs and labels of a probe with so many examples, which no net sees: nanoseconds per example of one run.
template <int L, int D> void probe(int g, int examples) {
  static constexpr int64_t widths[] = {D, 1};
  const Net net{widths, 1, false, false, 1, GAUSSIAN, FRESH, BCE, FULL, 0, 2};
  Group<L> group{};
  group.a += 1.0f;
  U<L> key[2];
  for (int l = 0; l < L; ++l) key[0][l] = g, key[1][l] = l;
  const Examples<L> drawn(key);
  F<L> x[TOGETHER * D], y[TOGETHER], sum{};
  for (int i = 0; i < examples; i += TOGETHER) {
    drawn.get(net, group, i, TOGETHER, x, y);
    sum += x[0] + y[0];
  }
  volatile float keep = sum[0];
  (void)keep;
}

const Case CASES[] = {
    {"small", work<16, 10, 10, 1, true, GAUSSIAN, 1>, 16},     {"uniform", work<16, 10, 10, 1, false, UNIFORM, 1>, 16},
    {"batch", work<16, 10, 10, 1, true, GAUSSIAN, 32>, 16},    {"wide-batch", work<16, 100, 100, 1, true, GAUSSIAN, 32>, 16},
    {"wide", work<16, 100, 100, 1, true, GAUSSIAN, 1>, 16},
    {"mlp6", work<8, 100, 100, 5, true, GAUSSIAN, 1>, 8},     {"records", probe<16, 10>, 16},
};

int main(int argc, char** argv) { return timed(CASES, argc, argv); }
