// Many steps of SGD for a few dense ReLU nets at once, one net per lane of a vector: pure arithmetic.
//
// A value of type F<L> holds the same number of L runs. Every lane does the same operations in the same order whatever
// L, the lanes beside it and the step at which a call begins, so none of these changes a bit of a run. Random numbers are
// made in place from the counters that jax.random uses (threefry-2x32, partitionable), so the bits are the same as in
// the XLA engine.

#pragma once
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace jthermo {

template <int L> struct Lanes {
  typedef float F __attribute__((vector_size(4 * L)));
  typedef uint32_t U __attribute__((vector_size(4 * L)));
  typedef int32_t I __attribute__((vector_size(4 * L)));
};
template <int L> using F = typename Lanes<L>::F;
template <int L> using U = typename Lanes<L>::U;
template <int L> using I = typename Lanes<L>::I;

enum Source { GAUSSIAN = 0, UNIFORM = 1 };
enum Sampling { FRESH = 0, REPLACEMENT = 1, EPOCHS = 2 };
enum Loss { BCE = 0, SQUARED = 1 };
enum Noise { FULL = 0, UNBIASED = 1, LABEL_AVERAGED = 2 };

// What is static in a group of runs.
struct Net {
  const int64_t* widths;  // inputs, hidden layers, 1
  int layers;             // one less than there are widths
  bool bias, output_bias;
  int batch;
  int source, sampling, loss, noise;
  uint32_t num_samples;  // of a finite set, else 0
};

// What a group of L runs brings along.
template <int L> struct Group {
  U<L> batch_key[2], noise_key[2], dataset_key[2];
  F<L> learning_rate, a, b, noise_scale;  // inputs: scale a of the Gaussian, or U(a, b)
  const int32_t* order[L];                // examples of this epoch, for each lane
};

// ---- random numbers ------------------------------------------------------------------------------------------------

// The 20 rounds of Threefry-2x32 (Salmon et al. 2011).
template <int L> INLINE void threefry(const U<L>* key, U<L> c0, U<L> c1, U<L>* out) {
  const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const U<L> keys[3] = {key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDAu};
  U<L> a = c0 + keys[0], b = c1 + keys[1];
#pragma GCC unroll 5
  for (int group = 0; group < 5; ++group) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int d = rotations[group % 2][i];
      a += b;
      b = ((b << d) | (b >> (32 - d))) ^ a;
    }
    a += keys[(group + 1) % 3];
    b += keys[(group + 2) % 3] + (uint32_t)(group + 1);
  }
  out[0] = a;
  out[1] = b;
}

template <int L> INLINE void fold_in(const U<L>* key, U<L> data, U<L>* out) {
  threefry<L>(key, U<L>{} , data, out);
}

template <int L> INLINE U<L> draw_bits(const U<L>* key, uint32_t count) {
  U<L> out[2];
  threefry<L>(key, U<L>{}, U<L>{} + count, out);
  return out[0] ^ out[1];
}

// U[0, 1) from the upper 23 bits.
template <int L> INLINE F<L> unit(U<L> bits) {
  return (F<L>)((bits >> 9) | 0x3F800000u) - 1.0f;
}

