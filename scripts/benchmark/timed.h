// The cases of a program of the benchmark, and their timing on every core.

#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

struct Case {
  const char* name;
  void (*work)(int, int);  // the steps of a group of runs, by its number
  int lanes;               // runs of a group
};

// `main` of the program: CASE STEPS RUNS. It prints nanoseconds of wall time per step of one run.
template <size_t N> int timed(const Case (&cases)[N], int argc, char** argv) {
  if (argc != 4) return fprintf(stderr, "usage: %s CASE STEPS RUNS\n", argv[0]), 2;
  for (const Case& each : cases) {
    if (strcmp(each.name, argv[1])) continue;
    const int steps = atoi(argv[2]), groups = (atoi(argv[3]) + each.lanes - 1) / each.lanes;
    const auto began = std::chrono::steady_clock::now();
    std::atomic<int> next{0};
    std::vector<std::thread> threads;
    for (unsigned core = 0; core < std::max(1u, std::thread::hardware_concurrency()); ++core)
      threads.emplace_back([&] {
        for (int g; (g = next++) < groups;) each.work(g, steps);
      });
    for (auto& thread : threads) thread.join();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
    printf("%.2f\n", spent.count() * 1e9 / (double(groups) * each.lanes * steps));
    return 0;
  }
  return fprintf(stderr, "no such case\n"), 2;
}
