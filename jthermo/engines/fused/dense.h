// Many steps of SGD for a few dense ReLU nets at once, one net per lane of a vector, and their records: pure arithmetic.
//
// A value of type F<L> holds the same number of L runs. Every lane does the same operations in the same order whatever
// L, the lanes beside it and the step at which a call begins, so none of these changes a bit of a run. Random numbers are
// made in place from the counters that jax.random uses (threefry-2x32, partitionable), so the bits are the same as in
// the XLA engine.

#pragma once
#include <cstdint>
#include <cstring>
#ifdef __AVX512DQ__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define APART __attribute__((noinline))  // called often enough to be worth little code, and long enough to be called

namespace jthermo {

template <int L> struct Lanes {
  typedef float F __attribute__((vector_size(4 * L)));
  typedef uint32_t U __attribute__((vector_size(4 * L)));
  typedef int32_t I __attribute__((vector_size(4 * L)));
  typedef double D __attribute__((vector_size(8 * L)));
};
template <int L> using F = typename Lanes<L>::F;
template <int L> using U = typename Lanes<L>::U;
template <int L> using I = typename Lanes<L>::I;
template <int L> using D = typename Lanes<L>::D;

enum Source { GAUSSIAN = 0, UNIFORM = 1, ARRAYS = 2 };
enum Sampling { FRESH = 0, REPLACEMENT = 1, EPOCHS = 2 };
enum Loss { BCE = 0, SQUARED = 1, SOFTMAX = 2 };
enum Noise { FULL = 0, UNBIASED = 1, LABEL_AVERAGED = 2 };
// What a record can hold; NORM + i is the norm of array i of the parameters.
enum Statistic { FINITE = 0, MEAN_LOSS, ACCURACY, SQUARED_RESIDUAL, ACTIVE, ACTIVE_ERROR, TRACE, KAPPA, EXACT_ACTIVE, NORM };

// What is static in a group of runs.
struct Net {
  const int64_t* widths;  // inputs, hidden layers, outputs
  int layers;             // one less than there are widths
  bool bias, output_bias;
  int batch;
  int source, sampling, loss, noise;
  uint32_t num_samples;  // of a finite set, else 0
  uint32_t num_classes;
  bool momentum, nesterov, decay;
  // of ARRAYS: (n, inputs) of float32 or uint8, (n,) of float32 targets or int32 labels, and whether random labels replace y
  const void *x, *y;
  bool bytes, targets, random_labels;
};

// Whether layer l has a bias, and the number of its parameters.
INLINE bool has_bias(const Net& net, int l) { return l == net.layers - 1 ? net.output_bias : net.bias; }
INLINE int64_t size_of(const Net& net, int l) { return net.widths[l + 1] * (net.widths[l] + has_bias(net, l)); }
INLINE int64_t num_params(const Net& net) {
  int64_t size = 0;
  for (int l = 0; l < net.layers; ++l) size += size_of(net, l);
  return size;
}

// What a group of L runs brings along.
template <int L> struct Group {
  U<L> batch_key[2], noise_key[2], dataset_key[2], probe_key[2];
  F<L> learning_rate, a, b, noise_scale;  // inputs: scale a of the Gaussian, or U(a, b)
  F<L> momentum, decay;
  const int32_t* order[L];                // examples of this epoch, for each lane
};

// What a record measures, and on how many random examples.
struct Record {
  const int64_t* statistics;
  int64_t count;
  uint32_t probe;
};

// ---- random numbers ------------------------------------------------------------------------------------------------

// The 20 rounds of Threefry-2x32 (Salmon et al. 2011) with first counter 0, for N keys and counters at once: each is one
// long chain of operations, and a core works on several side by side.
template <int L, int N> INLINE void threefry(const U<L>* const (&key)[N], const U<L> (&count)[N], U<L> (*out)[2]) {
  const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  U<L> a[N], b[N];
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) a[k] = key[k][0], b[k] = count[k] + key[k][1];
#pragma GCC unroll 5
  for (int group = 0; group < 5; ++group) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int d = rotations[group % 2][i];
#pragma GCC unroll 16
      for (int k = 0; k < N; ++k) a[k] += b[k];
#pragma GCC unroll 16
      for (int k = 0; k < N; ++k) b[k] = ((b[k] << d) | (b[k] >> (32 - d))) ^ a[k];
    }
#pragma GCC unroll 16
    for (int k = 0; k < N; ++k) {
      const U<L> keys[3] = {key[k][0], key[k][1], key[k][0] ^ key[k][1] ^ 0x1BD11BDAu};
      a[k] += keys[(group + 1) % 3];
      b[k] += keys[(group + 2) % 3] + (uint32_t)(group + 1);
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) out[k][0] = a[k], out[k][1] = b[k];
}

template <int L> INLINE void fold_in(const U<L>* key, U<L> data, U<L>* out) {
  const U<L>* const keys[1] = {key};
  const U<L> counts[1] = {data};
  threefry<L, 1>(keys, counts, (U<L>(*)[2])out);
}

// 32 random bits at N counters from `first` on.
template <int L, int N> INLINE void draw_bits(const U<L>* key, uint32_t first, U<L>* bits) {
  const U<L>* keys[N];
  U<L> counts[N], out[N][2];
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) keys[k] = key, counts[k] = U<L>{} + (first + k);
  threefry<L, N>((const U<L>* const(&)[N])keys, counts, out);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) bits[k] = out[k][0] ^ out[k][1];
}