// log(x) for 0 < x ≤ 1: exponent and mantissa apart, then the polynomial of Cephes' logf.
template <int L> INLINE F<L> log_lanes(F<L> x) {
  I<L> i = (I<L>)x;
  I<L> e = (i - 0x3F3504F3) >> 23;  // so that the mantissa lies in [√½, √2)
  F<L> m = (F<L>)(i - (e << 23)) - 1.0f;
  F<L> z = m * m;
  F<L> p = 7.0376836292e-2f * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  return (p * m - 0.5f) * z + m + __builtin_convertvector(e, F<L>) * 0.69314718056f;
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
template <int L> INLINE F<L> normal(U<L> bits) {
  const float lowest = -0x1.fffffep-1f;
  F<L> u = unit<L>(bits) * 2.0f + lowest;
  F<L> w = -log_lanes<L>((1.0f - u) * (1.0f + u));
  F<L> v = w - 2.5f;
  F<L> p = 2.81022636e-08f * v + 3.43273939e-07f;
  p = p * v - 3.5233877e-06f;
  p = p * v - 4.39150654e-06f;
  p = p * v + 0.00021858087f;
  p = p * v - 0.00125372503f;
  p = p * v - 0.00417768164f;
  p = p * v + 0.246640727f;
  p = p * v + 1.50140941f;
  if (__builtin_expect(any<L>(w >= 5.0f), 0))
    for (int l = 0; l < L; ++l)
      if (w[l] >= 5.0f) {
        float s = __builtin_sqrtf(w[l]) - 3.0f;
        float q = -0.000200214257f * s + 0.000100950558f;
        q = q * s + 0.00134934322f;
        q = q * s - 0.00367342844f;
        q = q * s + 0.00573950773f;
        q = q * s - 0.0076224613f;
        q = q * s + 0.00943887047f;
        q = q * s + 1.00167406f;
        q = q * s + 2.83297682f;
        p[l] = q;
      }
  return 1.41421354f * (p * u);
}

// jax.random.randint(key, (…), 0, n) at `count`.
template <int L> INLINE U<L> below(const U<L>* key, uint32_t count, uint32_t n) {
  U<L> high_key[2], low_key[2];
  threefry<L>(key, U<L>{}, U<L>{}, high_key);
  threefry<L>(key, U<L>{}, U<L>{} + 1u, low_key);
  U<L> high = draw_bits<L>(high_key, count), low = draw_bits<L>(low_key, count);
  uint32_t multiplier = 65536u % n;
  multiplier = multiplier * multiplier % n;
  return ((high % n) * multiplier + low % n) % n;
}

// ---- examples ------------------------------------------------------------------------------------------------------

template <int L> INLINE F<L> coin(const U<L>* key, uint32_t count) {
  return (I<L>)draw_bits<L>(key, count) >= 0 ? F<L>{} + 1.0f : F<L>{};
}

// x (B, d) and labels (B) of step t. A row of a finite set is drawn from a key of its own, fresh ones from the step's.
template <int L> INLINE void batch_of(const Net& net, const Group<L>& group, int32_t t, F<L>* x, F<L>* y) {
  const int64_t d = net.widths[0];
  const bool fresh = net.sampling == FRESH;
  const int32_t position = net.sampling == EPOCHS ? t % (int32_t)(net.num_samples / net.batch) * net.batch : 0;
  U<L> step[2], row[2], key_x[2], key_y[2];
  fold_in<L>(group.batch_key, U<L>{} + (uint32_t)t, step);
  for (int b = 0; b < net.batch; ++b) {
    if (!fresh) {
      U<L> index;
      if (net.sampling == REPLACEMENT) index = below<L>(step, b, net.num_samples);
      else for (int l = 0; l < L; ++l) index[l] = group.order[l][position + b];
      fold_in<L>(group.dataset_key, index, row);
    }
    if (!fresh || b == 0) {
      const U<L>* key = fresh ? step : row;
      fold_in<L>(key, U<L>{}, key_x);
      fold_in<L>(key, U<L>{} + 1u, key_y);
    }
    const int64_t from = fresh ? b * d : 0;
    for (int64_t i = 0; i < d; ++i) {
      const U<L> bits = draw_bits<L>(key_x, from + i);
      x[b * d + i] = net.source == GAUSSIAN ? group.a * normal<L>(bits) : group.a + (group.b - group.a) * unit<L>(bits);
    }
    y[b] = coin<L>(key_y, fresh ? b : 0);
  }
}

// ---- layers --------------------------------------------------------------------------------------------------------
// Weights are [out][in], activations [batch][unit]. Each sum runs over its index in order, on its own accumulator.

template <int L> INLINE F<L> relu(F<L> a) { return a <= 0.0f ? F<L>{} : a; }  // NaN stays

// J units × N examples of a layer: out[b][j] = f(bias_j + Σ_i w_ji h_bi).
template <int L, int J, int N>
INLINE void forward_tile(const F<L>* w, const F<L>* bias, const F<L>* h, F<L>* out, int64_t n, int64_t m, bool hidden) {
  F<L> sum[J][N];
  for (int j = 0; j < J; ++j)
    for (int b = 0; b < N; ++b) sum[j][b] = bias ? bias[j] : F<L>{};
  for (int64_t i = 0; i < n; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 4
      for (int b = 0; b < N; ++b) sum[j][b] += w[j * n + i] * h[b * n + i];
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
template <int L, int J>
INLINE void turn_tile(F<L>* w, F<L>* bias, const F<L>* delta, const F<L>* x, const F<L>* next, F<L>* out, int64_t n) {
  F<L> sum[J], d[J];
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) d[j] = delta[j], sum[j] = bias ? (bias[j] -= d[j]) : F<L>{};
  for (int64_t i = 0; i < n; ++i) {
    const F<L> now = x[i], then = next[i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      const F<L> v = w[j * n + i] - d[j] * now;
      w[j * n + i] = v;
      sum[j] += v * then;
    }
  }
  for (int j = 0; j < J; ++j) out[j] = relu<L>(sum[j]);
}

template <int L>
INLINE void turn(F<L>* w, F<L>* bias, const F<L>* delta, const F<L>* x, const F<L>* next, F<L>* out, int64_t n, int64_t m) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4)
    turn_tile<L, 4>(w + j * n, bias ? bias + j : bias, delta + j, x, next, out + j, n);
  for (; j < m; ++j) turn_tile<L, 1>(w + j * n, bias ? bias + j : bias, delta + j, x, next, out + j, n);
}

