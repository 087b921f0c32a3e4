// What one would write by hand for one net: 16 runs side by side in the lanes of vectors, sizes fixed when it is compiled,
// nothing but the training, on every core. It draws the bits of jax.random (threefry-2x32), five numbers at once, so it does
// the work of the fused engine; it shares no code with it.
//
//   g++ -std=c++17 -O3 -march=x86-64-v4 -fno-math-errno -pthread -w scripts/benchmark/hand.cc -o hand
//   ./hand small 20000 512      prints nanoseconds of wall time per step of one run

#include <cstdint>
#include <new>

#include "timed.h"

typedef float F __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
#define ALWAYS inline __attribute__((always_inline))

struct Key {
  U a, b;
};

// N blocks of threefry-2x32 side by side, for counters (0, first), (0, first + 1) …
template <int N> ALWAYS void threefry(Key key, uint32_t first, Key* out) {
  const U k[3] = {key.a, key.b, key.a ^ key.b ^ 0x1BD11BDAu};
  U a[N], b[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) a[i] = k[0], b[i] = k[1] + (first + i);
#define ROUND(d)                                                              \
  _Pragma("GCC unroll 16") for (int i = 0; i < N; ++i) {                      \
    a[i] += b[i];                                                             \
  }                                                                           \
  _Pragma("GCC unroll 16") for (int i = 0; i < N; ++i) b[i] = ((b[i] << d) | (b[i] >> (32 - d))) ^ a[i];
#define INJECT(n) \
  _Pragma("GCC unroll 16") for (int i = 0; i < N; ++i) a[i] += k[n % 3], b[i] += k[(n + 1) % 3] + (uint32_t)n;
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) INJECT(1)
  ROUND(17) ROUND(29) ROUND(16) ROUND(24) INJECT(2)
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) INJECT(3)
  ROUND(17) ROUND(29) ROUND(16) ROUND(24) INJECT(4)
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) INJECT(5)
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) out[i] = {a[i], b[i]};
}

ALWAYS Key fold(Key key, uint32_t data) {
  Key out;
  threefry<1>(key, data, &out);
  return out;
}

ALWAYS F logarithm(F x) {
  const I i = (I)x, e = (i - 0x3F3504F3) >> 23;
  const F m = (F)(i - (e << 23)) - 1.0f;
  F p = -0.1242f * m + 0.1424f;  // about 1e-6, which is enough here
  p = p * m - 0.16668f;
  p = p * m + 0.2000f;
  p = p * m - 0.25f;
  p = p * m + 0.333333f;
  p = p * m - 0.5f;
  return (p * m) * m + m + __builtin_convertvector(e, F) * 0.693147181f;
}

// A standard normal from 32 bits, as jax.random.normal makes it (Giles 2010).
ALWAYS F normal(U bits) {
  const F u = ((F)((bits >> 9) | 0x3F800000u) - 1.0f) * 2.0f - 0.99999994f;
  const F w = -logarithm((1.0f - u) * (1.0f + u)), v = w - 2.5f;
  F p = 2.81022636e-08f * v + 3.43273939e-07f;
  p = p * v - 3.5233877e-06f;
  p = p * v - 4.39150654e-06f;
  p = p * v + 0.00021858087f;
  p = p * v - 0.00125372503f;
  p = p * v - 0.00417768164f;
  p = p * v + 0.246640727f;
  p = p * v + 1.50140941f;
  const I far = w >= 5.0f;
  typedef int64_t Q __attribute__((vector_size(64)));
  const Q q = (Q)far;
  if (__builtin_expect((q[0] | q[1] | q[2] | q[3] | q[4] | q[5] | q[6] | q[7]) != 0, 0))
    for (int l = 0; l < 16; ++l)
      if (far[l]) {
        const float s = __builtin_sqrtf(w[l]) - 3.0f;
        float t = -0.000200214257f * s + 0.000100950558f;
        t = t * s + 0.00134934322f;
        t = t * s - 0.00367342844f;
        t = t * s + 0.00573950773f;
        t = t * s - 0.0076224613f;
        t = t * s + 0.00943887047f;
        t = t * s + 1.00167406f;
        p[l] = t * s + 2.83297682f;
      }
  return 1.41421354f * (p * u);
}

