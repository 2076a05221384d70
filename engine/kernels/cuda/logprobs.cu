// Raw log-probabilities of a row of logits: of its k most likely tokens and of one given token.
//   log p_i = x_i - max - log sum e^(x_j - max)
// A block takes a row.
#include "philox.h"
#include "reduce.h"

namespace PS_ISA {

constexpr int kThreads = 512;

/* A logit and its token as one number: greater means more likely, ties to the lowest id. 0 is below all. */
__device__ inline uint64_t ranked(float x, int id) {
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 is 0
  const uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return uint64_t(ascending) << 32 | uint32_t(~id);
}

__global__ void log_probabilities(int32_t* top_ids, float* top, float* logprob, int32_t* rank, const float* logits,
                                  const int32_t* tokens, int vocab, int k) {
  const int row = blockIdx.x;
  const float* x = logits + int64_t(row) * vocab;
  float most = -INFINITY;
  for (int i = threadIdx.x; i < vocab; i += blockDim.x)
    if (x[i] > most) most = x[i];
  most = block_max(most);
  // Sums in f64: a large vocabulary loses nothing.
  double total = 0;
  for (int i = threadIdx.x; i < vocab; i += blockDim.x) total += expf(x[i] - most);
  total = block_sum(total);
  const float log_sum = total > 0 ? float(ps_log(total)) : -INFINITY;

  const int token = tokens[row];
  const float chosen = x[token];
  int above = 0;
  for (int i = threadIdx.x; i < vocab; i += blockDim.x) above += x[i] > chosen || (x[i] == chosen && i < token);
  above = block_sum(above);
  if (threadIdx.x == 0) {
    logprob[row] = chosen - most - log_sum;
    rank[row] = above + 1;
  }

  // One after the other, each the greatest below the last. A NaN is never among them.
  uint64_t last = ~0ull;
  for (int j = 0; j < k; j++) {
    uint64_t best = 0;
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
      const uint64_t own = x[i] == x[i] ? ranked(x[i], i) : 0;
      if (own < last && own > best) best = own;
    }
    last = block_max(best);
    if (threadIdx.x != 0) continue;
    const int id = last ? int(~uint32_t(last)) : 0;
    top_ids[int64_t(row) * k + j] = id;
    top[int64_t(row) * k + j] = last ? x[id] - most - log_sum : -INFINITY;
  }
}

void logprobs(Context& ctx, ps_ptr top_ids, ps_ptr top_values, ps_ptr logprob, ps_ptr rank, ps_ptr logits,
              ps_ptr tokens, int32_t b, int32_t vocab, int32_t k) {
  require(b >= 0 && vocab > 0 && k >= 0 && k <= vocab, "b >= 0, vocab > 0 and k in 0..vocab");
  const int32_t* token = ctx.tensor<int32_t>("tokens", tokens, b);
  ctx.check_indices("tokens", token, b, vocab);
  launch(ctx, log_probabilities, b, kThreads, 0, ctx.tensor<int32_t>("top_ids", top_ids, int64_t(b) * k),
         ctx.tensor<float>("top", top_values, int64_t(b) * k), ctx.tensor<float>("logprob", logprob, b),
         ctx.tensor<int32_t>("rank", rank, b), ctx.tensor<float>("logits", logits, int64_t(b) * vocab), token, vocab, k);
}

}  // namespace PS_ISA