// U[0, 1) from the upper 23 bits.
template <int L> INLINE F<L> unit(U<L> bits) {
  return (F<L>)((bits >> 9) | 0x3F800000u) - 1.0f;
}

// Σ_i c_i x^(C−1−i) for N numbers, in step with each other: a core works on their chains of operations side by side.
template <int L, int N, int C> INLINE void polynomials(const float (&c)[C], const F<L>* x, F<L>* out) {
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) out[k] = F<L>{} + c[0];
#pragma GCC unroll 16
  for (int i = 1; i < C; ++i)
#pragma GCC unroll 16
    for (int k = 0; k < N; ++k) out[k] = out[k] * x[k] + c[i];
}

// log(x) for x > 0: exponent and mantissa apart, then the polynomial of Cephes' logf.
template <int L, int N> INLINE void logs(const F<L>* x, F<L>* out) {
  const float c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                     -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f,  -0.5f};
  I<L> e[N];
  F<L> m[N], p[N];
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) {
    const I<L> i = (I<L>)x[k];
    e[k] = (i - 0x3F3504F3) >> 23;  // so that the mantissa lies in [√½, √2)
    m[k] = (F<L>)(i - (e[k] << 23)) - 1.0f;
  }
  polynomials<L, N>(c, m, p);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) out[k] = p[k] * (m[k] * m[k]) + m[k] + __builtin_convertvector(e[k], F<L>) * 0.69314718056f;
}

template <int L> INLINE F<L> log_lanes(F<L> x) {
  logs<L, 1>(&x, &x);
  return x;
}

// exp(x), clipped to the range of float32 (Cephes' expf).
template <int L> INLINE F<L> exp_lanes(F<L> x) {
  x = x > 88.0f ? F<L>{} + 88.0f : x;
  x = x < -87.0f ? F<L>{} - 87.0f : x;
  F<L> n = x * 1.44269504089f + 12582912.0f;  // rounds to the nearest whole number
  n = n - 12582912.0f;
  F<L> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  F<L> p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (F<L>)((I<L>)p + (__builtin_convertvector(n, I<L>) << 23));
}

// Whether any lane of a mask is set.
template <int L> INLINE bool any(I<L> mask) {
#ifdef __AVX512DQ__
  if constexpr (L == 16) return _mm512_movepi32_mask((__m512i)mask) != 0;
#endif
  if constexpr (L > 4) {
    typedef I<L / 2> Half;
    Half half[2];
    std::memcpy(half, &mask, sizeof mask);
    return any<L / 2>(half[0] | half[1]);
  } else {
    typedef int64_t Pair __attribute__((vector_size(16)));
    return (((Pair)mask)[0] | ((Pair)mask)[1]) != 0;
  }
}

// √2 erf⁻¹(u), Giles (2010): one polynomial for nearly all u, another one for the tails.
template <int L, int N> INLINE void normals(const U<L>* bits, F<L>* out) {
  const float centre[] = {2.81022636e-08f, 3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                          -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
  const float tail[] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                        -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};
  const float lowest = -0x1.fffffep-1f;
  F<L> u[N], w[N], v[N], p[N];
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) u[k] = unit<L>(bits[k]) * 2.0f + lowest, w[k] = (1.0f - u[k]) * (1.0f + u[k]);
  logs<L, N>(w, w);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) w[k] = -w[k], v[k] = w[k] - 2.5f;
  polynomials<L, N>(centre, v, p);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) {
    if (__builtin_expect(any<L>(w[k] >= 5.0f), 0)) {
      F<L> s, q;
      for (int l = 0; l < L; ++l) s[l] = __builtin_sqrtf(w[k][l]) - 3.0f;
      polynomials<L, 1>(tail, &s, &q);
      p[k] = w[k] >= 5.0f ? q : p[k];
    }
    out[k] = 1.41421354f * (p[k] * u[k]);
  }
}

// The remainder of x / n. The quotient in doubles is the exact one, or one less where n divides x.
template <int L> INLINE U<L> modulo(U<L> x, uint32_t n) {
  const D<L> quotient = __builtin_convertvector(x, D<L>) * (1.0 / n);
  const U<L> rest = x - __builtin_convertvector(quotient, U<L>) * n;
  return rest >= n ? rest - n : rest;
}

// Whole numbers below n: jax.random.randint(key, (…), 0, n) at a count.
template <int L> struct Below {
  U<L> high[2], low[2];
  uint32_t n;

  INLINE Below(const U<L>* key, uint32_t n) : n(n) {
    fold_in<L>(key, U<L>{}, high);
    fold_in<L>(key, U<L>{} + 1u, low);
  }

  INLINE U<L> operator()(uint32_t count) const {
    const U<L>* const keys[2] = {high, low};
    const U<L> counts[2] = {U<L>{} + count, U<L>{} + count};
    U<L> out[2][2];
    threefry<L, 2>(keys, counts, out);
    const uint32_t multiplier = 65536u % n;
    const U<L> upper = modulo<L>(out[0][0] ^ out[0][1], n), lower = modulo<L>(out[1][0] ^ out[1][1], n);
    return modulo<L>(upper * (multiplier * multiplier % n) + lower, n);
  }
};

// ---- examples ------------------------------------------------------------------------------------------------------

template <int L> INLINE F<L> coin(U<L> bits) { return (I<L>)bits >= 0 ? F<L>{} + 1.0f : F<L>{}; }

