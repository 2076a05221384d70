// Raw log-probabilities of a row of logits: of its k most likely tokens and of one given token.
//   log p_i = x_i - max - log sum e^(x_j - max)
#include <algorithm>

#include "context.h"
#include "philox.h"
#include "simd.h"

namespace PS_ISA {

static float highest(const float* x, int n) {
  Vec most = set1(-INFINITY);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) most = max(load(x + i), most);
  float result = max(most);
  for (; i < n; i++) result = x[i] > result ? x[i] : result;
  return result;
}

/* Partial sums of 4096 in f32, their sum in f64: a large vocabulary loses nothing. */
static double log_sum_exp(const float* x, int n, float max) {
  constexpr int kPart = 4096;
  double total = 0;
  for (int begin = 0; begin < n; begin += kPart) {
    const int end = std::min(n, begin + kPart);
    Vec part = zero();
    int i = begin;
    for (; i + kLanes <= end; i += kLanes) part = part + exp(load(x + i) - set1(max));
    total += sum(part);
    float rest[kLanes];
    store(rest, exp(load(x + i, end - i) - set1(max)));
    for (int lane = 0; lane < end - i; lane++) total += rest[lane];
  }
  return total > 0 ? ps_log(total) : -INFINITY;
}

/* The k largest, in order, by insertion; equal ones keep the order of their ids. A NaN is never among them. */
static void top(const float* x, int n, int k, int32_t* ids, float* values) {
  std::fill(ids, ids + k, 0);
  std::fill(values, values + k, -INFINITY);
  int count = 0;
  for (int i = 0; i < n; i++) {
    if (count == k && !(x[i] > values[k - 1])) continue;
    if (x[i] != x[i]) continue;
    int at = count < k ? count++ : k - 1;
    for (; at > 0 && x[i] > values[at - 1]; at--) {
      values[at] = values[at - 1];
      ids[at] = ids[at - 1];
    }
    values[at] = x[i];
    ids[at] = i;
  }
}

static int rank_of(const float* x, int n, int token) {
  int rank = 1;
  for (int i = 0; i < n; i++) rank += x[i] > x[token] || (x[i] == x[token] && i < token);
  return rank;
}

void logprobs(Context& ctx, ps_ptr top_ids, ps_ptr top_values, ps_ptr logprob, ps_ptr rank, ps_ptr logits,
              ps_ptr tokens, int32_t b, int32_t vocab, int32_t k) {
  require(b >= 0 && vocab > 0 && k >= 0 && k <= vocab, "b >= 0, vocab > 0 and k in 0..vocab");
  int32_t* ids = ctx.tensor<int32_t>("top_ids", top_ids, int64_t(b) * k);
  float* values = ctx.tensor<float>("top", top_values, int64_t(b) * k);
  float* chosen = ctx.tensor<float>("logprob", logprob, b);
  int32_t* ranks = ctx.tensor<int32_t>("rank", rank, b);
  const float* input = ctx.tensor<float>("logits", logits, int64_t(b) * vocab);
  const int32_t* token = ctx.tensor<int32_t>("tokens", tokens, b);
  ctx.check_indices("tokens", token, b, vocab);

  ctx.pool.parallel(b, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* x = input + i * vocab;
      const float most = highest(x, vocab);
      const float log_sum = float(log_sum_exp(x, vocab, most));
      if (k > 0) top(x, vocab, k, ids + i * k, values + i * k);
      for (int j = 0; j < k; j++) values[i * k + j] = values[i * k + j] - most - log_sum;
      chosen[i] = x[token[i]] - most - log_sum;
      ranks[i] = rank_of(x, vocab, token[i]);
    }
  });
}

}  // namespace PS_ISA