// The update w_ji −= Σ_b δ_bj h_bi and, with the weights before it, below_bi = Σ_j w_ji δ_bj; J units in one pass.
template <int L, int J>
INLINE void back_tile(F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, int64_t m, int B, bool first) {
  F<L> d[J];
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) d[j] = delta[j];
  for (int64_t i = 0; i < n; ++i) {
    F<L> v[J], step[J], sum = first ? F<L>{} : below[i], active = h[i];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      v[j] = w[j * n + i];
      sum += v[j] * d[j];
      step[j] = v[j] - d[j] * active;
    }
    below[i] = sum;
    for (int b = 1; b < B; ++b) {
      sum = first ? F<L>{} : below[b * n + i];
      active = h[b * n + i];
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        sum += v[j] * delta[b * m + j];
        step[j] -= delta[b * m + j] * active;
      }
      below[b * n + i] = sum;
    }
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) w[j * n + i] = step[j];
  }
}

template <int L, int J>
INLINE void update_tile(F<L>* w, const F<L>* delta, const F<L>* h, int64_t n, int64_t m, int B) {
  for (int64_t i = 0; i < n; ++i) {
    F<L> step[J];
    for (int j = 0; j < J; ++j) step[j] = w[j * n + i];
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) step[j] -= delta[b * m + j] * h[b * n + i];
    for (int j = 0; j < J; ++j) w[j * n + i] = step[j];
  }
}

template <int L> INLINE void update_bias(F<L>* bias, const F<L>* delta, int64_t m, int B) {
  for (int64_t j = 0; bias && j < m; ++j)
    for (int b = 0; b < B; ++b) bias[j] -= delta[b * m + j];
}

// Update of a layer and δ of the layer below, where its units are active.
template <int L>
INLINE void backward(F<L>* w, const F<L>* delta, const F<L>* h, F<L>* below, int64_t n, int64_t m, int B) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4) back_tile<L, 4>(w + j * n, delta + j, h, below, n, m, B, j == 0);
  for (; j < m; ++j) back_tile<L, 1>(w + j * n, delta + j, h, below, n, m, B, j == 0);
  for (int64_t i = 0; i < B * n; ++i) below[i] = h[i] > 0.0f ? below[i] : F<L>{};
}