// N components of x from the counter `first` on.
template <int L, int N> INLINE void inputs(const Net& net, const Group<L>& group, const U<L>* key, uint32_t first, F<L>* x) {
  U<L> bits[N];
  draw_bits<L, N>(key, first, bits);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k)
    if (net.source == UNIFORM) x[k] = group.a + (group.b - group.a) * unit<L>(bits[k]);
  if (net.source == UNIFORM) return;
  normals<L, N>(bits, x);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) x[k] *= group.a;
}

template <int L> APART void inputs(const Net& net, const Group<L>& group, const U<L>* key, uint32_t first, int64_t count, F<L>* x) {
  int64_t i = 0;
  for (; i + 10 <= count; i += 10) inputs<L, 10>(net, group, key, first + i, x + i);
  for (; i + 5 <= count; i += 5) inputs<L, 5>(net, group, key, first + i, x + i);
  for (; i < count; ++i) inputs<L, 1>(net, group, key, first + i, x + i);
}

template <int L> INLINE F<L> as_class(U<L> number) { return __builtin_convertvector((I<L>)number, F<L>); }

template <int L, int N> INLINE void labels(const U<L>* key, uint32_t first, F<L>* y) {
  U<L> bits[N];
  draw_bits<L, N>(key, first, bits);
#pragma GCC unroll 16
  for (int k = 0; k < N; ++k) y[k] = coin<L>(bits[k]);
}

template <int L> APART void labels(const Net& net, const U<L>* key, uint32_t first, int count, F<L>* y) {
  int b = 0;
  if (net.num_classes > 2) {
    const Below<L> classes(key, net.num_classes);
    for (; b < count; ++b) y[b] = as_class<L>(classes(first + b));
  }
  for (; b + 8 <= count; b += 8) labels<L, 8>(key, first + b, y + b);
  for (; b + 4 <= count; b += 4) labels<L, 4>(key, first + b, y + b);
  for (; b < count; ++b) labels<L, 1>(key, first + b, y + b);
}

// The examples that a key draws.
template <int L> struct Examples {
  U<L> key_x[2], key_y[2];

  INLINE explicit Examples(const U<L>* key) {
    fold_in<L>(key, U<L>{}, key_x);
    fold_in<L>(key, U<L>{} + 1u, key_y);
  }

  // x (count, d) and labels (count) of examples first … first + count − 1.
  INLINE void get(const Net& net, const Group<L>& group, uint32_t first, int count, F<L>* x, F<L>* y) const {
    const int64_t d = net.widths[0];
    inputs<L>(net, group, key_x, first * d, count * d, x);
    labels<L>(net, key_y, first, count, y);
  }
};

// Example `index` of a finite set, one for each lane: x (d) and its label.
template <int L> APART void row(const Net& net, const Group<L>& group, U<L> index, F<L>* x, F<L>* y) {
  const int64_t d = net.widths[0];
  U<L> key[2];
  if (net.source != ARRAYS || net.random_labels) fold_in<L>(group.dataset_key, index, key);
  if (net.source != ARRAYS) return Examples<L>(key).get(net, group, 0, 1, x, y);
  for (int l = 0; l < L; ++l) {
    const int64_t from = index[l] * d;
    float* to = reinterpret_cast<float*>(x) + l;
    if (net.bytes) for (int64_t i = 0; i < d; ++i) to[i * L] = static_cast<const uint8_t*>(net.x)[from + i];
    else for (int64_t i = 0; i < d; ++i) to[i * L] = static_cast<const float*>(net.x)[from + i];
    (*y)[l] = net.targets ? static_cast<const float*>(net.y)[index[l]] : static_cast<const int32_t*>(net.y)[index[l]];
  }
  if (net.random_labels) *y = as_class<L>(Below<L>(key, net.num_classes)(0));
}

// The batches of consecutive steps. Fresh examples are drawn with the step's keys; these depend on each other, so they
// are made up to two steps ahead, beside other draws.
template <int L> struct Batches {
  U<L> step[2], key_x[2], key_y[2];  // the key of the step after the next, those of the next one

  INLINE void start(const Group<L>& group, int32_t t) {
    U<L> key[2];
    fold_in<L>(group.batch_key, U<L>{} + (uint32_t)t, key);
    fold_in<L>(key, U<L>{}, key_x);
    fold_in<L>(key, U<L>{} + 1u, key_y);
    fold_in<L>(group.batch_key, U<L>{} + (uint32_t)(t + 1), step);
  }

  // x (B, d) and labels (B) of step t.
  INLINE void next(const Net& net, const Group<L>& group, int32_t t, F<L>* x, F<L>* y) {
    const int64_t d = net.widths[0];
    if (net.sampling == FRESH) {
      inputs<L>(net, group, key_x, 0, net.batch * d, x);
      labels<L>(net, key_y, 1, net.batch - 1, y + 1);
      if (net.num_classes > 2) labels<L>(net, key_y, 0, 1, y);
      const U<L>* const keys[4] = {key_y, step, step, group.batch_key};
      const U<L> counts[4] = {U<L>{}, U<L>{}, U<L>{} + 1u, U<L>{} + (uint32_t)(t + 2)};
      U<L> out[4][2];
      threefry<L, 4>(keys, counts, out);
      if (net.num_classes == 2) y[0] = coin<L>(out[0][0] ^ out[0][1]);
      for (int word = 0; word < 2; ++word) key_x[word] = out[1][word], key_y[word] = out[2][word], step[word] = out[3][word];
      return;
    }
    if (net.sampling == REPLACEMENT) {
      U<L> key[2];
      fold_in<L>(group.batch_key, U<L>{} + (uint32_t)t, key);
      const Below<L> drawn(key, net.num_samples);
      for (int b = 0; b < net.batch; ++b) row<L>(net, group, drawn(b), x + b * d, y + b);
      return;
    }
    const int32_t position = t % (int32_t)(net.num_samples / net.batch) * net.batch;
    for (int b = 0; b < net.batch; ++b) {
      U<L> index;
      for (int l = 0; l < L; ++l) index[l] = group.order[l][position + b];
      row<L>(net, group, index, x + b * d, y + b);
    }
  }
};

