// The fused engine as an XLA custom call on CPUs: blocks of runs, each from its step `start` to its step `stop`, with a
// record at each step of `marks` on the way.

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "dense.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using namespace jthermo;

// Blocks as XLA holds them, one after the other, runs first.
struct Blocks {
  int64_t count, runs;  // of blocks, and of runs in each
  const uint32_t *batch_key, *noise_key, *dataset_key, *probe_key;  // (count × runs, 2)
  const float *learning_rate, *a, *b, *noise_scale, *momentum, *decay;  // (count × runs,)
  const int32_t *start, *stop;  // (count,)
  const int32_t* marks;         // (count, most), ascending, and −1 where there is none
  int64_t most;
  Record record;
  float* recorded;              // (count × runs, most, statistics)
  const int32_t* order;         // (count × runs, examples of an epoch)
  int64_t epoch;
  float** leaves;      // kernel, bias, kernel, bias … of the layers, each (runs, …); then their velocities, if any
  int64_t arrays;      // of parameters
  bool inputs_first;   // kernels are (in, out)
};

struct Aligned {
  explicit Aligned(size_t bytes) : data(::operator new(bytes, std::align_val_t(64))) {}
  ~Aligned() { ::operator delete(data, std::align_val_t(64)); }
  void* data;
};

// Parameters of L runs, or their velocities, between XLA's layout and [layer][out][in][lane].
template <int L, bool IN>
INLINE void copy(const Net& net, const Blocks& block, float** leaf, const int64_t* run, int64_t real, float* weights) {
  for (int l = 0; l < net.layers; ++l) {
    const int64_t n = net.widths[l], m = net.widths[l + 1];
    for (int part = 0; part < 2; ++part) {
      if (part == 1 && !has_bias(net, l)) continue;
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
APART void group(const Net& net, const Blocks& block, int64_t at, int64_t number, float* memory, int64_t params) {
  const int64_t first = at * block.runs + number * L, end = (at + 1) * block.runs;
  int64_t run[L];
  Group<L> group;
  for (int l = 0; l < L; ++l) {
    const int64_t r = run[l] = std::min(first + l, end - 1);
    for (int word = 0; word < 2; ++word) {
      group.batch_key[word][l] = block.batch_key[2 * r + word];
      group.noise_key[word][l] = block.noise_key[2 * r + word];
      group.dataset_key[word][l] = block.dataset_key[2 * r + word];
      group.probe_key[word][l] = block.probe_key[2 * r + word];
    }
    group.learning_rate[l] = block.learning_rate[r];
    group.a[l] = block.a[r];
    group.b[l] = block.b[r];
    group.noise_scale[l] = block.noise_scale[r];
    group.momentum[l] = block.momentum[r];
    group.decay[l] = block.decay[r];
    group.order[l] = block.order + r * block.epoch;
  }
  const int64_t real = std::min<int64_t>(L, end - first);
  copy<L, true>(net, block, block.leaves, run, real, memory);
  if (net.momentum) copy<L, true>(net, block, block.leaves + block.arrays, run, real, memory + params * L);
  else if (has_velocities(net)) std::memset(memory + params * L, 0, params * L * sizeof(float));
  auto* weights = reinterpret_cast<F<L>*>(memory);
  F<L>*work = weights + (has_velocities(net) ? 2 : 1) * params, *values = work + scratch(net);
  int32_t t = block.start[at];
  for (int64_t k = 0; k <= block.most; ++k) {
    const int32_t mark = k < block.most ? block.marks[at * block.most + k] : block.stop[at];
    if (mark >= 0) {
      if (net.decay) train<L, DECAY>(net, group, t, mark, weights, work);
      else if (net.momentum) train<L, MOMENTUM>(net, group, t, mark, weights, work);
      else train<L, PLAIN>(net, group, t, mark, weights, work);
      t = mark;
    }
    if (k == block.most) break;
    const int64_t count = block.record.count;
    if (mark >= 0) measure<L>(net, block.record, group, t, weights, work, values);
    else for (int64_t i = 0; i < count; ++i) values[i] = F<L>{} + __builtin_nanf("");
    for (int lane = 0; lane < real; ++lane)
      for (int64_t i = 0; i < count; ++i) block.recorded[(run[lane] * block.most + k) * count + i] = values[i][lane];
  }
  copy<L, false>(net, block, block.leaves, run, real, memory);
  if (net.momentum) copy<L, false>(net, block, block.leaves + block.arrays, run, real, memory + params * L);
}

// How many runs stand side by side, at most. 16 fill the widest vectors, if a core's own cache holds their weights or a
// batch uses each weight often enough; this changes no bit.
#if defined(__x86_64__) && !defined(__AVX512F__)
constexpr int MOST_LANES = 8;
#else
constexpr int MOST_LANES = 16;
#endif

static int lanes_of(const Net& net, int64_t held) {
  return held * 16 * sizeof(float) <= (1 << 20) || net.batch >= 4 ? MOST_LANES : 8;
}

static ffi::Error Advance(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Span<const int64_t> widths,
                          ffi::Span<const int64_t> options, ffi::Span<const int64_t> statistics) {
  const int layers = static_cast<int>(widths.size()) - 1;
  const auto x = args.get<ffi::AnyBuffer>(14), y = args.get<ffi::AnyBuffer>(15);
  Net net{widths.begin(), layers,
          options[0] != 0, options[1] != 0,
          static_cast<int>(options[2]), static_cast<int>(options[3]), static_cast<int>(options[4]),
          static_cast<int>(options[5]), static_cast<int>(options[6]), static_cast<uint32_t>(options[7]), static_cast<uint32_t>(options[13]), options[11] != 0, options[12] != 0, options[14] != 0,
          x->untyped_data(), y->untyped_data(), x->element_type() == ffi::DataType::U8, y->element_type() == ffi::DataType::F32,
          options[15] != 0};
  const size_t count = rets.size() - 1, inputs = args.size() - count;
  if (inputs != 16 || count > (net.momentum ? 4 : 2) * static_cast<size_t>(layers)) return ffi::Error::InvalidArgument("wrong number of arrays");
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
  const auto order = args.get<ffi::AnyBuffer>(13)->dimensions(), marks = args.get<ffi::AnyBuffer>(12)->dimensions();
  const size_t last = order.size() - 1;
  const Record record{statistics.begin(), static_cast<int64_t>(statistics.size()), static_cast<uint32_t>(options[10])};
  auto* recorded = static_cast<float*>((*rets.get<ffi::AnyBuffer>(count))->untyped_data());
  Blocks block{last == 2 ? order[0] : 1, order[last - 1], words(0), words(1), words(2), words(3), floats(4), floats(5),
               floats(6), floats(7), floats(8), floats(9), whole(10), whole(11), whole(12), marks[marks.size() - 1], record, recorded,
               whole(13), order[last], leaves.get(), static_cast<int64_t>(net.momentum ? count / 2 : count), options[8] != 0};
  for (size_t i = 0; i < 12; ++i)
    if (static_cast<int64_t>(args.get<ffi::AnyBuffer>(i)->element_count()) != block.count * (i < 4 ? 2 * block.runs : i < 10 ? block.runs : 1))
      return ffi::Error::InvalidArgument("an array lacks blocks");
  const int64_t params = num_params(net), held = (has_velocities(net) ? 2 : 1) * params;
  const int lanes = lanes_of(net, held);
  const int64_t groups = (block.runs + lanes - 1) / lanes, all = block.count * groups;
  // The groups are independent, so neither their order nor the thread changes a bit.
  const int64_t threads = std::max<int64_t>(1, std::min(options[9], all));
  const size_t size = (held + scratch(net) + record.count) * lanes * sizeof(float), room = (size + 63) / 64 * 64;
  Aligned memory(threads * room);
  std::atomic<int64_t> next{0};
  auto work = [&](int64_t thread) {
    auto* own = reinterpret_cast<float*>(static_cast<char*>(memory.data) + thread * room);
    for (int64_t i; (i = next++) < all;) (lanes == 8 ? group<8> : group<MOST_LANES>)(net, block, i / groups, i % groups, own, params);
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
                                  .Attr<ffi::Span<const int64_t>>("options")
                                  .Attr<ffi::Span<const int64_t>>("statistics"));