ALWAYS F exponential(F x) {
  x = x > 87.0f ? F{} + 87.0f : x < -87.0f ? F{} - 87.0f : x;
  F n = x * 1.44269504f + 12582912.0f;
  n -= 12582912.0f;
  const F r = x - n * 0.693147181f;
  F p = 8.3334519e-3f * r + 4.1665796e-2f;
  p = p * r + 0.16666665f;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  return (F)((I)p + (__builtin_convertvector(n, I) << 23));
}

// SGD on the logistic loss of D-H-1 nets with biases, batches of B.
template <int D, int H, int B> struct Net {
  F W[H][D], b[H], V[H], c, x[B][D], h[B][H], d[B];

  void train(Key batch, float rate, int steps) {
    for (int t = 0; t < steps; ++t) {
      const Key step = fold(batch, t), key_x = fold(step, 0), key_y = fold(step, 1);
      static_assert(D % 5 == 0, "draws come in fives");
      for (int i = 0; i < B * D; i += 5) {
        Key bits[5];
        threefry<5>(key_x, i, bits);
#pragma GCC unroll 5
        for (int k = 0; k < 5; ++k) (&x[0][0])[i + k] = normal(bits[k].a ^ bits[k].b);
      }
      for (int e = 0; e < B; ++e) {
        Key bits;
        threefry<1>(key_y, e, &bits);
        d[e] = (I)(bits.a ^ bits.b) >= 0 ? F{} + 1.0f : F{};
      }
      constexpr int T = B % 4 ? 1 : 4;  // examples that share a load of a weight
      for (int e = 0; e < B; e += T) {
        F f[T];
        for (int k = 0; k < T; ++k) f[k] = c;
        for (int j = 0; j < H; j += 2) {
          F s[2][T];
          for (int k = 0; k < T; ++k) s[0][k] = b[j], s[1][k] = b[j + 1];
          for (int i = 0; i < D; ++i)
#pragma GCC unroll 4
            for (int k = 0; k < T; ++k) s[0][k] += W[j][i] * x[e + k][i], s[1][k] += W[j + 1][i] * x[e + k][i];
          for (int k = 0; k < T; ++k)
            for (int u = 0; u < 2; ++u) {
              h[e + k][j + u] = s[u][k] > 0.0f ? s[u][k] : F{};
              f[k] += V[j + u] * h[e + k][j + u];
            }
        }
        for (int k = 0; k < T; ++k) d[e + k] = rate / B * (1.0f / (1.0f + exponential(-f[k])) - d[e + k]);
      }
      for (int e = 0; e < B; ++e) c -= d[e];
      for (int j = 0; j < H; ++j) {
        F v = V[j], delta[B];
        for (int e = 0; e < B; ++e) {
          delta[e] = h[e][j] > 0.0f ? d[e] * V[j] : F{};
          v -= d[e] * h[e][j];
          b[j] -= delta[e];
        }
        V[j] = v;
        for (int i = 0; i < D; i += 2) {
          F w0 = W[j][i], w1 = W[j][i + 1];
          for (int e = 0; e < B; ++e) w0 -= delta[e] * x[e][i], w1 -= delta[e] * x[e][i + 1];
          W[j][i] = w0, W[j][i + 1] = w1;
        }
      }
    }
  }
};

template <int D, int H, int B> void work(int group, int steps) {
  auto* net = new (std::align_val_t(64)) Net<D, H, B>();
  uint32_t seed = 1;
  for (size_t i = 0; i < sizeof(net->W) / sizeof(float); ++i)
    (&net->W[0][0][0])[i] = ((seed = seed * 1664525u + 1013904223u) >> 8) * 0x1p-24f / H - 0.5f / H;
  for (size_t i = 0; i < sizeof(net->V) / sizeof(float); ++i)
    (&net->V[0][0])[i] = ((seed = seed * 1664525u + 1013904223u) >> 8) * 0x1p-24f / H - 0.5f / H;
  Key key;
  for (int l = 0; l < 16; ++l) key.a[l] = group, key.b[l] = l;
  net->train(key, 0.05f, steps);
  volatile float keep = net->W[0][0][0];
  (void)keep;
  ::operator delete(net, std::align_val_t(64));
}

const Case CASES[] = {
    {"small", work<10, 10, 1>, 16},
    {"batch", work<10, 10, 32>, 16},
    {"wide", work<100, 100, 1>, 16},
    {"wide-batch", work<100, 100, 32>, 16},
};

int main(int argc, char** argv) { return timed(CASES, argc, argv); }