enum Update { PLAIN = 0, MOMENTUM = 1, DECAY = 2 };

INLINE bool has_velocities(const Net& net) { return net.momentum || net.decay; }

// How the gradient g moves a parameter. PLAIN: θ ← θ − g, where g comes multiplied by η. MOMENTUM m: v ← m v + g and
// θ ← θ − η v, or θ − η (g + m v) with Nesterov's; the velocities v lie as far behind the parameters as there are parameters.
// DECAY λ: the same with g + λ θ in the place of g, and m = 0 without momentum.
template <int L, int R> struct Rule {
  F<L> rate, momentum, decay, of_gradient, of_velocity;
  int64_t velocities;

  INLINE Rule(const Net& net, const Group<L>& group)
      : rate(group.learning_rate), momentum(group.momentum), decay(group.decay),
        of_gradient(F<L>{} + (net.nesterov ? 1.0f : 0.0f)), of_velocity(net.nesterov ? group.momentum : F<L>{} + 1.0f),
        velocities(num_params(net)) {}

  INLINE F<L> operator()(F<L>* w, F<L> before, F<L> g) const {
    if constexpr (R == PLAIN) return *w = before - g;
    // g is a product that some callers have rounded; 0 − g rounds it for all of them, before a sum could be fused with it
    if constexpr (R == DECAY) g = decay * before - (F<L>{} - g);
    F<L>& v = w[velocities];
    v = momentum * v + g;
    return *w = before - rate * (of_gradient * g + of_velocity * v);
  }
};

// ---- layers --------------------------------------------------------------------------------------------------------
// Weights are [out][in], activations [batch][unit]. Each sum runs over its index in order, on its own accumulator.

template <int L> INLINE F<L> relu(F<L> a) { return a <= 0.0f ? F<L>{} : a; }  // NaN stays

// J units × N examples of a layer: out[b][j] = f(bias_j + Σ_i w_ji h_bi).
template <int L, int J, int N>
INLINE void forward_tile(const F<L>* w, const F<L>* bias, const F<L>* h, F<L>* out, int64_t n, int64_t m, bool hidden) {
  F<L> sum[J][N];
  for (int j = 0; j < J; ++j)
    for (int b = 0; b < N; ++b) sum[j][b] = bias ? bias[j] : F<L>{};
  for (int64_t i = 0; i < n; ++i) {
    F<L> inputs[N];
#pragma GCC unroll 4
    for (int b = 0; b < N; ++b) inputs[b] = h[b * n + i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const F<L> weight = w[j * n + i];
#pragma GCC unroll 4
      for (int b = 0; b < N; ++b) sum[j][b] += weight * inputs[b];
    }
  }
  for (int j = 0; j < J; ++j)
    for (int b = 0; b < N; ++b) out[b * m + j] = hidden ? relu<L>(sum[j][b]) : sum[j][b];
}

template <int L>
INLINE void forward(const F<L>* w, const F<L>* bias, const F<L>* h, F<L>* out, int64_t n, int64_t m, int B, bool hidden) {
  int b = 0;
  for (; b + 4 <= B; b += 4) {
    int64_t j = 0;
    for (; j + 4 <= m; j += 4)
      forward_tile<L, 4, 4>(w + j * n, bias ? bias + j : bias, h + b * n, out + b * m + j, n, m, hidden);
    for (; j < m; ++j)
      forward_tile<L, 1, 4>(w + j * n, bias ? bias + j : bias, h + b * n, out + b * m + j, n, m, hidden);
  }
  for (; b < B; ++b) {
    int64_t j = 0;
    for (; j + 4 <= m; j += 4)
      forward_tile<L, 4, 1>(w + j * n, bias ? bias + j : bias, h + b * n, out + b * m + j, n, m, hidden);
    for (; j < m; ++j)
      forward_tile<L, 1, 1>(w + j * n, bias ? bias + j : bias, h + b * n, out + b * m + j, n, m, hidden);
  }
}

// B = 1, first layer: the update of step t and the layer of step t + 1 in one pass over the weights.
template <int L, int R, int J>
INLINE void turn_tile(const Rule<L, R>& rule, F<L>* w, F<L>* bias, const F<L>* delta, const F<L>* x, const F<L>* next,
                      F<L>* out, int64_t n) {
  F<L> sum[J], d[J];
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) d[j] = delta[j], sum[j] = bias ? rule(bias + j, bias[j], d[j]) : F<L>{};
  for (int64_t i = 0; i < n; ++i) {
    const F<L> now = x[i], then = next[i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sum[j] += rule(w + j * n + i, w[j * n + i], d[j] * now) * then;
  }
  for (int j = 0; j < J; ++j) out[j] = relu<L>(sum[j]);
}

template <int L, int R>
INLINE void turn(const Rule<L, R>& rule, F<L>* w, F<L>* bias, const F<L>* delta, const F<L>* x, const F<L>* next, F<L>* out,
                 int64_t n, int64_t m) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4)
    turn_tile<L, R, 4>(rule, w + j * n, bias ? bias + j : bias, delta + j, x, next, out + j, n);
  for (; j < m; ++j) turn_tile<L, R, 1>(rule, w + j * n, bias ? bias + j : bias, delta + j, x, next, out + j, n);
}