// Update of the first layer.
template <int L> INLINE void update(F<L>* w, const F<L>* delta, const F<L>* x, int64_t n, int64_t m, int B) {
  int64_t j = 0;
  for (; j + 4 <= m; j += 4) update_tile<L, 4>(w + j * n, delta + j, x, n, m, B);
  for (; j < m; ++j) update_tile<L, 1>(w + j * n, delta + j, x, n, m, B);
}

// ---- steps ---------------------------------------------------------------------------------------------------------

// η r/B per example, with r what the noise control puts in the place of p − y.
template <int L>
INLINE void residual(const Net& net, const Group<L>& group, int32_t t, const F<L>* f, const F<L>* y, F<L>* delta) {
  const F<L> rate = group.learning_rate / (float)net.batch;
  U<L> key[2];
  if (net.noise == UNBIASED) fold_in<L>(group.noise_key, U<L>{} + (uint32_t)t, key);
  for (int b = 0; b < net.batch; ++b) {
    if (net.noise == UNBIASED) {
      delta[b] = rate * group.noise_scale * (2.0f * coin<L>(key, b) - 1.0f);
      continue;
    }
    F<L> p = net.loss == BCE ? 1.0f / (1.0f + exp_lanes<L>(-f[b])) : f[b];
    delta[b] = rate * (p - (net.noise == FULL ? y[b] : F<L>{} + 0.5f));
  }
}

// Number of F<L> that `train` works in, besides the weights.
INLINE int64_t scratch(const Net& net) {
  int64_t units = 0;
  for (int l = 0; l <= net.layers; ++l) units += net.widths[l];
  return net.batch * (2 * units + 1);
}

// Steps start … stop − 1 of L runs. `weights` holds, layer by layer, [out][in] and then the biases.
template <int L>
INLINE void train(const Net& net, const Group<L>& group, int32_t start, int32_t stop, F<L>* weights, F<L>* work) {
  const int B = net.batch, top = net.layers - 1;
  const int64_t* n = net.widths;
  F<L> *x = work, *next = x + B * n[0], *y = next + B * n[0], *hidden = y + B;
  int64_t units = 0;
  for (int l = 1; l <= net.layers; ++l) units += B * n[l];
  F<L>* deltas = hidden + units;
  const auto size = [&](int l) { return n[l] * n[l + 1] + (net.bias ? n[l + 1] : 0); };
  const auto bias = [&](int l, F<L>* w) { return (l == top ? net.output_bias : net.bias) ? w + n[l] * n[l + 1] : nullptr; };
  // the first layer is updated one turn later, when its next inputs are known: for B = 1 in the pass that uses it
  for (int32_t t = start; start < stop; ++t) {
    const bool last = t == stop, pending = t > start, turning = B == 1 && pending && !last;
    if (!last) batch_of<L>(net, group, t, next, y);
    if (pending && !turning) {
      update<L>(weights, deltas, x, n[0], n[1], B);
      update_bias<L>(bias(0, weights), deltas, n[1], B);
    }
    if (last) break;
    F<L>*w = weights, *h = next, *out = hidden, *d = deltas;
    for (int l = 0; l <= top; ++l) {
      if (l == 0 && turning) turn<L>(w, bias(0, w), deltas, x, next, out, n[0], n[1]);
      else forward<L>(w, bias(l, w), h, out, n[l], n[l + 1], B, l < top);
      if (l == top) break;
      w += size(l);
      h = out;
      out += B * n[l + 1];
      d += B * n[l + 1];
    }
    residual<L>(net, group, t, out, y, d);
    for (int l = top; l >= 1; --l) {
      backward<L>(w, d, h, d - B * n[l], n[l], n[l + 1], B);
      update_bias<L>(bias(l, w), d, n[l + 1], B);
      w -= size(l - 1);
      h -= B * n[l - 1];
      d -= B * n[l];
    }
    F<L>* swap = x;
    x = next, next = swap;
  }
}

}  // namespace jthermo
