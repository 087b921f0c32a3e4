// The fused engine as an XLA custom call on CPUs: blocks of runs, each from its step `start` to its step `stop`.

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "dense.h"
#include "xla/ffi/api/ffi.h"

// one build runs on every machine of its kind: the widest vectors are chosen when the library is loaded
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(JTHERMO_NO_CLONES)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

namespace ffi = xla::ffi;
using namespace jthermo;

// Blocks as XLA holds them, one after the other, runs first.
struct Blocks {
  int64_t count, runs;  // of blocks, and of runs in each
  const uint32_t *batch_key, *noise_key, *dataset_key;  // (count × runs, 2)
  const float *learning_rate, *a, *b, *noise_scale;     // (count × runs,)
  const int32_t *start, *stop;  // (blocks,)
  const int32_t* order;         // (count × runs, examples of an epoch)
  int64_t epoch;
  float** leaves;      // kernel, bias, kernel, bias … of the layers, each (runs, …)
  bool inputs_first;   // kernels are (in, out)
};

struct Aligned {
  explicit Aligned(size_t bytes) : data(::operator new(bytes, std::align_val_t(64))) {}
  ~Aligned() { ::operator delete(data, std::align_val_t(64)); }
  void* data;
};

// Parameters of L runs between XLA's layout and [layer][out][in][lane].
template <int L, bool IN>
INLINE void copy(const Net& net, const Blocks& block, const int64_t* run, int64_t real, float* weights) {
  float** leaf = block.leaves;
  for (int l = 0; l < net.layers; ++l) {
    const int64_t n = net.widths[l], m = net.widths[l + 1];
    for (int part = 0; part < 2; ++part) {
      if (part == 1 && !(l == net.layers - 1 ? net.output_bias : net.bias)) continue;
      const int64_t size = part == 0 ? n * m : m;
      const bool turn = part == 0 && block.inputs_first;
      for (int64_t k = 0; k < size; ++k) {
        const int64_t from = turn ? k % n * m + k / n : k;
        for (int lane = 0; lane < (IN ? L : real); ++lane) {
          float* outside = *leaf + run[lane] * size + from;
          if (IN) weights[k * L + lane] = *outside;
          else *outside = weights[k * L + lane];
        }
      }
      weights += size * L;
      ++leaf;
    }
  }
}

// Group `number` of L runs of block `at`; lanes beyond the block's last run repeat that one.
template <int L>
INLINE void group(const Net& net, const Blocks& block, int64_t at, int64_t number, float* memory, int64_t params) {
  const int64_t first = at * block.runs + number * L, end = (at + 1) * block.runs;
  int64_t run[L];
  Group<L> group;
  for (int l = 0; l < L; ++l) {
    const int64_t r = run[l] = std::min(first + l, end - 1);
    for (int word = 0; word < 2; ++word) {
      group.batch_key[word][l] = block.batch_key[2 * r + word];
      group.noise_key[word][l] = block.noise_key[2 * r + word];
      group.dataset_key[word][l] = block.dataset_key[2 * r + word];
    }
    group.learning_rate[l] = block.learning_rate[r];
    group.a[l] = block.a[r];
    group.b[l] = block.b[r];
    group.noise_scale[l] = block.noise_scale[r];
    group.order[l] = block.order + r * block.epoch;
  }
  const int64_t real = std::min<int64_t>(L, end - first);
  copy<L, true>(net, block, run, real, memory);
  auto* weights = reinterpret_cast<F<L>*>(memory);
  train<L>(net, group, block.start[at], block.stop[at], weights, weights + params);
  copy<L, false>(net, block, run, real, memory);
}

CLONES void group16(const Net& net, const Blocks& block, int64_t at, int64_t number, float* memory, int64_t params) {
  group<16>(net, block, at, number, memory, params);
}
CLONES void group8(const Net& net, const Blocks& block, int64_t at, int64_t number, float* memory, int64_t params) {
  group<8>(net, block, at, number, memory, params);
}

// How many runs stand side by side. 16 fill the widest vectors, if a core's own cache holds their weights or a batch
// uses each weight often enough; this changes no bit.
static int lanes_of(const Net& net, int64_t params) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (!__builtin_cpu_supports("avx512f")) return 8;
#endif
  return params * 16 * sizeof(float) <= (1 << 20) || net.batch >= 4 ? 16 : 8;
}

static ffi::Error Advance(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Span<const int64_t> widths,
                          ffi::Span<const int64_t> options) {
  const int layers = static_cast<int>(widths.size()) - 1;
  Net net{widths.begin(), layers,
          options[0] != 0, options[1] != 0,
          static_cast<int>(options[2]), static_cast<int>(options[3]), static_cast<int>(options[4]),
          static_cast<int>(options[5]), static_cast<int>(options[6]), static_cast<uint32_t>(options[7])};
  const size_t count = rets.size(), inputs = args.size() - count;
  if (inputs != 10 || count > 2 * static_cast<size_t>(layers)) return ffi::Error::InvalidArgument("wrong number of arrays");
  std::unique_ptr<float*[]> leaves(new float*[count]);
  for (size_t i = 0; i < count; ++i) {
    auto from = args.get<ffi::AnyBuffer>(inputs + i);
    auto to = rets.get<ffi::AnyBuffer>(i);
    leaves[i] = static_cast<float*>((*to)->untyped_data());
    if (from->untyped_data() != leaves[i]) std::memcpy(leaves[i], from->untyped_data(), from->size_bytes());
  }
  auto words = [&](size_t i) { return static_cast<const uint32_t*>(args.get<ffi::AnyBuffer>(i)->untyped_data()); };
  auto floats = [&](size_t i) { return static_cast<const float*>(args.get<ffi::AnyBuffer>(i)->untyped_data()); };
  auto whole = [&](size_t i) { return static_cast<const int32_t*>(args.get<ffi::AnyBuffer>(i)->untyped_data()); };
  // (blocks, runs, examples), or (runs, examples) of one block
  const auto order = args.get<ffi::AnyBuffer>(9)->dimensions();
  const size_t last = order.size() - 1;
  Blocks block{last == 2 ? order[0] : 1, order[last - 1], words(0), words(1), words(2), floats(3), floats(4), floats(5),
               floats(6), whole(7), whole(8), whole(9), order[last], leaves.get(), options[8] != 0};
  int64_t params = 0;
  for (int l = 0; l < layers; ++l)
    params += widths[l] * widths[l + 1] + ((l == layers - 1 ? net.output_bias : net.bias) ? widths[l + 1] : 0);
  const int lanes = lanes_of(net, params);
  const int64_t groups = (block.runs + lanes - 1) / lanes, all = block.count * groups;
  // The groups are independent, so neither their order nor the thread changes a bit.
  const int64_t threads = std::max<int64_t>(1, std::min(options[9], all));
  const size_t size = (params + scratch(net)) * lanes * sizeof(float), room = (size + 63) / 64 * 64;
  Aligned memory(threads * room);
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t thread) {
    auto* own = reinterpret_cast<float*>(static_cast<char*>(memory.data) + thread * room);
    for (int64_t i; (i = next++) < all;) (lanes == 16 ? group16 : group8)(net, block, i / groups, i % groups, own, params);
  };
  std::vector<std::thread> others;
  others.reserve(threads);
  try {
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do the work.
  }
  work(0);
  for (auto& other : others) other.join();
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(jthermo_advance, Advance,
                              ffi::Ffi::Bind()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("widths")
                                  .Attr<ffi::Span<const int64_t>>("options"));