// B = 1: the update w_ji −= δ_j h_i and, with the weights before it, below_i = Σ_j w_ji δ_j; J units in one pass.
template <int L, int R, int J>
INLINE void back_tile(const Rule<L, R>& rule, F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, bool first) {
  F<L> d[J];
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) d[j] = delta[j];
  for (int64_t i = 0; i < n; ++i) {
    F<L> sum = first ? F<L>{} : below[i];
    const F<L> active = h[i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const F<L> v = w[j * n + i];
      sum += v * d[j];
      rule(w + j * n + i, v, d[j] * active);
    }
    below[i] = sum;
  }
}

// K inputs × N examples: below_bi = Σ_j w_ji δ_bj where unit i of the layer below is active.
template <int L, int K, int N>
INLINE void pull_tile(const F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, int64_t m) {
  F<L> sum[K][N] = {};
  for (int64_t j = 0; j < m; ++j) {
    F<L> d[N];
#pragma GCC unroll 4
    for (int b = 0; b < N; ++b) d[b] = delta[b * m + j];
#pragma GCC unroll 4
    for (int i = 0; i < K; ++i) {
      const F<L> weight = w[j * n + i];
#pragma GCC unroll 4
      for (int b = 0; b < N; ++b) sum[i][b] += weight * d[b];
    }
  }
  for (int b = 0; b < N; ++b)
    for (int i = 0; i < K; ++i) below[b * n + i] = h[b * n + i] > 0.0f ? sum[i][b] : F<L>{};
}

template <int L>
INLINE void pull_back(const F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, int64_t m, int B) {
  int b = 0;
  for (; b + 4 <= B; b += 4) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) pull_tile<L, 4, 4>(w + i, delta + b * m, h + b * n + i, below + b * n + i, n, m);
    for (; i < n; ++i) pull_tile<L, 1, 4>(w + i, delta + b * m, h + b * n + i, below + b * n + i, n, m);
  }
  for (; b < B; ++b)
    for (int64_t i = 0; i < n; ++i) pull_tile<L, 1, 1>(w + i, delta + b * m, h + b * n + i, below + b * n + i, n, m);
}

// J units × K inputs of the update by Σ_b δ_bj h_bi. The sum of plain SGD begins at w_ji.
template <int L, int R, int J, int K>
INLINE void update_tile(const Rule<L, R>& rule, F<L>* w, const F<L>* delta, const F<L>* h, int64_t n, int64_t m, int B) {
  F<L> step[J][K];
  for (int j = 0; j < J; ++j)
    for (int i = 0; i < K; ++i) step[j][i] = R == PLAIN ? w[j * n + i] : F<L>{};
  for (int b = 0; b < B; ++b) {
    F<L> inputs[K];
#pragma GCC unroll 4
    for (int i = 0; i < K; ++i) inputs[i] = h[b * n + i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const F<L> d = delta[b * m + j];
#pragma GCC unroll 4
      for (int i = 0; i < K; ++i) step[j][i] -= d * inputs[i];
    }
  }
  for (int j = 0; j < J; ++j)
    for (int i = 0; i < K; ++i) {
      F<L>* to = w + j * n + i;
      if constexpr (R == PLAIN) *to = step[j][i];
      else rule(to, *to, -step[j][i]);
    }
}

template <int L, int R>
INLINE void update(const Rule<L, R>& rule, F<L>* w, const F<L>* delta, const F<L>* h, int64_t n, int64_t m, int B) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) update_tile<L, R, 4, 4>(rule, w + j * n + i, delta + j, h + i, n, m, B);
    for (; i < n; ++i) update_tile<L, R, 4, 1>(rule, w + j * n + i, delta + j, h + i, n, m, B);
  }
  for (; j < m; ++j) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) update_tile<L, R, 1, 4>(rule, w + j * n + i, delta + j, h + i, n, m, B);
    for (; i < n; ++i) update_tile<L, R, 1, 1>(rule, w + j * n + i, delta + j, h + i, n, m, B);
  }
}

// The sums of δ over the batch take the place of its first example.
template <int L, int R>
INLINE void update_bias(const Rule<L, R>& rule, F<L>* bias, F<L>* delta, int64_t m, int B) {
  if (!bias) return;
  for (int b = 1; b < B; ++b)
    for (int64_t j = 0; j < m; ++j) delta[j] += delta[b * m + j];
  for (int64_t j = 0; j < m; ++j) rule(bias + j, bias[j], delta[j]);
}

// Update of a layer and δ of the layer below, where its units are active.
template <int L, int R>
INLINE void backward(const Rule<L, R>& rule, F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, int64_t m,
                     int B) {
  if (B > 1) {
    pull_back<L>(w, delta, h, below, n, m, B);
    update<L, R>(rule, w, delta, h, n, m, B);
    return;
  }
  int64_t j = 0;
  for (; j + 4 <= m; j += 4) back_tile<L, R, 4>(rule, w + j * n, delta + j, h, below, n, j == 0);
  for (; j < m; ++j) back_tile<L, R, 1>(rule, w + j * n, delta + j, h, below, n, j == 0);
  for (int64_t i = 0; i < n; ++i) below[i] = h[i] > 0.0f ? below[i] : F<L>{};
}

// ---- steps ---------------------------------------------------------------------------------------------------------

// The probabilities of C classes into p, and log Σ_c exp(f_c − m) with m = max_c f_c into `most`.
template <int L> INLINE F<L> softmax(const F<L>* f, int64_t C, F<L>* p, F<L>& most) {
  F<L> sum{};
  most = f[0];
  for (int64_t c = 1; c < C; ++c) most = f[c] > most ? f[c] : most;
  for (int64_t c = 0; c < C; ++c) sum += p[c] = exp_lanes<L>(f[c] - most);
  for (int64_t c = 0; c < C; ++c) p[c] /= sum;
  return log_lanes<L>(sum);
}

// One in class c, else zero.
template <int L> INLINE F<L> one_hot(F<L> y, int64_t c) { return y == (float)c ? F<L>{} + 1.0f : F<L>{}; }

// r/B per example times `rate`, with r what the noise control puts in the place of p − y.
template <int L>
INLINE void residual(const Net& net, const Group<L>& group, int32_t t, const F<L>* f, const F<L>* y, F<L> rate, F<L>* delta) {
  rate /= (float)net.batch;
  const int64_t C = net.widths[net.layers];
  U<L> key[2];
  if (net.noise == UNBIASED) fold_in<L>(group.noise_key, U<L>{} + (uint32_t)t, key);
  for (int b = 0; b < net.batch; ++b) {
    if (C > 1) {
      F<L>* r = delta + b * C;
      if (net.noise == UNBIASED) {
        const F<L> drawn = as_class<L>(Below<L>(key, C)(b));
        for (int64_t c = 0; c < C; ++c) r[c] = rate * 2.0f * group.noise_scale * (1.0f / C - one_hot<L>(drawn, c));
        continue;
      }
      F<L> most;
      if (net.loss == SOFTMAX) softmax<L>(f + b * C, C, r, most);
      for (int64_t c = 0; c < C; ++c) {
        const F<L> p = net.loss == SOFTMAX ? r[c] : f[b * C + c];
        r[c] = rate * (p - (net.noise == FULL ? one_hot<L>(y[b], c) : F<L>{} + 1.0f / C));
      }
      continue;
    }
    if (net.noise == UNBIASED) {
      U<L> bits;
      draw_bits<L, 1>(key, b, &bits);
      delta[b] = rate * group.noise_scale * (2.0f * coin<L>(bits) - 1.0f);
      continue;
    }
    F<L> p = net.loss == BCE ? 1.0f / (1.0f + exp_lanes<L>(-f[b])) : f[b];
    delta[b] = rate * (p - (net.noise == FULL ? y[b] : F<L>{} + 0.5f));
  }
}

// Examples of a probe that are measured together.
constexpr int TOGETHER = 8;

// Number of F<L> that `train` and `measure` work in, besides the weights.
INLINE int64_t scratch(const Net& net) {
  int64_t units = 0;
  for (int l = 0; l <= net.layers; ++l) units += net.widths[l];
  return (net.batch > TOGETHER ? net.batch : TOGETHER) * (2 * units + 1 + net.widths[net.layers]);
}

// Steps start … stop − 1 of L runs. `weights` holds, layer by layer, [out][in] and then the biases; the velocities
// follow in the same order, if there are any.
template <int L, int R>
INLINE void train(const Net& net, const Group<L>& group, int32_t start, int32_t stop, F<L>* weights, F<L>* work) {
  const int B = net.batch, top = net.layers - 1;
  const int64_t* n = net.widths;
  F<L> *x = work, *next = x + B * n[0], *y = next + B * n[0], *hidden = y + B;
  int64_t units = 0;
  for (int l = 1; l <= net.layers; ++l) units += B * n[l];
  F<L>* deltas = hidden + units;
  const auto bias = [&](int l, F<L>* w) { return has_bias(net, l) ? w + n[l] * n[l + 1] : nullptr; };
  const Rule<L, R> rule(net, group);
  Batches<L> batches;
  batches.start(group, start);
  // the first layer is updated one turn later, when its next inputs are known: for B = 1 in the pass that uses it
  for (int32_t t = start; start < stop; ++t) {
    const bool last = t == stop, pending = t > start, turning = B == 1 && pending && !last;
    if (!last) batches.next(net, group, t, next, y);
    if (pending && !turning) {
      update<L>(rule, weights, deltas, x, n[0], n[1], B);
      update_bias<L>(rule, bias(0, weights), deltas, n[1], B);
    }
    if (last) break;
    F<L>*w = weights, *h = next, *out = hidden, *d = deltas;
    for (int l = 0; l <= top; ++l) {
      if (l == 0 && turning) turn<L>(rule, w, bias(0, w), deltas, x, next, out, n[0], n[1]);
      else forward<L>(w, bias(l, w), h, out, n[l], n[l + 1], B, l < top);
      if (l == top) break;
      w += size_of(net, l);
      h = out;
      out += B * n[l + 1];
      d += B * n[l + 1];
    }
    residual<L>(net, group, t, out, y, R == PLAIN ? group.learning_rate : F<L>{} + 1.0f, d);
    for (int l = top; l >= 1; --l) {
      backward<L>(rule, w, d, h, d - B * n[l], n[l], n[l + 1], B);
      update_bias<L>(rule, bias(l, w), d, n[l + 1], B);
      w -= size_of(net, l - 1);
      h -= B * n[l - 1];
      d -= B * n[l];
    }
    F<L>* swap = x;
    x = next, next = swap;
  }
}

// ---- records -------------------------------------------------------------------------------------------------------

template <int L> INLINE D<L> wide(F<L> x) { return __builtin_convertvector(x, D<L>); }
template <int L> INLINE F<L> narrow(D<L> x) { return __builtin_convertvector(x, F<L>); }

template <int L> INLINE D<L> root(D<L> x) {
  for (int l = 0; l < L; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

// ‖x‖ of n numbers; the squares fit into a double.
template <int L> INLINE D<L> norm(const F<L>* x, int64_t n) {
  D<L> sum{};
  for (int64_t i = 0; i < n; ++i) sum += wide<L>(x[i]) * wide<L>(x[i]);
  return root<L>(sum);
}

// log(1 + x) for 0 ≤ x ≤ 1, also where 1 + x rounds (Kahan's correction).
template <int L> INLINE F<L> log1p_lanes(F<L> x) {
  const F<L> u = 1.0f + x, lost = u - 1.0f;
  return lost > 0.0f ? log_lanes<L>(u) * (x / lost) : x;
}

// Φ(z) = erfc(−z/√2)/2 by the Chebyshev fit of Numerical Recipes, whose relative error is 1.2e-7.
template <int L> INLINE F<L> normal_cdf(F<L> z) {
  const F<L> x = (z < 0.0f ? -z : z) * 0.70710678f, t = 1.0f / (1.0f + 0.5f * x);
  F<L> p = 0.17087277f * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const F<L> tail = 0.5f * t * exp_lanes<L>(p - x * x);
  return z < 0.0f ? tail : 1.0f - tail;
}

template <int L> INLINE F<L> square(const F<L>* x, int64_t n) {
  F<L> sum{};
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

// |∇(δ·f)|² = Σ_l |δ_l|² (|h_l|² + 1) of each example, without the 1 where a layer has no bias, added to `squares`. w, the δ
// and h are those of the last layer; the δ of the layers below are written before d.
template <int L>
INLINE void squared_gradients(const Net& net, const F<L>* w, F<L>* d, const F<L>* h, const F<L>* x, int B, F<L>* squares) {
  const int64_t* n = net.widths;
  for (int l = net.layers - 1; l >= 0; --l) {
    for (int b = 0; b < B; ++b)
      squares[b] += square<L>(d + b * n[l + 1], n[l + 1]) * (square<L>(h + b * n[l], n[l]) + (has_bias(net, l) ? 1.0f : 0.0f));
    if (l == 0) break;
    pull_back<L>(w, d, h, d - B * n[l], n[l], n[l + 1], B);
    w -= size_of(net, l - 1);
    d -= B * n[l];
    h = l == 1 ? x : h - B * n[l - 1];
  }
}

// Sums over the probe; `active` counts the active units of an example.
template <int L> struct Sums {
  D<L> loss, right, square, active, active_square, trace;
};

template <int L>
INLINE Sums<L> over_probe(const Net& net, const Group<L>& group, uint32_t size, int32_t step, const F<L>* weights, F<L>* work,
                          bool trace) {
  const int top = net.layers - 1;
  const int64_t* n = net.widths;
  int64_t units = 0;
  for (int l = 1; l <= net.layers; ++l) units += n[l];
  F<L> *x = work, *y = x + TOGETHER * n[0], *hidden = y + TOGETHER, *deltas = hidden + TOGETHER * units,
       *p = deltas + TOGETHER * units;
  U<L> key[2];
  fold_in<L>(group.probe_key, U<L>{} + (uint32_t)step, key);
  const Examples<L> drawn(key);
  const Below<L> index(drawn.key_x, net.num_samples ? net.num_samples : 1);
  Sums<L> sums{};
  for (uint32_t first = 0; first < size; first += TOGETHER) {
    const int B = size - first < TOGETHER ? size - first : TOGETHER;
    if (net.source != ARRAYS) drawn.get(net, group, first, B, x, y);
    else for (int b = 0; b < B; ++b) row<L>(net, group, index(first + b), x + b * n[0], y + b);
    const F<L>*w = weights, *h = x;
    F<L>*out = hidden, *d = deltas;
    F<L> active[TOGETHER] = {}, squares[TOGETHER] = {}, log_sums[TOGETHER], highest[TOGETHER];
    for (int l = 0; l <= top; ++l) {
      forward<L>(w, has_bias(net, l) ? w + n[l] * n[l + 1] : nullptr, h, out, n[l], n[l + 1], B, l < top);
      for (int b = 0; b < B && l < top; ++b)
        for (int64_t i = 0; i < n[l + 1]; ++i) active[b] += out[b * n[l + 1] + i] > 0.0f ? F<L>{} + 1.0f : F<L>{};
      if (l == top) break;
      w += size_of(net, l);
      h = out;
      out += B * n[l + 1];
      d += B * n[l + 1];
    }
    const F<L>* f = out;
    const int64_t C = n[net.layers];
    for (int b = 0; b < B && net.loss == SOFTMAX; ++b) log_sums[b] = softmax<L>(f + b * C, C, p + b * C, highest[b]);
    // ∂²L/∂f² = Σ_c p_c r_c r_cᵀ with r_c = p − e_c; e_c alone for the squared loss, and one output for the logistic loss
    for (int64_t c = 0; c < C && trace; ++c) {
      for (int b = 0; b < B; ++b)
        for (int64_t k = 0; k < C; ++k)
          d[b * C + k] = net.loss == SOFTMAX ? p[b * C + k] - (k == c ? 1.0f : 0.0f) : F<L>{} + (k == c ? 1.0f : 0.0f);
      F<L> of_row[TOGETHER] = {};
      squared_gradients<L>(net, w, d, h, x, B, of_row);
      for (int b = 0; b < B; ++b) squares[b] += net.loss == SOFTMAX ? p[b * C + c] * of_row[b] : of_row[b];
    }
    for (int b = 0; b < B && C > 1; ++b) {
      const F<L>* of = f + b * C;
      F<L> loss = net.loss == SOFTMAX ? log_sums[b] : F<L>{}, most = of[0], predicted{}, residuals{};
      for (int64_t c = 0; c < C; ++c) {
        const F<L> target = one_hot<L>(y[b], c), residual = (net.loss == SOFTMAX ? p[b * C + c] : of[c]) - target;
        // a difference first, so that a small loss is not lost in the rounding of the outputs
        loss += net.loss == SOFTMAX ? target * (highest[b] - of[c]) : 0.5f * residual * residual;
        residuals += residual * residual;
        predicted = of[c] > most ? F<L>{} + (float)c : predicted;
        most = of[c] > most ? of[c] : most;
      }
      sums.loss += wide<L>(loss);
      sums.right += wide<L>(predicted == y[b] ? F<L>{} + 1.0f : F<L>{});
      sums.square += wide<L>(residuals / (float)C);
      sums.active += wide<L>(active[b]);
      sums.active_square += wide<L>(active[b]) * wide<L>(active[b]);
      sums.trace += wide<L>(squares[b]);
    }
    for (int b = 0; b < B && C == 1; ++b) {
      F<L> p = f[b], loss = 0.5f * (f[b] - y[b]) * (f[b] - y[b]), curvature = F<L>{} + 1.0f;
      if (net.loss == BCE) {
        const F<L> e = exp_lanes<L>(f[b] < 0.0f ? f[b] : -f[b]), q = 1.0f / (1.0f + e);
        p = f[b] < 0.0f ? e * q : q;
        loss = (f[b] < 0.0f ? F<L>{} : f[b]) + log1p_lanes<L>(e) - y[b] * f[b];
        curvature = e * q * q;
      }
      const F<L> residual = p - y[b];
      const I<L> predicted = f[b] > (net.loss == SQUARED ? 0.5f : 0.0f);
      sums.loss += wide<L>(loss);
      sums.right += wide<L>(predicted == (y[b] > 0.5f) ? F<L>{} + 1.0f : F<L>{});
      sums.square += wide<L>(residual * residual);
      sums.active += wide<L>(active[b]);
      sums.active_square += wide<L>(active[b]) * wide<L>(active[b]);
      sums.trace += wide<L>(curvature * squares[b]);
    }
  }
  return sums;
}

// Σ_i Φ(b_i/(s‖W_i‖)) over the units of the first layer: their activation rates for x ~ N(0, s²).
template <int L> INLINE F<L> exact_active(const Net& net, const Group<L>& group, const F<L>* w) {
  const int64_t n = net.widths[0], m = net.widths[1];
  F<L> sum{};
  for (int64_t j = 0; j < m; ++j) {
    const F<L> bias = net.bias ? w[n * m + j] : F<L>{}, width = group.a * narrow<L>(norm<L>(w + j * n, n));
    const F<L> rate = normal_cdf<L>(bias / width);
    sum += width > 0.0f ? rate : (bias > 0.0f ? F<L>{} + 1.0f : F<L>{});
  }
  return sum;
}

// The statistics of L runs at a step into `out`; NaN if a run has diverged.
template <int L>
INLINE void measure(const Net& net, const Record& record, const Group<L>& group, int32_t step, const F<L>* weights, F<L>* work,
                    F<L>* out) {
  bool probe = false, trace = false;
  for (int64_t k = 0; k < record.count; ++k) {
    const int64_t what = record.statistics[k];
    probe |= what != FINITE && what < EXACT_ACTIVE;
    trace |= what == TRACE || what == KAPPA;
  }
  Sums<L> sums{};
  if (probe) sums = over_probe<L>(net, group, record.probe, step, weights, work, trace);
  const double M = record.probe;
  double units = 0;
  for (int l = 1; l < net.layers; ++l) units += net.widths[l];
  const int64_t all = num_params(net);
  I<L> finite = ~I<L>{};
  for (int64_t i = 0; i < all; ++i) finite &= weights[i] - weights[i] == 0.0f;
  for (int64_t k = 0; k < record.count; ++k) {
    const int64_t what = record.statistics[k];
    D<L> value{};
    if (what == MEAN_LOSS) value = sums.loss / M;
    if (what == ACCURACY) value = sums.right / M;
    if (what == SQUARED_RESIDUAL) value = sums.square / M;
    if (what == ACTIVE) value = sums.active / (M * units);
    if (what == ACTIVE_ERROR) value = root<L>((sums.active_square - sums.active * sums.active / M) / (M * (M - 1))) / units;
    if (what == TRACE) value = sums.trace / M;
    if (what == KAPPA) value = sums.trace / M * wide<L>(group.learning_rate) / (double)net.batch;
    if (what == EXACT_ACTIVE) value = wide<L>(exact_active<L>(net, group, weights)) / (double)net.widths[1];
    if (what >= NORM) {
      int64_t number = what - NORM;
      const F<L>* array = weights;
      for (int l = 0; l < net.layers; ++l)
        for (int part = 0; part < 1 + has_bias(net, l); ++part) {
          const int64_t size = net.widths[l + 1] * (part ? 1 : net.widths[l]);
          if (number-- == 0) value = norm<L>(array, size);
          array += size;
        }
    }
    out[k] = what == FINITE ? (finite ? F<L>{} + 1.0f : F<L>{}) : (finite ? narrow<L>(value) : F<L>{} + __builtin_nanf(""));
  }
}

}  // namespace jthermo
